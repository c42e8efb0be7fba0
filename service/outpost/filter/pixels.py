"""The pixel verdict: decoded pixels enter, what speaks against computing them leaves.

It looks at a thumbnail of at most 256 pixels a side (for writing, twice as fine): at every radiograph of a study, and
at a few slices of a volume, whose verdict is that of most of them. It runs in the process that decodes, right after
it: what hostile pixels do to a library, they do to a process that is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from outpost.filter.anatomy import Shown, classify
from outpost.filter.appearance import Appearance, look
from outpost.filter.pixel_codes import PixelCode
from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.thumbnail import (
    LARGEST,
    as_displayed,
    displayed_without,
    reduce_frame,
    reduce_mask,
    with_palette,
    without_border,
)
from outpost.inference.codes import InputRejected
from outpost.inference.decode import decode_image
from outpost.inference.header import read_header

Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]

# Modalities whose images have no colours; elsewhere (ultrasound, endoscopy) colour says nothing.
_COLOURLESS: Final = frozenset("CR DX MG RG PX IO XA RF CT MR PT".split())
# Slices: their air is dark by physics. Projections: bright or dark by convention, so a chest must be known for it.
_SLICED: Final = frozenset("CT MR PT".split())
# Of CT the classifier learnt one chest and simulated heads, and took the one real head it was shown for no head:
# what it is sure of there is not enough to refuse an image.
_LITTLE_LEARNT: Final = frozenset(("CT", "PT"))
_FINE: Final = 2 * LARGEST
# Slices are taken from this part of a volume: the ends are often empty, and not what the study is of.
_FIRST_PART, _LAST_PART = 0.35, 0.65

_FIELD: Final[dict[PixelCode, str]] = {
    PixelCode.PIXELS_ZEROS: "zeros",
    PixelCode.PIXELS_BLANK: "blank",
    PixelCode.PIXELS_SATURATED: "saturated",
    PixelCode.PIXELS_CLIPPED: "clipped",
    PixelCode.PIXELS_SCREEN_CAPTURE: "screen_capture",
    PixelCode.PIXELS_PHOTOMETRIC: "photometric",
    PixelCode.PIXELS_ANATOMY: "anatomy",
    PixelCode.PIXELS_TEXT: "burned_in_text",
    PixelCode.PIXELS_UNSURE: "unsure",
}


@dataclass(frozen=True, slots=True)
class PixelFinding:
    """One thing that speaks against an image: its code, what was measured, and what the policy makes of it.

    `action` is accept, reject or hold.
    """

    code: PixelCode
    detail: str
    action: str


@dataclass(frozen=True, slots=True)
class PixelVerdict:
    """What was found in one image or in a volume, in the order in which it was looked for."""

    findings: tuple[PixelFinding, ...] = ()

    @property
    def against(self) -> PixelFinding | None:
        """The finding that ends the image; None where there is none, or the policy accepts all there are."""
        return next((finding for finding in self.findings if finding.action != "accept"), None)

    @property
    def accepted(self) -> bool:
        return self.against is None


def judge_frame(
    frame: NDArray[Any], dataset: Dataset, policy: PixelPolicy, padded: Mask | None = None
) -> PixelVerdict:
    """Judge one decoded frame.

    Args:
        frame: stored values of (rows, columns) or (rows, columns, samples).
        dataset: attributes of the image; malformed ones count as absent.
        policy: of the rule set.
        padded: of (rows, columns), true where a pixel is padding: it is not looked at.
    """
    if not frame.any() and policy.zeros != "off":
        return _verdict(_Seen(((PixelCode.PIXELS_ZEROS, "every pixel is 0"),), None, ""), policy)
    if frame.dtype.kind == "f":
        frame = np.nan_to_num(frame)
    if padded is not None and not padded.all():
        fine, out = displayed_without(frame, dataset, padded, _FINE)
        return _verdict(_seen(fine, _modality(dataset), policy, out), policy)
    fine = as_displayed(reduce_frame(with_palette(frame, dataset), _FINE), dataset)
    return _verdict(_seen(fine, _modality(dataset), policy), policy)


def judge_file(path: Path, policy: PixelPolicy) -> list[dict[str, str]]:
    """Judge one image file by itself, of several frames the middle one: action, code and detail of each finding.

    For a person at a terminal: it decodes in this process.
    """
    try:
        header = read_header(path)
        decoded = decode_image(header)
    except InputRejected as rejection:
        return [{"action": "reject", "code": rejection.code, "detail": rejection.message}]
    frame, padded = decoded.pixels, decoded.padded
    if header.frames > 1:
        middle = header.frames // 2
        frame, padded = frame[middle], None if padded is None else padded[middle]
    return [
        {"action": finding.action, "code": str(finding.code), "detail": finding.detail}
        for finding in judge_frame(frame, header.dataset, policy, padded).findings
    ]


def judge_displayed(
    fine: Grey, modality: str, policy: PixelPolicy, padded: Mask | None = None
) -> PixelVerdict:
    """Judge one image that is reduced already.

    Args:
        fine: grey values in which more is brighter, (row, column), at most 512 pixels a side.
        modality: of the image, for example DX.
        policy: of the rule set.
        padded: of the same shape, true where a pixel is padding, which is dark in `fine`: it is not looked at.
    """
    return _verdict(_seen(fine, modality, policy, padded), policy)


def judge_volume(
    slices: Sequence[NDArray[Any]],
    dataset: Dataset,
    policy: PixelPolicy,
    padded: Sequence[Mask] | None = None,
    planes: Iterable[Sequence[NDArray[Any]]] = (),
) -> PixelVerdict:
    """Judge slices of one volume: a finding counts when most of them show it, anatomy by the middle one of them.

    Args:
        slices: those of `slices_to_judge`, as values of (row, column) after their rescale.
        dataset: attributes of any slice.
        policy: of the rule set.
        padded: of each slice, true where a pixel is padding, which is background in it: it is not looked at.
        planes: the same volume cut the other ways, looked at until one shows enough; the best plane counts: the
            classifier knows an organ better in one plane than in another.
    """
    sign = -1 if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1" else 1
    out = [None] * len(slices) if padded is None else [reduce_mask(one, _FINE) for one in padded]
    seen = [
        _seen(sign * reduce_frame(one, _FINE), _modality(dataset), policy, outside)
        for one, outside in zip(slices, out, strict=True)
    ]
    most = [
        finding
        for finding in (finding for one in seen for finding in one.plain)
        if 2 * sum(finding[0] in {code for code, _ in other.plain} for other in seen) > len(seen)
    ]
    plain = tuple({code: (code, detail) for code, detail in reversed(most)}.values())[::-1]
    middle = _middle([one.shown for one in seen if one.shown is not None], policy)
    if middle is not None and policy.expected_anatomy:
        for plane in planes:
            if middle.probability(*policy.expected_anatomy) >= policy.enough:
                break
            way = _middle([classify(sign * reduce_frame(one, LARGEST)) for one in plane], policy)
            if way is not None:
                middle = max(middle, way, key=lambda one: one.probability(*policy.expected_anatomy))
    return _verdict(_Seen(plain, middle, seen[0].modality), policy)


def _middle(shown: list[Shown], policy: PixelPolicy) -> Shown | None:
    """Not the mean: a slice between two organs, or beside one, looks like anything."""
    shown.sort(key=lambda one: one.probability(*policy.expected_anatomy))
    return shown[len(shown) // 2] if shown else None


def slices_to_judge(count: int, policy: PixelPolicy) -> list[int]:
    """Which of `count` slices are looked at: evenly spread over the middle of the volume."""
    wanted = min(policy.slices_per_series, count)
    places = np.linspace(_FIRST_PART, _LAST_PART, wanted) if wanted > 1 else np.array([0.5])
    return sorted({int(place * (count - 1) + 0.5) for place in places})


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one frame looks like: findings (code, detail) that hold whatever it shows, and what it shows."""

    plain: tuple[tuple[PixelCode, str], ...]
    shown: Shown | None
    modality: str


