"""The child process that opens a file nobody trusts: `python -m outpost.quarantine.child WHAT FILE [SIZE FACTOR]`.

WHAT is `header` (JSON, without who the patient is), `identity` (JSON, with it) or `picture` (PNG, at most SIZE pixels
a side, and smaller than the image by FACTOR at least in each direction). Standard output carries the answer and
nothing else. Exit status 3: the file cannot be read so; the code is on standard output. It takes limits upon itself
before it opens the file; the parent adds one of time.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outpost.confined import confine

if TYPE_CHECKING:
    from numpy.typing import NDArray

CPU_SECONDS = 15
MEMORY_MIB = 1024  # beyond what Python and the decoders take before any file is opened
UNREADABLE = 3

# PS3.3: what an image is and what made it. None names the patient, unless a sender fills it against the standard.
_TECHNICAL = (
    "Modality SOPClassUID ImageType BodyPartExamined ViewPosition Laterality ImageLaterality PatientPosition"
    " PatientOrientation Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation BitsAllocated"
    " BitsStored PixelRepresentation PixelSpacing ImagerPixelSpacing SliceThickness SpacingBetweenSlices"
    " ImageOrientationPatient Manufacturer ManufacturerModelName SoftwareVersions ConversionType"
    " MagneticFieldStrength RepetitionTime EchoTime KVP BurnedInAnnotation LossyImageCompression"
).split()
_IDENTITY = (
    "PatientName PatientID PatientBirthDate PatientSex PatientAge AccessionNumber StudyDate StudyTime"
    " StudyDescription SeriesDescription ProtocolName InstitutionName StationName ReferringPhysicianName"
    " StudyInstanceUID SeriesInstanceUID SOPInstanceUID"
).split()
_LONGEST = 200  # characters of one value


def main(arguments: Sequence[str]) -> int:
    """Answer one question about one file."""
    what, file = arguments[0], Path(arguments[1])
    # Answers go to the real standard output; what libraries print goes nowhere, as it may quote the file.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    # Imported before the limits: what they need is not the file's doing.
    from outpost.filter.thumbnail import render
    from outpost.inference.codes import InputRejected
    from outpost.inference.decode import decode_file

    _limit()
    try:
        if what == "picture":
            from PIL import Image

            dataset, decoded = decode_file(file)
            frame = decoded.pixels
            if frame.ndim == 4 or (frame.ndim == 3 and int(dataset.get("SamplesPerPixel", 1)) == 1):
                frame = frame[len(frame) // 2]
            stream = io.BytesIO()
            frame, largest = _widened(frame, int(arguments[2]), int(arguments[3]))
            Image.fromarray(render(frame, dataset, largest)).save(stream, "PNG")
            answer.write(stream.getvalue())
        else:
            answer.write(json.dumps(_header(file, identity=what == "identity")).encode())
    except InputRejected as rejection:
        answer.write(str(rejection.code).encode())
        return UNREADABLE
    except MemoryError:
        answer.write(b"TOO_LARGE")
        return UNREADABLE
    except Exception:
        # pydicom and decoders raise many types on hostile bytes, and their texts quote the data set.
        answer.write(b"HEADER_UNREADABLE" if what != "picture" else b"PIXELS_UNREADABLE")
        return UNREADABLE
    finally:
        answer.flush()
    return 0


def _widened(frame: NDArray[Any], size: int, least: int) -> tuple[NDArray[Any], int]:
    """The frame, its last row and column repeated up to whole squares, and the side at which it is rendered so
    that both sides become smaller by `least` at least: also those of a strip too narrow for its squares.
    """
    import numpy as np

    longest = max(frame.shape[:2])
    factor = max(least, -(-longest // size))
    rest = [(0, -side % factor) for side in frame.shape[:2]]
    if any(after for _, after in rest):
        frame = np.pad(frame, [*rest, *[(0, 0)] * (frame.ndim - 2)], mode="edge")
    return frame, max(frame.shape[:2]) // factor


def _header(file: Path, *, identity: bool) -> dict[str, str]:
    from pydicom.multival import MultiValue

    from outpost.intake.header import read_attributes

    keywords = [*_TECHNICAL, *(_IDENTITY if identity else ())]
    with file.open("rb") as stream:
        dataset = read_attributes(stream, [*keywords, "SpecificCharacterSet"])
    found = {"TransferSyntaxUID": _name(str(dataset.file_meta.get("TransferSyntaxUID", "")))}
    for keyword in keywords:
        try:
            value = dataset.get(keyword)
            several = isinstance(value, MultiValue)
            text = "\\".join(map(str, value)) if several else "" if value is None else str(value)
        except Exception:
            text = "unreadable"
        if text:
            found[keyword] = (_name(text) if keyword == "SOPClassUID" else text)[:_LONGEST]
    return found


def _name(uid: str) -> str:
    from pydicom.uid import UID

    return UID(uid).name


def _limit() -> None:
    confine(MEMORY_MIB, CPU_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
