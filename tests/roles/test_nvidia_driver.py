"""What the driver role decides: sets, windows, refusals, locks and verdicts, from recorded readings of hosts."""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from loaded import load

ROOT = Path(__file__).parents[2]
SUM = "0" * 64


driver = load(ROOT / "plugins/filter/outpost_driver.py")
read_module = load(ROOT / "roles/nvidia_driver/library/nvidia_driver_read.py")
lock_module = load(ROOT / "roles/nvidia_driver/library/nvidia_driver_lock.py")


def package(name: str, version: str = "580.95.05-1") -> dict[str, str]:
    return {"name": name, "version": version, "file": f"{name}.deb", "sha256": SUM}


CHOSEN: dict[str, Any] = {
    "name": "site-580", "driver": "580.95.05", "platforms": [], "run": {}, "kernel": "",
    "packages": [package("nvidia-smi"), package("libcuda1"), package("nvidia-kernel-dkms")],
}  # fmt: skip
RUN: dict[str, Any] = {
    "name": "run-580", "driver": "580.95.05", "platforms": [], "packages": [], "kernel": "",
    "run": {"file": "N.run", "sha256": SUM, "modules": "kernel"},
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "families": ["nvidia-*", "libnvidia-*", "libcuda1"], "kernel_families": ["linux-image-*"], "lock_kernel": True,
    "allow": [], "gpus": ["10de:1b06"], "containers": True, "window_open": False, "key_enrolled": False,
}  # fmt: skip


def there(name: str, version: str = "580.95.05-1", held: bool = True) -> dict[str, Any]:
    return {name: {"version": version, "held": held, "state": "installed"}}


def kernel(
    release: str, state: str = "installed", headers: bool = True, version: str = "580.95.05"
) -> dict[str, Any]:
    dkms = {"module": "nvidia", "version": version, "state": state} if state else None
    return {"release": release, "headers": headers, "file_version": "", "dkms": dkms}


NO_NOUVEAU: dict[str, Any] = {"loaded": False, "initial_ramdisk": [], "old_ramdisks": [], "xorg": False}
WHOLE: dict[str, Any] = {
    "packages": {**there("nvidia-smi"), **there("libcuda1"), **there("nvidia-kernel-dkms")},
    "kernels": [kernel("6.8.0-50-generic")], "kernel": "6.8.0-50-generic", "loaded": "580.95.05",
    "libraries": {"580.95.05": ["/usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05"]},
    "cdi": {"/etc/cdi/nvidia.yaml": ["580.95.05"]}, "toolkit": True,
    "persistenced": True, "nouveau": NO_NOUVEAU, "secure_boot": "off",
    "digsig_mode": "", "containers": {}, "refusals": [], "upgrades": [], "units": [],
    "installer": "", "families_locked": True,
    "record": {"name": "site-580", "packages": []}, "under_way": {}, "clock": 0.0,
}  # fmt: skip
RUN_WHOLE: dict[str, Any] = {**WHOLE, "packages": {}, "installer": "12-34", "record": {**RUN, "previous": {}}}
BARE: dict[str, Any] = {
    **WHOLE,
    "packages": {},
    "loaded": "",
    "libraries": {},
    "record": {},
    "kernels": [kernel("k", "")],
}


def failed(read: dict[str, Any], chosen: dict[str, Any] = CHOSEN, **settings: Any) -> set[str]:
    return {
        c["code"] for c in driver.outpost_driver_checks(read, chosen, {**SETTINGS, **settings}) if not c["ok"]
    }


def refused(read: dict[str, Any], chosen: dict[str, Any] = CHOSEN, **settings: Any) -> set[str]:
    return {c["code"] for c in driver.outpost_driver_plan(read, chosen, {**SETTINGS, **settings})["refusals"]}


# --- sets


def test_a_set_that_names_everything_exactly_is_taken() -> None:
    assert driver.outpost_driver_set({"a": CHOSEN}, "a")["name"] == "a"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"packages": [{**package("nvidia-smi"), "version": "580.*"}]}, "is a pattern, not a version"),
        ({"packages": [{**package("nvidia-smi"), "version": ""}]}, "no exact version"),
        ({"packages": [{**package("nvidia-smi"), "sha256": "abc"}]}, "no file with a sha256"),
        ({"driver": "580"}, "wanted is a full version"),
        ({"platforms": ["astra-1.8"]}, "made for astra-1.8, not for ubuntu-24.04"),
        ({"packages": []}, "either packages or run"),
        ({"run": RUN["run"]}, "either packages or run"),
    ],
)
def test_a_set_that_leaves_something_open_is_refused_in_words(spoil: dict[str, Any], said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        driver.outpost_driver_set({"a": {**CHOSEN, **spoil}}, "a", "ubuntu-24.04")


def test_an_unknown_set_is_answered_with_the_known_ones_and_the_tool_that_makes_one() -> None:
    with pytest.raises(AnsibleFilterError, match=r"known: site-580\. Make one .*playbooks/driver_set.yml"):
        driver.outpost_driver_set({"site-580": CHOSEN}, "site-590")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "roles/nvidia_driver/vars/sets").glob("*.yml")), ids=lambda path: path.stem
)
def test_each_set_that_comes_with_the_role_is_whole_and_made_for_its_platform(path: Path) -> None:
    sets = yaml.safe_load(path.read_text())["nvidia_driver_sets"]
    for name in sets:
        assert driver.outpost_driver_set(sets, name, path.stem)["platforms"] == [path.stem]


# --- windows


