"""The task `radiograph_classification`: radiographs of a study enter, a report on how they lie leaves.

The network says of each image what it shows (a frontal chest, a lateral chest, something else), by how many
quarter turns it is turned, and whether its grey values are reversed. Its answer on mirroring is computed but not
reported: docs/models.md says why, and what the others are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from torch.nn import functional

from outpost.codes.notes import Note, NoteCode, merged
from outpost.dicom.grey import MOST_PADDED, is_reversed, modality, shape_ignored
from outpost.drift.book import Value
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.pixels import judge_displayed
from outpost.filter.thumbnail import without_border
from outpost.inference.bundle import Bundle, RadiographManifest, RadiographRules
from outpost.inference.codes import Code, InferenceFailed, InputRejected
from outpost.inference.completeness import hold_if_more_may_come, require_all_radiographs
from outpost.inference.context import StudyContext
from outpost.inference.copying import read_copied
from outpost.inference.decode import decode_image, refusing
from outpost.inference.extent import require_images
from outpost.inference.header import ImageHeader
from outpost.inference.result import Written
from outpost.results.copied import Copied
from outpost.results.provenance import Provenance
from outpost.results.sr import ImageReport, Probability, write_report

VIEWS: Final = ("chest_frontal", "chest_lateral", "other")
TURNS: Final = (0, 90, 180, 270)
# What the network gives, in this order: name of the question -> number of answers. One answer is a yes.
HEADS: Final[dict[str, int]] = {"view": len(VIEWS), "rotation": len(TURNS), "mirrored": 1, "inverted": 1}

# Whatever a bundle's size, images are kept at this many pixels a side until the network has them.
_KEPT = 512
# Grey values between these shares of the image become 0 to 1: markers and direct exposure lie outside.
_DARKEST, _BRIGHTEST = 0.01, 0.99

Inferer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class RadiographCase:
    """The radiographs of one study.

    Attributes:
        pixels: array of (image, 512, 512), as displayed: the photometric interpretation is applied, the
            window is not.
        images: attributes of each without its pixels; none for the golden case.
        unread: attributes of those whose pixels could not be read or were refused, and why.
        notes: what was seen in reading that the result must say.
        padded: of each image where it is padding, (512, 512), or None; empty for the golden case.
        copied: what the report repeats of the first image; none for the golden case.
        policy: whether answers are judged; None judges none.
    """

    pixels: torch.Tensor
    images: tuple[Dataset, ...] = ()
    unread: tuple[tuple[Dataset, str], ...] = ()
    notes: tuple[Note, ...] = ()
    padded: tuple[NDArray[np.bool_] | None, ...] = ()
    copied: Copied | None = None
    policy: PixelPolicy | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape)


class RadiographNetwork:
    """The inferer: brings images to the network's size and grey values.

    Args:
        network: takes (image, 1, side, side), gives (image, answer) before softmax and sigmoid.
        side: pixels.
        device: for example `cpu`.
    """

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], side: int, device: str) -> None:
        self._network = network
        self._side = side
        self._device = torch.device(device)

    @torch.inference_mode()
    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        small = functional.interpolate(pixels[:, None], (self._side, self._side), mode="area")
        grey = torch.stack([standardise(image[0]) for image in small])[:, None]
        return self._network(grey.to(self._device)).float().cpu()


class RadiographClassification:
    """See `outpost.inference.task.Task`; the inferer takes pixels of a case and gives (image, answer)."""

    def __init__(self, bundle: Bundle) -> None:
        assert isinstance(bundle.manifest, RadiographManifest)  # as `task` in it says
        self._manifest = bundle.manifest

    def read(
        self,
        headers: Sequence[ImageHeader],
        pixels: PixelPolicy | None = None,
        left_out: Sequence[ImageHeader] = (),
        context: StudyContext | None = None,
    ) -> RadiographCase:
        context = context or StudyContext()
        require_images(len(headers))
        partial = self._require_all(headers, left_out, context)
        pictures: list[Picture] = []
        images: list[ImageHeader] = []
        notes: list[Note] = []
        unread: list[tuple[Dataset, str]] = []
        refused: list[str] = []
        first_rejection: InputRejected | None = None
        for header in sorted(
            headers, key=lambda header: (header.series_number or 0, header.sop_instance_uid)
        ):
            if lack := _lacks(header, self._manifest.input):
                refused.append(f"{header.path.name}: {lack}")
                continue
            try:
                picture = read_picture(header)
                if pixels is not None:
                    notes += _judged(picture, header, pixels, len(images) + 1)
                notes += picture.notes
                pictures.append(picture)
                images.append(header)
            except InputRejected as rejection:
                if first_rejection is None or (rejection.hold and not first_rejection.hold):
                    first_rejection = rejection
                unread.append((header.dataset, rejection.code))
        if not pictures:
            none_read = first_rejection or InputRejected(
                Code.NO_SERIES_FOR_BUNDLE, "; ".join(refused) or "the study holds no images"
            )
            hold_if_more_may_come(none_read, (*headers, *left_out), context)
            raise none_read
        copied = read_copied(images[0], context.character_set)
        return RadiographCase(
            torch.stack([picture.pixels for picture in pictures]),
            tuple(image.dataset for image in images),
            tuple(unread),
            notes=merged((*partial, *_unread(unread, len(images)), *notes, *copied.notes)),
            padded=tuple(picture.padded for picture in pictures),
            copied=copied,
            policy=pixels,
        )

    def _require_all(
        self, headers: Sequence[ImageHeader], left_out: Sequence[ImageHeader], context: StudyContext
    ) -> tuple[Note, ...]:
        read = [header for header in headers if not _lacks(header, self._manifest.input)]
        return (
            require_all_radiographs(read, (*headers, *left_out), context, self._manifest.incomplete)
            if read
            else ()
        )

    def golden_case(self) -> RadiographCase:
        if self._manifest.golden.case != "chest_phantom":
            raise InferenceFailed(
                Code.BUNDLE_INVALID,
                f"golden.case is {self._manifest.golden.case!r}; for radiographs there is chest_phantom",
            )
        return RadiographCase(torch.from_numpy(chest_phantoms()))

    def compute(self, case: RadiographCase, inferer: Inferer, batch: int) -> NDArray[np.float32]:
        """Probabilities of (image, answer), answers in the order of `HEADS`."""
        parts = (case.pixels[start : start + batch] for start in range(0, len(case.pixels), batch))
        logits = torch.cat([inferer(part) for part in parts])
        if logits.shape != (len(case.pixels), sum(HEADS.values())):
            raise InferenceFailed(
                Code.BUNDLE_INVALID,
                f"the network gives {tuple(logits.shape)} for {len(case.pixels)} images, "
                f"{sum(HEADS.values())} answers an image are wanted",
            )
        if not torch.isfinite(logits).all():
            raise InferenceFailed(
                Code.OUTPUT_NOT_FINITE, f"the answers to {_not_finite(logits)} are not finite"
            )
        if (logits == logits[:, :1]).all(dim=1).any():
            raise InferenceFailed(Code.OUTPUT_CONSTANT, "all answers to one image have one value")
        alike = (logits == logits[0]).all()
        if len(logits) > 1 and alike and not (case.pixels == case.pixels[0]).all():
            raise InferenceFailed(Code.OUTPUT_CONSTANT, f"{len(logits)} images that differ got one answer")
        return probabilities(logits)

    def write(
        self,
        case: RadiographCase,
        output: NDArray[np.float32],
        provenance: Provenance,
        revision: int,
        output_dir: Path,
    ) -> Written:
        reports = [
            ImageReport(image, finding(answers), _named(answers))
            for image, answers in zip(case.images, output, strict=True)
        ]
        reports += [
            ImageReport(image, f"Not read: {code}. Nothing is said of this image.", ())
            for image, code in case.unread
        ]
        file = write_report(reports, self._manifest.report, provenance, revision, output_dir, case.copied)
        return Written((file,))

    def doubts(self, case: RadiographCase, output: NDArray[np.float32]) -> tuple[Note, ...]:
        if case.policy is None or case.policy.plausible == "off":
            return ()
        # Told, never held: an answer that says how sure it is withholds nothing, and the other images' answers stand.
        return tuple(
            Note(NoteCode.RESULT_DOUBTFUL, f"image {number} of {len(output)}: {doubt}")
            for number, answers in enumerate(output, start=1)
            if (doubt := self._doubt(answers))
        )

    def _doubt(self, answers: NDArray[np.float32]) -> str:
        """Which answers to one image are doubtful, with their probabilities; empty where none is."""
        limits = self._manifest.doubtful
        view, rotation, _, inverted = _by_head(answers)
        shown = VIEWS[int(view.argmax())]
        if shown in limits.views:
            return f"it shows {shown.replace('_', ' ')} ({view.max():.2f}), which the model knows nothing of"
        # Of how an image lies that shows no chest, nothing is reported.
        reported = {"view": view.max()}
        if shown != "other":
            reported |= {
                "turn": rotation.max(),
                "reversal": max(inverted[0], 1 - inverted[0]),
            }
        weak = [f"{name} {value:.2f}" for name, value in reported.items() if value < limits.below]
        return f"{', '.join(weak)} ({limits.below:g} is enough)" if weak else ""

    def pixels(self, case: RadiographCase) -> list[NDArray[np.float32]]:
        masks = case.padded or (None,) * len(case.pixels)
        return [
            image.numpy() if padded is None else image.numpy()[~padded]
            for image, padded in zip(case.pixels, masks, strict=True)
        ]

    def numbers(self, case: RadiographCase, output: NDArray[np.float32]) -> list[dict[str, Value]]:
        """Probabilities; that of being mirrored is not reported, and not watched."""
        found: list[dict[str, Value]] = []
        for answers in output:
            view, rotation, _, inverted = _by_head(answers)
            values: dict[str, Value] = {
                f"output.{name}": float(value) for name, value in zip(VIEWS, view, strict=True)
            }
            values |= {"output.upright": float(rotation[0]), "output.inverted": float(inverted[0])}
            found.append(values)
        return found

    def compare(self, output: NDArray[np.float32], expected: Path, tolerance: float) -> tuple[bool, float]:
        try:
            wanted = np.load(expected)
        except (OSError, ValueError) as error:
            raise InferenceFailed(Code.BUNDLE_INVALID, f"{expected} holds no answers: {error}") from error
        if wanted.shape != output.shape:
            raise InferenceFailed(
                Code.BUNDLE_INVALID, f"{expected} has shape {wanted.shape}, the answer {output.shape}"
            )
        off = float(np.abs(output.astype(np.float64) - wanted).max())
        return off <= tolerance, off

    def keep(self, output: NDArray[np.float32], expected: Path) -> None:
        np.save(expected, output)


def standardise(image: torch.Tensor) -> torch.Tensor:
    """Grey values of (row, column) without the sender's scale: middle 0, usual range -2 to 2."""
    values = image.flatten().sort().values
    low = values[int(_DARKEST * (len(values) - 1))]
    high = values[int(_BRIGHTEST * (len(values) - 1))]
    return 4 * ((image - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) - 2


def probabilities(logits: torch.Tensor) -> NDArray[np.float32]:
    """Softmax over each question with several answers, sigmoid over a yes."""
    parts, start = [], 0
    for answers in HEADS.values():
        part = logits[:, start : start + answers].double()
        parts.append(part.softmax(dim=1) if answers > 1 else part.sigmoid())
        start += answers
    found: NDArray[np.float32] = torch.cat(parts, dim=1).float().numpy()
    return found


def finding(answers: NDArray[np.float32]) -> str:
    """The answers to one image as a sentence; of how it lies, nothing where it shows no chest.

    Whether it is mirrored is not told: on the real chest radiograph that answer was no better than chance.
    """
    view, rotation, _, inverted = _by_head(answers)
    shown = int(view.argmax())
    words = {
        "chest_frontal": "Chest, frontal",
        "chest_lateral": "Chest, lateral",
        "other": "No chest radiograph that the model knows",
    }
    told = [f"{words[VIEWS[shown]]} ({view[shown]:.2f})"]
    if VIEWS[shown] == "other":
        return f"{told[0]}; how it lies is not judged."
    turn = int(rotation.argmax())
    turned = "upright" if turn == 0 else f"turned by {TURNS[turn]} degrees counterclockwise"
    told.append(f"{turned} ({rotation[turn]:.2f})")
    told.append(
        f"grey values {'reversed' if inverted[0] >= 0.5 else 'as usual'} ({max(inverted[0], 1 - inverted[0]):.2f})"
    )
    return "; ".join(told) + "."


def _by_head(answers: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return np.split(answers, np.cumsum(list(HEADS.values()))[:-1])


def _named(answers: NDArray[np.float32]) -> tuple[Probability, ...]:
    view, rotation, _, inverted = (part.tolist() for part in _by_head(answers))
    return (
        *(
            Probability(name.upper(), f"Probability: {name.replace('_', ', ')}", value)
            for name, value in zip(VIEWS, view, strict=True)
        ),
        *(
            Probability(f"TURNED_{turn}", f"Probability: turned by {turn} degrees counterclockwise", value)
            for turn, value in zip(TURNS, rotation, strict=True)
        ),
        Probability("INVERTED", "Probability: grey values reversed", inverted[0]),
    )


def _lacks(header: ImageHeader, rules: RadiographRules) -> str | None:
    """Why the model does not read this image, or None."""
    if header.modality not in rules.modalities:
        return f"modality {header.modality or 'absent'}, {' or '.join(rules.modalities)} wanted"
    if header.sop_class_uid not in rules.sop_class_uids:
        return f"SOP class {header.sop_class_uid or 'absent'} is not one the model reads"
    if unwanted := {value.upper() for value in rules.exclude_image_types}.intersection(header.image_type):
        return f"image type {', '.join(sorted(unwanted))} is excluded"
    if header.frames != 1 or header.samples_per_pixel != 1:
        return f"{header.frames} frames and {header.samples_per_pixel} samples a pixel, 1 and 1 wanted"
    if header.photometric_interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        return (
            f"photometric interpretation {header.photometric_interpretation or 'absent'}, a monochrome wanted"
        )
    if min(header.rows, header.columns) < rules.min_pixels:
        return f"{header.columns} x {header.rows} pixels, at least {rules.min_pixels} a side wanted"
    return None


@dataclass(frozen=True, slots=True)
class Picture:
    """One image as displayed.

    Attributes:
        pixels: (512, 512), more is brighter; a border of padding is cut off, other padding is dark.
        padded: of the same shape, true where there is nothing but padding; None without.
        notes: what was applied.
    """

    pixels: torch.Tensor
    padded: NDArray[np.bool_] | None = None
    notes: tuple[Note, ...] = ()


def read_picture(image: ImageHeader) -> Picture:
    """The pixels of an image as displayed.

    Neither rescale nor window changes what is seen but for its contrast, which `standardise` takes away; a
    rescale or VOI LUT that falls reverses it, and is applied, and so is a modality LUT. Pixels that are not
    square change nothing: every image is brought to a square.

    Raises:
        InputRejected: as `decode_image` does; PIXELS_CONSTANT, GREY_VALUES_UNDEFINED.
    """
    decoded = decode_image(image)
    stored, padded, name = decoded.pixels, decoded.padded, image.path.name
    if stored.ndim != 2:
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{name} decodes to {stored.shape}, not to rows and columns"
        )
    with refusing(image.path):
        mapping, reverse = modality(image.dataset), is_reversed(image.dataset)
    told = list(decoded.remarks)
    if mapping.table is not None:
        stored = mapping.apply(stored)
        told.append("ModalityLUTSequence was applied")
    elif mapping.falls:
        reverse = not reverse
    if disagreement := shape_ignored(image.dataset):
        told.append(disagreement)
    notes = [Note(NoteCode.GREY_VALUES_MAPPED, f"{name}: {one}") for one in told]
    if padded is not None:
        if (share := float(padded.mean())) > MOST_PADDED:
            raise InputRejected(
                Code.GREY_VALUES_UNDEFINED,
                f"by PixelPaddingValue {share:.1%} of {name} is padding, at most {MOST_PADDED:.0%} can be",
            )
        notes.append(Note(NoteCode.PIXELS_PADDED, f"{name}: PixelPaddingValue: {share:.1%} left out"))
        # A border goes whole: the rest is what the image was before it was put on a canvas.
        stored, padded = without_border(stored, padded)
    real = stored if padded is None else stored[~padded]
    if real.min() == real.max():
        raise InputRejected(Code.PIXELS_CONSTANT, f"every pixel of {name} is {real.flat[0]:g}")
    small, out = _small(stored, padded)
    small = -small if reverse else small
    if out is not None:
        small[torch.from_numpy(out)] = float(np.percentile(small.numpy()[~out], 0.5))
    return Picture(small, out, tuple(notes))


def _small(
    stored: NDArray[Any], padded: NDArray[np.bool_] | None
) -> tuple[torch.Tensor, NDArray[np.bool_] | None]:
    """Means of what is not padding, (512, 512), and where there is none of it."""
    pixels = torch.from_numpy(np.ascontiguousarray(stored, dtype=np.float32))[None, None]
    if padded is None:
        return functional.adaptive_avg_pool2d(pixels, _KEPT)[0, 0], None
    counts = torch.from_numpy(np.ascontiguousarray(~padded, dtype=np.float32))[None, None]
    share = functional.adaptive_avg_pool2d(counts, _KEPT)[0, 0]
    sums = functional.adaptive_avg_pool2d(pixels * counts, _KEPT)[0, 0]
    out: NDArray[np.bool_] = (share <= 0).numpy()
    return sums / share.clamp_min(1e-6), out


def _unread(unread: Sequence[tuple[Dataset, str]], read: int) -> tuple[Note, ...]:
    """That images which the model should have read are not in the answer."""
    if not unread:
        return ()
    reasons = ", ".join(dict.fromkeys(code for _, code in unread))
    return (Note(NoteCode.IMAGES_NOT_READ, f"{len(unread)} of {len(unread) + read} images: {reasons}"),)


def _judged(picture: Picture, header: ImageHeader, policy: PixelPolicy, number: int) -> list[Note]:
    """What the pixel verdict found in an image and the policy accepts."""
    verdict = judge_displayed(picture.pixels.numpy(), header.modality, policy, picture.padded)
    if (against := verdict.against) is not None:
        raise InputRejected(
            against.code, f"{header.path.name}: {against.detail}", hold=against.action == "hold"
        )
    # By its number: a file's name is the image's UID.
    return [Note(finding.code, f"image {number}: {finding.detail}") for finding in verdict.findings]


def _not_finite(logits: torch.Tensor) -> str:
    broken = int((~torch.isfinite(logits)).any(dim=1).sum())
    return f"{broken} of {len(logits)} images"


def chest_phantoms() -> NDArray[np.float32]:
    """The golden case: a chest made of ellipsoids as X-rays see it, in eight presentations.

    Shape (8, 512, 512): upright, turned by one to three quarters, mirrored, reversed, mirrored and reversed,
    and a lone bone. Nobody's data; the network's own answer on release is what is held against.
    """
    line = (np.arange(_KEPT) - (_KEPT - 1) / 2) / (_KEPT / 2)
    rows, columns = line[:, None], line[None, :]

    def ellipsoid(row: float, column: float, tall: float, wide: float, thick: float) -> NDArray[np.float64]:
        """Length of the ray through it."""
        squares = 1 - ((rows - row) / tall) ** 2 - ((columns - column) / wide) ** 2
        length: NDArray[np.float64] = thick * np.sqrt(np.clip(squares, 0, None))
        return length

    chest = ellipsoid(0.2, 0, 2.2, 0.95, 1.0)
    chest -= ellipsoid(-0.05, -0.42, 0.62, 0.33, 0.62)  # the patient's right lung is at the picture's left
    chest -= ellipsoid(0.0, 0.45, 0.66, 0.30, 0.60)
    chest += ellipsoid(0.25, 0.16, 0.30, 0.30, 0.45)  # heart
    chest += ellipsoid(-0.25, 0.10, 0.10, 0.10, 0.15)  # arch of the aorta
    chest += ellipsoid(0.75, -0.35, 0.30, 0.50, 0.30)  # liver
    chest -= ellipsoid(0.72, 0.48, 0.08, 0.14, 0.15)  # air in the stomach
    chest += 0.25 * np.clip(1 - (columns / 0.09) ** 4, 0, None) * (1 + 0.1 * np.sin(rows * 40))
    aside = np.abs(columns)
    for fall, weight in ((0.25, 0.10), (-0.35, 0.06)):
        phase = (rows - fall * aside**1.5) / 0.13
        ribs = np.clip(1 - ((phase - np.round(phase)) / 0.2) ** 2, 0, None)
        chest += weight * ribs * ((aside > 0.09) & (aside < 0.8) & (np.abs(rows) < 0.75))
    bone = ellipsoid(0, 0, 3, 0.4, 0.6) + ellipsoid(0, 0, 3, 0.14, 0.7) - ellipsoid(0, 0, 3, 0.08, 0.4)
    mirrored = chest[:, ::-1]
    presentations = [
        chest,
        *(np.rot90(chest, turns) for turns in (1, 2, 3)),
        mirrored,
        -chest,
        -mirrored,
        bone,
    ]
    return np.stack(presentations).astype(np.float32)
