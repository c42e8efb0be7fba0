"""The task `volume_segmentation`: a series of slices enters, a DICOM segmentation over them leaves."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from outpost.codes.notes import Note, NoteCode
from outpost.drift.book import Value
from outpost.filter.pixel_codes import PixelCode
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.pixels import judge_volume, slices_to_judge
from outpost.inference import progress
from outpost.inference.bundle import Bundle, VolumeManifest
from outpost.inference.codes import Code, InferenceFailed, InputRejected
from outpost.inference.completeness import hold_if_more_may_come, require_whole_volume
from outpost.inference.context import StudyContext
from outpost.inference.copying import read_copied
from outpost.inference.extent import require_volume
from outpost.inference.golden import dice, read_golden, write_golden
from outpost.inference.header import ImageHeader
from outpost.inference.orientation import RasView, ras_view
from outpost.inference.phantom import head_phantom
from outpost.inference.plausible import Limits, read_organ
from outpost.inference.result import Written
from outpost.inference.selection import choose_stack
from outpost.inference.series import Volume, read_volume
from outpost.inference.stack import require_whole
from outpost.results.copied import Copied
from outpost.results.grid import Grid, contradictions
from outpost.results.provenance import Provenance
from outpost.results.seg import write_segmentation

log = logging.getLogger(__name__)

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
        padded: of the shape of the volume, true where a voxel is padding, which is background in it; None without.
        grid: where the voxels of the series' own axes lie; none for the golden case.
        copied: what the result repeats of the images; none for the golden case.
        spacing_mm: between voxels of `volume` along its axes.
        policy: by which the answer is judged; None judges nothing.
    """

    volume: NDArray[np.float32]
    view: RasView
    images: tuple[Dataset, ...]
    notes: tuple[Note, ...] = ()
    padded: NDArray[np.bool_] | None = None
    grid: Grid | None = None
    copied: Copied | None = None
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    policy: PixelPolicy | None = None

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000

    @property
    def shape(self) -> tuple[int, ...]:
        return self.volume.shape


class VolumeSegmentation:
    """See `outpost.inference.task.Task`; the inferer takes a volume and gives a mask of its shape."""

    def __init__(self, bundle: Bundle) -> None:
        assert isinstance(bundle.manifest, VolumeManifest)  # as `task` in it says
        self._manifest = bundle.manifest
        self._limits = _limits(bundle, bundle.manifest)

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
        require_volume(stack.shape, stack.spacing_mm)
        partial = require_whole_volume(stack, study, context, self._manifest.incomplete)
        grid = Grid(stack.affine)
        copied = read_copied(stack.images[0], context.character_set)
        view = ras_view(stack.affine)
        images = tuple(image.dataset for image in stack.images)
        volume = read_volume(stack)
        progress.beat(
            volume.values.nbytes / (1 << 20)
        )  # judging its pixels takes the longer, the more there are
        spacing = tuple(stack.spacing_mm[axis] for axis in view.axes)
        turned = view.apply(volume.values)
        judged = _judged(volume, turned, spacing, view, images[0], pixels) if pixels is not None else ()
        notes = (
            *partial,
            *volume.notes,
            *judged,
            *copied.notes,
            *contradictions((images[0], images[-1]), grid),
        )
        return VolumeCase(
            turned,
            view,
            images,
            notes=notes,
            padded=None if volume.padded is None else view.apply(volume.padded),
            grid=grid,
            copied=copied,
            spacing_mm=(spacing[0], spacing[1], spacing[2]),
            policy=pixels,
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
        policy = case.policy
        if policy is None or policy.plausible == "off":
            return ()
        judged = self._limits.judge(case.volume, output, case.spacing_mm)
        if judged.grade == "plausible":
            return ()
        told = f"the answer is unlike what the model gives on what it is for: {judged.told}"
        if judged.grade == "implausible" and policy.plausible == "reject":
            raise InputRejected(PixelCode.PIXELS_ANATOMY, told)
        if policy.unsure != "accept":
            raise InputRejected(PixelCode.PIXELS_UNSURE, told, hold=policy.unsure == "hold")
        return (Note(NoteCode.RESULT_DOUBTFUL, told),)

    def pixels(self, case: VolumeCase) -> list[NDArray[np.float32]]:
        return [case.volume if case.padded is None else case.volume[~case.padded]]

    def numbers(self, case: VolumeCase, output: NDArray[np.bool_]) -> list[dict[str, Value]]:
        return [{"output.mask_ml": np.count_nonzero(output) * case.voxel_ml}]

    def compare(self, output: Any, expected: Path, tolerance: float) -> tuple[bool, float]:
        value = dice(output, read_golden(expected))
        return value >= tolerance, value

    def keep(self, output: Any, expected: Path) -> None:
        write_golden(output, expected)


def _limits(bundle: Bundle, manifest: VolumeManifest) -> Limits:
    """What the bundle takes for plausible; nothing, where that was measured with another model."""
    plausible = manifest.plausible
    if plausible.golden_sha256 is not None:
        golden = bundle.path / manifest.golden.expected
        # Absent or broken, the golden case itself says so.
        found = hashlib.sha256(golden.read_bytes()).hexdigest() if golden.is_file() else ""
        if found != plausible.golden_sha256:
            log.warning(
                "plausible is not used: it was measured with another model; golden.expected has sha256 %s, "
                "plausible.golden_sha256 is %s: measure the limits again (docs/doubt.md)",
                found or "absent",
                plausible.golden_sha256,
            )
            return Limits()
    likeness = plausible.likeness
    if likeness is None:
        return Limits(plausible.volume_ml)
    organ = read_organ(bundle.path / likeness.path, likeness.sha256)
    return Limits(manifest.plausible.volume_ml, organ, likeness.doubtful_below, likeness.implausible_below)


def _judged(
    volume: Volume,
    turned: NDArray[np.float32],
    spacing_mm: Sequence[float],
    view: RasView,
    image: Dataset,
    policy: PixelPolicy,
) -> tuple[Note, ...]:
    """What the pixel verdict found and the policy accepts. `turned` are the volume's values as in a case."""
    judged = slices_to_judge(volume.values.shape[2], policy)
    slices = [volume.values[:, :, index].T for index in judged]
    padded = None if volume.padded is None else [volume.padded[:, :, index].T for index in judged]
    asked = bool(policy.expected_anatomy) and policy.anatomy != "off"
    # Cut only when asked for: of most heads, the series' own slices say enough.
    planes = (cut_across(turned, spacing_mm, axis, policy) for axis in range(3) if view.axes[axis] != 2)
    verdict = judge_volume(slices, image, policy, padded, planes if asked else ())
    if (against := verdict.against) is not None:
        raise InputRejected(
            against.code, f"slices of the series: {against.detail}", hold=against.action == "hold"
        )
    return tuple(Note(finding.code, finding.detail) for finding in verdict.findings)


def cut_across(
    volume: NDArray[np.float32], spacing_mm: Sequence[float], axis: int, policy: PixelPolicy
) -> list[NDArray[np.float32]]:
    """Slices across an axis, upright, with pixels as tall as they are wide but for half of one."""
    across, up = (spacing for other, spacing in enumerate(spacing_mm) if other != axis)
    wide, tall = (max(1, round(spacing / min(across, up))) for spacing in (across, up))
    return [
        np.rot90(volume[(slice(None),) * axis + (index,)]).repeat(tall, axis=0).repeat(wide, axis=1)
        for index in slices_to_judge(volume.shape[axis], policy)
    ]
