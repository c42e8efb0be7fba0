"""The pictures that training draws from, of 256 x 256 pixels and 0 to 1, made once and kept in a file.

Radiographs are those of service/training/radiograph (`simulate`): line integrals through one chest CT, chests drawn
into traced lung outlines, drawn limbs, drawn nothing. Here come what that service did not have to tell: limbs
between the shutters of a collimator, heads as MR and CT slices and as radiographs, screens, pages and photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from simulate import (
    SIZE,
    ChestCt,
    Picture,
    _fitted,
    _scaled,
    drawn_chest,
    drawn_limb,
    drawn_nothing,
    lung_outlines,
    packaged,
)

Pools = dict[str, NDArray[np.uint8]]

# Kind -> class it is an example of, how often it is drawn, how many (for training, for measuring).
KINDS: dict[str, tuple[str, float, int, int]] = {
    "ct_frontal": ("chest_frontal", 0.17, 260, 30),
    "drawn_chest": ("chest_frontal", 0.16, 0, 0),  # one or two for each outline
    "ct_lateral": ("chest_lateral", 0.12, 140, 16),
    "limb": ("limb", 0.05, 200, 30),
    "shuttered_limb": ("limb", 0.11, 500, 40),
    "head_slice": ("head_slice", 0.11, 400, 40),
    "body_slice": ("body_slice", 0.11, 300, 40),
    "ct_from_above": ("other", 0.02, 40, 8),
    "trunk": ("other", 0.03, 160, 16),
    "head_radiograph": ("other", 0.03, 150, 20),
    "screen": ("other", 0.03, 200, 30),
    "photograph": ("other", 0.03, 150, 20),
    "nothing": ("other", 0.03, 300, 30),
}
_OUTLINES_HELD_BACK = 60


def pools(file: Path, seed: int, share: float = 1.0) -> tuple[Pools, Pools]:
    """Pictures for training and for measuring, of (picture, row, column), by the name of their kind.

    Args:
        file: where they are kept; read if it is there.
        seed: of everything random.
        share: of the full number of pictures; less than 1 only to try the script out.
    """
    if not file.exists():
        _make(file, seed, share)
    with np.load(file) as archive:
        return tuple(  # type: ignore[return-value] # two of them
            {name.split("/")[1]: archive[name] for name in archive.files if name.startswith(part)}
            for part in ("train", "measure")
        )


def _make(file: Path, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    ct, head = ChestCt(), Head()

    def project(yaw: Callable[[], float], pitch: Callable[[], float]) -> Iterator[Picture]:
        made = 0
        while True:
            if made % 10 == 0:
                volume = ct.attenuation(rng.uniform(0.2, 1.6), rng.choice([0, rng.uniform(0, 0.25)]))
            made += 1
            yield ct.project(rng, yaw(), pitch(), volume)

    def forever(draw: Callable[[np.random.Generator], Picture]) -> Iterator[Picture]:
        while True:
            yield draw(rng)

    sources: dict[str, Iterator[Picture]] = {
        "ct_frontal": project(lambda: rng.uniform(-15, 15), lambda: rng.uniform(-15, 15)),
        "ct_lateral": project(
            lambda: rng.choice([-90, 90]) + rng.uniform(-20, 20), lambda: rng.uniform(-8, 8)
        ),
        "ct_from_above": project(
            lambda: rng.uniform(-180, 180), lambda: rng.choice([-90, 90]) + rng.uniform(-15, 15)
        ),
        "trunk": (
            _lower_part(picture, rng) for picture in project(lambda: rng.uniform(-30, 30), lambda: 0.0)
        ),
        "limb": forever(drawn_limb),
        "shuttered_limb": forever(shuttered_limb),
        "head_slice": forever(head.slice),
        "head_radiograph": forever(head.radiograph),
        "body_slice": (recoloured(picture, rng) for picture in ct.slices(rng, 1 << 30)),
        "screen": forever(screen),
        "photograph": forever(photographs()),
        "nothing": forever(drawn_nothing),
    }
    made: dict[str, list[Picture]] = {}
    for kind, source in sources.items():
        for part, full in zip(("train", "measure"), KINDS[kind][2:], strict=True):
            made[f"{part}/{kind}"] = [next(source) for _ in range(max(2, int(full * share)))]
    outlines = lung_outlines()
    rng.shuffle(outlines)
    outlines = outlines[: max(4, int(len(outlines) * share))]
    held_back = max(2, int(_OUTLINES_HELD_BACK * share))
    made["measure/drawn_chest"] = [drawn_chest(outline, rng) for outline in outlines[:held_back]]
    made["train/drawn_chest"] = [drawn_chest(outline, rng) for outline in outlines[held_back:]]
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        file, **{name: (np.stack(pictures) * 255).astype(np.uint8) for name, pictures in made.items()}
    )


def _lower_part(picture: Picture, rng: np.random.Generator) -> Picture:
    """What lies below the lungs, enlarged: spine and belly without a lung."""
    top = int(rng.uniform(0.68, 0.75) * SIZE)
    left = int(rng.uniform(0.05, 0.3) * SIZE)
    return _fitted(_scaled(picture[top:, left : left + int(0.62 * SIZE)]))


def shuttered_limb(rng: np.random.Generator) -> Picture:
    """A limb of one to four tapering bones with joints, exposed by X-rays between the shutters of a collimator."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5
    angle = rng.uniform(-0.25, 0.25)
    along = rows * np.cos(angle) - columns * np.sin(angle)
    aside = columns * np.cos(angle) + rows * np.sin(angle) - rng.uniform(-0.12, 0.12)
    reach = rng.uniform(0.07, 0.22)
    waist, bulge = rng.uniform(-0.4, 0.4), rng.uniform(0, 0.35)
    flesh = reach * (1 + rng.uniform(-0.9, 0.9) * along + bulge * np.exp(-(((along - waist) / 0.2) ** 2)))
    end = (
        rng.uniform(0.2, 0.6) if rng.random() < 0.4 else 2.0
    )  # a hand, a foot or a stump may end in the picture
    flesh = np.maximum(flesh * np.sqrt(np.clip(1 - np.clip(along / end, 0, None) ** 6, 0, 1)), 1e-3)
    thick = np.sqrt(np.clip(1 - (aside / flesh) ** 2, 0, 1)) * reach * rng.uniform(2.5, 4)
    bones = int(rng.choice([1, 2, 2, 3, 4]))
    for place in np.linspace(-0.45, 0.45, bones) if bones > 1 else [rng.uniform(-0.2, 0.2)]:
        radius = flesh / max(bones, 1.6) * rng.uniform(0.25, 0.5)
        joint = rng.uniform(-0.5, 0.6)
        flare = 1 + rng.uniform(0.2, 1.2) * np.exp(-(((along - joint) / rng.uniform(0.05, 0.15)) ** 2))
        off = (aside - place * flesh) / (radius * flare)
        hollow = rng.uniform(0.4, 0.75) * np.clip(2 - flare, 0.3, 1)
        bone = np.sqrt(np.clip(1 - off**2, 0, 1)) - 0.7 * hollow * np.sqrt(
            np.clip(1 - (off / hollow) ** 2, 0, 1)
        )
        slit = np.abs(along - joint - 0.02 * np.cos(off)) < rng.uniform(0.003, 0.01)
        thick = thick + np.where(slit | (flesh < 0.01), 0, bone) * radius * rng.uniform(4, 9)
    # The film's answer to the dose: bare exposure is clipped where the dose is too high for it.
    dose = np.exp(-thick * rng.uniform(1.5, 4))
    picture = -np.log(dose + rng.uniform(0.0, 0.1))
    picture = np.clip(picture, np.quantile(picture, rng.uniform(0, 0.1)), None)
    picture = _scaled(picture + 0.01 * ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), 2))
    if rng.random() < 0.75:
        outside = 1.0 if rng.random() < 0.6 else 0.0
        for side in range(4):
            if rng.random() < (0.75 if side % 2 else 0.3):  # along a limb, oftener than across it
                np.rot90(picture, side)[: int(rng.uniform(0.03, 0.3) * SIZE)] = outside
        picture = ndimage.gaussian_filter(picture, (0, rng.uniform(0, 1.5)))
    return np.asarray(picture, dtype=np.float32)


