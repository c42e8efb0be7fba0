"""A machine with a kernel of its own for the driver tests: QEMU emulates it, so it boots, reboots and loses its power.

The disk is made without root and without mounts, in a container of the image of machine/, and kept by the content of
all that went into it: packages, modules, recipe. A session works on an overlay of it.

The processor is emulated (TCG): where /dev/kvm exists it often does not work, and the tests must run anywhere. It would
compile a module for an hour, so DKMS compiles it beforehand, in a container of the same image, and the machine's disk
carries what came of it where the driver's package looks for prebuilt modules: as DKMS's own archive.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import debian_drivers as debian
import driver_lab as lab

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("machine")
# Modules and the disk; what is of one session lies elsewhere.
CACHE = debian.CACHE / "machine"
NAME = "machine"
DISK_MIB = 6144
# From power on to a shell: 30 s on two quiet cores.
BOOT_SECONDS = 400
# Where the driver's package looks for prebuilt modules (/usr/lib/dkms/common.postinst).
PREBUILT = "usr/share/nvidia-current-dkms"


def require_programs() -> None:
    missing = [program for program in ("qemu-system-x86_64", "qemu-img") if not shutil.which(program)]
    assert not missing, f"{', '.join(missing)}: not on this machine. lab/bootstrap --kernel installs them."


def _digest(*inputs: object) -> str:
    return hashlib.sha256("\n".join(map(str, inputs)).encode()).hexdigest()[:12]


def _docker(*arguments: object, **more: Any) -> None:
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, check=False, **more)
    assert done.returncode == 0, (done.stdout[-3000:] + done.stderr[-3000:]).decode(errors="replace")


def image(kernel: Path) -> str:
    """The container image that is the machine's root file system; built where it is missing."""
    from outpost_lab.images import content_hash  # found at run time, as all of the lab's package

    store = lab.lab_store()
    store.ensure(["ubuntu"])
    tag = f"outpost-lab/machine:{content_hash([RECIPE], [store.tag('ubuntu'), kernel.parent.name])}"
    if subprocess.run(["docker", "image", "inspect", tag], capture_output=True, check=False).returncode:
        context = CACHE / "context"
        shutil.rmtree(context, ignore_errors=True)
        shutil.copytree(RECIPE, context, symlinks=True)
        shutil.copy(kernel, context / "linux-image.deb")
        parent = f"PARENT={store.tag('ubuntu')}"
        # The classic builder, as for the lab's images.
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        _docker("build", "--force-rm", "--build-arg", parent, "--tag", tag, context, env=environment)
    return tag


def module(tag: str, packages: list[Path]) -> Path:
    """DKMS's archive of the module that these packages build for the machine's kernel; compiled where it is missing."""
    output = CACHE / f"module-{_digest(tag, *(path.parent.name for path in packages))}"
    made = list(output.glob("nvidia-*.dkms.tar.gz"))
    if not made:
        output.mkdir(parents=True, exist_ok=True)
        files = lab.folder(output / "set", packages)
        mounts = [f"--volume={RECIPE}:/recipe:ro", f"--volume={files}:/set:ro", f"--volume={output}:/output"]
        program = ["/recipe/build-module", "/set", "/output", f"{os.getuid()}:{os.getgid()}"]
        _docker("run", "--rm", *mounts, "--entrypoint", program[0], tag, *program[1:])
        made = list(output.glob("nvidia-*.dkms.tar.gz"))
    return made[0]


def disk(tag: str, modules: list[Path]) -> tuple[Path, Path]:
    """The machine's disk as it leaves the factory, and the key that opens it. The one before is removed."""
    home = CACHE / f"disk-{_digest(tag, DISK_MIB, *(path.parent.name for path in modules))}"
    if not (home / "disk.raw").exists():
        for old in CACHE.glob("disk-*"):
            shutil.rmtree(old)
        ssh = home / "extra/root/.ssh"
        ssh.mkdir(parents=True)
        ssh.chmod(0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / "key"], check=True)
        shutil.copy(home / "key.pub", ssh / "authorized_keys")
        (home / "extra" / PREBUILT).mkdir(parents=True)
        for path in modules:
            shutil.copy(path, home / "extra" / PREBUILT)
        container = f"drivers-{NAME}-export"
        _docker("create", "--name", container, tag)
        try:
            with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as exported:
                mounts = [f"--volume={RECIPE}:/recipe:ro", f"--volume={home}:/output"]
                program = ["/output/partial", DISK_MIB, "/output/extra"]
                _docker("run", "--rm", "-i", *mounts, "--entrypoint", "/recipe/make-disk", tag, *program,
                        stdin=exported.stdout)  # fmt: skip
        finally:
            _docker("rm", container)
        shutil.rmtree(home / "extra")
        (home / "partial").rename(home / "disk.raw")
    return home / "disk.raw", home / "key"