@pytest.mark.parametrize(
    ("window", "moment", "open_"),
    [
        ("01:00-05:00", "2026-11-26 00:59", False),
        ("01:00-05:00", "2026-11-26 01:00", True),
        ("01:00-05:00", "2026-11-26 05:00", False),
        ("22:00-04:00", "2026-11-26 23:30", True),
        ("22:00-04:00", "2026-11-26 03:59", True),
        ("22:00-04:00", "2026-11-26 12:00", False),
        ("sat,sun 01:00-05:00", "2026-11-28 02:00", True),  # a Saturday
        ("sat,sun 01:00-05:00", "2026-11-26 02:00", False),
        ("sat 22:00-04:00", "2026-11-29 03:00", True),  # Sunday morning belongs to Saturday's window
        ("sat 22:00-04:00", "2026-11-28 03:00", False),
        ("", "2026-11-26 02:00", False),
    ],
)
def test_a_window_is_of_the_regions_own_time(window: str, moment: str, open_: bool) -> None:
    chita = datetime.datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo("Asia/Chita"))
    assert driver.outpost_window_open(window, "Asia/Chita", chita.timestamp()) is open_


@pytest.mark.parametrize("window", ["1-5", "25:00-26:00", "caturday 01:00-05:00", "sat sun 01:00-05:00"])
def test_a_window_nobody_understands_is_an_error_not_a_closed_one(window: str) -> None:
    with pytest.raises(AnsibleFilterError, match=r"not understood.*sat,sun 01:00-05:00"):
        driver.outpost_window_open(window, "Asia/Chita", 0.0)


def test_an_unknown_time_zone_is_an_error() -> None:
    with pytest.raises(AnsibleFilterError, match="Asia/Chita"):
        driver.outpost_window_open("01:00-05:00", "Asia/Nowhere", 0.0)


@pytest.mark.parametrize(
    ("window", "moment", "minutes", "open_"),
    [
        ("01:00-05:00", "2026-11-26 04:30", 30, True),
        ("01:00-05:00", "2026-11-26 04:31", 30, False),
        ("22:00-04:00", "2026-11-26 23:30", 270, True),
        ("22:00-04:00", "2026-11-26 23:30", 271, False),
        ("22:00-04:00", "2026-11-26 03:30", 31, False),
        # In Berlin the clocks go from 02:00 to 03:00 that night, and in October from 03:00 back to 02:00.
        ("01:00-05:00", "2026-03-29 01:30", 151, False),
        ("01:00-05:00", "2026-10-25 01:30", 270, True),
    ],
)
def test_a_change_needs_a_window_that_stays_open_for_it(
    window: str, moment: str, minutes: int, open_: bool
) -> None:
    clock = datetime.datetime.fromisoformat(moment).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    assert driver.outpost_window_open(window, "Europe/Berlin", clock, minutes) is open_


# --- plans and refusals


def test_a_whole_host_has_nothing_to_do() -> None:
    plan = driver.outpost_driver_plan(WHOLE, CHOSEN, SETTINGS)
    assert (plan["change"], plan["install"], plan["remove"], plan["refusals"]) == (False, [], [], [])


def test_a_bare_host_installs_the_set_without_a_reboot() -> None:
    plan = driver.outpost_driver_plan(BARE, CHOSEN, SETTINGS)
    assert plan["say"] == [f"{p['name']}: absent -> 580.95.05-1" for p in CHOSEN["packages"]]
    assert (plan["reboot"], plan["refusals"]) == (False, [])


def test_a_half_configured_package_is_installed_again() -> None:
    half = {
        **WHOLE["packages"],
        "libcuda1": {"version": "580.95.05-1", "held": True, "state": "half-configured"},
    }
    plan = driver.outpost_driver_plan({**WHOLE, "packages": half}, CHOSEN, SETTINGS)
    assert [item["name"] for item in plan["install"]] == ["libcuda1"]


def test_what_a_change_that_was_cut_off_left_is_finished_or_taken_away_by_any_set() -> None:
    coming = {**CHOSEN, "name": "site-590", "packages": [package("libnvidia-gpucomp", "590.44.01-1"),
              package("libnvidia-torn", "590.44.01-1"), package("linux-image-cloud-amd64")]}  # fmt: skip
    under_way = json.loads(json.dumps(driver.outpost_driver_under_way(coming, WHOLE)))
    left = {**WHOLE["packages"], **there("libnvidia-gpucomp", "590.44.01-1")}
    left["libnvidia-torn"] = {"version": "590.44.01-1", "held": False, "state": "half-installed"}
    read = {**WHOLE, "packages": left, "under_way": under_way}
    plan = driver.outpost_driver_plan(read, CHOSEN, SETTINGS)
    assert (plan["change"], plan["refusals"]) == (True, [])
    assert (plan["remove"], plan["torn"]) == (["libnvidia-gpucomp"], ["libnvidia-torn"])
    assert plan["left"] == ["libnvidia-gpucomp", "libnvidia-torn"]
    # For rpm: first all files get an owner, then the set lies over them. Never the kernel.
    assert plan["again"] == [
        ["/opt/outpost/drivers/site-590/libnvidia-gpucomp.deb", "/opt/outpost/drivers/site-590/libnvidia-torn.deb"],
        [f"/opt/outpost/drivers/site-580/{name}.deb" for name in ("nvidia-smi", "libcuda1", "nvidia-kernel-dkms")],
    ]  # fmt: skip
    assert plan["say"][0] == "the change to site-590 was cut off: the set is installed anew"
    twice = driver.outpost_driver_under_way(CHOSEN, read)
    assert [s["name"] for s in twice["sets"]] == ["site-590", "site-580"], (
        "a second try still knows of the first"
    )
    assert driver.outpost_driver_plan({**WHOLE, "under_way": under_way}, CHOSEN, SETTINGS)["change"], (
        "rpm's database says that all is well before all files are in place"
    )


