"""The task `radiograph_classification`: radiographs of a study enter, a report on how they lie leaves.

The network says of each image what it shows (a frontal chest, a lateral chest, something else), by how many
quarter turns it is turned, and whether its grey values are reversed. Its answer on mirroring is computed but not
reported: docs/models.md says why, and what the others are worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from torch.nn import functional

from outpost.codes.notes import Note, NoteCode, merged
from outpost.delivery.report import ImageReport, Probability, write_report
from outpost.drift.book import Value
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.pixels import judge_displayed
from outpost.inference.bundle import Bundle, RadiographManifest, RadiographRules
from outpost.inference.codes import Code, InferenceFailed, InputRejected
from outpost.inference.decode import decode_image
from outpost.inference.header import ImageHeader
from outpost.inference.result import Written
from outpost.results.provenance import Provenance

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
        policy: whether answers are judged; None judges none.
    """

    pixels: torch.Tensor
    images: tuple[Dataset, ...] = ()
    unread: tuple[tuple[Dataset, str], ...] = ()
    notes: tuple[Note, ...] = ()
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
    ) -> RadiographCase:
        pictures: list[torch.Tensor] = []
        images: list[Dataset] = []
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
                picture = _read_pixels(header)
                if pixels is not None:
                    notes += _judged(picture, header, pixels, len(images) + 1)
                pictures.append(picture)
                images.append(header.dataset)
            except InputRejected as rejection:
                if first_rejection is None or (rejection.hold and not first_rejection.hold):
                    first_rejection = rejection
                unread.append((header.dataset, rejection.code))
        if not pictures:
            raise first_rejection or InputRejected(
                Code.NO_SERIES_FOR_BUNDLE, "; ".join(refused) or "the study holds no images"
            )
        return RadiographCase(torch.stack(pictures), tuple(images), tuple(unread), merged(notes), pixels)

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
        return Written((write_report(reports, self._manifest.report, provenance, revision, output_dir),))

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
        return [image.numpy() for image in case.pixels]

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


def _read_pixels(image: ImageHeader) -> torch.Tensor:
    """The pixels of an image as displayed, (512, 512).

    Neither rescale nor window changes what is seen but for its contrast, which `standardise` takes away; a
    rescale that falls reverses it, and is applied.
    """
    stored = decode_image(image).pixels
    name = image.path.name
    if stored.ndim != 2:
        raise InputRejected(
            Code.PIXELS_UNREADABLE, f"{name} decodes to {stored.shape}, not to rows and columns"
        )
    if stored.min() == stored.max():
        raise InputRejected(Code.PIXELS_CONSTANT, f"every pixel of {name} is {stored.flat[0]:g}")
    pixels = torch.from_numpy(np.ascontiguousarray(stored, dtype=np.float32))
    small = functional.adaptive_avg_pool2d(pixels[None, None], _KEPT)[0, 0]
    falls = _slope(image.dataset) < 0
    return -small if falls != (image.photometric_interpretation == "MONOCHROME1") else small


def _judged(picture: torch.Tensor, header: ImageHeader, policy: PixelPolicy, number: int) -> list[Note]:
    """What the pixel verdict found in an image and the policy accepts."""
    verdict = judge_displayed(picture.numpy(), header.modality, policy)
    if (against := verdict.against) is not None:
        raise InputRejected(
            against.code, f"{header.path.name}: {against.detail}", hold=against.action == "hold"
        )
    # By its number: a file's name is the image's UID.
    return [Note(finding.code, f"image {number}: {finding.detail}") for finding in verdict.findings]


def _slope(dataset: Dataset) -> float:
    try:
        return float(dataset.get("RescaleSlope") or 1)
    except (TypeError, ValueError):
        return 1.0


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