def recoloured(picture: Picture, rng: np.random.Generator) -> Picture:
    """Tissues in other grey values, as another sequence or window shows them; the darkest stays dark."""
    if rng.random() < 0.3:
        return picture
    knots = np.concatenate(([0.0], rng.uniform(0.05, 1, 5)))
    changed = np.interp(picture, np.linspace(0, 1, 6), knots)
    shade = ndimage.zoom(rng.uniform(0.6, 1.3, (3, 3)), SIZE / 3, order=1)[:SIZE, :SIZE]
    return _scaled(changed * shade)


class Head:
    """The MNI152 head template that nilearn carries, as slices and, with a skull put round the brain, X-rayed."""

    def __init__(self) -> None:
        folder = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
        t1, grey, white = (
            np.asarray(nibabel.load(packaged("nilearn", folder.format(part))).dataobj, dtype=np.float32)
            for part in ("t1", "gm", "wm")
        )
        self._t1 = t1 / np.percentile(t1, 99.8)
        brain = ndimage.binary_closing((grey + white) > 0.3 * max(grey.max(), white.max()), iterations=3)
        room = [(14, 14)] * 3
        self._t1, brain = np.pad(self._t1, room), np.pad(brain, room)
        # Millimetres from the brain: fluid, skull, scalp. The template has none of them.
        self._gap = ndimage.distance_transform_edt(~brain).astype(np.float32)
        self._skull = (self._gap >= 2) & (self._gap < 8)
        self._head = self._gap < 11

    def slice(self, rng: np.random.Generator) -> Picture:
        """One slice in any of the three planes: MR of any contrast, or as CT shows it."""
        axis = int(rng.choice([0, 1, 2], p=[0.3, 0.25, 0.45]))
        size = self._t1.shape[axis]
        at = int(rng.uniform(0.25, 0.8) * size)
        gap, t1 = np.take(self._gap, at, axis), np.take(self._t1, at, axis)
        grain = ndimage.gaussian_filter(rng.standard_normal(gap.shape).astype(np.float32), rng.uniform(1, 3))
        grain = 1 + 0.3 * grain / grain.std()
        kind = rng.random()
        if kind < 0.2:  # as CT: bone bright, brain one grey with a little of its own
            plane = 0.45 * (gap < rng.uniform(9, 13)) + 0.5 * np.take(self._skull, at, axis)
            picture = ndimage.gaussian_filter(plane + rng.uniform(0, 0.25) * t1, 0.7)
        elif kind < 0.35:  # the brain alone, as some send it
            picture = t1
        else:
            bone, scalp = rng.uniform(2, 4), rng.uniform(4, 8)
            rim = rng.uniform(9, 14)
            outer = gap + self._face(gap.shape, axis, rng)
            picture = np.where(gap < bone, t1 + 0.15 * (t1 < 0.05), 0)
            picture = picture + rng.uniform(0.02, 0.25) * ((gap >= bone) & (gap < scalp))
            picture = picture + rng.uniform(0.4, 1.2) * grain * ((gap >= scalp) & (outer < rim))
            picture = ndimage.gaussian_filter(picture.astype(np.float32), rng.uniform(0.3, 0.8))
        picture = np.rot90(picture)
        rows, columns = picture.shape
        square = max(rows, columns)
        square = int(square * rng.uniform(1.0, 1.3)) if rng.random() < 0.6 else square
        room = np.zeros((square, square), dtype=np.float32)
        top, left = (square - rows) // 2, (square - columns) // 2
        room[top : top + rows, left : left + columns] = picture
        return recoloured(_fitted(np.clip(room, 0, 1)), rng)

    @staticmethod
    def _face(shape: tuple[int, ...], axis: int, rng: np.random.Generator) -> Picture:
        """Less than 0 where the head goes on although the brain is far: face and neck, of any form."""
        if rng.random() < 0.3:
            return np.zeros(shape, dtype=np.float32)
        across, up = np.meshgrid(*(np.linspace(0, 1, size) for size in shape), indexing="ij")
        middle = rng.uniform(0.45, 0.9) if axis != 1 else 0.5  # the second axis points to the face
        low = ((across - middle) / rng.uniform(0.2, 0.4)) ** 2 + (
            (up - 0.1) / rng.uniform(0.15, 0.45)
        ) ** 2 < 1
        return np.where(low, -100, 0).astype(np.float32)

    def radiograph(self, rng: np.random.Generator) -> Picture:
        """The skull from the front, the side or anywhere between."""
        thick = self._head[::2, ::2, ::2] + rng.uniform(1.5, 4) * self._skull[::2, ::2, ::2]
        turned = ndimage.rotate(thick, rng.uniform(0, 360), axes=(0, 1), order=1, reshape=False)
        picture = np.rot90(turned.sum(0)).astype(np.float32)
        return _fitted(_scaled(ndimage.gaussian_filter(picture, 0.7)))


