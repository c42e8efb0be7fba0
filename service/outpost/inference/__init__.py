"""Inference: the DICOM files of one study enter, DICOM results leave.

The model, its input rules and its golden case come as a bundle; it runs in a child process that may be
killed. A study gives files or exactly one coded reason (`InputRejected`, `InferenceFailed`), never a doubtful
result.
"""

from outpost.inference.bundle import Bundle, load_bundle
from outpost.inference.codes import REASONS, Code, InferenceFailed, InputRejected, Reason
from outpost.inference.result import GoldenVerdict, InferenceResult
from outpost.inference.worker import InferenceWorker

__all__ = [
    "REASONS",
    "Bundle",
    "Code",
    "GoldenVerdict",
    "InferenceFailed",
    "InferenceResult",
    "InferenceWorker",
    "InputRejected",
    "Reason",
    "load_bundle",
]
