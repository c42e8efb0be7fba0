"""Why a study ended without a result: the codes the pipeline gives itself, and where any code is explained.

What inference says of a study or of itself is in `outpost.inference.codes`, what the filter says of a study's headers
in `outpost.filter.codes`. Codes are an interface (journal, Postgres, metrics, verdicts): never renamed or reused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from outpost.filter.codes import FILTER_REASONS
from outpost.inference.codes import REASONS, Reason


class PipelineCode(StrEnum):
    """Reasons that lie neither in the model nor in the images; `_REASONS` explains each."""

    STUDY_EMPTY = "STUDY_EMPTY"
    INSTANCES_REMOVED = "INSTANCES_REMOVED"
    SERVICE_DIED = "SERVICE_DIED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


_REASONS: Final[dict[str, Reason]] = {
    PipelineCode.STUDY_EMPTY: Reason(
        "The study has no instances.",
        "Report it with the log: a study begins with its first instance.",
    ),
    PipelineCode.INSTANCES_REMOVED: Reason(
        "A late image came after the study's files had been removed, some time after its delivery.",
        "Send the whole study again: it is then processed as a new revision.",
    ),
    PipelineCode.SERVICE_DIED: Reason(
        "The whole service, or the host, went down several times while it computed this study.",
        "Look for the kernel's OOM killer and for power failures at those times; then send the study again.",
    ),
    PipelineCode.INTERNAL_ERROR: Reason(
        "A fault in the service itself kept this study from being computed.",
        "Report it with the log around the time; the study's files are in quarantine.",
    ),
    **{str(code): reason for code, reason in REASONS.items()},
    **{str(code): reason for code, reason in FILTER_REASONS.items()},
}


def explain(code: str) -> Reason | None:
    """Meaning and remedy of a reason code; None for a code that no longer, or not yet, exists."""
    return _REASONS.get(code)
