#!/usr/bin/env python3
"""The corpus of the pixel verdict: which image, changed how, judged for which model, and what must come out.

    python tests/unit/filter_corpus.py --write

writes the confusion matrix to docs/filter-corpus.md. Images are read from installed packages (pydicom, pydicom-data,
deid-data, pynetdicom, Debian's mricron-data) or drawn here; none is in this repository, and none was trained on.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from pydicom.dataset import Dataset

from outpost.filter.pixel_policy import PixelPolicy
from outpost.filter.pixels import PixelVerdict, judge_frame, judge_volume, slices_to_judge
from outpost.filter.thumbnail import render
from outpost.inference.codes import Code, InputRejected
from outpost.inference.decode import decode_image
from outpost.inference.header import read_header

PAGE = Path(__file__).parents[2] / "docs" / "filter-corpus.md"
HEAD = Path("/usr/share/mricron/templates/ch2.nii.gz")

ANY = PixelPolicy()
CHEST = PixelPolicy(expected_anatomy=("chest_frontal", "chest_lateral"), unsure="hold")
HEAD_SLICES = PixelPolicy(expected_anatomy=("head_slice",), unsure="hold")
HEAD_OR_DOUBT = PixelPolicy(expected_anatomy=("head_slice",))
NO_WRITING = PixelPolicy(burned_in_text="reject")
_MODELS = {
    ANY: "any",
    CHEST: "chest",
    HEAD_SLICES: "head",
    HEAD_OR_DOUBT: "head, doubt accepted",
    NO_WRITING: "any, no writing",
}

# What a verdict is called in the matrix when no reason code ends the image.
ACCEPTED = "accepted"
Pixels = NDArray[Any]
Change = Callable[[Pixels, Dataset], tuple[Pixels, Dataset]]


@dataclass(frozen=True)
class Case:
    """One image or series.

    Attributes:
        kind: row of the matrix.
        name: what it is.
        make: gives the verdict.
        policy: what the model is for.
        wanted: verdicts that are right.
    """

    kind: str
    name: str
    make: Callable[[PixelPolicy], PixelVerdict]
    policy: PixelPolicy
    wanted: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether refusing it would be a false reject."""
        return self.wanted[0] == ACCEPTED

    @property
    def model(self) -> str:
        return _MODELS[self.policy]

    def verdict(self) -> str:
        """`accepted`, or the code that ends it."""
        try:
            against = self.make(self.policy).against
        except InputRejected as rejection:
            return str(rejection.code)
        return ACCEPTED if against is None else str(against.code)


def packaged(package: str, name: str) -> Path:
    """A file of an installed package by its name."""
    for file in distribution(package).files or ():
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"{package} has no file {name}: pip install -r requirements-dev.txt")


