"""Logging: one line per event on standard error, and no patient data in it.

Our own messages name a study by its journal row. What we do not control is kept out: DICOM libraries quote
the data sets they stumble over, so they are silent, and of an exception only its type and place are written.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from types import TracebackType

_QUOTING_LIBRARIES = ("pydicom", "pynetdicom", "highdicom")


class _OneLine(logging.Formatter):
    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        kind, _, where = ei
        if kind is None:
            return ""
        frames = traceback.extract_tb(where)[-4:]
        places = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno} {f.name}" for f in reversed(frames))
        return f"{kind.__name__} at {places}"

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def configure(level: int = logging.INFO) -> None:
    """Send everything worth knowing to standard error; journald adds the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUOTING_LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [logging.NullHandler()]
        library.propagate = False
        warnings.filterwarnings("ignore", module=name)
    logging.captureWarnings(capture=True)
