"""The judge of our units: what it lets pass, and that it does not let pass more."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = "roles/inference/files/outpost@.service"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for unit in ROOT.glob("roles/*/files/*.service"):
        copy = tmp_path / unit.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(unit, copy)
    for name in ("lab/unit-security", "docs/units.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def judged(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "lab/unit-security"], capture_output=True, text=True, check=False, timeout=60
    )


def test_our_units_pass(checkout: Path) -> None:
    ended = judged(checkout)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("line", ["NoNewPrivileges=yes", "PrivateNetwork=yes", "ProtectSystem=strict"])
def test_an_option_that_is_taken_away_is_missed(checkout: Path, line: str) -> None:
    unit = checkout / UNIT
    unit.write_text(unit.read_text().replace(f"{line}\n", ""))
    ended = judged(checkout)
    assert ended.returncode == 1
    assert f"{UNIT}: {line.split('=')[0]}= is open without a reason" in ended.stderr


def test_a_new_unit_without_limits_is_refused(checkout: Path) -> None:
    (checkout / "roles/base/files/outpost-new.service").write_text("[Service]\nExecStart=/bin/true\n")
    ended = judged(checkout)
    assert ended.returncode == 1
    assert "outpost-new.service: may do 9." in ended.stderr


def test_a_reason_for_what_is_closed_is_refused(checkout: Path) -> None:
    unit = checkout / UNIT
    unit.write_text(unit.read_text().replace(
        "UMask=0077\n", "UMask=0077\nPrivateUsers=yes\n"))  # fmt: skip
    ended = judged(checkout)
    assert ended.returncode == 1
    assert "PrivateUsers= has a reason, but is closed" in ended.stderr