@dataclass(frozen=True)
class Ran:
    """A playbook's end: exit code, all it printed as one line, how many tasks changed something."""

    code: int
    said: str
    changed: int


@contextmanager
def alone() -> Iterator[None]:
    """Waits for another session over the same cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Machine:
    """One emulated machine on a disk of its own. `folder` holds the disk, the console's log and what reaches it."""

    def __init__(self, folder: Path, base: Path, key: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self._qemu = folder, None
        self._disk = folder / "disk.qcow2"
        backing = ["-F", "raw", "-b", base.resolve()]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, self._disk], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        # One master connection for many commands: opening one costs a second of emulated cryptography.
        options = [
            "-o", f"UserKnownHostsFile={folder}/known_hosts", "-o", "StrictHostKeyChecking=accept-new",
            "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=6",
        ]  # fmt: skip
        master = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600", "-S", str(folder / "master")]
        self._ssh = ["ssh", "-i", str(key), "-p", str(self._port), *options, *master, "root@127.0.0.1"]
        host = {
            "ansible_host": "127.0.0.1", "ansible_port": self._port, "ansible_user": "root",
            "ansible_ssh_private_key_file": str(key), "ansible_ssh_common_args": " ".join(options),
        }  # fmt: skip
        self._inventory = folder / "hosts.yml"
        self._inventory.write_text(json.dumps({"region": {"hosts": {NAME: host}}}))

    def start(self) -> None:
        """Power on; returns once it can be used."""
        command = [
            "qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048",
            "-nodefaults", "-display", "none", "-serial", f"file:{self.folder}/console.log",
            # With this cache a write counts as kept only once the machine has asked for a flush, as on a real disk.
            "-drive", f"file={self._disk},if=virtio,format=qcow2,cache=writeback",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:22",
            "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci",
        ]  # fmt: skip
        self._qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.wait()

    def wait(self) -> None:
        """Until it answers and has started all it starts."""
        end = time.monotonic() + BOOT_SECONDS
        ready = "systemctl is-system-running --wait"
        while time.monotonic() < end:
            assert self._qemu is not None
            assert self._qemu.poll() is None, "QEMU has ended by itself"
            if self.on(ready, check=False).strip() in ("running", "degraded"):
                return
            time.sleep(1)
        console = (self.folder / "console.log").read_text(errors="replace")[-3000:]
        raise AssertionError(f"The machine does not answer after {BOOT_SECONDS} s. Its console:\n{console}")

    def cut_power(self) -> None:
        """What the machine had in memory is gone, also what it had written and not flushed."""
        assert self._qemu
        self._qemu.kill()
        self._qemu.wait()
        subprocess.run([*self._ssh[:-1], "-O", "exit", self._ssh[-1]], capture_output=True, check=False)

    def on(self, script: str, *, check: bool = True) -> str:
        """Runs a shell script in the machine; returns what it printed, errors too."""
        done = subprocess.run(
            [*self._ssh, "LC_ALL=C bash -s"], input=script, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout[-4000:]}"
        return done.stdout

    @contextmanager
    def playing(self, path: str, **variables: object) -> Iterator[subprocess.Popen[str]]:
        """A playbook that runs against the machine meanwhile."""
        command = ["ansible-playbook", "-i", str(self._inventory), path, "-e", json.dumps(variables)]
        with subprocess.Popen(
            command, cwd=ROOT, env=lab.ENVIRONMENT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as running:  # fmt: skip
            try:
                yield running
            finally:
                running.kill()

    def play(self, path: str, **variables: object) -> Ran:
        with self.playing(path, **variables) as running:
            printed, _ = running.communicate(timeout=1800)
        recap = next(line for line in printed.splitlines() if line.startswith(f"{NAME} ") and "ok=" in line)
        (self.folder / "last-playbook.log").write_text(printed)
        return Ran(running.returncode, " ".join(printed.split()), int(recap.split("changed=")[1].split()[0]))

    def cut_power_when(self, seen: str, path: str, **variables: object) -> None:
        """Cuts the power in the middle of a playbook: as soon as the shell script `seen` ends in the machine."""
        with self.playing(path, **variables) as running:
            watch = subprocess.Popen([*self._ssh, "bash -s"], stdin=subprocess.PIPE, text=True)
            assert watch.stdin
            watch.stdin.write(seen)
            watch.stdin.close()
            while watch.poll() is None and running.poll() is None:
                time.sleep(0.02)
            in_the_middle = watch.poll() == 0 and running.poll() is None
            self.cut_power()
            watch.wait()
            running.kill()
            said = " ".join(running.communicate()[0].split())
        assert in_the_middle, f"What the playbook was to be cut at was not seen while it ran:\n{said[-3000:]}"


def serve(directory: Path) -> str:
    """Serves a directory to the machine, as a site's mirror would; returns its URL as the machine sees it."""
    handler = functools.partial(lab.Quiet, directory=str(directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://10.0.2.2:{server.server_address[1]}"