def test_a_first_installation_that_was_cut_off_is_no_strangers_driver() -> None:
    half = {"nvidia-smi": {"version": "580.95.05-1", "held": False, "state": "unpacked"}}
    under_way = driver.outpost_driver_under_way(CHOSEN, BARE)
    assert refused({**BARE, "packages": half}) == {"WAY_BACK"}
    assert refused({**BARE, "packages": half, "under_way": under_way}) == set()
    again = driver.outpost_driver_under_way(CHOSEN, {**BARE, "packages": half, "under_way": under_way})
    assert again["before"] == [], "what the first try brought was not there before it"


def test_any_lock_that_is_written_ends_the_change_under_way() -> None:
    for manager in ("apt", "dnf"):
        lock = driver.outpost_driver_lock(CHOSEN, manager, SETTINGS, {})
        assert lock["files"][-1] == {"path": "/etc/outpost/driver-change-under-way.json", "content": None}


def test_what_only_the_set_before_had_is_removed_and_a_strangers_package_is_refused() -> None:
    old = {
        "name": "site-590",
        "packages": [package("libnvidia-gpucomp", "590.44.01-1"), package("libcuda1", "590.44.01-1")],
    }
    read = {**WHOLE, "record": old, "packages": {**WHOLE["packages"], **there("libcuda1", "590.44.01-1"),
            **there("libnvidia-gpucomp", "590.44.01-1")}}  # fmt: skip
    plan = driver.outpost_driver_plan(read, CHOSEN, SETTINGS)
    assert (plan["remove"], plan["refusals"]) == (["libnvidia-gpucomp"], [])
    read["packages"] |= there("libnvidia-stranger", "1")
    assert refused(read) == {"FOREIGN_PACKAGES"}
    assert refused(read, allow=["libnvidia-stranger"]) == set()


def test_a_driver_that_no_set_describes_is_not_replaced_but_may_be_taken_over() -> None:
    other = {**BARE, "packages": there("nvidia-smi", "535.1-1")}
    assert refused(other) == {"WAY_BACK"}
    assert refused({**WHOLE, "record": {}}) == set()


def test_a_driver_that_others_installed_is_adopted_once_and_then_may_be_changed() -> None:
    old = {
        **CHOSEN,
        "name": "found-535",
        "driver": "535.261.03",
        "packages": [package("nvidia-smi", "535.1-1")],
    }
    found = {
        **BARE,
        "packages": there("nvidia-smi", "535.1-1", held=False),
        "libraries": {"535.261.03": ["libcuda.so.535.261.03"]},
    }
    assert refused(found) == {"WAY_BACK"}
    plan = driver.outpost_driver_plan(found, old, SETTINGS)
    assert (plan["change"], plan["adopt"]) == (False, True)

    # What the host keeps goes through JSON.
    adopted = {**found, "record": json.loads(json.dumps(driver.outpost_driver_record(old, found["record"])))}
    plan = driver.outpost_driver_plan(adopted, old, SETTINGS)
    assert (plan["change"], plan["adopt"]) == (False, False), "the second run changes nothing"

    plan = driver.outpost_driver_plan(adopted, CHOSEN, SETTINGS)
    assert (plan["change"], plan["adopt"], plan["refusals"]) == (True, False, [])
    assert driver.outpost_driver_record(CHOSEN, adopted["record"])["previous"] == old


@pytest.mark.parametrize(
    "broken",
    [
        {"libraries": {"580.95.05": ["a"], "535.261.03": ["b"]}},
        {"kernels": [kernel("a", "added")]},
        {"packages": {**WHOLE["packages"], **there("libnvidia-stranger")}},
    ],
)
def test_what_is_not_whole_is_not_adopted(broken: dict[str, Any]) -> None:
    whole = {**WHOLE, "record": {}}
    assert driver.outpost_driver_plan(whole, CHOSEN, SETTINGS)["adopt"]
    assert not driver.outpost_driver_plan({**whole, **broken}, CHOSEN, SETTINGS)["adopt"]


def test_a_set_that_was_given_one_more_package_is_remembered_anew() -> None:
    remembered = {**WHOLE, "record": {**CHOSEN, "packages": CHOSEN["packages"][:2], "previous": {}}}
    assert driver.outpost_driver_plan(remembered, CHOSEN, SETTINGS)["adopt"]
    remembered["record"] = {**CHOSEN, "previous": {}}
    assert not driver.outpost_driver_plan(remembered, CHOSEN, SETTINGS)["adopt"]


