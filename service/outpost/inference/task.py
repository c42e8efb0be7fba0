"""One kind of study, from its files to its DICOM results: what a bundle's `task` names.

The predictor knows no more of a study than this. A task's class is imported when its bundle is loaded: what reads
MR volumes is not loaded to read radiographs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from outpost.codes.notes import Note
    from outpost.drift.book import Value
    from outpost.filter.pixel_policy import PixelPolicy
    from outpost.inference.bundle import Bundle
    from outpost.inference.context import StudyContext
    from outpost.inference.header import ImageHeader
    from outpost.inference.result import Written
    from outpost.results.provenance import Provenance

# Name in outpost.yaml -> module and class. The class is called with the bundle.
_TASKS: Final = {
    "volume_segmentation": ("outpost.inference.volume", "VolumeSegmentation"),
    "radiograph_classification": ("outpost.inference.radiograph", "RadiographClassification"),
}


class Case(Protocol):
    """A study (or golden case) as a task has read it: decoded, not yet computed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of the input, by which the ladder remembers what did not fit."""
        ...

    @property
    def images(self) -> tuple[Dataset, ...]:
        """Attributes of the images that are computed, without their pixels; none of a golden case."""
        ...

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was seen in reading that the result must say: findings that the pixel policy accepts, for one."""
        ...


class Task(Protocol):
    """What a bundle's task does. Made once for a bundle; holds no networks and no study."""

    def read(
        self,
        headers: Sequence[ImageHeader],
        pixels: PixelPolicy | None = None,
        left_out: Sequence[ImageHeader] = (),
        context: StudyContext | None = None,
    ) -> Case:
        """Of the images that the header verdict left, choose those that the model reads, decode and judge them.

        Args:
            headers: of one study.
            pixels: what the pixel verdict refuses; without it none is made.
            left_out: those of the study that the header verdict did not leave: a volume must not be a part of one.
            context: what no header says; without it, nothing is waited for.

        Raises:
            InputRejected: the study is not one for this model; the code says why.
            StudyIncomplete: images are missing that may still come.
        """
        ...

    def golden_case(self) -> Case:
        """The case the bundle names as golden, the same on every machine.

        Raises:
            InferenceFailed: BUNDLE_INVALID.
        """
        ...

    def compute(self, case: Case, inferer: Any, batch: int) -> Any:
        """Compute a case.

        Args:
            case: from `read` or `golden_case`.
            inferer: what `inferer` in configs/inference.json makes; it holds the networks.
            batch: how many images (or tiles) one call of a network takes at most.

        Returns:
            What `write` and `compare` understand; never with a NaN in it, never the same everywhere.

        Raises:
            InputRejected: PIXELS_CONSTANT, REGION_NOT_FOUND: seen only in computing.
            InferenceFailed: OUTPUT_NOT_FINITE, OUTPUT_CONSTANT.
        """
        ...

    def write(
        self, case: Case, output: Any, provenance: Provenance, revision: int, output_dir: Path
    ) -> Written:
        """Write the results of a study that was read, durably. `provenance.notes` are said in the result."""
        ...

    def doubts(self, case: Case, output: Any) -> Sequence[Note]:
        """What makes the answer doubtful once it is there: a mask unlike any of the organ, for one.

        Raises:
            InputRejected: it is no answer about what the model is for, or the rule set accepts no doubt.
        """
        ...

    def pixels(self, case: Case) -> Sequence[NDArray[Any]]:
        """What was read, one array an image or volume; watched for drift by its statistics."""
        ...

    def numbers(self, case: Case, output: Any) -> Sequence[dict[str, Value]]:
        """What is worth watching for drift in an answer: named numbers of each image or volume."""
        ...

    def compare(self, output: Any, expected: Path, tolerance: float) -> tuple[bool, float]:
        """Hold the golden case's output against the one kept in the bundle.

        Returns:
            Whether it is within the tolerance, and the value measured in the bundle's golden metric.

        Raises:
            InferenceFailed: BUNDLE_INVALID if `expected` is broken.
        """
        ...

    def keep(self, output: Any, expected: Path) -> None:
        """Write the golden case's output as `compare` reads it; for `python -m outpost.inference.golden`."""
        ...


def make_task(bundle: Bundle) -> Task:
    """The task of a bundle."""
    module, name = _TASKS[bundle.manifest.task]
    make: Callable[[Bundle], Task] = getattr(importlib.import_module(module), name)
    return make(bundle)
