"""The launcher on the host: what it tells Docker for the unit, and for a command beside it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import socket
import threading
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def launcher() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(
        "outpost_run", str(ROOT / "roles/inference/files/outpost-run")
    )
    spec = importlib.util.spec_from_loader("outpost_run", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", [["serve"], ["fleet", "serve"]])
def test_a_units_container_has_the_units_name(launcher: ModuleType, command: list[str]) -> None:
    assert "--name=outpost-brain" in launcher.command_line("brain", command, "sha256:1", "0.1.0")


def test_a_single_command_gets_a_container_that_does_not_replace_the_units(launcher: ModuleType) -> None:
    line = launcher.command_line("brain", ["quarantine", "list"], "sha256:1", "0.1.0")
    [name] = [argument for argument in line if argument.startswith("--name=")]
    assert name.startswith("--name=outpost-brain-")
    assert line[-3:] == ["quarantine", "list", "--config=/etc/outpost/brain.yaml"]


def test_commands_inside_a_container_know_its_configuration_and_the_callers_token(
    launcher: ModuleType,
) -> None:
    line = launcher.command_line("brain", ["serve"], "sha256:1", "0.1.0")
    assert "--env=OUTPOST_CONFIG=/etc/outpost/brain.yaml" in line
    assert "--env=OUTPOST_TOKEN" in line  # by name: its value stands in no process list


@pytest.mark.parametrize(
    ("message", "passed", "refused"),
    [
        (b"READY=1", b"READY=1", []),
        (b"READY=1\nSTATUS=ready", b"READY=1\nSTATUS=ready", []),
        (b"WATCHDOG=1", b"WATCHDOG=1", []),
        (b"STOPPING=1", b"STOPPING=1", []),
        (b"EXTEND_TIMEOUT_USEC=60000000", b"EXTEND_TIMEOUT_USEC=60000000", []),
        (b"EXTEND_TIMEOUT_USEC=999999999999", b"EXTEND_TIMEOUT_USEC=600000000", []),
        # systemd takes each of these from the unit's main process, which is root.
        (b"MAINPID=1", b"", ["MAINPID"]),
        (b"READY=1\nMAINPID=4711", b"READY=1", ["MAINPID"]),
        (b"MAINPIDFDID=1", b"", ["MAINPIDFDID"]),
        (b"WATCHDOG=trigger", b"", ["WATCHDOG"]),
        (b"WATCHDOG_USEC=18446744073709551615", b"", ["WATCHDOG_USEC"]),
        (b"FDSTORE=1\nFDNAME=x", b"", ["FDSTORE", "FDNAME"]),
        (b"NOTIFYACCESS=all", b"", ["NOTIFYACCESS"]),
        (b"ERRNO=1\nBUSERROR=x\nEXIT_STATUS=1", b"", ["ERRNO", "BUSERROR", "EXIT_STATUS"]),
        (b"RELOADING=1\nMONOTONIC_USEC=1\nBARRIER=1", b"", ["RELOADING", "MONOTONIC_USEC", "BARRIER"]),
        (b"EXTEND_TIMEOUT_USEC=-1", b"", ["EXTEND_TIMEOUT_USEC"]),
        (b"EXTEND_TIMEOUT_USEC=infinity", b"", ["EXTEND_TIMEOUT_USEC"]),
        ("EXTEND_TIMEOUT_USEC=\u0663".encode(), b"", ["EXTEND_TIMEOUT_USEC"]),
        # A separator that another reader might take for the end of a line.
        (b"STATUS=x\rMAINPID=1", b"STATUS=x", ["MAINPID"]),
        (b"STATUS=x\0MAINPID=1", b"STATUS=x?MAINPID=1", []),
        ("STATUS=x\u2028MAINPID=1".encode(), b"STATUS=x", ["MAINPID"]),
        (b" MAINPID=1", b"", ["?"]),
        (b"mainpid=1", b"", ["?"]),
        (b"\xff\xfe", b"", ["?"]),
        (b"", b"", []),
    ],
)
def test_systemd_hears_only_what_the_container_may_say(
    launcher: ModuleType, message: bytes, passed: bytes, refused: list[str]
) -> None:
    assert launcher.allowed(message) == (passed, refused)


def test_a_status_is_cut_and_cannot_flood_the_unit(launcher: ModuleType) -> None:
    message, _ = launcher.allowed(b"STATUS=" + b"x" * 4000)
    assert len(message) == len("STATUS=") + launcher.STATUS_LENGTH


@pytest.mark.skipif(os.geteuid() != 0, reason="hands the socket to another user")
def test_the_socket_belongs_to_the_containers_user_alone(
    launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "RUNTIME", tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "brain").mkdir(mode=0o777)
    with launcher.listen("brain"):
        found = (tmp_path / "brain/notify.sock").stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (10001, 10001, 0o600)
        assert (tmp_path / "brain").stat().st_mode & 0o022 == 0, "else it could be put in another's place"


def test_what_comes_out_of_the_relay_is_what_is_allowed(
    launcher: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(tmp_path / "systemd"))
    systemd.settimeout(5)
    container, inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    threading.Thread(target=launcher.relay, args=(inside, str(tmp_path / "systemd")), daemon=True).start()
    for message in (b"MAINPID=1", b"MAINPID=1", b"WATCHDOG=1\nMAINPID=1", b"READY=1"):
        container.send(message)
    assert [systemd.recv(4096), systemd.recv(4096)] == [b"WATCHDOG=1", b"READY=1"]
    assert capfd.readouterr().err.count("not told to systemd: MAINPID=") == 1


DRIVER = "550.163.01"
# As nvidia-ctk 1.17 writes it, shortened: Debian's library paths, one card.
SPECIFICATION = """---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidia-uvm
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args:
    - nvidia-cdi-hook
    - create-symlinks
    - --link
    - libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01
    hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.550.163.01
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""