@pytest.mark.parametrize(
    ("read", "chosen", "codes"),
    [
        ({"secure_boot": "on"}, CHOSEN, {"SECURE_BOOT"}),
        ({"secure_boot": "on"}, {**CHOSEN, "packages": [package("nvidia-smi")]}, set()),  # signed, prebuilt
        ({"digsig_mode": "1"}, RUN, {"CLOSED_ENVIRONMENT"}),
        ({"digsig_mode": "1"}, CHOSEN, set()),
        ({"digsig_mode": "2"}, RUN, set()),
        ({"kernels": [kernel("a", ""), kernel("b", "", headers=False)]}, CHOSEN, {"HEADERS"}),
        ({"kernels": [kernel("b", "", headers=False)]}, RUN, {"HEADERS"}),
        ({"kernels": [kernel("b", "", headers=False)]},
         {**CHOSEN, "packages": [*CHOSEN["packages"], package("linux-headers-b", "1")]}, set()),
        ({"packages": there("nvidia-smi")}, RUN, {"FOREIGN_PACKAGES", "RUN_OVER_PACKAGES"}),
        ({"installer": "12-34"}, CHOSEN, {"PACKAGES_OVER_RUN"}),
        ({"installer": "12-34"}, RUN, set()),
        ({"kernels": []}, RUN, {"HEADERS"}),
        ({"libraries": {"535.261.03": ["a"]}}, RUN, {"WAY_BACK"}),  # somebody's .run: nothing to go back to
        ({"libraries": {"580.95.05": ["a"]}}, RUN, set()),  # our own, half done
    ],
)  # fmt: skip
def test_what_would_break_the_host_is_refused_before_anything_is_touched(
    read: dict[str, Any], chosen: dict[str, Any], codes: set[str]
) -> None:
    assert refused({**BARE, **read}, chosen) == codes


def test_packages_that_are_allowed_beside_the_driver_may_stay_under_a_run_installer() -> None:
    toolkit = {**BARE, "packages": there("nvidia-container-toolkit", "1.18.0-1")}
    assert refused(toolkit, RUN) == {"FOREIGN_PACKAGES", "RUN_OVER_PACKAGES"}
    assert refused(toolkit, RUN, allow=["nvidia-container-*"]) == set()


def test_missing_headers_are_answered_with_the_command_for_that_kernel_past_the_lock() -> None:
    read = {**BARE, "kernels": [kernel("a", ""), kernel("6.6.52-1.red80.x86_64", "", headers=False)]}
    (refusal,) = driver.outpost_driver_plan(read, RUN, SETTINGS)["refusals"]
    wanted = "dnf --disableplugin=versionlock install kernel-lt-devel-6.6.52-1.red80.x86_64"
    assert wanted in refusal["remedy"]


# --- NVIDIA's own installer


def test_a_whole_run_driver_has_nothing_to_do_and_passes_every_check() -> None:
    plan = driver.outpost_driver_plan(RUN_WHOLE, RUN, SETTINGS)
    assert (plan["change"], plan["installer"], plan["build"], plan["adopt"]) == (False, False, [], False)
    assert failed(RUN_WHOLE, RUN) == set()


def test_a_bare_host_says_the_file_and_each_kernel_it_builds_for() -> None:
    read = {**BARE, "kernels": [kernel("a", ""), kernel("b", "")], "kernel": "b"}
    plan = driver.outpost_driver_plan(read, RUN, SETTINGS)
    assert plan["say"] == [
        "N.run: absent -> 580.95.05",
        "module for kernel a: built here",
        "module for kernel b: built here",
    ]
    assert (plan["installer"], plan["kernel"], plan["refusals"]) == (True, "b", [])


def test_a_running_kernel_that_is_gone_from_disk_is_not_what_the_installer_builds_for() -> None:
    read = {**BARE, "kernels": [kernel("a", ""), kernel("b", "")], "kernel": "removed"}
    assert driver.outpost_driver_plan(read, RUN, SETTINGS)["kernel"] == "b"


@pytest.mark.parametrize(
    ("half", "installer", "build"),
    [
        ({"libraries": {}}, True, []),
        ({"libraries": {"580.95.05": ["a"], "535.261.03": ["b"]}}, True, []),
        (
            {"under_way": {"name": "run-580"}},
            True,
            [],
        ),  # DKMS and the first library are there: it looks whole
        ({"kernels": [kernel("a"), kernel("b", "")]}, False, ["b"]),
        ({"kernels": [kernel("a", ""), kernel("b", "")]}, True, ["a", "b"]),
        (
            {"kernels": [{**kernel("a", ""), "file_version": "580.95.05"}]},
            True,
            ["a"],
        ),  # DKMS did not take it
        ({"kernels": [kernel("a", "built")]}, False, ["a"]),
        ({"kernels": [kernel("a", version="535.261.03")]}, True, ["a"]),
    ],
)
def test_a_half_done_installation_is_taken_up_again_by_the_installer_or_by_dkms_alone(
    half: dict[str, Any], installer: bool, build: list[str]
) -> None:
    plan = driver.outpost_driver_plan({**RUN_WHOLE, **half}, RUN, SETTINGS)
    assert (plan["change"], plan["installer"], plan["build"]) == (True, installer, build)
    assert (plan["adopt"], plan["reboot"], plan["refusals"]) == (False, False, [])


def test_an_installation_that_did_not_end_is_never_adopted_as_whole() -> None:
    forgotten = {**RUN_WHOLE, "record": {}}
    assert driver.outpost_driver_plan(forgotten, RUN, SETTINGS)["adopt"]
    cut_off = {**forgotten, "under_way": {"name": "run-580"}}
    assert not driver.outpost_driver_plan(cut_off, RUN, SETTINGS)["adopt"]


@pytest.mark.parametrize(
    "held", [{"loaded": "535.261.03"}, {"nouveau": {"loaded": True, "initial_ramdisk": [], "xorg": False}}]
)
def test_a_run_change_under_a_loaded_module_needs_the_window_as_packages_do(held: dict[str, Any]) -> None:
    read = {**RUN_WHOLE, "libraries": {"535.261.03": ["a"]}, "loaded": "", **held}
    assert refused(read, RUN) == {"WINDOW_OPEN"}
    plan = driver.outpost_driver_plan(read, RUN, {**SETTINGS, "window_open": True})
    assert (plan["reboot"], plan["refusals"]) == (True, [])