def _seen(fine: Grey, modality: str, policy: PixelPolicy, padded: Mask | None = None) -> _Seen:
    colours = None
    if padded is not None:
        fine, padded = without_border(fine, padded)
    if fine.ndim == 3:
        colours = reduce_frame(fine, LARGEST) if modality in _COLOURLESS or not modality else None
        fine = fine.mean(axis=2)
    grey = reduce_frame(fine, LARGEST)
    appearance = look(grey, fine, colours, None if padded is None else reduce_mask(padded, LARGEST))
    plain = tuple(_plain(appearance, modality, policy))
    ended = any(getattr(policy, _FIELD[code]) != "accept" for code, _ in plain)
    shown = classify(grey) if not ended and _asks_anatomy(modality, policy) else None
    return _Seen(plain, shown, modality)


def _asks_anatomy(modality: str, policy: PixelPolicy) -> bool:
    """Whether the classifier's answer can change anything."""
    reversible = modality in _COLOURLESS and modality not in _SLICED
    return (bool(policy.expected_anatomy) and policy.anatomy != "off") or (
        reversible and policy.photometric != "off"
    )


def _plain(seen: Appearance, modality: str, policy: PixelPolicy) -> list[tuple[PixelCode, str]]:
    """What holds whatever the image shows. An image of one kind is not asked for the next: one reason is told."""
    if seen.too_small:
        return [(PixelCode.PIXELS_UNSURE, f"{seen.side} pixels at the shorter side are too few to judge by")]
    checks = (
        (
            PixelCode.PIXELS_BLANK,
            seen.blank,
            f"every pixel is {seen.constant:g}"
            if seen.constant is not None
            else f"neighbours correlate by {seen.correlation:.2f}, {seen.residual:.3f} of the range is not a shade",
        ),
        (
            PixelCode.PIXELS_SATURATED,
            seen.saturated,
            f"{max(seen.least, seen.greatest):.1%} of the image is at one end of its range",
        ),
        (
            PixelCode.PIXELS_CLIPPED,
            seen.badly_clipped,
            f"{seen.least + seen.greatest:.0%} is at the ends, of the rest {seen.solid:.0%} is more than a line",
        ),
        (
            PixelCode.PIXELS_SCREEN_CAPTURE,
            seen.screen,
            f"{seen.panels} panels over {seen.panel_share:.0%}, {seen.paints} paints, {seen.colour:.0%} coloured, "
            f"{seen.lines} lines of writing",
        ),
        (
            PixelCode.PIXELS_PHOTOMETRIC,
            modality in _SLICED and seen.reversed_slice,
            f"{seen.bright_border:.0%} of the border is bright, air is dark in {modality}",
        ),
    )
    found = [
        (code, detail) for code, holds, detail in checks if holds and getattr(policy, _FIELD[code]) != "off"
    ][:1]
    if seen.written_upon and not found and policy.burned_in_text != "off":
        found.append((PixelCode.PIXELS_TEXT, f"{seen.lines} runs look like lines of writing"))
    return found


