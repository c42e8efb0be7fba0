"""Logging: one line per event on standard error, and no patient data in it.

Our own messages name a study by its journal row. What we do not control is kept out: DICOM libraries quote the data
sets they stumble over, so they are silent; of any other library only the place of a message is written, and of an
exception or a warning only its type and place.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_QUOTING_LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "pylibjpeg", "openjpeg", "libjpeg", "rle", "gdcm")
# Whose texts are written: ours, and what the HTTP server says of itself.
_SPEAKING = ("outpost", "uvicorn", "__main__")

# Lines of one message in a minute, and messages that are counted one by one.
_MOST_LINES = 600
_MOST_MESSAGES = 2000
_MINUTE_SECONDS = 60.0

_log = logging.getLogger(__name__)


class _OneLine(logging.Formatter):
    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        kind, error, where = ei
        if kind is None:
            return ""
        causes, cause = "", error.__cause__ if error is not None else None
        for _ in range(3):
            if cause is None:
                break
            causes += f", from {type(cause).__name__}{_places(cause.__traceback__, 1)}"
            cause = cause.__cause__
        return f"{kind.__name__}{_places(where, 4)}{causes}"

    def formatStack(self, stack_info: str) -> str:
        return ""  # it quotes lines of source, which we have

    def format(self, record: logging.LogRecord) -> str:
        # A record is formatted once by each handler, and keeps the first one's text of its exception.
        record.exc_text = None
        return super().format(record).replace("\n", " | ").replace("\r", " ")


class _OursAlone(logging.Filter):
    """Of a library's message only the place is kept: its text may quote what it was working on."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] not in _SPEAKING:
            record.msg = f"a message of the library ({record.filename}:{record.lineno} {record.funcName})"
            record.args = None
        return True


class _NotTooMany(logging.Filter):
    """Of one message, whatever it is about, so many lines a minute; the next line says how many were not written.

    Who makes us say something by sending something would otherwise fill the disk with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._lines: Counter[tuple[str, str]] = Counter()
        self._unsaid: Counter[tuple[str, str]] = Counter()
        self._minute = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        key = record.name, str(record.msg)[:200]
        with self._lock:
            now = time.monotonic()
            if now - self._minute >= _MINUTE_SECONDS:
                self._minute = now
                self._lines.clear()
            if len(self._lines) >= _MOST_MESSAGES and key not in self._lines:
                key = "", ""  # texts that are made, each another
            if self._lines[key] >= _MOST_LINES:
                self._unsaid[key] += 1
                return False
            self._lines[key] += 1
            unsaid = self._unsaid.pop(key, 0)
        if unsaid:
            record.msg = f"{record.getMessage()} ({unsaid} more like it since the last line)"
            record.args = None
        return True


def configure(level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send everything worth knowing to standard error; journald adds the time.

    Args:
        level: least level that is written.
        stream: instead of standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_OursAlone())
    handler.addFilter(_NotTooMany())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUOTING_LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [logging.NullHandler()]
        library.propagate = False
        warnings.filterwarnings("ignore", module=name)
    warnings.showwarning = _show_warning
    # What would reach standard error past all handlers, with its text: faults nobody caught.
    sys.excepthook = _on_fault
    threading.excepthook = _on_thread_fault
    sys.unraisablehook = _on_unraisable


def _places(where: TracebackType | None, most: int) -> str:
    frames = traceback.extract_tb(where)[-most:]
    if not frames:
        return ""
    places = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(frames))
    return f" at {places}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """As `warnings.showwarning`: pydicom's quote the value, and blame whichever line of ours looked at it."""
    _log.warning("%s at %s:%d", category.__name__, filename.rsplit("/", 1)[-1], lineno)


def _on_fault(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    _log.critical("unexpected fault", exc_info=(kind, error, where))


def _on_thread_fault(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread is not None else "a thread"
    _log.error(
        "%s ended by an unexpected fault", name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
    )


def _on_unraisable(args: UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        _log.error(
            "a fault that nothing could catch", exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
        )