def test_a_run_driver_is_locked_by_its_families_for_it_has_no_package_to_lock() -> None:
    (check,) = [
        c
        for c in driver.outpost_driver_checks({**RUN_WHOLE, "families_locked": False}, RUN, SETTINGS)
        if not c["ok"]
    ]
    assert (check["code"], check["value"]) == ("LOCKED", "not locked: the driver's families")
    (file,) = [f for f in driver.outpost_driver_lock(RUN, "dnf", SETTINGS, {})["files"] if "block" in f]
    assert file["content"].splitlines()[1:] == [f"!{name}" for name in
                                               ("nvidia-*", "libnvidia-*", "libcuda1", "linux-image-*")]  # fmt: skip


def test_a_versionlock_without_its_plugin_or_without_a_family_locks_no_family(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_module, "text", lambda path: "# ours\n!nvidia-*\n!libnvidia-*\n")
    locked = read_module.families_locked
    assert locked("dnf", ["nvidia-*", "libnvidia-*"], True)
    assert not locked("dnf", ["nvidia-*", "libnvidia-*"], False)
    assert not locked("dnf", ["nvidia-*", "libcuda1"], True)


def test_an_enrolled_key_lifts_the_refusal_of_secure_boot() -> None:
    assert refused({**BARE, "secure_boot": "on"}, key_enrolled=True) == set()


def test_no_key_lifts_it_for_a_run_installer_for_its_module_reaches_dkms_unsigned() -> None:
    assert refused({**BARE, "secure_boot": "on"}, RUN, key_enrolled=True) == {"SECURE_BOOT"}


@pytest.mark.parametrize("held", [{"loaded": "535.261.03"}, {"nouveau": {**NO_NOUVEAU, "loaded": True}}])
def test_a_change_under_a_loaded_module_needs_a_window(held: dict[str, Any]) -> None:
    assert refused({**BARE, **held}) == {"WINDOW_OPEN"}
    plan = driver.outpost_driver_plan({**BARE, **held}, CHOSEN, {**SETTINGS, "window_open": True})
    assert (plan["reboot"], plan["refusals"]) == (True, [])


OURS = {**WHOLE, "record": {**CHOSEN, "previous": {}}}


@pytest.mark.parametrize("held", [{"loaded": "535.261.03"}, {"nouveau": {**NO_NOUVEAU, "loaded": True}}])
def test_a_change_that_ended_without_its_reboot_is_finished_in_a_window_alone(held: dict[str, Any]) -> None:
    plan = driver.outpost_driver_plan({**OURS, **held}, CHOSEN, {**SETTINGS, "window_open": True})
    assert (plan["change"], plan["reboot"], plan["finish"], len(plan["say"])) == (False, False, True, 1)
    plan = driver.outpost_driver_plan({**OURS, **held}, CHOSEN, SETTINGS)
    assert (plan["finish"], plan["say"], plan["refusals"]) == (False, [], [])


@pytest.mark.parametrize(
    "read",
    [
        OURS,
        {**OURS, "loaded": "535.261.03", "kernels": [kernel("a", "added")]},
        {**OURS, "loaded": "535.261.03", "record": {}},
        {
            **OURS,
            "loaded": "535.261.03",
            "packages": {**OURS["packages"], **there("libcuda1", "535.261.03-1")},
        },
    ],
    ids=["nothing is owed", "no module to come up with", "not our change", "not whole"],
)
def test_nothing_else_is_finished_by_a_reboot(read: dict[str, Any]) -> None:
    assert not driver.outpost_driver_plan(read, CHOSEN, {**SETTINGS, "window_open": True})["finish"]


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ({"loaded": "535.261.03"},
         "[WINDOW_OPEN] is: the kernel holds 535.261.03; wanted: a reboot in a window. Changing the driver under"),
        ({"packages": there("nvidia-smi", "535.1-1")},
         "[WAY_BACK] is: a driver that no set describes: nvidia-smi; wanted: a known set to go back to. Make a set of"),
    ],
)  # fmt: skip
def test_a_refusal_is_said_with_its_code_its_reason_and_its_remedy(
    preflight: ModuleType, read: dict[str, Any], said: str
) -> None:
    refusals = driver.outpost_driver_plan({**BARE, **read}, CHOSEN, SETTINGS)["refusals"]
    (line,) = preflight.outpost_failed(refusals)
    assert line.startswith(said)
    assert line.endswith(refusals[0]["remedy"])


def test_of_all_checks_only_what_is_wrong_is_said(preflight: ModuleType) -> None:
    checks = driver.outpost_driver_checks({**WHOLE, "loaded": ""}, CHOSEN, SETTINGS)
    assert [line.split("]")[0] for line in preflight.outpost_failed(checks)] == ["[MODULE_LOADED"]


# --- verdicts


def test_a_whole_host_passes_every_check() -> None:
    assert failed(WHOLE) == set()


