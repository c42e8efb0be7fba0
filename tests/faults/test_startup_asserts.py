"""Faults of the host and of a worker, each made for real: exactly the code that is there for it fails."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from running import free_port
from switchable import HERE, write_bundle

from outpost.config import Config
from outpost.durable import sync_file
from outpost.health import host
from outpost.health.codes import CHECKS, CheckCode
from outpost.health.verdict import Check, disk_check
from outpost.inference import InferenceWorker, load_bundle
from outpost.inference.bundle import full_rung
from outpost.inference.state import Assertion
from outpost.records.journal import Journal, utc_now
from outpost.selftest import selftest, table

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def written(root: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "system": "brain",
        "region": "chita",
        "intake": {"listen": "127.0.0.1", "dicom_port": free_port(), "disk_reserve_mib": 0},
        "storage": {"root": str(root)},
        "inference": {"workers": 1},
        "delivery": {
            "destinations": [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": free_port()}]
        },
        "records": {"enabled": False},
        "api": {"listen": "127.0.0.1", "port": free_port()},
    }
    for name, values in sections.items():
        config[name] |= values
    return config


def configured(root: Path, **sections: dict[str, Any]) -> Config:
    return Config.model_validate(written(root, **sections))


def failing(*checks: Check) -> set[str]:
    return {check.code for check in checks if not check.ok}


def quick(config: Config, need_mib: int = 100) -> list[Check]:
    return [*host.quick_checks(config, need_mib, config.inference.workers), disk_check(config)]


# --- the host ---


def test_a_sound_host_fails_nothing(tmp_path: Path) -> None:
    assert failing(*quick(configured(tmp_path))) == set()
    assert not list(tmp_path.iterdir()), "what was written is gone"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_below_its_reserve_fails_that_and_a_full_one_also_writing(small_disk: Path) -> None:
    config = configured(small_disk, intake={"disk_reserve_mib": 3})
    assert failing(*quick(config)) == set()
    (small_disk / "ballast").write_bytes(bytes(2 << 20))
    assert failing(*quick(config)) == {"DISK_RESERVE"}
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "more").write_bytes(bytes(4 << 20))
    found = quick(config)
    assert failing(*found) == {"DISK_RESERVE", "STORAGE_WRITABLE"}
    assert "No space left" in next(str(c.value) for c in found if c.code == CheckCode.STORAGE_WRITABLE)


def test_a_disk_that_is_read_only_fails_writing(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert failing(*quick(configured(small_disk))) == {"STORAGE_WRITABLE"}


def test_a_disk_that_confirms_late_is_told_with_its_time(tmp_path: Path) -> None:
    """No device mapper here to delay a disk: the call that waits for it is the seam."""

    def late(file: Path) -> None:
        sync_file(file)
        time.sleep(1.05)

    found = list(host.storage_writable(tmp_path, sync=late))
    assert failing(*found) == {"SYNC_PROMPT"}
    assert not CHECKS[CheckCode.SYNC_PROMPT].critical


@pytest.mark.skipif(not FAKETIME.exists(), reason="Debian's faketime is not installed")
def test_a_clock_from_before_the_release_is_found_out_in_a_process_that_has_one(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(written(tmp_path)))
    program = (
        "import json, sys; from pathlib import Path; from outpost.config import Config, load\n"
        "from outpost.health import host\n"
        f"checks = host.quick_checks(load(Path({str(file)!r}), Config), 100, 1)\n"
        "print(json.dumps([c.code for c in checks if not c.ok]))"
    )
    for clock, codes in (("+0", []), ("2003-04-01 12:00:00", ["CLOCK_SANE"])):
        told = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"LD_PRELOAD": str(FAKETIME), "FAKETIME": clock, "NO_FAKE_STAT": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(told.stdout) == codes


def test_a_clock_behind_what_the_journal_saw_is_found_out(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.sqlite3", "brain").close()
    with sqlite3.connect(tmp_path / "journal.sqlite3") as db:
        db.execute(
            "INSERT INTO studies (study_uid, revision, state, received_at, change) "
            "VALUES ('1.2', 1, 'complete', ?, 1)",
            ((utc_now() + timedelta(days=2)).isoformat(timespec="microseconds"),),
        )
    found = quick(configured(tmp_path))
    assert failing(*found) == {"CLOCK_SANE"}
    assert "journal" in next(c.wanted for c in found if c.code == CheckCode.CLOCK_SANE)


def test_a_gpu_that_the_launcher_could_not_give_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTPOST_GPU_WITHHELD", "/etc/cdi/nvidia.yaml is stale")
    [found] = [c for c in quick(configured(tmp_path)) if not c.ok]
    assert (found.code, found.value) == (CheckCode.GPU_GIVEN, "/etc/cdi/nvidia.yaml is stale")
    assert not CHECKS[found.code].critical, "a right answer is not held back for being slow"


def test_more_workers_than_memory_holds_are_found_out(tmp_path: Path) -> None:
    config = configured(tmp_path, inference={"workers": 3, "memory_mib": 1500})
    assert failing(*quick(config, need_mib=300)) == set()
    assert failing(*quick(config, need_mib=400)) == {"MEMORY_SHARE"}


def certificate(folder: Path, since: datetime, until: datetime) -> dict[str, Any]:
    """A TLS section with a certificate of these dates, made by openssl."""
    names = {name: folder / f"{name}.pem" for name in ("key", "certificate", "ca")}
    dates = [f"{moment:%Y%m%d%H%M%SZ}" for moment in (since, until)]
    (folder / "index").write_text("")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=a\n[a]\npolicy=p\ndefault_md=sha256\nrand_serial=yes\n"
        f"database={folder}/index\nnew_certs_dir={folder}\n[p]\ncommonName=supplied\n"
    )

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=outpost"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "4000")
    openssl("req", *key, "-keyout", "key.pem", "-out", "request.pem")
    issue = ["-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in", "request.pem", "-batch"]
    openssl("ca", *issue, "-startdate", dates[0], "-enddate", dates[1], "-notext", "-out", "certificate.pem")
    return {name: str(path) for name, path in names.items()}


@pytest.mark.parametrize(
    ("since", "until", "code"),
    [
        (-400, 300, None),
        (-400, -1, "CERTIFICATE_VALID"),
        (1, 300, "CERTIFICATE_VALID"),
        (-400, 29, "CERTIFICATE_EXPIRES"),
        (-400, 40000, None),  # beyond 2049 dates are written in another form
    ],
)
def test_a_certificate_out_of_date_or_nearly_so_is_found_out(
    tmp_path: Path, since: int, until: int, code: str | None
) -> None:
    days = [datetime.now(UTC) + timedelta(days=n) for n in (since, until)]
    config = configured(tmp_path, intake={"tls": certificate(tmp_path, *days)})
    found = quick(config)
    assert failing(*found) == ({code} if code else set())
    if code:
        assert "intake.tls.certificate" in next(str(c.value) for c in found if c.code == code)


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    tls = certificate(tmp_path, now - timedelta(days=1), now + timedelta(days=99))
    Path(tls["key"]).unlink()
    found = quick(configured(tmp_path, intake={"tls": tls}))
    assert failing(*found) == {"SECRETS_READABLE"}
    assert "intake.tls.key" in next(str(c.value) for c in found if not c.ok)


def test_a_port_that_somebody_else_has_is_named(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert failing(host.ports_usable(config)) == set()
    with socket.create_server(("127.0.0.1", config.intake.dicom_port)):
        found = host.ports_usable(config)
    assert failing(found) == {"PORTS_USABLE"}
    assert str(config.intake.dicom_port) in str(found.value)


def test_a_destination_that_is_not_there_is_named(tmp_path: Path) -> None:
    (found,) = host.destinations(configured(tmp_path))
    assert (found.code, found.ok, str(found.value).split(":")[0]) == ("DESTINATION_ANSWERS", False, "pacs")


def test_a_journal_with_a_torn_page_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "journal.sqlite3"
    assert host.journal_sound(file).ok, "there is none yet"
    Journal(file, "brain").close()
    assert host.journal_sound(file).ok
    content = bytearray(file.read_bytes())
    content[4096:8192] = os.urandom(4096)
    file.write_bytes(content)
    found = host.journal_sound(file)
    assert (found.ok, found.code) == (False, CheckCode.JOURNAL_SOUND)


# --- a worker ---


@pytest.fixture(autouse=True)
def _the_child_finds_our_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("OUTPOST_TEST_FAULT", str(tmp_path / "none.json"))


def asserts_of(bundle: Path, storage: Path) -> list[Assertion]:
    worker = InferenceWorker(bundle, full_rung(load_bundle(bundle)), 60, storage)
    try:
        return list(worker.start().asserts)
    finally:
        worker.close()


def failed(assertions: list[Assertion]) -> dict[str, str]:
    return {one.code: str(one.value) for one in assertions if not one.ok}


def test_a_sound_worker_asserts_all_there_is_to_assert_and_fails_none(tmp_path: Path) -> None:
    found = asserts_of(write_bundle(tmp_path / "bundle", memory_mib=1500), tmp_path)
    assert failed(found) == {}
    assert {one.code for one in found} == {code for code, kind in CHECKS.items() if kind.place == "worker"}


def test_a_bundle_that_declares_too_little_memory_is_found_out(tmp_path: Path) -> None:
    found = failed(asserts_of(write_bundle(tmp_path / "bundle", memory_mib=50), tmp_path))
    assert set(found) == {"MEMORY_FITS"}
    assert found["MEMORY_FITS"].startswith("peak ")


def test_a_decoder_that_is_missing_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker cannot import pyjpegls, as if it had not been installed."""
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "jpeg_ls.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.syspath_prepend(str(missing))
    found = failed(asserts_of(write_bundle(tmp_path / "bundle", memory_mib=1500), tmp_path))
    assert set(found) == {"DECODERS_WORK"}
    assert "1.2.840.10008.1.2.4.80" in found["DECODERS_WORK"]


