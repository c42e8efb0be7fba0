"""The module outpost_units: a unit runs on its files, whoever wrote them.

systemctl is a stand-in that keeps its units in a file. The real systemd is asked in Molecule
(molecule/mutations/test_interrupted.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMCTL = """#!{python}
import json, sys, time
path = "{state}"
units = json.load(open(path))
words = [word for word in sys.argv[1:] if not word.startswith("--")]
with open("{log}", "a") as log:
    if words[0] not in ("show", "is-enabled"):
        log.write(" ".join(words) + "\\n")
if words[0] == "daemon-reload":
    for unit in units.values():
        unit["NeedDaemonReload"] = "no"
else:
    unit = units.get(words[1], dict(LoadState="not-found", ActiveState="inactive"))
    if words[0] == "show":
        print("\\n".join(key + "=" + str(value) for key, value in unit.items()))
    elif words[0] == "is-enabled":
        sys.exit(0 if unit["enabled"] else 1)
    elif words[0] == "enable":
        unit["enabled"] = True
    elif unit.get("broken"):
        sys.exit("it does not start")
    else:
        unit.update(ActiveState="active", InvocationID=str(time.time_ns()),
                    ActiveEnterTimestampMonotonic=int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6))
json.dump(units, open(path, "w"))
"""


class Host:
    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "chrony.conf"
        self.file.write_text("server a\n")
        (folder / "bin").mkdir()
        program = folder / "bin/systemctl"
        program.write_text(
            SYSTEMCTL.format(python=sys.executable, state=folder / "units.json", log=folder / "log")
        )
        program.chmod(0o755)
        module = (ROOT / "plugins/modules/outpost_units.py").read_text()
        (folder / "outpost_units.py").write_text(
            module.replace('"/run/outpost-started"', f'"{folder}/records"')
        )
        time.sleep(0.01)
        self.unit(ActiveState="inactive", enabled=False)

    def unit(self, **changes: Any) -> None:
        path = self.folder / "units.json"
        usual = {"LoadState": "loaded", "NeedDaemonReload": "no", "InvocationID": "", "enabled": True}
        known = json.loads(path.read_text())["chrony.service"] if path.exists() else usual
        path.write_text(json.dumps({"chrony.service": {**known, **changes}}))

    def module(
        self, check: bool = False, name: str = "chrony.service", runs: bool = True, would: bool = False
    ) -> tuple[dict[str, Any], list[str]]:
        """What the module says, and what it had systemctl do."""
        (self.folder / "log").write_text("")
        arguments = {
            "units": [
                {"name": name, "files": [str(self.file)], "runs": runs, "changes": [str(self.file)] * would}
            ],
            "_ansible_check_mode": check,
        }
        done = subprocess.run(
            [sys.executable, str(self.folder / "outpost_units.py")],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True, text=True, check=False, timeout=60,
            env={**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.stdout, done.stderr
        return json.loads(done.stdout), (self.folder / "log").read_text().splitlines()

    def restarted(self) -> bool:
        said, log = self.module()
        assert said["changed"] == (log != [])
        return log == ["restart chrony.service"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_unit_is_enabled_and_started_once(host: Host) -> None:
    said, log = host.module()
    assert (said["changed"], log) == (True, ["enable chrony.service", "start chrony.service"])
    assert host.module() == ({**host.module()[0], "changed": False, "done": []}, [])


def test_a_dry_run_tells_a_restart_for_a_file_that_it_does_not_write(host: Host) -> None:
    host.module()
    said, log = host.module(check=True, would=True)
    assert (said["changed"], log) == (True, [])
    assert f"chrony.service ran on another {host.file}" in said["diff"]["prepared"]
    assert host.module(would=True)[1] == [], "a run asks the file alone"


def test_a_file_that_changed_restarts_whenever_it_did(host: Host) -> None:
    host.module()
    host.file.write_text("server b\n")
    assert host.restarted()
    assert not host.restarted(), "once"


def test_a_unit_of_which_nothing_is_known_is_judged_by_time(host: Host) -> None:
    now = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)
    host.unit(
        ActiveState="active", enabled=True, InvocationID="x", ActiveEnterTimestampMonotonic=now - 60_000_000
    )
    assert host.restarted(), "the file was written after it had started"
    host.unit(InvocationID="y", ActiveEnterTimestampMonotonic=now + 60_000_000)
    assert not host.restarted(), "somebody has restarted it since"


def test_a_file_that_is_looked_at_for_the_first_time_is_judged_by_time(host: Host) -> None:
    """Its package came between two runs, or the site moved its settings to another path."""
    other = host.folder / "other.conf"
    other.write_text("server a\n")
    os.utime(other)
    time.sleep(0.05)
    host.module()
    host.file = other
    assert not host.restarted(), "it was there before the start"
    later = host.folder / "later.conf"
    later.write_text("server a\n")
    host.file = later
    assert host.restarted(), "it was written after the start"


def test_a_file_that_went_back_restarts_what_ran_in_between(host: Host) -> None:
    """Changed, restarted by hand, put back: no run has written anything, and the old one is what is wanted."""
    host.module()
    host.file.write_text("server b\n")
    host.module()
    host.file.write_text("server a\n")
    assert host.restarted()


def test_a_clock_that_was_set_forward_hides_nothing(host: Host) -> None:
    host.module()
    host.file.write_text("server b\n")
    past = time.time() - 86400
    os.utime(host.file, (past, past))
    assert host.restarted()


def test_systemd_reads_unit_files_where_it_says_so_and_never_otherwise(host: Host) -> None:
    host.module()
    host.unit(NeedDaemonReload="yes")
    said, log = host.module()
    assert (said["changed"], log) == (True, ["daemon-reload"])


def test_a_dry_run_says_the_same_and_does_nothing(host: Host) -> None:
    said, log = host.module(check=True)
    assert (said["changed"], log) == (True, [])
    assert "is started" in " ".join(said["done"])
    said, log = host.module(check=True, name="absent.service")
    assert (said["changed"], log) == (True, [])


def test_a_unit_that_is_not_there_or_does_not_start_is_a_failure(host: Host) -> None:
    said, _ = host.module(name="absent.service")
    assert said["failed"]
    assert "absent.service: systemd does not have it" in said["msg"]
    host.unit(broken=True)
    said, _ = host.module()
    assert said["failed"]
    assert "it does not start" in said["msg"]


def test_a_unit_that_is_not_to_run_is_looked_at_and_no_more(host: Host) -> None:
    assert host.module(name="absent.service", runs=False)[0]["changed"] is False
    host.unit(NeedDaemonReload="yes", enabled=True)
    assert host.module(runs=False)[1] == ["daemon-reload"]