@pytest.mark.parametrize(
    ("code", "read"),
    [
        (
            "PACKAGES",
            {
                "packages": {
                    **there("nvidia-smi"),
                    **there("libcuda1", "590.1-1"),
                    **there("nvidia-kernel-dkms"),
                }
            },
        ),
        ("FOREIGN_PACKAGES", {"packages": {**WHOLE["packages"], **there("libnvidia-stranger")}}),
        ("LOCKED", {"packages": {**WHOLE["packages"], **there("libcuda1", held=False)}}),
        ("UPGRADE_MOVES", {"upgrades": ["libcuda1"]}),
        ("UPGRADE_MOVES", {"upgrades": ["libnvidia-gpucomp"]}),
        ("MODULE_BUILT", {"kernels": [kernel("a"), kernel("b", "added")]}),
        ("MODULE_BUILT", {"kernels": [kernel("a"), kernel("b", "")]}),
        ("MODULE_BUILT", {"kernels": [kernel("a", version="535.261.03")]}),
        ("MODULE_BUILT", {"kernels": [{**kernel("a", "built"), "file_version": "580.95.05"}]}),
        ("NOUVEAU_OFF", {"nouveau": {**NO_NOUVEAU, "loaded": True}}),
        ("NOUVEAU_OFF", {"nouveau": {**NO_NOUVEAU, "initial_ramdisk": ["nouveau modeset=1"]}}),
        ("NOUVEAU_OFF", {"nouveau": {**NO_NOUVEAU, "old_ramdisks": ["/boot/initrd.img-6.8.0-50-generic"]}}),
        ("MODULE_LOADED", {"loaded": ""}),
        ("CDI_FRESH", {"cdi": {"/var/run/cdi/nvidia.yaml": ["535.261.03", "580.95.05"]}}),
        (
            "NO_REFUSAL",
            {"refusals": ["NVRM: The NVIDIA GPU is supported through the NVIDIA 580.xx Legacy drivers"]},
        ),
        ("CONTAINER_SEES", {"containers": {"outpost-brain": "Failed to initialize NVML: Unknown Error"}}),
        ("TOOLKIT", {"toolkit": False}),
        ("CDI_PRESENT", {"cdi": {}}),
    ],
)
def test_each_fault_is_found_and_nothing_else(code: str, read: dict[str, Any]) -> None:
    assert failed({**WHOLE, **read}) == {code}


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("580.95.05", ""),
        ("535.261.03", "what another driver left"),
        (
            "Failed to initialize NVML: Driver/library version mismatch; NVML library version: 535.261",
            "another driver",
        ),
        ("Failed to initialize NVML: Unknown Error", "reloaded systemd"),
        ('exec: "nvidia-smi": executable file not found in $PATH: unknown', "gives no nvidia-smi"),
        ("no GPU was given: /etc/cdi/nvidia.yaml is stale", "Mend what it names"),
    ],
)
def test_what_a_container_says_of_its_gpu_decides_the_remedy(said: str, remedy: str) -> None:
    checks = driver.outpost_driver_checks({**WHOLE, "containers": {"outpost-brain": said}}, CHOSEN, SETTINGS)
    [found] = [check for check in checks if check["code"] == "CONTAINER_SEES"]
    assert found["ok"] is (remedy == "")
    assert remedy in found["remedy"]
    assert "systemctl restart outpost@brain`" in found["remedy"]


def test_a_host_whose_containers_are_to_have_no_gpu_needs_no_toolkit() -> None:
    without = {"toolkit": False, "cdi": {}}
    assert failed({**WHOLE, **without}, containers=False) == set()
    assert failed({**WHOLE, **without}, gpus=[]) == set()


@pytest.mark.parametrize(
    ("read", "describe"),
    [
        ({}, False),
        ({"cdi": {}}, True),
        ({"cdi": {"/etc/cdi/nvidia.yaml": ["535.261.03"]}}, True),
        # nvidia-ctk fails where no module is loaded, and would describe a mismatch where another is.
        ({"cdi": {}, "loaded": ""}, False),
        ({"cdi": {}, "loaded": "535.261.03"}, False),
        ({"cdi": {}, "toolkit": False}, False),
    ],
)
def test_devices_are_described_anew_only_where_that_is_needed_and_can_succeed(
    read: dict[str, Any], describe: bool
) -> None:
    assert driver.outpost_driver_plan({**WHOLE, **read}, CHOSEN, SETTINGS)["describe"] is describe


def test_a_set_without_the_container_toolkit_is_refused_before_anything_changes() -> None:
    bare = {**BARE, "toolkit": False}
    assert "TOOLKIT" in refused(bare)
    assert "TOOLKIT" not in refused(BARE)
    assert "TOOLKIT" not in refused(bare, containers=False)
    with_it = {**CHOSEN, "packages": [*CHOSEN["packages"], package("nvidia-container-toolkit-base")]}
    assert "TOOLKIT" not in refused(bare, with_it)


def test_the_toolkit_may_stand_beside_a_run_installer() -> None:
    there_is = {**BARE, "packages": there("nvidia-container-toolkit-base")}
    assert "RUN_OVER_PACKAGES" in refused(there_is, RUN)
    assert refused(there_is, RUN, allow=["nvidia-container-toolkit*", "libnvidia-container*"]) == set()


def test_modules_that_the_vendor_built_and_signed_are_as_good() -> None:
    signed = {**CHOSEN, "packages": [package("linux-modules-nvidia-580-6.8.0-50-generic")]}
    read = {**WHOLE, "packages": there("linux-modules-nvidia-580-6.8.0-50-generic")}
    assert failed({**read, "kernels": [{**kernel("a", ""), "file_version": "580.95.05"}]}, signed) == set()
    assert failed({**read, "kernels": [kernel("a", "")]}, signed) == {"MODULE_BUILT"}


def test_two_versions_of_libraries_are_seen_as_what_they_will_do() -> None:
    assert failed({**WHOLE, "libraries": {"580.95.05": ["a"], "535.261.03": ["b"]}}) == {
        "LIBRARIES",
        "LATENT_MISMATCH",
    }


