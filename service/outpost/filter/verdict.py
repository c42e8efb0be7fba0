"""The verdict on a study before it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outpost.reasons import PipelineCode


@dataclass(frozen=True, slots=True)
class FilterReason:
    """One rule that spoke against the study: its stable code, and what was found (without patient data)."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accepted when nothing speaks against the study. The first reason is the one journalled."""

    reasons: tuple[FilterReason, ...] = ()

    @property
    def accepted(self) -> bool:
        return not self.reasons


ACCEPTED = Verdict()


def judge(files: Sequence[Path]) -> Verdict:
    """Judge the files of one study; an empty study is the only thing no model could read."""
    return (
        ACCEPTED
        if files
        else Verdict((FilterReason(PipelineCode.STUDY_EMPTY, "the study has no instances"),))
    )
