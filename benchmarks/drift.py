#!/usr/bin/env python3
"""Drift over ten years of a hospital's image headers, replayed month by month: Outpost and evidently.

    benchmarks/drift.py [--runs 3]

The table is PadChest's (160,861 images, 2007-2017), read from the installed package torchxrayvision. Both sides get the
same columns, the same reference (2011) and the same months (2012 to November 2017), each in a process of its own,
from start to end: imports, reading the table, comparing. Seconds are wall time, memory is the peak of the process.

evidently is used as its documentation shows: Report([DataDriftPreset()]) for each month, with its own choice of tests
and limits. What it cannot see or refuses is helped: a missing value is a category of its own, how often a number is
missing is a column more, and a column without any number that month is left out (it raises on it). It keeps no
state between reports; an alarm is counted where a column is called drifted and was not the month before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from report import Spread, finish, table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from padchest import COLUMNS  # noqa: E402
from padchest import table as padchest  # noqa: E402

REFERENCE = 2011
FIRST, LAST = date(2012, 1, 1), date(2017, 11, 30)
QUIET = ("2012", "2013")
# What changed, dated by hand (docs/drift.md): the first month, and the tags of which one must be told.
EVENTS = {
    "bits stored, May 2014": ("2014-05", {"BitsStored"}),
    "vendor gone, Dec 2014": ("2014-12", {"Manufacturer", "ViewPosition"}),
    "new equipment, Jan 2016": ("2016-01", {"Modality", "Manufacturer"}),
}
WITHIN_WINDOWS = 2
BAR = 10.0


def main() -> int:
    """Measure both sides in turn and hold one against the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="of Outpost; evidently runs once in three")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side]()))
        return 0
    runs: dict[str, list[dict[str, Any]]] = {"outpost": [], "evidently": []}
    for number in range(options.runs):
        for side in ("outpost", "evidently") if number % 3 == 0 else ("outpost",):
            runs[side].append(run(side))
    rows, told = [], {}
    for side, found in runs.items():
        good = [one for one in found if "failed" not in one]
        if not good:
            print(f"{side} could not run: {found[0]['failed']}")
            continue
        told[side] = summary(good)
        rows.append([side, *cells(told[side])])
    print(table(["", "seconds", "peak MiB", *EVENTS, "false alarms a year", "alarms in all"], rows))
    if len(told) < 2:
        return finish(
            "drift", ratio=None, peer="evidently", bar=f">= {BAR:g} in both", ok=False, details=told
        )
    ours, theirs = told["outpost"], told["evidently"]
    faster = theirs["seconds"].median / ours["seconds"].median
    smaller = theirs["mib"].median / ours["mib"].median
    seen = all(ours["detected"].values()) and ours["false_alarms_a_year"] == 0
    print(f"evidently takes {faster:.1f} x the time and {smaller:.1f} x the memory")
    return finish(
        "drift",
        ratio=min(faster, smaller),
        peer="evidently 0.7.23, DataDriftPreset a month",
        bar=f">= {BAR:g} in time and memory, all events seen, no false alarm in 2012-2013",
        ok=min(faster, smaller) >= BAR and seen,
        details={"faster": faster, "smaller": smaller, **told},
        packages=("evidently", "pandas", "numpy", "scipy", "torchxrayvision"),
    )


def run(side: str) -> dict[str, Any]:
    """One side in a process of its own."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--side", side],
        capture_output=True,
        text=True,
        # Its telemetry would wait for a network that is not there.
        env=os.environ
        | {"DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT / "service"), "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no word"}
    return json.loads(done.stdout.splitlines()[-1]) | {"seconds": seconds}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What one side's runs say; what is called drifted is the same in each."""
    months: list[str] = runs[0]["months"]
    called: list[list[str]] = runs[0]["called"]  # of each month
    alarms = [
        (month, tag)
        for month, now, before in zip(months, called, [[], *called], strict=False)
        for tag in now
        if tag not in before
    ]
    detected, stale = {}, {}
    for name, (month, tags) in EVENTS.items():
        place = months.index(month)
        within = months[place:][:WITHIN_WINDOWS]
        detected[name] = sorted({tag for when, tag in alarms if when in within} & tags)
        # Called drifted in that month, but as in the month before it: nobody is told anything new.
        stale[name] = sorted(tags.intersection(called[place], called[place - 1]))
    quiet = [alarm for alarm in alarms if alarm[0][:4] in QUIET]
    return {
        "seconds": Spread.of([one["seconds"] for one in runs]),
        "mib": Spread.of([one["mib"] for one in runs]),
        "detected": detected,
        "already_called_the_month_before": stale,
        "false_alarms_a_year": len(quiet) / len(QUIET),
        "alarms": alarms,
        "windows": len(months),
        "left_out": runs[0].get("left_out", []),
    }