def test_a_module_that_does_not_match_the_libraries_is_a_mismatch_to_come() -> None:
    checks = driver.outpost_driver_checks({**WHOLE, "loaded": "535.261.03"}, CHOSEN, SETTINGS)
    wrong = [check for check in checks if not check["ok"]]
    assert [check["code"] for check in wrong] == ["LATENT_MISMATCH"]
    assert "Restart no container" in wrong[0]["remedy"]


def test_where_no_gpu_is_no_module_need_be_loaded() -> None:
    without = {**WHOLE, "loaded": "", "refusals": ["NVRM: No NVIDIA GPU found."]}
    assert failed(without, gpus=[]) == set()


def test_the_wrong_kernel_is_named_where_the_set_has_one() -> None:
    assert failed(WHOLE, {**CHOSEN, "kernel": "6.8.0-51-generic"}) == {"KERNEL_RUNS"}


# --- locks


def content(lock: dict[str, Any], path: str) -> str:
    return str(next(file["content"] for file in lock["files"] if file["path"] == path))


def test_the_apt_lock_pins_exact_versions_and_shuts_the_families() -> None:
    lock = driver.outpost_driver_lock(CHOSEN, "apt", SETTINGS, {"packages": [package("libnvidia-gpucomp")]})
    pins = content(lock, "/etc/apt/preferences.d/outpost-driver")
    assert (
        "Package: libcuda1 nvidia-kernel-dkms nvidia-smi\nPin: version 580.95.05-1\nPin-Priority: 1001\n"
        in pins
    )
    assert "Package: nvidia-* libnvidia-* libcuda1 linux-image-*\nPin: version *\nPin-Priority: -1\n" in pins
    assert pins.index("Priority: 1001") < pins.index("Priority: -1"), "the first record that fits decides"
    assert lock["hold"] == ["libcuda1", "nvidia-kernel-dkms", "nvidia-smi"]
    assert lock["release"] == ["libnvidia-gpucomp"]
    assert '"^nvidia-.*$";' in content(lock, "/etc/apt/apt.conf.d/91outpost-driver")


def test_the_kernel_is_left_free_where_the_site_wants_it() -> None:
    lock = driver.outpost_driver_lock(CHOSEN, "apt", {**SETTINGS, "lock_kernel": False}, {})
    assert "linux-image" not in content(lock, "/etc/apt/preferences.d/outpost-driver")


def test_the_dnf_lock_names_versions_with_their_epoch_and_hides_the_families_gaps_included() -> None:
    families = yaml.safe_load((ROOT / "roles/nvidia_driver/vars/rpm.yml").read_text())
    settings = {**SETTINGS, "families": families["__nvidia_driver_families"],
                "kernel_families": families["__nvidia_driver_kernel_families"]}  # fmt: skip
    chosen = {**CHOSEN, "packages": [package("nvidia-driver-cuda", "3:580.95.05-1.el8")]}
    lines = content(
        driver.outpost_driver_lock(chosen, "dnf", settings, {}), "/etc/dnf/plugins/versionlock.list"
    ).splitlines()
    assert "nvidia-driver-cuda-3:580.95.05-1.el8.*" in lines
    assert {"!nvidia-*", "!libnvidia-*", "!kernel", "!kernel-*"} <= set(lines)


def test_debian_libraries_without_nvidia_in_their_name_are_in_the_families() -> None:
    families = yaml.safe_load((ROOT / "roles/nvidia_driver/vars/deb.yml").read_text())
    assert {"libcuda1", "libcudadebugger1", "libnvcuvid1", "libnvoptix1"} <= set(
        families["__nvidia_driver_families"]
    )
    assert "linux-astra-modules-*" in families["__nvidia_driver_kernel_families"]


def test_nouveau_is_off_by_blacklist_and_by_option_and_the_file_is_the_same_for_every_set() -> None:
    one = content(
        driver.outpost_driver_lock(CHOSEN, "apt", SETTINGS, {}), "/etc/modprobe.d/outpost-nouveau.conf"
    )
    other = content(
        driver.outpost_driver_lock(RUN, "dnf", SETTINGS, {}), "/etc/modprobe.d/outpost-nouveau.conf"
    )
    assert one == other
    assert "\nblacklist nouveau\noptions nouveau modeset=0\n" in one


def test_a_block_leaves_the_administrators_own_lines() -> None:
    once = lock_module.with_block("less-0:1-1.*\n", "ours", "a\n")
    assert once == "less-0:1-1.*\n# BEGIN ours\na\n# END ours\n"
    assert (
        lock_module.with_block(once + "vim\n", "ours", "b\n")
        == "less-0:1-1.*\n# BEGIN ours\nb\n# END ours\nvim\n"
    )
    assert lock_module.with_block(once, "ours", None) == "less-0:1-1.*\n"


def test_the_record_keeps_the_way_back_whole_also_after_the_same_set_again() -> None:
    old = {**CHOSEN, "name": "old"}
    first = driver.outpost_driver_record(CHOSEN, old)
    assert first["previous"] == old
    assert driver.outpost_driver_record(CHOSEN, first)["previous"] == old
    assert driver.outpost_driver_record(old, first)["previous"]["name"] == "site-580"


# --- reading