def screen(rng: np.random.Generator) -> Picture:
    """Windows, lists, pages and forms, drawn as a program draws them."""
    dark = rng.random() < 0.5
    image = Image.new("L", (2 * SIZE, 2 * SIZE), int(rng.integers(0, 70) if dark else rng.integers(180, 256)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 12))):
        left, top = (int(value) for value in rng.integers(0, 2 * SIZE, 2))
        wide, tall = int(rng.integers(20, 400)), int(rng.integers(10, 300))
        draw.rectangle((left, top, left + wide, top + tall), fill=int(rng.integers(0, 256)), outline=128)
    ink = int(rng.integers(170, 256) if dark else rng.integers(0, 90))
    for _ in range(int(rng.integers(3, 40))):
        left, top = (int(value) for value in rng.integers(0, 2 * SIZE, 2))
        letters = rng.integers(33, 126, int(rng.integers(3, 40)))
        draw.text((left, top), "".join(map(chr, letters)), fill=ink, font_size=int(rng.integers(8, 28)))
    return _fitted(np.asarray(image, dtype=np.float32) / 255)


def photographs() -> Callable[[np.random.Generator], Picture]:
    """Draws pieces of scikit-learn's two photographs, grey."""
    images = [
        np.asarray(
            Image.open(packaged("scikit-learn", f"sklearn/datasets/images/{name}.jpg")).convert("L"),
            dtype=np.float32,
        )
        for name in ("china", "flower")
    ]

    def draw(rng: np.random.Generator) -> Picture:
        image = images[int(rng.integers(len(images)))]
        side = int(rng.uniform(0.3, 1.0) * min(image.shape))
        top, left = (int(rng.integers(0, size - side + 1)) for size in image.shape)
        return _fitted(_scaled(image[top : top + side, left : left + side]))

    return draw
