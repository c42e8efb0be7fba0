"""GPU, driver, modules, CUDA, torch: every row of the tables the data file was written from, and their crossings."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest

from outpost.platform import fit as fitting
from outpost.platform.fit import (
    Asked,
    AskedWrong,
    Bundle,
    branch_of,
    builds_for,
    fit,
    kernels_for,
    serves,
    serving,
    torch_of,
)
from outpost.platform.gpus import UnknownId, knowledge, lookup
from outpost.platform.line import Line

TODAY = date(2026, 11, 26)
# One card of each generation that hospitals have.
K80, M40, P100, GTX_1080_TI, V100 = "10de:102d", "10de:17fd", "10de:15f8", "10de:1b06", "10de:1db6"
T4, A100, RTX_4090, H100 = "10de:1eb8", "10de:20b0", "10de:2684", "10de:2331"
B200, RTX_5090, RTX_PRO_6000, RTX_PRO_4500, B300 = (
    "10de:2901",
    "10de:2b85",
    "10de:2bb5",
    "10de:2c3a",
    "10de:3182",
)
CMP_50HX = "10de:1e09"


def judged(gpus: list[str], asked: Asked, today: date = TODAY) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in fit([lookup(gpu) for gpu in gpus], asked, today):
        found.setdefault(line.code, []).append(line)
    return found


def level(code: str, gpus: list[str], asked: Asked, today: date = TODAY) -> str:
    """The worst level among the lines of a code."""
    levels = [line.level for line in judged(gpus, asked, today)[code]]
    return max(levels, key=["ok", "warning", "critical"].index)


# --- Branches: kind and end of support.


@pytest.mark.parametrize(
    ("branch", "kind", "maintained", "end"),
    [
        (390, "legacy", False, None),
        (470, "legacy", False, None),
        (535, "LTSB", False, "2026-06-30"),
        (550, "PB", False, None),
        (570, "PB", False, None),
        (575, "NFB", False, None),
        (580, "LTSB", True, "2028-06-30"),
        (590, "NFB", False, None),
        (595, "PB", True, "2027-03-31"),
        (610, "NFB", False, "2026-08-31"),
        (615, "NFB", True, None),
    ],
)
def test_each_branch_has_its_kind_and_its_end(
    branch: int, kind: str, maintained: bool, end: str | None
) -> None:
    row = knowledge()["branches"][str(branch)]
    assert (row["kind"], row["end"]) == (kind, end)
    assert row["source"]
    assert (level("driver-support", [], Asked(driver=f"{branch}.1.1")) == "ok") is maintained


@pytest.mark.parametrize(("day", "level_then"), [("2028-06-30", "ok"), ("2028-07-01", "warning")])
def test_a_branch_ends_with_the_last_day_of_its_month(day: str, level_then: str) -> None:
    assert (
        level("driver-support", [GTX_1080_TI], Asked(driver="580.95.05"), date.fromisoformat(day))
        == level_then
    )


def test_the_end_of_535_was_june_2026() -> None:
    asked = Asked(driver="535.261.03")
    assert level("driver-support", [T4], asked, date(2026, 6, 30)) == "warning", (
        "the table knows that it has ended"
    )
    (line,) = judged([T4], asked)["driver-support"]
    assert "2026-06-30" in line.value.en
    assert "580" in line.remedy.en


# --- Architectures: ids, driver, modules, CUDA, torch.

# (architecture, capability prefix, ids named for it: the first and last of each range and the single ones)
ROWS = [
    ("kepler", "3.", ["0fc0", "103f", "1180", "11ff", "1280", "12ba"]),
    ("maxwell", "5.", ["1340", "1436", "1617", "1667", "174d", "17fd"]),
    ("pascal", "6.", ["15f0", "15f9", "1725", "172f", "1b00", "1d56"]),
    ("volta", "7.0", ["1d81", "1df6"]),
    ("turing", "7.5", ["1e02", "1ff9", "2182", "21d1"]),
    ("ampere", "8.", ["2082", "20fd", "2200", "223f", "2414", "25fb", "1af1"]),
    ("ada", "8.9", ["2681", "28e1"]),
    ("hopper", "9.0", ["2302", "2339"]),
    ("blackwell", "1", ["2901", "2b85", "2bb5", "2c3a", "3182"]),
]


@pytest.mark.parametrize(("architecture", "capability", "ids"), ROWS, ids=[row[0] for row in ROWS])
def test_each_id_is_of_its_architecture(architecture: str, capability: str, ids: list[str]) -> None:
    for device in ids:
        gpu = lookup(device)
        assert gpu.architecture == architecture, device
        if gpu.known_by == "table":
            assert gpu.compute_capability.startswith(capability), device


@pytest.mark.parametrize(
    ("gpu", "newest_that_serves", "oldest_that_does_not"),
    [(K80, 470, 535), (M40, 580, 590), (P100, 580, 590), (GTX_1080_TI, 580, 590), (V100, 580, 590)],
)
def test_old_cards_stop_at_their_last_branch(
    gpu: str, newest_that_serves: int, oldest_that_does_not: int
) -> None:
    assert serves(lookup(gpu), newest_that_serves)
    assert not serves(lookup(gpu), oldest_that_does_not)
    assert level("gpu-driver", [gpu], Asked(driver=f"{newest_that_serves}.95.05")) == "ok"
    assert level("gpu-driver", [gpu], Asked(driver=f"{oldest_that_does_not}.44.01")) == "critical"


@pytest.mark.parametrize(
    ("gpu", "first_that_serves", "last_that_does_not"),
    [
        (RTX_4090, 525, 510),
        (H100, 525, 510),
        (B200, 570, 565),
        (RTX_5090, 570, 565),
        (RTX_PRO_6000, 570, 565),
        (B300, 570, 565),
    ],
)
def test_new_cards_begin_at_their_first_branch(
    gpu: str, first_that_serves: int, last_that_does_not: int
) -> None:
    assert serves(lookup(gpu), first_that_serves)
    assert not serves(lookup(gpu), last_that_does_not)


@pytest.mark.parametrize("gpu", [T4, A100])
def test_turing_and_ampere_run_on_any_current_branch(gpu: str) -> None:
    for branch in (535, 550, 570, 580, 590, 595, 610, 615):
        assert serves(lookup(gpu), branch)


@pytest.mark.parametrize(
    ("driver", "wanted"),
    [
        ("580.95.05", "critical"),
        ("590.44.01", "critical"),
        ("595.45.04", "critical"),
        ("595.58.03", "ok"),
        ("615.1.1", "ok"),
    ],
)
def test_an_id_that_a_later_driver_brought_needs_that_driver(driver: str, wanted: str) -> None:
    assert level("gpu-driver", [RTX_PRO_4500], Asked(driver=driver)) == wanted


@pytest.mark.parametrize(
    ("gpu", "kinds"),
    [
        (K80, {"proprietary"}), (M40, {"proprietary"}), (GTX_1080_TI, {"proprietary"}), (V100, {"proprietary"}),
        (T4, {"open", "proprietary"}), (A100, {"open", "proprietary"}), (RTX_4090, {"open", "proprietary"}),
        (H100, {"open", "proprietary"}), (RTX_PRO_6000, {"open"}), (B300, {"open"}),
        (CMP_50HX, {"proprietary"}),
    ],
)  # fmt: skip
def test_each_generation_takes_its_kind_of_module(gpu: str, kinds: set[str]) -> None:
    driver = "470.256.02" if gpu == K80 else "580.95.05"
    for kind in ("open", "proprietary"):
        ok = level("gpu-modules", [gpu], Asked(driver=driver, modules=kind)) == "ok"
        assert ok is (kind in kinds), kind


def test_from_620_on_there_are_open_modules_alone() -> None:
    assert level("gpu-modules", [T4], Asked(driver="620.1.1", modules="proprietary")) == "critical"
    assert level("gpu-modules", [T4], Asked(driver="620.1.1", modules="open")) == "ok"


@pytest.mark.parametrize(
    ("gpu", "cuda", "wanted"),
    [
        (M40, "12.9", "ok"), (M40, "13.0", "critical"),
        (GTX_1080_TI, "12.6", "ok"), (GTX_1080_TI, "12.9", "ok"), (GTX_1080_TI, "13.0", "critical"),
        (V100, "12.9", "ok"), (V100, "13.0", "critical"),
        (T4, "13.2", "ok"), (T4, "11.7", "ok"),
        (A100, "11.0", "ok"), (A100, "10.2", "critical"),
        (RTX_4090, "11.8", "ok"), (RTX_4090, "11.7", "critical"), (H100, "11.8", "ok"), (H100, "11.7", "critical"),
        (RTX_PRO_6000, "12.8", "ok"), (RTX_PRO_6000, "12.6", "critical"),
        # Kepler's bound is from memory: it warns and does not stop.
        (K80, "11.4", "ok"), (K80, "11.7", "warning"),
    ],
)  # fmt: skip
def test_each_generation_is_known_to_its_cuda_versions(gpu: str, cuda: str, wanted: str) -> None:
    assert level("gpu-cuda", [gpu], Asked(cuda=cuda)) == wanted


@pytest.mark.parametrize(
    ("gpu", "torch", "wanted"),
    [
        # Kepler: sm_37 alone (K80), in 1.13.
        (K80, "1.13.1+cu117", "ok"), (K80, "2.5.1+cu124", "critical"), ("10de:118a", "1.13.1+cu117", "critical"),
        # Maxwell, Pascal: PyPI's default to 2.7.1, then cu126 alone.
        (M40, "2.7.1", "ok"), (M40, "2.8.0", "critical"), (M40, "2.8.0+cu126", "ok"), (M40, "2.14.1+cu126", "ok"),
        (GTX_1080_TI, "2.7.1", "ok"), (GTX_1080_TI, "2.8.0", "critical"), (GTX_1080_TI, "2.11.0", "critical"),
        (GTX_1080_TI, "2.8.0+cu126", "ok"), (GTX_1080_TI, "2.13.0+cu126", "ok"), (GTX_1080_TI, "2.14.1+cu126", "ok"),
        (P100, "2.8.0+cu128", "critical"), (P100, "2.13.0+cu126", "ok"),
        # Volta: cu126 to 2.14, cu128 from 2.8 to 2.10.
        (V100, "2.8.0", "ok"), (V100, "2.10.0+cu128", "ok"), (V100, "2.11.0+cu128", "critical"),
        (V100, "2.11.0", "critical"), (V100, "2.14.1+cu126", "ok"),
        # Turing, Ampere: all.
        (T4, "1.13.1+cu117", "ok"), (T4, "2.8.0", "ok"), (T4, "2.14.1", "ok"),
        (A100, "2.5.1", "ok"), (A100, "2.14.1", "ok"),
        # Ada runs what sm_86 has, Hopper needs sm_90.
        (RTX_4090, "1.13.1+cu117", "ok"), (RTX_4090, "2.14.1", "ok"),
        (H100, "1.13.1+cu117", "critical"), (H100, "2.5.1", "ok"),
        # Blackwell: cu128 and later.
        (RTX_PRO_6000, "2.7.1+cu128", "ok"), (RTX_PRO_6000, "2.8.0", "ok"), (RTX_PRO_6000, "2.14.1", "ok"),
        (RTX_PRO_6000, "2.8.0+cu126", "critical"), (B200, "2.8.0+cu128", "ok"), (B200, "2.13.0+cu126", "critical"),
        (B300, "2.9.1+cu130", "ok"),
    ],
)  # fmt: skip
def test_each_generation_finds_kernels_in_its_torch_builds_and_no_others(
    gpu: str, torch: str, wanted: str
) -> None:
    assert level("torch-arch", [gpu], Asked(torch=torch)) == wanted


# --- CUDA and driver.


@pytest.mark.parametrize(
    ("cuda", "floor"),
    [
        ("11.0", "450.80.02"),
        ("11.8", "450.80.02"),
        ("12.1", "525.60.13"),
        ("12.9", "525.60.13"),
        ("13.0", "580.65.06"),
    ],
)
def test_each_cuda_major_has_its_lowest_driver(cuda: str, floor: str) -> None:
    head, last = floor.rsplit(".", 1)
    just_below = f"{head}.{int(last) - 1}"
    assert level("cuda-driver", [T4], Asked(driver=floor, cuda=cuda)) == "ok"
    assert level("cuda-driver", [T4], Asked(driver=just_below, cuda=cuda)) == "critical"


@pytest.mark.parametrize(
    ("cuda", "full"),
    [
        ("12.1", "530.30.02"), ("12.2", "535.54.03"), ("12.3", "545.23.06"), ("12.4", "550.54.14"),
        ("12.5", "555.42.02"), ("12.6", "560.28.03"), ("12.8", "570.26"), ("12.9", "575.51.03"),
        ("13.0", "580.65.06"), ("13.1", "590.44.01"), ("13.2", "595.45.04"),
    ],
)  # fmt: skip
def test_each_toolkit_has_its_own_driver_and_an_older_one_is_a_warning(cuda: str, full: str) -> None:
    head, last = full.rsplit(".", 1)
    assert level("cuda-full", [T4], Asked(driver=full, cuda=cuda)) == "ok"
    (older,) = judged([T4], Asked(driver=f"{head}.{int(last) - 1}", cuda=cuda))["cuda-full"]
    assert older.level == "warning"
    assert older.unverified, "that PTX needs it is from memory"


# --- torch builds.

OLD, NEW = "5.0 6.0 7.0 7.5 8.0 8.6 9.0", "7.0 7.5 8.0 8.6 9.0 10.0 12.0"
NEW75 = "7.5 8.0 8.6 9.0 10.0 12.0"


@pytest.mark.parametrize(
    ("torch", "cuda", "archs", "ptx"),
    [
        ("1.13", "11.6", "3.7 5.0 6.0 7.0 7.5 8.0 8.6", ""), ("1.13", "11.7", "3.7 5.0 6.0 7.0 7.5 8.0 8.6", ""),
        ("2.5", "12.4", OLD, ""),
        ("2.8", "12.6", OLD, ""), ("2.8", "12.8", NEW, ""), ("2.8", "12.9", NEW, "12.0"),
        ("2.9", "12.6", OLD, ""), ("2.9", "12.8", NEW, ""), ("2.9", "13.0", NEW75, "12.0"),
        ("2.10", "12.6", OLD, ""), ("2.10", "12.8", NEW, ""), ("2.10", "13.0", NEW75, "12.0"),
        ("2.11", "12.6", OLD, ""), ("2.11", "12.8", NEW75, ""), ("2.11", "13.0", NEW75, "12.0"),
        *[(minor, cuda, archs, ptx) for minor in ("2.12", "2.13", "2.14")
          for cuda, archs, ptx in (("12.6", OLD, ""), ("13.0", NEW75, "12.0"))],
        ("2.15", "13.0", NEW75, "12.0"),
    ],
)  # fmt: skip
def test_each_build_has_its_arch_list(torch: str, cuda: str, archs: str, ptx: str) -> None:
    build = fitting._build(torch, cuda)
    assert build is not None
    assert (" ".join(build["archs"]), " ".join(build["ptx"])) == (archs, ptx)
    assert build["source"]


@pytest.mark.parametrize(
    ("torch", "wanted"),
    [
        ("2.8.0+cu130", "critical"),
        *[(f"2.{minor}.0+cu128", "critical") for minor in (12, 13, 14, 15)],
        # Only an RFC says so: a warning.
        ("2.15.0+cu126", "warning"),
        # Nothing is known: a warning.
        ("2.9.0+cu129", "warning"), ("3.0.0+cu140", "warning"), ("9.9.9", "warning"),
        ("2.13.0+cu126", "ok"),
    ],
)  # fmt: skip
def test_a_build_that_does_not_exist_is_named(torch: str, wanted: str) -> None:
    assert level("torch-build", [T4], Asked(torch=torch)) == wanted


@pytest.mark.parametrize(
    ("torch", "cuda"),
    [
        ("1.13.1", "11.7"), ("2.0.1", "11.7"), ("2.1.2", "12.1"), ("2.4.1", "12.1"), ("2.5.1", "12.4"),
        ("2.6.0", "12.4"), ("2.7.1", "12.6"), ("2.8.0", "12.8"), ("2.9.1", "12.8"), ("2.10.0", "12.8"),
        ("2.11.0", "13.0"), ("2.14.1", "13.0"),
    ],
)  # fmt: skip
def test_a_torch_without_a_tag_is_pypis_default(torch: str, cuda: str) -> None:
    assert torch_of(torch).cuda == cuda


def test_hopper_in_2_11_cu126_is_doubtful_and_says_so() -> None:
    (line,) = judged([H100], Asked(torch="2.11.0+cu126"))["torch-arch"]
    assert (line.ok, line.unverified) == (True, True)


@pytest.mark.parametrize(
    ("capability", "archs", "ptx", "by"),
    [
        ("6.1", ["5.0", "6.0"], [], "6.0"), ("6.1", ["5.0"], [], None), ("8.9", ["8.0", "8.6"], [], "8.6"),
        ("8.0", ["8.6"], [], None), ("12.1", ["12.0"], [], "12.0"), ("11.0", ["10.0"], ["10.0"], "10.0"),
        ("11.0", ["10.0", "12.0"], ["12.0"], None), ("10.3", ["10.0"], [], "10.0"),
    ],
)  # fmt: skip
def test_machine_code_runs_within_its_major_version_and_ptx_upwards(
    capability: str, archs: list[str], ptx: list[str], by: str | None
) -> None:
    assert kernels_for(capability, archs, ptx) == by


# --- Several cards, whole sets, remedies.


@pytest.mark.parametrize(
    ("gpus", "wanted"),
    [
        ([GTX_1080_TI, RTX_PRO_6000], None), ([V100, B200], None), ([K80, T4], (470, ["proprietary"])),
        ([K80, GTX_1080_TI], (470, ["proprietary"])), ([GTX_1080_TI, T4], (580, ["proprietary"])),
        ([K80, RTX_4090], None), ([T4, RTX_PRO_6000], (580, ["open"])), ([T4, RTX_PRO_4500], (615, ["open"])),
        ([T4, A100], (580, ["open", "proprietary"])), ([V100, GTX_1080_TI], (580, ["proprietary"])),
    ],
)  # fmt: skip
def test_mixed_cards_get_the_branch_that_serves_all_or_a_stop(
    gpus: list[str], wanted: tuple[int, list[str]] | None
) -> None:
    found = serving([lookup(gpu) for gpu in gpus], TODAY)
    if wanted is None:
        assert found == []
        assert level("gpu-mixed", gpus, Asked(driver="580.95.05")) == "critical"
        return
    assert level("gpu-mixed", gpus, Asked(driver="580.95.05")) == "ok"
    assert found[0] == wanted


def test_the_set_for_a_1080_ti_of_today_runs() -> None:
    lines = fit(
        [lookup(GTX_1080_TI)], Asked(driver="580.95.05", modules="proprietary", torch="2.13.0+cu126"), TODAY
    )
    assert {line.level for line in lines} == {"ok"}
    assert builds_for([lookup(GTX_1080_TI)], "580.95.05")[0] == "2.14+cu126"


def test_the_field_report_of_a_1080_ti_with_cu128_is_stopped_with_a_build_that_runs() -> None:
    (line,) = judged([GTX_1080_TI], Asked(driver="580.95.05", torch="2.8.0+cu128"))["torch-arch"]
    assert line.level == "critical"
    assert "2.14+cu126" in line.remedy.en
    assert "2.14+cu126" in line.remedy.ru


def test_a_branch_alone_is_no_pin() -> None:
    lines = judged([T4], Asked(driver="580", torch="2.13.0+cu130"))
    assert lines["driver-exact"][0].level == "warning"
    assert "cuda-driver" not in lines, "a branch has no place among versions"


def test_a_card_without_a_driver_is_told_which_would_serve() -> None:
    (line,) = judged([V100], Asked())["driver-named"]
    assert line.level == "warning"
    assert "580" in line.wanted.en


def test_a_card_without_a_torch_build_is_told_one_that_has_kernels() -> None:
    (line,) = judged([V100], Asked(driver="580.95.05"))["torch-named"]
    assert line.level == "warning"
    assert "2.14+cu126" in line.wanted.en


@pytest.mark.parametrize(("gpu", "known_by"), [("10de:2686", "range"), ("10de:ffff", "nothing")])
def test_a_card_known_by_range_or_not_at_all_is_a_warning(gpu: str, known_by: str) -> None:
    assert lookup(gpu).known_by == known_by
    lines = judged([gpu], Asked(driver="580.95.05", torch="2.13.0+cu130"))
    (line,) = lines["gpu-known"]
    assert (line.level, line.unverified) == ("warning", True)
    assert all(one.level != "critical" for found in lines.values() for one in found)


def test_no_card_and_a_cuda_build_is_a_warning_and_a_cpu_build_is_fine() -> None:
    assert level("gpu-present", [], Asked(torch="2.13.0+cu126")) == "warning"
    assert level("gpu-present", [], Asked(torch="2.13.0+cpu")) == "ok"
    assert level("torch-cpu", [T4], Asked(driver="580.95.05", torch="2.13.0+cpu")) == "warning"


@pytest.mark.parametrize(
    ("bundle", "driver", "code", "wanted"),
    [
        (Bundle("brain", min_driver="580.65.06"), "570.26", "bundle-driver", "critical"),
        (Bundle("brain", min_driver="525.60.13"), "570.26", "bundle-driver", "ok"),
        (Bundle("brain", min_compute_capability="8.0"), "580.95.05", "bundle-capability", "critical"),
        (Bundle("brain", min_compute_capability="7.5"), "580.95.05", "bundle-capability", "ok"),
    ],
)
def test_a_bundle_is_held_against_driver_and_card(
    bundle: Bundle, driver: str, code: str, wanted: str
) -> None:
    assert level(code, [T4], Asked(driver=driver, bundles=(bundle,))) == wanted


# --- Bad questions, and the data itself.


@pytest.mark.parametrize(
    "arguments",
    [
        {"driver": "580.x"},
        {"driver": "latest"},
        {"cuda": "cu126"},
        {"torch": "2.13+rocm6"},
        {"torch": "new"},
        {"modules": "closed"},
    ],
)
def test_what_cannot_be_read_is_named_with_the_form_that_can(arguments: dict[str, str]) -> None:
    (value,) = arguments.values()
    with pytest.raises(AskedWrong, match=re.escape(repr(value)) + ".*(such as|looks like|leave it out)"):
        Asked(**arguments)


@pytest.mark.parametrize("pci_id", ["1002:73bf", "nvidia", "10de:1b0", ""])
def test_an_id_of_another_vendor_is_refused(pci_id: str) -> None:
    with pytest.raises(UnknownId, match=r"looks like 10de:1b06"):
        lookup(pci_id)


def test_the_branch_is_the_first_number() -> None:
    assert branch_of("580.95.05") == 580


def test_every_entry_of_the_data_file_has_a_source_and_a_known_mark() -> None:
    known = knowledge()

    def entries(part: object) -> list[dict[str, object]]:
        if isinstance(part, dict):
            own = [part] if "mark" in part else []
            return own + [entry for value in part.values() for entry in entries(value)]
        return [entry for value in part for entry in entries(value)] if isinstance(part, list) else []

    found = entries({key: value for key, value in known.items() if key != "marks"})
    assert len(found) > 100
    assert all(entry["source"] and entry["mark"] in known["marks"] for entry in found)


def test_the_table_of_devices_names_what_it_was_made_from() -> None:
    table = json.loads((Path(fitting.__file__).parent / "gpus.json").read_text())
    assert {source["package"] for source in table["sources"]} == {
        "pci.ids",
        "nvidia-driver",
        "nvidia-tesla-470-driver",
    }
    assert all(re.fullmatch(r"[0-9a-f]{64}", source["sha256"]) for source in table["sources"])
    assert len(table["devices"]) > 850


def test_the_table_agrees_with_nvidias_lists_on_last_branches() -> None:
    # NVIDIA's own lists say 470 (or less) for every Kepler they name; a chip misread from pci.ids would show here.
    table = json.loads((Path(fitting.__file__).parent / "gpus.json").read_text())["devices"]
    for device, row in table.items():
        if "last" in row:
            gpu = lookup(device)
            assert gpu.architecture in ("fermi", "kepler"), device
            assert not serves(gpu, row["last"] + 65)
        if row.get("open"):
            assert lookup(device).architecture in ("turing", "ampere", "ada", "hopper"), device
