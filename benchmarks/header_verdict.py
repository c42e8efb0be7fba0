"""How long the header verdict takes for one study: called by benchmarks/filter.py, or by itself.

`benchmarks/header_verdict.py [REPEATS]`

Headers are those of a real CT slice (pydicom's dicomdirtests, over 100 attributes) as 200 slices with a scout and a
dose report, and of single radiographs; compared for whose they are, then judged by the built-in kinds and by the rule
sets of the bundles. Headers are
parsed anew each time and the parsing is not counted: an attribute is decoded when it is first looked at, and that
is the verdict's own time.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from outpost.filter.identity import require_one_patient
from outpost.filter.rulefile import load_rules, no_rules
from outpost.filter.verdict import Judge
from outpost.inference.header import read_headers

LIMIT_MS = 2.0
BUNDLES = Path(__file__).resolve().parents[1] / "service" / "bundles"


@dataclass(frozen=True, slots=True)
class Row:
    """One study by one rule set: milliseconds of wall time, and of the processor alone."""

    study: str
    instances: int
    rules: str
    median_ms: float
    worst_ms: float
    processor_ms: float


def measure(folder: Path, repeats: int = 30) -> list[Row]:
    """Judge each study by each rule set; `folder` takes the files that are judged."""
    studies = {"CT of 202 instances": write_ct(folder / "ct"), "one radiograph": [radiograph()]}
    sets = {
        "built-in": no_rules(),
        **{path.parent.name: load_rules(path) for path in sorted(BUNDLES.glob("*/filter.yaml"))},
    }
    rows = []
    for study, files in studies.items():
        for name, file in sets.items():
            judge = Judge(file)
            wall, processor = [], []
            for _ in range(repeats):
                headers = read_headers(files)
                began, busy = time.perf_counter(), time.thread_time()
                require_one_patient(headers)
                judge(headers)
                wall.append((time.perf_counter() - began) * 1000)
                processor.append((time.thread_time() - busy) * 1000)
            rows.append(
                Row(study, len(files), name, statistics.median(wall), max(wall), statistics.median(processor))
            )
    return rows


def radiograph() -> Path:
    """A real chest radiograph of pydicom-data."""
    return Path(str(distribution("pydicom-data").locate_file("data_store/data/RG1_UNCR.dcm")))


def write_ct(folder: Path) -> list[Path]:
    """200 slices, a scout and a dose report of one study."""
    folder.mkdir(parents=True)
    root = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"
    image = pydicom.dcmread(root / "77654033" / "CT2" / "17106", stop_before_pixels=True)
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    series = generate_uid()
    files = []
    for number in range(202):
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
        image.SeriesInstanceUID, image.InstanceNumber = series, number
        image.ImagePositionPatient = [-120, -120, 1.25 * number]
        if number == 200:
            image.SeriesInstanceUID, image.ImageType = generate_uid(), ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        if number == 201:
            image.SeriesInstanceUID, image.SOPClassUID = generate_uid(), "1.2.840.10008.5.1.4.1.1.88.67"
        files.append(folder / f"{number:03}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return files


def table(rows: Sequence[Row]) -> str:
    """For people."""
    lines = [f"{'study':22}{'rules':26}{'median':>10}{'worst':>10}{'processor':>12}"]
    lines += [
        f"{row.study:22}{row.rules:26}{row.median_ms:7.2f} ms{row.worst_ms:7.2f} ms{row.processor_ms:9.2f} ms"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 if a verdict takes longer than the limit."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), int(sys.argv[1]) if len(sys.argv) > 1 else 30)
    print(table(rows))
    return int(max(row.median_ms for row in rows) > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
