"""What a site decides about the pixel verdict: which finding ends a study, and what becomes of doubt.

Thresholds of the single checks are not here: they were set on the corpus (docs/filter-corpus.md), where no good
image may be refused, and a site has no means to set them better. What it does know is which anatomy its model is
for, how sure is sure enough, and whether a doubtful study is worth computing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# `reject` ends the study (of radiographs: the image); `accept` counts the finding and computes; `off` does not look.
CheckAction = Literal["reject", "accept", "off"]
# `hold` keeps the study in quarantine for a person to look at.
UnsureAction = Literal["accept", "reject", "hold"]
# What the anatomy classifier can tell apart and a model may be for.
Anatomy = Literal["chest_frontal", "chest_lateral", "limb", "head_slice", "body_slice"]


class PixelPolicy(BaseModel):
    """`pixels` of a rule set. The defaults refuse only what no model can use, and no anatomy.

    Attributes:
        blank: nothing but one value, a ramp or noise.
        zeros: every pixel is 0.
        saturated: nearly all of the image is at the least or greatest value.
        clipped: what lies between the extremes is too little to read.
        screen_capture: a picture of a screen, a page or a photograph instead of an acquired image.
        photometric: dark is shown as bright: the photometric interpretation is wrong.
        burned_in_text: suspicion only, so it is counted and not refused; writing on images is usual in places.
        anatomy: another part of the body than `expected_anatomy`; not looked at while that is empty.
        plausible: the model's answer is not what it gives on what it is for (`plausible` in its outpost.yaml).
        unsure: the pixels, or the answer, do not say enough for a verdict. Accepted, the result tells the doubt.
        expected_anatomy: what the model is for; empty takes any.
        sure: least probability at which the classifier's answer counts; below it the verdict is unsure.
        likely: probability of `expected_anatomy` from which on nothing is told; left out, `sure`.
        slices_per_series: how many slices of a volume are looked at, evenly spread over its middle; of anatomy, in
            each of the three planes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    blank: CheckAction = "reject"
    zeros: CheckAction = "reject"
    saturated: CheckAction = "reject"
    clipped: CheckAction = "reject"
    screen_capture: CheckAction = "reject"
    photometric: CheckAction = "reject"
    burned_in_text: CheckAction = "accept"
    anatomy: CheckAction = "reject"
    plausible: CheckAction = "reject"
    unsure: UnsureAction = "accept"
    expected_anatomy: tuple[Anatomy, ...] = ()
    sure: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    likely: Annotated[float, Field(ge=0, lt=1)] | None = None
    slices_per_series: Annotated[int, Field(ge=1, le=15)] = 3

    @property
    def enough(self) -> float:
        """Probability of `expected_anatomy` below which there is doubt."""
        return self.sure if self.likely is None else self.likely


# For a study that a person has looked at and wants computed all the same; what the answer is like is told.
LOOKS_AT_NOTHING = PixelPolicy(
    blank="off",
    zeros="off",
    saturated="off",
    clipped="off",
    screen_capture="off",
    photometric="off",
    burned_in_text="off",
    anatomy="off",
    plausible="accept",
)
