"""An exception, told without its text: type, system error, attribute keyword and VR.

Texts of libraries quote what they stumble over: a birth date, a name, a whole row. Log, journal and API get what this
module makes of an exception, never `str(error)`. The exceptions of this package are told as they are: their texts are
written where they are raised, without a patient's data.

It lies below the stages and imports none of them, nor a DICOM library: the names of attributes are looked up where one
is loaded already.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

# What libraries say of a host or a device, and not of a study: found in a text, these words are told as they stand.
_OF_THE_HOST: Final = (
    "no kernel image is available",
    "invalid device function",
    "ptx jit compiler",
    "unspecified launch failure",
    "device-side assert",
    "an illegal memory access was encountered",
    "CUDA out of memory",
    "CUDA error",
    "cuda runtime error",
    "CUDNN_STATUS",
    "CUBLAS_STATUS",
    "DefaultCPUAllocator",
    "bad_alloc",
    "Failed to allocate memory",
)
_OURS: Final = "outpost."
_TAG: Final = re.compile(r"\(?([0-9A-Fa-f]{4}), ?([0-9A-Fa-f]{4})\)?")
_WORD: Final = re.compile(r"[A-Z][A-Za-z]{2,63}")
_VR: Final = re.compile(r"[A-Z]{2}")
_MOST_FRAMES: Final = 64


def told(error: BaseException) -> str:
    """One exception as `ValueError`, `OSError ENOSPC`, `InvalidValue at PatientBirthDate (DA)`: never its text.

    An exception of this package is told with its text.
    """
    if is_ours(error):
        return " ".join(str(error).split())
    words = [type(error).__name__]
    if isinstance(error, OSError) and error.errno is not None:
        words.append(errno.errorcode.get(error.errno, f"errno {error.errno}"))
    state = getattr(error, "sqlstate", None)  # of psycopg's exceptions, PostgreSQL's table of conditions
    if isinstance(state, str) and re.fullmatch(r"[0-9A-Z]{5}", state):
        words.append(f"SQLSTATE {state}")
    if place := attribute_of(error):
        words.append(f"at {place}")
    text = _text(error)
    if signs := [sign for sign in _OF_THE_HOST if sign.lower() in text.lower()]:
        words.append(f"({signs[0]})")
    return " ".join(words)


def is_ours(error: BaseException) -> bool:
    """Whether its text was written in this package."""
    return type(error).__module__.startswith(_OURS)


def attribute_of(error: BaseException) -> str:
    """The DICOM attribute an exception is about, as `Keyword (VR)`; empty where none is found.

    It is looked for where the exception was raised, then in what caused it, then in its text, of which only what the
    data dictionary knows counts.
    """
    if "pydicom" not in sys.modules:
        return ""
    chain = list(_chain(error))
    for one in chain:
        for frame in _frames(one):
            if found := _in_frame(frame):
                return found
    for one in chain:
        if found := _in_text(_text(one)):
            return found
    return ""


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception whose own text cannot be made
        return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and what caused it, each once."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _frames(error: BaseException) -> list[FrameType]:
    """Where it was raised, innermost first."""
    frames: list[FrameType] = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    return frames[::-1][:_MOST_FRAMES]


def _in_frame(frame: FrameType) -> str:
    """An element, a tag or a keyword among the names of a function of a DICOM library, or of ours."""
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    if package not in ("pydicom", "highdicom", "pynetdicom", "outpost"):
        return ""
    names = frame.f_locals
    vr = names.get("VR") or names.get("vr")
    for value in names.values():
        kind = type(value)
        if kind.__module__.startswith("pydicom.") and kind.__name__ in ("DataElement", "RawDataElement"):
            try:
                return _named(int(value.tag), value.VR)
            except Exception:  # noqa: S112 - an element that was not made whole says nothing
                continue
    for name in ("tag", "keyword", "name", "key"):
        found: Any = names.get(name)
        if type(found).__name__ == "BaseTag":
            return _named(int(found), vr)
        if isinstance(found, str) and (number := _number(found)) is not None:
            return _named(number, vr)
    return ""


def _in_text(text: str) -> str:
    for match in _TAG.finditer(text):
        if _keyword(tag := int(match[1] + match[2], 16)):
            return _named(tag, None)
    for word in _WORD.findall(text):
        if (number := _number(word)) is not None:
            return _named(number, None)
    return ""


def _named(number: int, vr: Any) -> str:
    keyword = _keyword(number)
    if not keyword:
        keyword = "a private attribute" if (number >> 16) % 2 else "an attribute of no known name"
    shown = vr if isinstance(vr, str) and _VR.fullmatch(vr) else _usual_vr(number)
    return f"{keyword} ({shown})" if shown else keyword


def _keyword(number: int) -> str:
    return str(sys.modules["pydicom.datadict"].keyword_for_tag(number))


def _number(keyword: str) -> int | None:
    found: int | None = sys.modules["pydicom.datadict"].tag_for_keyword(keyword)
    return found


def _usual_vr(number: int) -> str:
    try:
        return str(sys.modules["pydicom.datadict"].dictionary_VR(number))[:2]
    except KeyError:
        return ""