def cells(told: dict[str, Any]) -> list[object]:
    return [
        told["seconds"],
        told["mib"],
        *(
            ", ".join(tags) or ("on already" if told["already_called_the_month_before"][name] else "not seen")
            for name, tags in told["detected"].items()
        ),
        told["false_alarms_a_year"],
        len(told["alarms"]),
    ]


def outpost() -> dict[str, Any]:
    """Outpost's own replay, with the limits it ships with."""
    from outpost.drift.book import merge
    from outpost.drift.judge import Limits
    from outpost.drift.replay import months, read_days, replay

    days = read_days(padchest(), COLUMNS)
    reference = merge([book for day, book in days.items() if day.year == REFERENCE])
    names, called = [], []
    drifted: set[str] = set()
    for window in replay(days, reference, months(FIRST, LAST), Limits()):
        for alarm in window.changed:
            tag = alarm.tag + (" missing" if alarm.aspect == "missing" else "")
            (drifted.add if alarm.ended_on is None else drifted.discard)(tag)
        names.append(f"{window.days[0]:%Y-%m}")
        called.append(sorted(drifted))
    return {"months": names, "called": called, "mib": peak_mib()}


def evidently() -> dict[str, Any]:
    """evidently's preset, a report a month."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    from outpost.drift.tags import HEADER, Kind

    numbers = [tag for tag in COLUMNS if tag in HEADER and HEADER[tag].kind is Kind.NUMBER]
    categories = [tag for tag in COLUMNS if tag in HEADER and tag not in numbers]
    frame = pd.read_csv(padchest(), usecols=list(COLUMNS.values()), low_memory=False)
    frame = frame.rename(columns={column: tag for tag, column in COLUMNS.items()})
    day = frame.pop("StudyDate").astype(str)
    age = day.str[:4].astype(float) - pd.to_numeric(frame.pop("PatientBirthYear"), errors="coerce")
    frame["PatientAge"] = (age // 10 * 10).astype("Int64").astype(str)
    categories.append("PatientAge")
    for tag in categories:
        frame[tag] = frame[tag].fillna("missing").astype(str)
    for tag in numbers:
        if frame[tag].isna().any():
            frame[f"{tag} missing"] = frame[tag].isna().map({True: "missing", False: "there"})
            categories.append(f"{tag} missing")
    month = day.str[:4] + "-" + day.str[4:6]
    before = frame[day.str[:4] == str(REFERENCE)]
    names, drifted, left_out = [], [], []
    for name in sorted(set(month)):
        if not f"{FIRST:%Y-%m}" <= name <= f"{LAST:%Y-%m}":
            continue
        now = frame[month == name]
        there = [tag for tag in numbers if now[tag].notna().any()]
        left_out += [[name, tag] for tag in numbers if tag not in there]
        columns = there + categories
        definition = DataDefinition(numerical_columns=there, categorical_columns=categories)
        found = Report([DataDriftPreset()]).run(
            Dataset.from_pandas(now[columns], data_definition=definition),
            Dataset.from_pandas(before[columns], data_definition=definition),
        )
        drifted.append(sorted(drifted_columns(found.dict())))
        names.append(name)
    return {"months": names, "called": drifted, "left_out": left_out, "mib": peak_mib()}


def drifted_columns(found: dict[str, Any]) -> set[str]:
    """The columns that a report calls drifted: a distance from its threshold on, a probability below it."""
    called = set()
    for metric in found["metrics"]:
        config = metric["config"]
        if config["type"].endswith("ValueDrift"):
            value, threshold = float(metric["value"]), float(config["threshold"])
            if value < threshold if "p_value" in config["method"] else value >= threshold:
                called.add(config["column"])
    return called


def peak_mib() -> float:
    """The most memory this process has had in use, from the kernel."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


SIDES = {"outpost": outpost, "evidently": evidently}

if __name__ == "__main__":
    sys.exit(main())