@pytest.fixture
def host(launcher: ModuleType, tmp_path: Path) -> ModuleType:
    """The launcher on a host with a loaded driver and one specification of it, which is /etc/cdi/nvidia.yaml."""
    launcher.LOADED, launcher.RECORD = tmp_path / "version", tmp_path / "driver.json"
    launcher.SPECIFICATIONS = (tmp_path / "etc", tmp_path / "run")
    for directory in launcher.SPECIFICATIONS:
        directory.mkdir()
    launcher.LOADED.write_text(DRIVER + "\n")
    (tmp_path / "etc/nvidia.yaml").write_text(SPECIFICATION)
    return launcher


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_a_whole_specification_has_no_fault(host: ModuleType, device: str) -> None:
    assert host.specification_fault(device) == ""


def test_a_specification_in_json_is_read_as_well(host: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "etc/nvidia.json").write_text(json.dumps(yaml.safe_load(SPECIFICATION)))
    (tmp_path / "etc/nvidia.yaml").unlink()
    assert host.specification_fault("cuda:0") == ""
    assert "names no device nvidia.com/gpu=1" in host.specification_fault("cuda:1")


def test_other_vendors_specifications_are_not_the_gpus(host: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "run/other.yaml").write_text(SPECIFICATION.replace("nvidia.com/gpu", "example.com/gpu"))
    assert host.specification_fault("auto") == ""


def test_a_fresh_specification_that_wins_makes_up_for_a_stale_one(host: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "run/nvidia.yaml").write_text(SPECIFICATION)
    (tmp_path / "etc/nvidia.yaml").write_text(SPECIFICATION.replace(DRIVER, "535.261.03"))
    assert host.specification_fault("auto") == ""
    (tmp_path / "run/nvidia.yaml").unlink()
    assert "it names driver 535.261.03, the kernel holds 550.163.01" in host.specification_fault("auto")


def test_a_host_where_no_driver_is_or_was_wanted_is_asked_nothing(host: ModuleType, tmp_path: Path) -> None:
    host.LOADED.unlink()
    (tmp_path / "etc/nvidia.yaml").unlink()
    assert host.gpu_arguments("brain", "auto", "sha256:1") == []
    assert host.gpu_arguments("brain", "cpu", "sha256:1") == []


