"""Runs the lanes whose record is out of date, one after the other, and says which, why and how long:

python tests/lanes/slow.py            # what `make test` asks for (a lane that is open is only named)
python tests/lanes/slow.py --all      # those that are run before a release too
python tests/lanes/slow.py --list     # only say
python tests/lanes/slow.py engines    # these, whatever their records say
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import lanes


def stale(with_seldom: bool) -> list[tuple[lanes.Lane, str]]:
    """Lanes that are to run, and why; those that are only named are said."""
    found = []
    for lane in lanes.standing():
        why = lanes.unproven(lane)
        if not why:
            continue
        if not with_seldom and (lane.open or lane.seldom):
            print(f"{lane.name}: out of date, run by --all. {lane.open or lane.seldom}")
            continue
        found.append((lane, why))
    return sorted(found, key=lambda one: minutes(one[0]) or 1e9)


def minutes(lane: lanes.Lane) -> float:
    """What it took when it was recorded; 0 where it never was."""
    return float((lanes.proven(lane) or {"seconds": 0})["seconds"]) / 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="LANE", choices=[[], *(lane.name for lane in lanes.LANES)]
    )
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.names:
        named = [lane for lane in lanes.LANES if lane.name in arguments.names]
        waiting = [
            (lane, lanes.unproven(lane) or f"Lane {lane.name} was asked for by name.") for lane in named
        ]
    else:
        waiting = stale(arguments.all)
    failed = []
    for number, (lane, why) in enumerate(waiting, 1):
        took = f"some {minutes(lane):.0f} min" if minutes(lane) else "it was never recorded how long it takes"
        print(f"[{number} of {len(waiting)}] make {lane.target}: {took}\n  {why[:600]}", flush=True)
        if arguments.list:
            continue
        began = time.monotonic()
        status = subprocess.run(["make", lane.target], cwd=lanes.ROOT, check=False).returncode
        still = lanes.unproven(lane)
        if status or still:
            failed.append(lane.name)
        print(
            f"[{number} of {len(waiting)}] {lane.name}: {still or 'proven'}, {time.monotonic() - began:.0f} s",
            flush=True,
        )
    if not waiting:
        print("No lane is to run.")
    if failed:
        print(f"Not proven: {', '.join(failed)}. Nothing was recorded for them.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
