"""All images of a study -> the one series a model reads, by the rules of its bundle."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from outpost.inference.codes import Code, InputRejected
from outpost.inference.header import ImageHeader
from outpost.inference.stack import Stack, stack_slices

if TYPE_CHECKING:
    from outpost.inference.bundle import InputRules


def choose_stack(headers: Sequence[ImageHeader], rules: InputRules) -> Stack:
    """Choose a series and stack it.

    Series whose description matches `prefer_description` come before all others; among equals the finest
    slices win, then the most slices, then the lowest series number. A series that does not stack is passed
    over only for one of the same rank: a preferred series with a lost slice must be seen, not replaced.

    Raises:
        InputRejected: NO_SERIES_FOR_BUNDLE naming what each series lacks, or why the chosen one does not
            stack.
    """
    series: dict[str, list[ImageHeader]] = defaultdict(list)
    for header in headers:
        series[header.series_instance_uid].append(header)

    refused: list[str] = []
    ranks: dict[bool, list[list[ImageHeader]]] = {True: [], False: []}
    for images in series.values():
        if lack := _lacks(images, rules):
            refused.append(f"series {images[0].series_number}: {lack}")
        else:
            preferred = re.search(rules.prefer_description, images[0].series_description) is not None
            ranks[preferred].append(images)

    for rank in (ranks[True], ranks[False]):
        found: list[tuple[float, int, int, str, Stack]] = []
        broken: InputRejected | None = None
        for images in sorted(rank, key=lambda images: (-len(images), images[0].series_instance_uid)):
            try:
                stack = stack_slices(images)
            except InputRejected as rejection:
                broken = broken or rejection
                continue
            if lack := _lacks_extent(stack, rules):
                refused.append(f"series {images[0].series_number}: {lack}")
                continue
            number = images[0].series_number
            found.append(
                (
                    round(stack.spacing_mm[2], 3),
                    -len(images),
                    number if number is not None else 1 << 31,
                    images[0].series_instance_uid,
                    stack,
                )
            )
        if found:
            return min(found, key=lambda entry: entry[:4])[4]
        if broken:
            raise broken
    raise InputRejected(Code.NO_SERIES_FOR_BUNDLE, "; ".join(refused) or "the study holds no images")


def _lacks(images: Sequence[ImageHeader], rules: InputRules) -> str | None:
    """What a series lacks to be read by the model, or None."""
    first = images[0]
    if first.modality != rules.modality:
        return f"modality {first.modality or 'absent'}, {rules.modality} wanted"
    if wrong := {image.sop_class_uid for image in images} - set(rules.sop_class_uids):
        return f"SOP class {', '.join(sorted(wrong)) or 'absent'} is not one the model reads"
    excluded = {value.upper() for value in rules.exclude_image_types}
    if unwanted := excluded.intersection(value for image in images for value in image.image_type):
        return f"image type {', '.join(sorted(unwanted))} is excluded"
    for image in images:
        if image.frames != 1 or image.samples_per_pixel != 1:
            return f"{image.frames} frames and {image.samples_per_pixel} samples a pixel, 1 and 1 wanted"
        if image.photometric_interpretation != "MONOCHROME2":
            return f"photometric interpretation {image.photometric_interpretation}, MONOCHROME2 wanted"
    if len(images) < rules.min_slices:
        return f"{len(images)} slices, at least {rules.min_slices} wanted"
    return None


def _lacks_extent(stack: Stack, rules: InputRules) -> str | None:
    spacing = stack.spacing_mm
    if spacing[2] > rules.max_slice_spacing_mm:
        return f"slices {spacing[2]:.2f} mm apart, at most {rules.max_slice_spacing_mm:.2f} mm wanted"
    extent = min(distance * count for distance, count in zip(spacing, stack.shape, strict=True))
    if extent < rules.min_extent_mm:
        return f"covers {extent:.0f} mm, at least {rules.min_extent_mm:.0f} mm in each direction wanted"
    return None