def test_a_release_without_cuda_is_given_no_card_it_could_not_use(
    host: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.gpu_arguments("brain", "auto", "sha256:1", "2.13.0+cpu") == []
    assert (
        "torch 2.13.0+cpu of this release computes on no GPU: the processor computes"
        in capsys.readouterr().err
    )
    with pytest.raises(SystemExit, match=r"its device cuda cannot be given, torch 2\.13\.0\+cpu"):
        host.gpu_arguments("brain", "cuda", "sha256:1", "2.13.0+cpu")


def test_a_driver_that_we_installed_and_that_is_gone_is_told(host: ModuleType, tmp_path: Path) -> None:
    host.LOADED.unlink()
    (tmp_path / "etc/nvidia.yaml").unlink()
    host.RECORD.write_text("{}")
    [told] = host.gpu_arguments("brain", "auto", "sha256:1")
    assert told.startswith("--env=OUTPOST_GPU_WITHHELD=the kernel has no NVIDIA driver loaded")
    with pytest.raises(SystemExit, match="brain is not started: its device cuda cannot be given"):
        host.gpu_arguments("brain", "cuda", "sha256:1")


def test_the_gpu_changes_nothing_else_of_the_command_line(launcher: ModuleType) -> None:
    without = launcher.command_line("brain", ["serve"], "sha256:1", "0.1.0")
    gpu = launcher.command_line("brain", ["serve"], "sha256:1", "0.1.0", launcher.GPU)
    assert [word for word in gpu if word not in without] == [
        "--device=nvidia.com/gpu=all",
        "--env=CUDA_DEVICE_ORDER=PCI_BUS_ID",
    ]
    assert [word for word in gpu if word in without] == without


@pytest.fixture
def files(launcher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's files, and a docker and a systemctl that say what is in them."""
    for name, folder in (("CONFIGS", "etc"), ("UNITS", "units"), ("CURRENT", "release"), ("RUNTIME", "run")):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(launcher, name, tmp_path / folder)
    (tmp_path / "etc/tls").mkdir()
    (tmp_path / "etc/tls/fleet.pem").write_text("a certificate")
    (tmp_path / "etc/brain.yaml").write_text("system: brain\n")
    (tmp_path / "etc/brain.env").write_text("# by a role\nOUTPOST_CORES=2\nOUTPOST_MEMORY_MIB=4096\n")
    (tmp_path / "units/outpost@.service").write_text("[Service]\n")
    (tmp_path / "release/manifest.json").write_text("{}")
    (tmp_path / "release/outpost-run").write_text("the launcher")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text(f"#!/bin/sh\ncat {tmp_path}/inspected\n")
    (programs / "systemctl").write_text("#!/bin/sh\necho no\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path


def started(launcher: ModuleType, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the unit had started the container: what Docker would say of it."""
    for name, value in (("OUTPOST_CORES", "2"), ("OUTPOST_MEMORY_MIB", "4096")):
        monkeypatch.setenv(name, value)
    line = launcher.command_line("brain", ["serve"], "sha256:1", "0.1.0")
    [label] = [argument.partition("=")[2] for argument in line if argument.startswith("--label=")]
    key, _, value = label.partition("=")
    (files / "inspected").write_text(json.dumps({"Labels": {key: value}, "Env": ["OUTPOST_RELEASE=0.1.0"]}))


def test_a_container_says_what_it_was_started_on(
    launcher: ModuleType, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(launcher, files, monkeypatch)
    running = launcher.running("brain", files / "release")
    assert running["started"] == running["wanted"]
    assert (running["release"], running["reload"]) == ("0.1.0", False)
    assert "--label" not in " ".join(launcher.command_line("brain", ["status"], "sha256:1", "0.1.0"))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("etc/brain.yaml", "system: brain\n# changed\n"),
        ("etc/brain.env", "OUTPOST_CORES=3\nOUTPOST_MEMORY_MIB=4096\n"),
        ("etc/brain.env", "OUTPOST_CORES=2\nOUTPOST_MEMORY_MIB=4096\nOUTPOST_DEVICE=cpu\n"),
        ("etc/tls/fleet.pem", "another one of that size"),
        ("etc/tls/site.pem", "a new one"),
        ("units/outpost@.service", "[Service]\nRestartSec=1\n"),
        ("release/manifest.json", '{"version": "0.2.0"}'),
        ("release/outpost-run", "another launcher"),
    ],
)
def test_whatever_a_start_reads_is_compared(
    launcher: ModuleType, files: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    started(launcher, files, monkeypatch)
    (files / file).write_text(text)
    running = launcher.running("brain", files / "release")
    assert running["started"] != running["wanted"]


@pytest.mark.parametrize("inspected", ["", '{"Labels": null, "Env": null}', '{"Labels": {}, "Env": ["A=B"]}'])
def test_a_container_that_is_not_there_or_of_before_runs_on_nothing_that_is_known(
    launcher: ModuleType, files: Path, inspected: str
) -> None:
    (files / "inspected").write_text(inspected)
    running = launcher.running("brain", files / "release")
    assert (running["started"], running["release"]) == ("", "")
    assert len(running["wanted"]) == 64