def unchanged(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
    return pixels, dataset


def frame(package: str, name: str, change: Change = unchanged) -> Callable[[PixelPolicy], PixelVerdict]:
    """One frame of a file (the middle one), changed, and judged."""

    def make(policy: PixelPolicy) -> PixelVerdict:
        pixels, dataset = change(*_decoded(package, name))
        return judge_frame(pixels, dataset, policy)

    return make


def _judged_file(path: Path, policy: PixelPolicy) -> PixelVerdict:
    header = read_header(path)
    return judge_frame(decode_image(header).pixels, header.dataset, policy)


def _decoded(package: str, name: str) -> tuple[Pixels, Dataset]:
    header = read_header(packaged(package, name))
    pixels = decode_image(header).pixels
    if header.frames > 1:
        pixels = pixels[header.frames // 2]
    return pixels, header.dataset


# --- changes ---


def tagged(**values: Any) -> Change:
    def change(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return pixels, dataset

    return change


def other_encoding(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
    """The same image in the other photometric interpretation: pixels reversed and the tag with them."""
    dataset.PhotometricInterpretation = _other(dataset)
    return int(pixels.max()) - pixels.astype(np.int32) + int(pixels.min()), dataset


def wrong_photometric(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
    """The tag changed without the pixels."""
    dataset.PhotometricInterpretation = _other(dataset)
    return pixels, dataset


def _other(dataset: Dataset) -> str:
    return "MONOCHROME1" if dataset.PhotometricInterpretation == "MONOCHROME2" else "MONOCHROME2"


def replaced(draw: Callable[[tuple[int, ...], np.random.Generator], Pixels]) -> Change:
    """The header kept, the pixels drawn."""

    def change(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
        dataset.PhotometricInterpretation = "MONOCHROME2"
        return draw(pixels.shape[:2], np.random.default_rng(7)), dataset

    return change


def windowed(low: float, high: float) -> Change:
    """A window between these hundredths of the image, burned in."""

    def change(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
        least, greatest = np.percentile(pixels, (low, high))
        return np.clip(pixels, least, greatest), dataset

    return change


def overexposed(share: float) -> Change:
    """All but a share of the image at the greatest value."""

    def change(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
        return np.clip(pixels, None, np.quantile(pixels, share)), dataset

    return change


def greyscale(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
    """A colour image as a grey radiograph, in the shape of one."""
    dataset.PhotometricInterpretation, dataset.Modality = "MONOCHROME2", "DX"
    dataset.SamplesPerPixel, dataset.BodyPartExamined = 1, "CHEST"
    return pixels.mean(axis=2).astype(np.uint16) * 16, dataset


def annotated(pixels: Pixels, dataset: Dataset) -> tuple[Pixels, Dataset]:
    """Name and date of a person who does not exist, written into the upper corner so that it can be read."""
    image = Image.new("L", (pixels.shape[1], pixels.shape[0]))
    draw, size = ImageDraw.Draw(image), max(pixels.shape) // 45
    for line, text in enumerate(
        ("IVANOV IVAN IVANOVICH", "ID 00012345  1957-03-14", "CITY HOSPITAL 7  ROOM 12")
    ):
        draw.text((size, size * (1 + 1.4 * line)), text, fill=255, font_size=size)
    corner = pixels[: size * 6, : size * 20]
    ink = pixels.max() if corner.mean() < (pixels.min() + pixels.max()) / 2 else pixels.min()
    return np.where(np.asarray(image) > 127, ink, pixels), dataset


# --- drawn pixels ---


def _zeros(shape: tuple[int, ...], _: np.random.Generator) -> Pixels:
    return np.zeros(shape, dtype=np.uint16)


def _constant(shape: tuple[int, ...], _: np.random.Generator) -> Pixels:
    return np.full(shape, 812, dtype=np.uint16)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    return rng.normal(2000, 60, shape).clip(0, 4095).astype(np.uint16)


def _flat_field(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """An exposure without a patient: the heel effect of the anode, and noise."""
    rows, columns = (np.linspace(-1, 1, size) for size in shape)
    dose = 2500 - 400 * rows[:, None] - 250 * columns[None, :] ** 2
    return (dose + rng.normal(0, 40, shape)).astype(np.uint16)


def _ramp(shape: tuple[int, ...], _: np.random.Generator) -> Pixels:
    return np.tile(np.linspace(0, 4095, shape[1]).astype(np.uint16), (shape[0], 1))


@cache
def _seen(package: str, name: str) -> Image.Image:
    """An image as a viewer shows it."""
    return Image.fromarray(render(*_decoded(package, name), largest=700))


_PICTURES = (
    ("pydicom-data", "RG1_UNCR.dcm"),
    ("pydicom-data", "693_UNCR.dcm"),
    ("pydicom-data", "MR2_UNCR.dcm"),
    ("pydicom-data", "explicit_VR-UN.dcm"),
)


def viewer(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """A radiology viewer: toolbar, list of series with their thumbnails, four images with overlays."""
    image = Image.new("L", (1600, 1000), 24)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 1600, 56), fill=58)
    for number in range(18):
        draw.rounded_rectangle((12 + 52 * number, 8, 54 + 52 * number, 48), 6, fill=86, outline=120)
    draw.rectangle((0, 57, 260, 1000), fill=40)
    for number in range(6):
        top = 80 + 150 * number
        draw.rectangle((16, top, 244, top + 130), fill=66)
        image.paste(_seen(*_PICTURES[number % 4]).resize((110, 110)), (24, top + 10))
        for line in range(3):
            draw.text((144, top + 18 + 26 * line), f"S{number + 1} AX T{line + 1}", fill=210, font_size=16)
    for number, picture in enumerate(_PICTURES):
        left, top = 268 + 664 * (number % 2), 64 + 466 * (number // 2)
        draw.rectangle((left, top, left + 656, top + 458), fill=0, outline=90)
        image.paste(_seen(*picture).resize((440, 440)), (left + 108, top + 9))
        for line in range(4):
            draw.text(
                (left + 8, top + 8 + 22 * line),
                f"Im {int(rng.integers(300))}/320 W 400 L 40",
                fill=230,
                font_size=16,
            )
    return np.asarray(image, dtype=np.uint16) * 16


def worklist(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """A light window with a table of patients who do not exist, and a form beside it."""
    image = Image.new("L", (1280, 1024), 236)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 1280, 36), fill=150)
    draw.rectangle((20, 60, 860, 1000), fill=255, outline=130)
    for row in range(26):
        top = 64 + 36 * row
        if row % 2 == 0:
            draw.rectangle((21, top, 859, top + 35), fill=222)
        for column in range(5):
            letters = "".join(map(chr, rng.integers(65, 91, 9)))
            draw.text((30 + 166 * column, top + 8), letters, fill=20, font_size=18)
    for row in range(9):
        draw.rectangle((900, 80 + 90 * row, 1250, 120 + 90 * row), fill=250, outline=110)
        draw.text((905, 56 + 90 * row), "Referring physician", fill=40, font_size=17)
    draw.rectangle((1050, 940, 1250, 990), fill=120)
    return np.asarray(image, dtype=np.uint16) * 16


def report_page(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """A scanned report: lines of writing on white paper."""
    image = Image.new("L", (1240, 1754), 255)
    draw = ImageDraw.Draw(image)
    draw.text((120, 110), "RADIOLOGY REPORT", fill=0, font_size=42)
    for line in range(38):
        words = " ".join(
            "".join(map(chr, rng.integers(97, 123, int(rng.integers(2, 10)))))
            for _ in range(int(rng.integers(6, 12)))
        )
        draw.text((120, 220 + 36 * line), words, fill=10, font_size=24)
    return np.asarray(image, dtype=np.uint16)


def dose_sheet(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """The dose page of a CT: bright writing in rows on black, ruled."""
    image = Image.new("L", (512, 512), 0)
    draw = ImageDraw.Draw(image)
    for row in range(18):
        draw.text(
            (16, 16 + 26 * row),
            f"{row + 1:>2} Helical  120 kV {int(rng.integers(90, 300))} mAs",
            fill=255,
            font_size=15,
        )
        draw.text(
            (320, 16 + 26 * row),
            f"CTDI {rng.uniform(2, 30):6.2f} DLP {rng.uniform(50, 800):7.1f}",
            fill=255,
            font_size=15,
        )
    return np.asarray(image, dtype=np.uint16) * 16


def photographed_film(shape: tuple[int, ...], rng: np.random.Generator) -> Pixels:
    """A chest film on a light box, photographed askew by a telephone, with the room around it."""
    film = _seen("pydicom-data", "RG1_UNCR.dcm").resize((700, 740))
    room = Image.new("L", (1400, 1050), 62)
    box = ImageDraw.Draw(room)
    box.polygon(((180, 60), (1160, 110), (1200, 1000), (150, 960)), fill=225)
    tilted = film.rotate(-4, expand=True, fillcolor=225, resample=Image.Resampling.BICUBIC)
    room.paste(tilted, (310, 130))
    blurred = np.asarray(room.filter(ImageFilter.GaussianBlur(1.5)), dtype=np.float32)
    glare = 60 * np.exp(-(((np.arange(1400) - 900) / 160) ** 2))[None, :] * np.linspace(1, 0, 1050)[:, None]
    return (np.clip(blurred + glare + rng.normal(0, 4, blurred.shape), 0, 255) * 16).astype(np.uint16)


# --- volumes ---


@cache
def _head() -> NDArray[np.float32]:
    """Debian's ch2: one adult's head, T1-weighted, axes right, anterior, superior."""
    return np.asarray(nibabel.load(HEAD).dataobj, dtype=np.float32)


def head_series(
    axis: int, change: Callable[[Pixels], Pixels] = lambda volume: volume
) -> Callable[[PixelPolicy], PixelVerdict]:
    """The head as a series of sagittal, coronal or axial slices."""

    def make(policy: PixelPolicy) -> PixelVerdict:
        volume = change(_head())
        planes = [
            np.ascontiguousarray(np.rot90(np.take(volume, index, axis)))
            for index in slices_to_judge(volume.shape[axis], policy)
        ]
        return judge_volume(planes, _mr_header(), policy)

    return make


def _mr_header(photometric: str = "MONOCHROME2") -> Dataset:
    dataset = Dataset()
    dataset.Modality, dataset.PhotometricInterpretation = "MR", photometric
    return dataset


def _padded(volume: Pixels) -> Pixels:
    return np.pad(volume, ((30, 30), (20, 20), (30, 30)))


def _noisy(volume: Pixels) -> Pixels:
    """Magnitude of complex noise: MR's background is never quite zero."""
    rng = np.random.default_rng(3)
    real, imaginary = (rng.normal(0, 6, volume.shape) for _ in range(2))
    return np.hypot(volume + real, imaginary)


def _coarse(volume: Pixels) -> Pixels:
    return volume[::2, ::2, ::2]


# --- the list ---

_REJECTED_ANATOMY = ("PIXELS_ANATOMY", "PIXELS_UNSURE")
_ENCODINGS = ("UNCR", "UNCI", "J2KR", "J2KI")


def cases() -> Iterator[Case]:
    """Every case, in the order of the page."""
    for encoding in _ENCODINGS:
        for other, change in (("as it is", unchanged), ("other photometric encoding", other_encoding)):
            rg1, rg3 = f"RG1_{encoding}.dcm", f"RG3_{encoding}.dcm"
            yield Case(
                "good radiograph", f"{rg1}, {other}", frame("pydicom-data", rg1, change), CHEST, (ACCEPTED,)
            )
            yield Case(
                "good radiograph", f"{rg3}, {other}", frame("pydicom-data", rg3, change), ANY, (ACCEPTED,)
            )
    yield from _good_slices()
    yield from _heads()
    for encoding in _ENCODINGS:
        for other, change in (("tagged CHEST", unchanged), ("tagged CHEST, other encoding", other_encoding)):
            yield Case(
                "wrong body part",
                f"RG3_{encoding}.dcm, {other}",
                frame("pydicom-data", f"RG3_{encoding}.dcm", change),
                CHEST,
                _REJECTED_ANATOMY,
            )
    yield from _wrong_bodies()
    yield Case(
        "animal", "cat.dcm, tagged DX CHEST AP", frame("deid-data", "cat.dcm"), CHEST, _REJECTED_ANATOMY
    )
    for number in range(1, 8):
        name = f"image{number}.dcm"
        yield Case(
            "photograph", f"cookies, {name}", frame("deid-data", name), CHEST, ("PIXELS_SCREEN_CAPTURE",)
        )
        yield Case(
            "photograph",
            f"cookies, {name}, grey and tagged DX CHEST",
            frame("deid-data", name, greyscale),
            CHEST,
            ("PIXELS_SCREEN_CAPTURE", *_REJECTED_ANATOMY),
        )
    for number in (1, 2):
        yield Case(
            "drawing",
            f"ctbrain{number}.dcm, tagged CT HEAD",
            frame("deid-data", f"ctbrain{number}.dcm"),
            HEAD_SLICES,
            (
                "PIXELS_CLIPPED",
                "PIXELS_SATURATED",
                "PIXELS_PHOTOMETRIC",
                "PIXELS_SCREEN_CAPTURE",
                *_REJECTED_ANATOMY,
            ),
        )
    yield from _writing()
    yield from _screens()
    yield from _empty()
    yield from _reversed()
    yield from _broken()


def _good_slices() -> Iterator[Case]:
    names: Iterable[tuple[str, str]] = (
        *(
            ("pydicom-data", f"{name}.dcm")
            for name in "693_UNCR 693_UNCI 693_J2KR MR2_UNCR MR2_UNCI MR2_J2KR MR2_J2KI".split()
        ),
        ("pydicom-data", "MR-SIEMENS-DICOM-WithOverlays.dcm"),
        ("pydicom-data", "bad_sequence.dcm"),
        ("pydicom-data", "explicit_VR-UN.dcm"),
        ("pydicom-data", "eCT_Supplemental.dcm"),
        *(
            ("pydicom-data", f"emri_small{part}.dcm")
            for part in ("", "_RLE", "_big_endian", "_jpeg_2k_lossless", "_jpeg_ls_lossless")
        ),
        ("pydicom", "693_J2KI.dcm"),
        ("pydicom", "CT_small.dcm"),
        ("pydicom", "J2K_pixelrep_mismatch.dcm"),
        *(
            ("pydicom", f"MR_small{part}.dcm")
            for part in (
                "",
                "_RLE",
                "_bigendian",
                "_implicit",
                "_jp2klossless",
                "_jpeg_ls_lossless",
                "_padded",
            )
        ),
        ("pydicom", "examples_overlay.dcm"),
        ("pynetdicom", "CTImageStorage.dcm"),
        ("pynetdicom", "MRImageStorage_JPG2000_Lossless.dcm"),
    )
    for package, name in names:
        yield Case("good MR or CT", name, frame(package, name), ANY, (ACCEPTED,))
    # Of so few pixels nothing is said but that: the policy accepts the doubt.
    for file in sorted(distribution("pydicom").files or (), key=str):
        if file.parts[-4:-3] == ("dicomdirtests",) and file.name.isdigit():  # TINY_ALPHA has no pixels
            path = Path(str(file.locate()))
            name = "/".join(file.parts[-3:])
            yield Case("good, 16 x 16 pixels", name, partial(_judged_file, path), ANY, (ACCEPTED,))


def _heads() -> Iterator[Case]:
    yield Case(
        "good MR or CT",
        "693_UNCR.dcm (CT head)",
        frame("pydicom-data", "693_UNCR.dcm"),
        HEAD_OR_DOUBT,
        (ACCEPTED,),
    )
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        yield Case("good MR or CT", f"head ch2, {plane} series", head_series(axis), HEAD_SLICES, (ACCEPTED,))
    for name, change in (("wide field", _padded), ("noise", _noisy), ("2 mm", _coarse)):
        yield Case(
            "good MR or CT",
            f"head ch2, axial series, {name}",
            head_series(2, change),
            HEAD_SLICES,
            (ACCEPTED,),
        )


def _wrong_bodies() -> Iterator[Case]:
    for name, what in (
        ("MR2_UNCR.dcm", "MR shoulder"),
        ("MR-SIEMENS-DICOM-WithOverlays.dcm", "MR abdomen"),
        ("bad_sequence.dcm", "CT spine"),
        ("explicit_VR-UN.dcm", "CT abdomen"),
    ):
        yield Case(
            "wrong body part",
            f"{name} ({what}) as a head",
            frame("pydicom-data", name),
            HEAD_SLICES,
            _REJECTED_ANATOMY,
        )
        yield Case(
            "wrong body part",
            f"{name} ({what}), tagged DX CHEST",
            frame("pydicom-data", name, tagged(Modality="DX", BodyPartExamined="CHEST")),
            CHEST,
            _REJECTED_ANATOMY,
        )
    yield Case("wrong body part", "head ch2 as a chest", head_series(2), CHEST, _REJECTED_ANATOMY)
    yield Case(
        "wrong body part",
        "693_UNCR.dcm (CT head), tagged DX CHEST",
        frame("pydicom-data", "693_UNCR.dcm", tagged(Modality="DX")),
        CHEST,
        _REJECTED_ANATOMY,
    )
    yield Case(
        "wrong body part",
        "RTImageStorage.dcm (beam), tagged DX",
        frame("pynetdicom", "RTImageStorage.dcm", tagged(Modality="DX")),
        CHEST,
        _REJECTED_ANATOMY,
    )
    yield Case(
        "wrong body part",
        "JPEG2000_UNC.dcm (NM whole body), tagged DX",
        frame("pydicom-data", "JPEG2000_UNC.dcm", tagged(Modality="DX")),
        CHEST,
        _REJECTED_ANATOMY,
    )


def _writing() -> Iterator[Case]:
    right = ("PIXELS_TEXT", "PIXELS_SCREEN_CAPTURE")
    for package, name in (
        *(("pydicom-data", f"US1_{encoding}.dcm") for encoding in _ENCODINGS),
        ("pydicom-data", "JPGLosslessP14SV1_1s_1f_8b.dcm"),
        ("pydicom-data", "gdcm-US-ALOKA-16.dcm"),
        ("pydicom-data", "OBXXXX1A.dcm"),
        ("pydicom-data", "color3d_jpeg_baseline.dcm"),
        ("deid-data", "GREYSCALE_IMAGE.dcm"),
        ("deid-data", "RGB_IMAGE.dcm"),
        ("deid-data", "ultrasound-multiframe.dcm"),
        ("pydicom", "examples_jpeg2k.dcm"),
        ("pydicom", "examples_rgb_color.dcm"),
        ("pydicom", "examples_ybr_color.dcm"),
    ):
        yield Case("burned-in text", f"{name} (ultrasound)", frame(package, name), NO_WRITING, right)
    for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm", "693_UNCR.dcm", "MR2_UNCR.dcm"):
        yield Case(
            "burned-in text", f"{name}, annotated", frame("pydicom-data", name, annotated), NO_WRITING, right
        )
    for name in (
        "RG1_UNCR.dcm",
        "RG3_UNCR.dcm",
        "693_UNCR.dcm",
        "MR2_UNCR.dcm",
        "explicit_VR-UN.dcm",
        "bad_sequence.dcm",
    ):
        yield Case("nothing written", name, frame("pydicom-data", name), NO_WRITING, (ACCEPTED,))


def _screens() -> Iterator[Case]:
    right = ("PIXELS_SCREEN_CAPTURE",)
    for draw, name in (
        (viewer, "viewer with four images"),
        (worklist, "work list and form"),
        (report_page, "page of a report"),
        (dose_sheet, "dose page"),
    ):
        for header, policy in (("RG1_UNCR.dcm", CHEST), ("MR2_UNCR.dcm", ANY)):
            yield Case(
                "screen capture",
                f"{name}, tagged as {header}",
                frame("pydicom-data", header, replaced(draw)),
                policy,
                right,
            )
    yield Case(
        "screen capture", "vlut_04.dcm (test pattern)", frame("pydicom-data", "vlut_04.dcm"), CHEST, right
    )
    yield Case(
        "values that do not fit",
        "mlut_18.dcm (test pattern), signed 12 bits and values to 4095",
        frame("pydicom-data", "mlut_18.dcm"),
        CHEST,
        (str(Code.PIXELS_OUT_OF_RANGE),),
    )
    yield Case(
        "photograph",
        "chest film on a light box, photographed",
        frame("pydicom-data", "RG1_UNCR.dcm", replaced(photographed_film)),
        CHEST,
        ("PIXELS_SCREEN_CAPTURE", *_REJECTED_ANATOMY),
    )


def _empty() -> Iterator[Case]:
    for header in ("RG1_UNCR.dcm", "RG3_UNCR.dcm", "693_UNCR.dcm", "MR2_UNCR.dcm", "cat.dcm"):
        package = "deid-data" if header == "cat.dcm" else "pydicom-data"
        for draw, name, code in (
            (_zeros, "all zeros", "PIXELS_ZEROS"),
            (_constant, "one value", "PIXELS_BLANK"),
            (_noise, "noise", "PIXELS_BLANK"),
            (_flat_field, "exposure without a patient", "PIXELS_BLANK"),
            (_ramp, "ramp", "PIXELS_BLANK"),
        ):
            yield Case("empty", f"{header}, {name}", frame(package, header, replaced(draw)), ANY, (code,))
    for name in ("RG1_UNCR.dcm", "RG3_UNCR.dcm", "693_UNCR.dcm", "MR2_UNCR.dcm"):
        yield Case(
            "saturated",
            f"{name}, all but 1 % at the end",
            frame("pydicom-data", name, overexposed(0.01)),
            ANY,
            ("PIXELS_SATURATED", "PIXELS_BLANK", "PIXELS_ZEROS"),
        )
    for name, low, high in (
        ("RG1_UNCR.dcm", 48, 52),
        ("693_UNCR.dcm", 55, 57),
        ("MR2_UNCR.dcm", 60, 63),
        ("explicit_VR-UN.dcm", 70, 73),
    ):
        yield Case(
            "clipped",
            f"{name}, window of {high - low} %",
            frame("pydicom-data", name, windowed(low, high)),
            ANY,
            ("PIXELS_CLIPPED", "PIXELS_SATURATED"),
        )
    yield Case(
        "clipped",
        "liver.dcm (a mask), tagged CT",
        frame("pydicom-data", "liver.dcm", tagged(Modality="CT")),
        ANY,
        ("PIXELS_CLIPPED",),
    )


def _reversed() -> Iterator[Case]:
    for encoding in _ENCODINGS:
        yield Case(
            "wrong photometric interpretation",
            f"RG1_{encoding}.dcm, tagged MONOCHROME2",
            frame("pydicom-data", f"RG1_{encoding}.dcm", wrong_photometric),
            CHEST,
            ("PIXELS_PHOTOMETRIC", *_REJECTED_ANATOMY),
        )
    for name in ("693_UNCR.dcm", "MR2_UNCR.dcm", "explicit_VR-UN.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm"):
        yield Case(
            "wrong photometric interpretation",
            f"{name}, tagged MONOCHROME1",
            frame("pydicom-data", name, wrong_photometric),
            ANY,
            ("PIXELS_PHOTOMETRIC",),
        )
    yield Case(
        "wrong photometric interpretation",
        "head ch2, tagged MONOCHROME1",
        lambda policy: judge_volume([np.rot90(_head()[:, :, 90])], _mr_header("MONOCHROME1"), policy),
        HEAD_SLICES,
        ("PIXELS_PHOTOMETRIC", *_REJECTED_ANATOMY),
    )


def _broken() -> Iterator[Case]:
    for name in (
        "MR_truncated.dcm",
        "JPEG2000-embedded-sequence-delimiter.dcm",
        "badVR.dcm",
        "no_meta.dcm",
        "ExplVR_LitEndNoMeta.dcm",
        "ExplVR_BigEndNoMeta.dcm",
        "rtstruct.dcm",
        "chrJapMulti.dcm",
        "crayons.icc",
    ):
        yield Case(
            "broken file", name, frame("pydicom", name), ANY, ("HEADER_UNREADABLE", "PIXELS_UNREADABLE")
        )


# --- the page ---


def judged() -> list[tuple[Case, str]]:
    """Every case and its verdict."""
    return [(case, case.verdict()) for case in cases()]


def page(results: list[tuple[Case, str]]) -> str:
    """docs/filter-corpus.md."""
    kinds = list(dict.fromkeys(case.kind for case, _ in results))
    verdicts = [ACCEPTED, *sorted({verdict for _, verdict in results} - {ACCEPTED})]
    counted = Counter((case.kind, verdict) for case, verdict in results)
    good = [(case, verdict) for case, verdict in results if case.good]
    bad = [(case, verdict) for case, verdict in results if not case.good]
    lines = [
        "# The pixel verdict on its corpus",
        "",
        "Written by `python tests/unit/filter_corpus.py --write`, which lists each case and what is done to it; a test",
        "fails when this page is not what the code gives. Images are read from installed packages or drawn; none was",
        "trained on. The thresholds of the simple checks were set with these images in view, so for those checks the",
        "matrix shows that they can be separated, not how often they would fail elsewhere.",
        "",
        f"- False rejects: {sum(verdict != ACCEPTED for _, verdict in good)} of {len(good)} good images and series.",
        f"- Garbage that was accepted: {sum(verdict == ACCEPTED for _, verdict in bad)} of {len(bad)}.",
        f"- Garbage ended by another reason than wanted: "
        f"{sum(verdict not in (ACCEPTED, *case.wanted) for case, verdict in bad)} of {len(bad)}.",
        "",
        "## Confusion matrix",
        "",
        f"| {' | '.join(['what it is', *(verdict.removeprefix('PIXELS_').lower() for verdict in verdicts)])} |",
        f"|{'---|' * (len(verdicts) + 1)}",
        *(
            f"| {kind} | {' | '.join(str(counted[kind, verdict] or '') for verdict in verdicts)} |"
            for kind in kinds
        ),
        "",
        "## Cases",
        "",
        "`model` is the anatomy that the policy expects; with one, doubt (`PIXELS_UNSURE`) holds the image.",
        "",
        "| what it is | image | model | verdict | as wanted |",
        "|---|---|---|---|---|",
        *(
            f"| {case.kind} | {case.name} | {case.model} | {verdict} | "
            f"{'yes' if verdict in case.wanted else '**no**'} |"
            for case, verdict in results
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Judge; print what is wrong; write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/filter-corpus.md")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    results = judged()
    for case, verdict in results:
        if verdict not in case.wanted:
            print(f"{case.kind}: {case.name} ({case.model}): {verdict}, {' or '.join(case.wanted)} wanted")
    if parser.parse_args().write:
        PAGE.write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