def test_threads_that_a_library_starts_are_found_out(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", memory_mib=1500)
    rewrite(bundle, inferer={"_target_": "eager_models.ManyThreads"})
    assert "THREADS_ONE" in failed(asserts_of(bundle, tmp_path))


@pytest.mark.parametrize(
    ("model", "wanted", "told"),
    [
        ("Sound", {"shape": [1, 1, 8, 8, 8], "mean": 0.25}, ""),
        ("Sound", {"mean": 0.5}, "has mean 0.25, not 0.5"),
        ("GivesNan", {"mean": None}, "is not finite"),
    ],
)
def test_a_module_of_an_eager_network_that_gives_nan_or_another_mean_is_found_out(
    tmp_path: Path, model: str, wanted: dict[str, Any], told: str
) -> None:
    """The golden case passes all the same: the fault is in a part whose output the mask does not show."""
    bundle = eager_bundle(tmp_path / "bundle", model, {"network": "net", "module": "inner", **wanted})
    found = failed(asserts_of(bundle, tmp_path))
    assert set(found) == ({"MODULE_OUTPUTS"} if told else set())
    assert told in found.get("MODULE_OUTPUTS", "")


def rewrite(bundle: Path, **changes: Any) -> None:
    """Replace parts of the bundle's configs/inference.json."""
    file = bundle / "configs/inference.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def eager_bundle(folder: Path, model: str, module_assert: dict[str, Any]) -> Path:
    """A bundle whose one network is an eager module of eager_models.py."""
    import eager_models

    write_bundle(folder, memory_mib=1500)
    weights = folder / "net.pt"
    torch.save(getattr(eager_models, model)().state_dict(), weights)
    manifest = yaml.safe_load((folder / "outpost.yaml").read_text())
    manifest["weights"] = {
        "net": {
            "path": weights.name,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "format": "state_dict",
            "example": [1, 1, 8, 8, 8],
        }
    }
    manifest["engines"] = {"reference": {"engine": "torch", "precision": "float32"}}
    manifest["module_asserts"] = [module_assert]
    (folder / "outpost.yaml").write_text(yaml.safe_dump(manifest))
    rewrite(
        folder,
        network_defs={"net": {"_target_": f"eager_models.{model}"}},
        inferer={"_target_": "eager_models.Threshold", "network": "@networks#net"},
    )
    return folder


# --- the self-test as a whole ---


def test_the_self_test_of_a_sound_host_fails_only_what_is_missing_by_design(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", memory_mib=1500)
    verdict = selftest(configured(tmp_path, inference={"bundle": str(bundle)}))
    # Nobody listens at the destination's port, and nothing was measured on this host.
    assert failing(*verdict.checks) <= {"DESTINATION_ANSWERS", "ENGINE_MEASURED"}
    assert verdict.status == "degraded"
    assert {c.code for c in verdict.checks} >= {
        "GOLDEN_PASSED",
        "WEIGHTS_DIGEST",
        "JOURNAL_SOUND",
        "CLOCK_SANE",
    }
    shown = table(verdict)
    assert "warn  DESTINATION_ANSWERS" in shown
    assert "remedy: Check its address" in shown


def test_altered_weights_fail_the_self_test_by_their_digest(tmp_path: Path) -> None:
    bundle = eager_bundle(tmp_path / "bundle", "Sound", {"network": "net", "module": "inner"})
    with (bundle / "net.pt").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x7f")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(written(tmp_path, inference={"bundle": str(bundle), "workers": 1})))
    told = subprocess.run(
        [sys.executable, "-m", "outpost.cli", "selftest", "--json", "--config", str(file)],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1
    verdict = json.loads(told.stdout)
    found = {c["code"] for c in verdict["checks"] if not c["ok"]} - {"DESTINATION_ANSWERS", "ENGINE_MEASURED"}
    assert found == {"WEIGHTS_DIGEST", "GOLDEN_PASSED"}  # nothing is computed with them


def test_weights_altered_under_a_running_worker_are_found_by_looking_again(tmp_path: Path) -> None:
    from outpost.inference.asserts import weights_digest

    bundle = load_bundle(eager_bundle(tmp_path / "bundle", "Sound", {"network": "net", "module": "inner"}))
    assert weights_digest(bundle).ok
    (bundle.path / "net.pt").write_bytes(b"other")
    assert not weights_digest(bundle).ok
