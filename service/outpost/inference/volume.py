"""The task `volume_segmentation`: a series of slices enters, a DICOM segmentation over them leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from outpost.codes.notes import Note
from outpost.drift.book import Value
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.pixels import judge_volume, slices_to_judge
from outpost.inference.bundle import Bundle, VolumeManifest
from outpost.inference.codes import Code, InferenceFailed, InputRejected
from outpost.inference.completeness import hold_if_more_may_come, require_whole_volume
from outpost.inference.context import StudyContext
from outpost.inference.copying import read_copied
from outpost.inference.golden import dice, read_golden, write_golden
from outpost.inference.header import ImageHeader
from outpost.inference.orientation import RasView, ras_view
from outpost.inference.phantom import head_phantom
from outpost.inference.result import Written
from outpost.inference.selection import choose_stack
from outpost.inference.series import Volume, read_volume
from outpost.inference.stack import require_whole
from outpost.results.copied import Copied
from outpost.results.grid import Grid, contradictions
from outpost.results.provenance import Provenance
from outpost.results.seg import write_segmentation

Inferer = Callable[[NDArray[np.float32]], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class VolumeCase:
    """A volume to segment.

    Attributes:
        volume: intensities, axes pointing right, anterior and superior.
        view: how the series' own axes lie to these.
        images: attributes of the slices without their pixels, in the order of the series; none for the
            golden case.
        notes: what was seen in reading that the result must say.
        voxel_ml: volume of a voxel, millilitres.
        padded: of the shape of the volume, true where a voxel is padding, which is background in it; None without.
        grid: where the voxels of the series' own axes lie; none for the golden case.
        copied: what the result repeats of the images; none for the golden case.
    """

    volume: NDArray[np.float32]
    view: RasView
    images: tuple[Dataset, ...]
    notes: tuple[Note, ...] = ()
    voxel_ml: float = 0.001
    padded: NDArray[np.bool_] | None = None
    grid: Grid | None = None
    copied: Copied | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.volume.shape


class VolumeSegmentation:
    """See `outpost.inference.task.Task`; the inferer takes a volume and gives a mask of its shape."""

    def __init__(self, bundle: Bundle) -> None:
        assert isinstance(bundle.manifest, VolumeManifest)  # as `task` in it says
        self._manifest = bundle.manifest

    def read(
        self,
        headers: Sequence[ImageHeader],
        pixels: PixelPolicy | None = None,
        left_out: Sequence[ImageHeader] = (),
        context: StudyContext | None = None,
    ) -> VolumeCase:
        context = context or StudyContext()
        study = (*headers, *left_out)
        try:
            stack = choose_stack(headers, self._manifest.input)
            require_whole(stack, left_out)
        except InputRejected as rejection:
            hold_if_more_may_come(rejection, study, context)
            raise
        partial = require_whole_volume(stack, study, context, self._manifest.incomplete)
        grid = Grid(stack.affine)
        copied = read_copied(stack.images[0], context.character_set)
        view = ras_view(stack.affine)
        images = tuple(image.dataset for image in stack.images)
        volume = read_volume(stack)
        judged = _judged(volume, images[0], pixels) if pixels is not None else ()
        notes = (
            *partial,
            *volume.notes,
            *judged,
            *copied.notes,
            *contradictions((images[0], images[-1]), grid),
        )
        voxel_ml = float(np.prod(stack.spacing_mm)) / 1000
        return VolumeCase(
            view.apply(volume.values),
            view,
            images,
            notes=notes,
            voxel_ml=voxel_ml,
            padded=None if volume.padded is None else view.apply(volume.padded),
            grid=grid,
            copied=copied,
        )

    def golden_case(self) -> VolumeCase:
        return VolumeCase(head_phantom(), RasView((0, 1, 2), (False, False, False)), ())

    def compute(self, case: VolumeCase, inferer: Inferer, batch: int) -> NDArray[np.bool_]:
        mask = inferer(case.volume)
        if mask.all() or not mask.any():
            raise InferenceFailed(Code.OUTPUT_CONSTANT, f"the mask is {bool(mask.flat[0])} for every voxel")
        return mask

    def write(
        self,
        case: VolumeCase,
        output: NDArray[np.bool_],
        provenance: Provenance,
        revision: int,
        output_dir: Path,
    ) -> Written:
        assert case.grid is not None  # of every study that was read
        mask = case.view.invert(output).transpose(2, 1, 0)
        file = write_segmentation(
            case.images,
            mask,
            case.grid,
            self._manifest.segment,
            provenance,
            revision,
            output_dir,
            case.copied,
        )
        return Written((file,))

    def doubts(self, case: VolumeCase, output: NDArray[np.bool_]) -> tuple[Note, ...]:
        return ()

    def pixels(self, case: VolumeCase) -> list[NDArray[np.float32]]:
        return [case.volume if case.padded is None else case.volume[~case.padded]]

    def numbers(self, case: VolumeCase, output: NDArray[np.bool_]) -> list[dict[str, Value]]:
        return [{"output.mask_ml": np.count_nonzero(output) * case.voxel_ml}]

    def compare(self, output: Any, expected: Path, tolerance: float) -> tuple[bool, float]:
        value = dice(output, read_golden(expected))
        return value >= tolerance, value

    def keep(self, output: Any, expected: Path) -> None:
        write_golden(output, expected)


def _judged(volume: Volume, image: Dataset, policy: PixelPolicy) -> tuple[Note, ...]:
    """What the pixel verdict found and the policy accepts."""
    judged = slices_to_judge(volume.values.shape[2], policy)
    slices = [volume.values[:, :, index].T for index in judged]
    padded = None if volume.padded is None else [volume.padded[:, :, index].T for index in judged]
    verdict = judge_volume(slices, image, policy, padded)
    if (against := verdict.against) is not None:
        raise InputRejected(
            against.code, f"slices of the series: {against.detail}", hold=against.action == "hold"
        )
    return tuple(Note(finding.code, finding.detail) for finding in verdict.findings)