def _verdict(seen: _Seen, policy: PixelPolicy) -> PixelVerdict:
    found = [*seen.plain]
    if seen.shown is not None:
        found += _of_anatomy(seen.shown, seen.modality, policy)
    # Unsure is told last: what is sure weighs more.
    found.sort(key=lambda finding: finding[0] is PixelCode.PIXELS_UNSURE)
    return PixelVerdict(
        tuple(PixelFinding(code, detail, str(getattr(policy, _FIELD[code]))) for code, detail in found)
    )


def _of_anatomy(shown: Shown, modality: str, policy: PixelPolicy) -> list[tuple[PixelCode, str]]:
    """Whether it shows what the model is for, and, if it does and is a chest, whether dark is dark."""
    wanted = shown.probability(*policy.expected_anatomy)
    told = f"{shown.best} {shown.probability(shown.best):.2f}, {' or '.join(policy.expected_anatomy)}"
    if policy.expected_anatomy and policy.anatomy != "off":
        if 1 - wanted >= policy.sure and modality not in _LITTLE_LEARNT:
            return [(PixelCode.PIXELS_ANATOMY, f"shows {told} wanted ({wanted:.2f})")]
        if wanted < policy.enough:
            return [
                (
                    PixelCode.PIXELS_UNSURE,
                    f"shows perhaps {told} wanted ({wanted:.2f}, {policy.enough:g} is enough)",
                )
            ]
    chest = shown.probability("chest_frontal", "chest_lateral") >= policy.sure
    if policy.photometric != "off" and modality not in _SLICED and chest:
        if shown.inverted >= policy.sure:
            return [
                (
                    PixelCode.PIXELS_PHOTOMETRIC,
                    f"a chest shown reversed with probability {shown.inverted:.2f}",
                )
            ]
        if shown.inverted > 0.5:
            return [(PixelCode.PIXELS_UNSURE, f"a chest, perhaps shown reversed ({shown.inverted:.2f})")]
    return []


def _modality(dataset: Dataset) -> str:
    # pydicom decodes a value when it is first looked at, and raises many types on malformed ones.
    try:
        return str(dataset.get("Modality") or "")
    except Exception:
        return ""
