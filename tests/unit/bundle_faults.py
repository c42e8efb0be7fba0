"""Faults put into a copy of a bundle, and what `outpost bundle check` finds of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from outpost.inference.check import Finding, check_bundle

BUNDLES = Path(__file__).parents[2] / "service/bundles"
BRAIN = BUNDLES / "brain_extraction"


def replace_in(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        text = (bundle / file).read_text()
        assert old in text
        (bundle / file).write_text(text.replace(old, new, 1))

    return change


def without(file: str) -> Callable[[Path], None]:
    return lambda bundle: (bundle / file).unlink()


def faults(bundle: Path) -> list[Finding]:
    return [finding for finding in check_bundle(bundle) if not finding.ok]
