"""An exception is told by type, system error, attribute and VR; its text stays where it was raised."""

from __future__ import annotations

import errno
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from pydicom.dataset import Dataset
from pydicom.valuerep import DA

from outpost import logs
from outpost.codes.failure import told
from outpost.inference.child import classify
from outpost.inference.codes import Code, InferenceFailed
from outpost.records.recorder import sentence

CANARY = "19731231KANAREYKA"


def error_of(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def convert() -> None:
    dataset = Dataset()
    dataset.add_new("NumberOfFrames", "LO", CANARY)
    int(dataset.NumberOfFrames)


def store() -> None:
    dataset = Dataset()
    dataset.PatientBirthDate = DA(CANARY)


def refuse() -> None:
    raise AttributeError(f"'FileDataset' object has no attribute 'PatientSex' beside {CANARY}")


def tagged() -> None:
    raise ValueError(f"With tag (0010,0030) got exception: {CANARY}")


def private() -> None:
    raise ValueError(f"With tag (0009,1030) got exception: {CANARY}")


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        (convert, "ValueError"),
        (store, "ValueError"),
        (refuse, "AttributeError at PatientSex (CS)"),
        (tagged, "ValueError at PatientBirthDate (DA)"),
        (private, "ValueError"),
        (lambda: Path(f"/nowhere/{CANARY}").read_bytes(), "FileNotFoundError ENOENT"),
        (lambda: {}[CANARY], "KeyError"),
        (lambda: float(CANARY), "ValueError"),
    ],
)
def test_what_is_told_of_an_exception_is_no_word_of_its_text(
    action: Callable[[], object], wanted: str
) -> None:
    error = error_of(action)
    assert CANARY in str(error)
    assert told(error).startswith(wanted)
    assert "KANAREYKA" not in told(error)


def test_the_attribute_is_found_where_it_was_set() -> None:
    error = error_of(lambda: setattr(Dataset(), "RescaleSlope", CANARY))
    assert CANARY in str(error)
    assert told(error) == "ValueError at RescaleSlope (DS)"


def test_our_own_words_and_those_of_the_device_are_told() -> None:
    assert (
        told(InferenceFailed(Code.OUTPUT_CONSTANT, "the mask is True")) == "OUTPUT_CONSTANT: the mask is True"
    )
    error = RuntimeError(f"CUDA error: unspecified launch failure at {CANARY}")
    assert told(error) == "RuntimeError (unspecified launch failure)"
    assert classify(error) == Code.DEVICE_LOST


def test_a_text_that_may_quote_a_study_says_nothing_of_the_device() -> None:
    error = ValueError("Invalid value for VR PN: 'CUDA error^bad_alloc'")
    assert classify(error, trusted=False) == Code.INFERENCE_ERROR
    assert classify(OSError(errno.ENOSPC, "x"), trusted=False) == Code.STORAGE_FULL
    assert classify(MemoryError(), trusted=False) == Code.INFERENCE_OUT_OF_MEMORY


def test_what_postgres_quotes_of_a_row_is_not_told_and_what_it_says_of_the_connection_is() -> None:
    row = psycopg.errors.InvalidTextRepresentation(f'invalid input syntax for type integer: "{CANARY}"')
    assert sentence(row) == "InvalidTextRepresentation SQLSTATE 22P02"
    cut = psycopg.OperationalError("connection failed: Connection refused")
    assert "Connection refused" in sentence(cut)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What is logged, by our own configuration; pytest's comes back afterwards."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook, sys.unraisablehook)
    handlers, level, stream = root.handlers[:], root.level, io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure(stream=stream)
        yield stream
    root.handlers, root.level = handlers, level
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


class Sick:
    def __del__(self) -> None:
        raise ValueError(CANARY)

    def __repr__(self) -> str:
        return CANARY


def test_nothing_that_a_library_says_reaches_the_log(written: io.StringIO) -> None:
    warnings.warn(f"Invalid value for VR DA: '{CANARY}'.", UserWarning, stacklevel=1)
    Dataset().add_new("PatientBirthDate", "DA", CANARY)  # pydicom warns in the name of this line
    logging.getLogger("a_library.part").warning("look at %s", CANARY)
    logging.getLogger("pydicom.filereader").error(CANARY)
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise RuntimeError(CANARY) from error
    except RuntimeError:
        logging.getLogger("outpost.x").exception("it failed", stack_info=True)
    thread = threading.Thread(target=lambda: {}[CANARY], name="a-thread")
    thread.start()
    thread.join()
    Sick()
    sys.excepthook(ValueError, ValueError(CANARY), None)
    text = written.getvalue()
    assert "KANAREYKA" not in text
    for wanted in (
        "UserWarning at test_failure.py",
        "a message of the library",
        "it failed | RuntimeError at test_failure.py",
        ", from ValueError at test_failure.py",
        "a-thread ended by an unexpected fault | KeyError",
        "a fault that nothing could catch | ValueError",
        "unexpected fault | ValueError",
    ):
        assert wanted in text, text
    assert all(line.startswith(("WARNING", "ERROR", "CRITICAL")) for line in text.splitlines())
