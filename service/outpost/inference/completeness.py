"""Whether what came of a study is all of it: what the headers announce, what they betray, what the transfer showed.

Signs that tell of a part, each alone:
    - NumberOfSeriesRelatedInstances or ImagesInSeries above the images of the series.
    - ImagesInAcquisition above the images of the series; unless they are reformatted, or series of the same acquisition
      make up the number, or the series is of one later echo and the number a multiple of its images.
    - NumberOfSlices (PET, NM) or Philips' number of slices above the slices; unless they are reformatted.
    - Echoes or temporal positions of a series of unlike length.
    - Fewer temporal positions in the study than NumberOfTemporalPositions.
    - A transfer that broke off or a refused context (`StudyContext.broken_off`); unless a count says that the series
      (for single images, the study) is whole.
Signs that tell of a part together; the first two not where a count says that the series is whole:
    - A comb: InstanceNumber in steps of n, its gaps nowhere in the study, and SpacingBetweenSlices or SliceThickness
      a whole n-th of the distance between slices.
    - A comb: SpacingBetweenSlices and SliceThickness both the same whole part of that distance.
    - NumberOfStudyRelatedInstances or ImagesInStudy above the images of the study, and InstanceNumber of the series
      with gaps or not from 1.

Not taken for a sign alone, as whole studies show it: InstanceNumber with gaps or not from 1 (numbered across series,
or images deleted on purpose), a count for the study (reports and other series count too), slices with gaps between
them, SpacingBetweenSlices that contradicts the positions. A gap between slices needs no sign: such a series does not
stack, and is refused as SLICES_MISSING. A series that lacks its end, without any count and from a transfer that ended
well, cannot be told from a whole one here.

Numbers are taken as most images of the series give them; one that is none, or not above 0, says nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

from pydicom.dataset import Dataset

from outpost.codes.notes import Note, NoteCode
from outpost.inference.codes import Code, InputRejected, StudyIncomplete
from outpost.inference.context import StudyContext
from outpost.inference.header import ImageHeader
from outpost.inference.stack import Stack

Policy = Literal["refuse", "compute"]

_OF_SERIES: Final = ("NumberOfSeriesRelatedInstances", "ImagesInSeries")
_OF_STUDY: Final = ("NumberOfStudyRelatedInstances", "ImagesInStudy")
# In ImageType, of volumes cut anew.
_REFORMATTED: Final = frozenset(
    {"MPR", "CSA MPR", "CSAPARALLEL", "REFORMATTED", "RESAMPLED", "MIP", "PROJECTION IMAGE", "AVERAGE"}
)
_FOR_WANT_OF_SLICES: Final = (Code.SLICES_MISSING, Code.SLICES_UNEVEN)
# Of the distance between slices: senders round to three decimals.
_TOLERANCE: Final = 0.02


def require_whole_volume(
    stack: Stack, study: Sequence[ImageHeader], context: StudyContext, policy: Policy
) -> tuple[Note, ...]:
    """Hold, refuse or remark a volume that is a part.

    Args:
        stack: what the model is to read.
        study: all images of the study.
        context: what is known beside the headers.
        policy: of the bundle, once no more is waited for.

    Returns:
        A note STUDY_PARTIAL where the volume is a part and is computed nevertheless.

    Raises:
        StudyIncomplete: images may still come.
        InputRejected: STUDY_INCOMPLETE.
    """
    return _decide(lacks_of_volume(stack, study, context.broken_off), context, policy)


def require_all_radiographs(
    images: Sequence[ImageHeader], study: Sequence[ImageHeader], context: StudyContext, policy: Policy
) -> tuple[Note, ...]:
    """The same of single images: `images` are those that the model is to read."""
    return _decide(lacks_of_radiographs(images, study, context.broken_off), context, policy)


def hold_if_more_may_come(
    rejection: InputRejected, study: Sequence[ImageHeader], context: StudyContext
) -> None:
    """Hold a study that was refused, where the transfer broke off, or where slices are missing that headers announce.

    Raises:
        StudyIncomplete: images may still come.
        InputRejected: they did not come, which is the reason (STUDY_INCOMPLETE) or belongs to it.
    """
    if context.overruled:
        return
    signs = list(context.broken_off)
    if rejection.code in (*_FOR_WANT_OF_SLICES, Code.NO_SERIES_FOR_BUNDLE):
        for uid in dict.fromkeys(header.series_instance_uid for header in study):
            series = [header for header in study if header.series_instance_uid == uid]
            signs += _lacks_by_count(series, study)[0]
    if not signs:
        return
    lacks = tuple(dict.fromkeys((rejection.message, *signs)))
    if not context.forced:
        raise StudyIncomplete(lacks) from rejection
    if rejection.code in _FOR_WANT_OF_SLICES:
        raise InputRejected(Code.STUDY_INCOMPLETE, "; ".join(lacks), hold=True) from rejection
    # Whether the rest would have made it a study for this model, nobody knows.
    raise InputRejected(rejection.code, "; ".join(lacks), rejection.hold) from rejection


def lacks_of_volume(
    stack: Stack, study: Sequence[ImageHeader], broken_off: Sequence[str] = ()
) -> tuple[str, ...]:
    """What shows that a volume is a part: a sentence each, with the number found and the number wanted."""
    uid = stack.images[0].series_instance_uid
    series = [header for header in study if header.series_instance_uid == uid]
    lacks, whole = _lacks_by_count(series, study)
    lacks += _lacks_slices(stack)
    lacks += _uneven(series)
    lacks += _lacks_times(series, study)
    lacks += _lacks_of_study(series, study)
    if not whole:
        lacks += _comb(stack, study)
        lacks += broken_off
    return tuple(dict.fromkeys(lacks))


def lacks_of_radiographs(
    images: Sequence[ImageHeader], study: Sequence[ImageHeader], broken_off: Sequence[str] = ()
) -> tuple[str, ...]:
    """What shows that images of a study are missing beside these."""
    lacks: list[str] = []
    for uid in dict.fromkeys(image.series_instance_uid for image in images):
        series = [header for header in study if header.series_instance_uid == uid]
        lacks += _lacks_by_count(series, study)[0]
        lacks += _lacks_of_study(series, study)
    announced = _announced(study, _OF_STUDY)
    if announced is None or announced[1] > len(study):
        lacks += broken_off
    return tuple(dict.fromkeys(lacks))


def _decide(lacks: tuple[str, ...], context: StudyContext, policy: Policy) -> tuple[Note, ...]:
    if not lacks:
        return ()
    if not context.forced and not context.overruled:
        raise StudyIncomplete(lacks)
    if policy == "refuse" and not context.overruled:
        raise InputRejected(Code.STUDY_INCOMPLETE, "; ".join(lacks), hold=True)
    return (Note(NoteCode.STUDY_PARTIAL, "; ".join(lacks)),)


def _lacks_by_count(series: Sequence[ImageHeader], study: Sequence[ImageHeader]) -> tuple[list[str], bool]:
    """What a series lacks by its counts, and whether one says that it is whole."""
    lacks, whole = [], False
    found, name = len(series), _name(series)
    if (announced := _announced(series, _OF_SERIES)) is not None:
        keyword, number = announced
        if found < number:
            lacks.append(f"{name} holds {found} images, {keyword} says {number}")
        whole = found >= number
    if (announced := _announced(series, ("ImagesInAcquisition",))) is not None:
        number = announced[1]
        if found >= number or _shared(series, study, number):
            whole = whole or not lacks
        elif not _derived(series) and not (number % found == 0 and _is_one_echo(series)):
            lacks.append(f"{name} holds {found} images, ImagesInAcquisition says {number}")
    return lacks, whole and not lacks


def _shared(series: Sequence[ImageHeader], study: Sequence[ImageHeader], number: int) -> bool:
    """Whether series of one acquisition make up its number of images exactly."""
    acquisition = _number(series[0].dataset, "AcquisitionNumber")
    sizes = Counter(
        header.series_instance_uid
        for header in study
        if _number(header.dataset, "AcquisitionNumber") == acquisition
        and _number(header.dataset, "ImagesInAcquisition") == number
    )
    return sum(size for size in sizes.values() if size < number) == number


def _is_one_echo(series: Sequence[ImageHeader]) -> bool:
    """Whether all images are of one echo that is not the first: the others are in series of their own."""
    echoes = {_number(header.dataset, "EchoNumbers") for header in series}
    return len(echoes) == 1 and (echoes.pop() or 0) > 1


def _lacks_slices(stack: Stack) -> list[str]:
    images = stack.images
    if _derived(images):
        return []
    announced = _announced(images, ("NumberOfSlices",)) or _announced_by_philips(images)
    if announced is None or announced[1] <= len(images):
        return []
    return [f"{_name(images)} has {len(images)} slices, {announced[0]} says {announced[1]}"]


def _uneven(series: Sequence[ImageHeader]) -> list[str]:
    """Echoes or temporal positions of which one has fewer images than another."""
    lacks = []
    for keyword in ("EchoNumbers", "TemporalPositionIdentifier"):
        by_type: dict[tuple[str, ...], Counter[int]] = {}
        for header in series:
            if (number := _number(header.dataset, keyword)) is not None:
                by_type.setdefault(header.image_type, Counter())[number] += 1
        for sizes in by_type.values():
            if len(set(sizes.values())) > 1:
                told = ", ".join(f"{number}: {size}" for number, size in sorted(sizes.items())[:8])
                lacks.append(f"{_name(series)} is uneven, images by {keyword}: {told}")
    return lacks


def _lacks_times(series: Sequence[ImageHeader], study: Sequence[ImageHeader]) -> list[str]:
    announced = _announced(series, ("NumberOfTemporalPositions",))
    if announced is None:
        return []
    there = {
        number
        for header in study
        if _number(header.dataset, "NumberOfTemporalPositions") == announced[1]
        and (number := _number(header.dataset, "TemporalPositionIdentifier")) is not None
    }
    if not there or len(there) >= announced[1]:
        return []
    return [
        f"of {announced[1]} temporal positions that NumberOfTemporalPositions announces, {len(there)} are there"
    ]


def _lacks_of_study(series: Sequence[ImageHeader], study: Sequence[ImageHeader]) -> list[str]:
    announced = _announced(series, _OF_STUDY)
    if announced is None or announced[1] <= len(study):
        return []
    numbers = sorted(_instance_numbers(series))
    if not numbers or (numbers[0] <= 1 and numbers[-1] - numbers[0] == len(numbers) - 1):
        return []
    return [
        f"the study holds {len(study)} images, {announced[0]} says {announced[1]}, and the images of "
        f"{_name(series)} are numbered {numbers[0]} to {numbers[-1]} with {_holes(numbers)} missing"
    ]


def _comb(stack: Stack, study: Sequence[ImageHeader]) -> list[str]:
    """Every second slice, or every third: evenly spaced, so that positions alone do not betray it."""
    images = stack.images
    distance = stack.spacing_mm[2]
    finer = {
        keyword: times
        for keyword in ("SpacingBetweenSlices", "SliceThickness")
        if (times := _times(distance, _real(images[0].dataset, keyword))) > 1
    }
    step = _step(images, study)
    if step > 1 and step in finer.values():
        keyword = next(name for name, times in finer.items() if times == step)
        return [
            f"{_name(images)} is numbered in steps of {step}, and its slices are {distance:.3f} mm apart, "
            f"{step} times its {keyword}"
        ]
    if len(finer) == 2 and len(set(finer.values())) == 1:
        times = finer["SliceThickness"]
        return [
            f"slices of {_name(images)} are {distance:.3f} mm apart, {times} times both SpacingBetweenSlices and "
            "SliceThickness"
        ]
    return []


def _times(distance: float, part: float | None) -> int:
    """How many times a part goes into a distance; 0 where it is not a whole number of times."""
    if not part or not part > 0:
        return 0
    times = round(distance / part) if distance / part < 1000 else 0
    return times if times and abs(distance - times * part) <= _TOLERANCE * distance else 0


def _step(images: Sequence[ImageHeader], study: Sequence[ImageHeader]) -> int:
    """By how much InstanceNumber grows from slice to slice; 0 where not evenly, or others fill the gaps."""
    numbers = [_number(image.dataset, "InstanceNumber") for image in images]
    if any(number is None for number in numbers):
        return 0
    steps = {abs(other - one) for one, other in pairwise(numbers) if one is not None and other is not None}
    if len(steps) != 1:
        return 0
    taken = {id(image) for image in images}
    frame = images[0].frame_of_reference_uid
    others = {
        _number(header.dataset, "InstanceNumber")
        for header in study
        if id(header) not in taken and header.frame_of_reference_uid == frame
    }
    known = [number for number in numbers if number is not None]
    between = set(range(min(known), max(known))) - set(known)
    return steps.pop() if not between & others else 0


def _announced(images: Sequence[ImageHeader], keywords: Sequence[str]) -> tuple[str, int] | None:
    """The first of these attributes that most images give as a number above 0."""
    for keyword in keywords:
        numbers = Counter(
            number
            for image in images
            if (number := _number(image.dataset, keyword)) is not None and number > 0
        )
        if numbers:
            return keyword, max(numbers, key=lambda number: (numbers[number], number))
    return None


def _announced_by_philips(images: Sequence[ImageHeader]) -> tuple[str, int] | None:
    """Number of Slices MR (2001,xx18) of "Philips Imaging DD 001", which their classic MR images carry."""
    try:
        value = images[0].dataset.private_block(0x2001, "Philips Imaging DD 001")[0x18].value
        number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)
    except Exception:  # KeyError where there is none; pydicom raises many types on malformed values
        return None
    return ("Philips' number of slices", number) if 0 < number < 1 << 16 else None


def _derived(images: Sequence[ImageHeader]) -> bool:
    """Reformatted from other images: counts in them are those of their source.

    DERIVED alone does not say so: corrected images, as many as there were, call themselves that too.
    """
    return any(
        "SECONDARY" in image.image_type[:2] or not _REFORMATTED.isdisjoint(image.image_type)
        for image in images
    )


def _instance_numbers(images: Sequence[ImageHeader]) -> set[int]:
    return {number for image in images if (number := _number(image.dataset, "InstanceNumber")) is not None}


def _holes(numbers: Sequence[int]) -> int:
    """How many of 1 to the last are not there."""
    return max(numbers[-1], 0) - sum(number > 0 for number in numbers)


def _name(images: Sequence[ImageHeader]) -> str:
    number = images[0].series_number
    return f"series {number}" if number is not None else "a series without a number"


def _number(dataset: Dataset, keyword: str) -> int | None:
    number = _real(dataset, keyword)
    return int(number) if number is not None and number == int(number) else None


def _real(dataset: Dataset, keyword: str) -> float | None:
    """A number; None where there is none. Several values, as of an echo train, are none."""
    try:
        value = dataset.get(keyword)
        number = float(value) if value is not None and value != "" else None
    except Exception:  # pydicom decodes a value when it is first looked at, and raises many types
        return None
    return number if number is not None and abs(number) < 1e9 else None