@pytest.mark.parametrize(
    ("line", "release", "state"),
    [
        ("nvidia-current/535.261.03, 6.1.0-50-amd64, x86_64: installed", "6.1.0-50-amd64", "installed"),
        ("nvidia, 580.95.05, 6.6.28-1-generic, x86_64: built", "6.6.28-1-generic", "built"),
        ("nvidia/580.95.05, 6.6.28-1-generic, x86_64: installed (WARNING! Diff between built and installed module!)",
         "6.6.28-1-generic", "installed"),
    ],
)  # fmt: skip
def test_what_dkms_says_is_understood_in_its_old_and_new_words(
    line: str, release: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / release / "build").mkdir(parents=True)
    (tmp_path / release / "build/Makefile").touch()
    (tmp_path / release / "modules.builtin").touch()
    (tmp_path / "5.4-removed").mkdir()  # what a removed kernel leaves behind is no kernel
    monkeypatch.setattr(
        read_module, "say", lambda *command: line if command[:2] == ("dkms", "status") else ""
    )
    found = read_module.kernels(str(tmp_path))
    assert [(k["release"], k["headers"], k["dkms"]["state"]) for k in found] == [(release, True, state)]


def test_of_two_versions_dkms_knows_the_installed_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "6.6").mkdir()
    (tmp_path / "6.6/modules.builtin").touch()
    lines = [
        "nvidia/580.95.05, 6.6, x86_64: installed",
        "nvidia/595.1, 6.6, x86_64: built",
        "nvidia/610.1: added",
    ]
    for said in (lines, lines[::-1]):
        monkeypatch.setattr(read_module, "say", lambda *command, said=said: "\n".join(said))
        (found,) = read_module.kernels(str(tmp_path))
        assert found["dkms"]["version"] == "580.95.05"


def test_a_version_lock_that_no_plugin_reads_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    locks = "# ours\nnvidia-smi-3:580.95.05-1.el8.*\n!nvidia-*\n"
    installed = "nvidia-smi\t3:580.95.05-1.el8\nlibnvidia-ml\t3:580.95.05-1.el8\n"
    monkeypatch.setattr(read_module, "text", lambda path: locks if path.endswith("versionlock.list") else "")
    monkeypatch.setattr(read_module, "say", lambda *command: installed if command[0] == "rpm" else "")
    held = {name: package["held"] for name, package in read_module.rpm_packages(True).items()}
    assert held == {"nvidia-smi": True, "libnvidia-ml": False}
    assert not any(package["held"] for package in read_module.rpm_packages(False).values())


@pytest.mark.parametrize("path", ["present", "change"])
def test_the_lock_itself_is_there_before_its_list_is_written(path: str) -> None:
    steps = yaml.safe_load((ROOT / f"roles/nvidia_driver/tasks/{path}.yml").read_text())
    steps = [inner for step in steps for inner in step.get("block", [step])]
    itself = [step.get("ansible.builtin.include_tasks") for step in steps].index("lock_itself.yml")
    assert itself < next(number for number, step in enumerate(steps) if "nvidia_driver_lock" in step)
    assert "when" not in steps[itself], "adopted, changed or only locked again: the lock is needed"


def test_only_nvidias_specifications_count_and_every_version_in_them_is_seen(tmp_path: Path) -> None:
    paths = ("/usr/lib/libcuda.so.535.261.03", "/usr/lib/libnvidia-ml.so.580.95.05", "/dev/nvidia0")
    lines = ["kind: nvidia.com/gpu", *(f"- hostPath: {path}" for path in paths)]
    (tmp_path / "nvidia.yaml").write_text("\n".join(lines))
    (tmp_path / "other.yaml").write_text("kind: vendor.com/device\n- hostPath: /usr/lib/libx.so.111.22\n")
    assert read_module.cdi([str(tmp_path)]) == {str(tmp_path / "nvidia.yaml"): ["535.261.03", "580.95.05"]}


def test_the_tool_makes_a_set_that_the_role_takes(tmp_path: Path) -> None:
    control = tmp_path / "tree/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: nvidia-smi\nVersion: 580.95.05-1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    subprocess.run(
        ["dpkg-deb", "-b", tmp_path / "tree", tmp_path / "nvidia-smi.deb"], check=True, capture_output=True
    )
    tool = ROOT / "roles/nvidia_driver/files/outpost-driver-set"
    command = [sys.executable, tool, tmp_path, "site-580", "580.95.05", "--platform", "astra-1.8"]
    made = yaml.safe_load(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    chosen = driver.outpost_driver_set(made["nvidia_driver_sets"], "site-580", "astra-1.8")
    assert [(p["name"], p["version"]) for p in chosen["packages"]] == [("nvidia-smi", "580.95.05-1")]
    assert json.dumps(chosen)


def test_the_tool_makes_a_set_of_a_run_file_and_of_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "NVIDIA-Linux-x86_64-580.95.05.run").write_text("a file")
    tool = ROOT / "roles/nvidia_driver/files/outpost-driver-set"
    command = [sys.executable, tool, tmp_path, "run-580", "580.95.05", "--platform", "redos-8"]
    modules = ["--modules", "kernel-open"]
    made = subprocess.run([*command, *modules], check=True, capture_output=True, text=True).stdout
    chosen = driver.outpost_driver_set(yaml.safe_load(made)["nvidia_driver_sets"], "run-580", "redos-8")
    digest = hashlib.sha256(b"a file").hexdigest()
    assert chosen["run"] == {
        "file": "NVIDIA-Linux-x86_64-580.95.05.run",
        "sha256": digest,
        "modules": "kernel-open",
    }
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2, (
        "which modules is not said"
    )
    (tmp_path / "other.deb").touch()
    assert subprocess.run([*command, *modules], capture_output=True, check=False).returncode == 2
