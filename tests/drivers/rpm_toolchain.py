"""Kernels, their headers and what builds a module, as RPMs of Debian's files. Runs in a container of image `rpm`:

    python3 /tests/rpm_toolchain.py OUTPUT OWNER GROUPS

GROUPS is a JSON file: [[RPM's name, [DEB...]], ...]; the first package gives the version. A name may come twice, as a
kernel's does. Names are those of RED OS where a source confirms them (`kernel-lt-devel`), else of RHEL-like systems.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rpm_drivers import build


def main(output: str, owner: str, groups: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, debs) in enumerate(json.loads(Path(groups).read_text())):
            build(name, debs, Path(scratch, str(number)), "", "see the packages' copyright files")
        for built in Path(scratch).glob("*/RPMS/*/*.rpm"):
            shutil.copy(built, output)
    subprocess.run(["chown", "-R", owner, output], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
