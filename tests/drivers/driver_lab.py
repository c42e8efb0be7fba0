"""What the driver tests share: hosts of the lab, the two driver sets for each, and the role run against them.

The hosts are the lab's stand-ins, in a lab of its own that the tests start and remove. LAB_KEEP=1 leaves it.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import debian_drivers as debian

ROOT = Path(__file__).parents[2]
NAME, SUBNET = "drivers", "10.151"
ENVIRONMENT = {
    **os.environ,
    "LAB_NAME": NAME, "LAB_SUBNET": SUBNET, "LAB_PUBLISH": "no", "OUTPOST_ROOT": str(ROOT),
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "true", "ANSIBLE_FORCE_COLOR": "false",
}  # fmt: skip
# Not in the cache, which several checkouts may share: what lies here is of one run.
WORK = ROOT / ".lab/driver-tests"
OLD, NEW, BROKEN = "old-535", "new-550", "broken-550"


@dataclass(frozen=True)
class Ran:
    """A playbook's end: exit code, all it printed as one line, how many tasks changed something, seconds.

    `seconds` is what the clock says, `cpu` what the controller computed: a machine busy with other things stretches
    only the first.
    """

    code: int
    said: str
    changed: int
    seconds: float
    cpu: float


def lab(*arguments: str) -> str:
    done = subprocess.run(
        [ROOT / "lab/lab", *arguments], env=ENVIRONMENT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on(host: str, script: str, *, check: bool = True) -> str:
    """Runs a shell script in the host; returns what it printed, errors too."""
    command = [
        "docker",
        "exec",
        "-i",
        "-e",
        "DEBIAN_FRONTEND=noninteractive",
        "-e",
        "LC_ALL=C",
        f"{NAME}-{host}",
    ]
    done = subprocess.run(
        [*command, "bash", "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0 or not check, f"{script}\n{done.stdout[-4000:]}"
    return done.stdout


def put(host: str, source: Path, target: str) -> None:
    on(host, f"rm -rf {target} && mkdir -p {Path(target).parent}")
    subprocess.run(["docker", "cp", source, f"{NAME}-{host}:{target}"], check=True, capture_output=True)


def playbook(path: str, host: str, *more: str, **variables: object) -> Ran:
    command = ["ansible-playbook", path, "-l", host, "-e", json.dumps(variables), *more]
    begun, spent = time.monotonic(), os.times()
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, text=True, capture_output=True, check=False, timeout=600
    )
    now = os.times()
    cpu = now.children_user - spent.children_user + now.children_system - spent.children_system
    recap = next(
        (line for line in done.stdout.splitlines() if line.startswith(f"{host} ") and "ok=" in line), ""
    )
    changed = int(recap.split("changed=")[1].split()[0]) if recap else -1
    return Ran(
        done.returncode, " ".join((done.stdout + done.stderr).split()), changed, time.monotonic() - begun, cpu
    )


def role(host: str, name: str, *more: str, **variables: object) -> Ran:
    """The role with the set `name`; a lab host has no GPU, so it is told to act."""
    return playbook("tests/drivers/driver.yml", host, *more, **{**_asked(host, name), **variables})


def _asked(host: str, name: str) -> dict[str, object]:
    return {
        "nvidia_driver_managed": True, "nvidia_driver_set": name, "nvidia_driver_sets_file": str(sets_file(host)),
        "nvidia_driver_repository": source(host, name),
    }  # fmt: skip


# Stops the package manager in the host at the moment its log says the words for the COUNT-th time: LOG WORDS COUNT.
_STOP = """
import os, signal, sys, time
log, words, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
def text():
    try:
        return open(log, errors="replace").read()
    except OSError:
        return ""
begun = text().count(words)
print("watching", flush=True)
while text().count(words) < begun + count:
    time.sleep(0.001)
for entry in os.listdir("/proc"):
    try:
        if open(f"/proc/{entry}/comm").read().strip() in ("dpkg", "apt-get", "dnf"):
            os.kill(int(entry), signal.SIGSTOP)
    except OSError:
        pass
"""


def cut_power_during(host: str, name: str, words: str, count: int) -> None:
    """Starts the change to `name`, takes the host's power away in its middle, and starts the host again.

    Every process of the host dies at once: the package manager, its scripts, Ansible's Python. What was written stays
    written (a real power loss takes that, too: test_real_kernel.py).
    """
    log = "/var/log/dnf.rpm.log" if host == "train" else "/var/log/dpkg.log"
    watch = ["docker", "exec", f"{NAME}-{host}", "python3", "-c", _STOP, log, words, str(count)]
    command = [
        "ansible-playbook", "tests/drivers/driver.yml", "-l", host, "-e", json.dumps(_asked(host, name)),
    ]  # fmt: skip
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "watching\n"
        with subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        ) as change:
            while watcher.poll() is None:
                assert change.poll() is None, "the change was over before its power was cut"
                time.sleep(0.1)
            subprocess.run(["docker", "kill", f"{NAME}-{host}"], check=True, capture_output=True)
            said, _ = change.communicate(timeout=400)
    assert "unreachable=1" in said, said[-2000:]
    lab("up", host)


def doctor(host: str, folder: Path, **variables: object) -> tuple[int, dict[str, dict[str, object]]]:
    """Exit code of the doctor, and its checks by code, out of the file it writes."""
    ran = playbook("playbooks/doctor.yml", host, doctor_directory=str(folder), **variables)
    verdict = json.loads((folder / f"{host}.json").read_text())
    assert ran.changed == 0, "the doctor changes nothing"
    return ran.code, {check["code"]: check for check in verdict["checks"]}


def failed(checks: dict[str, dict[str, object]]) -> set[str]:
    return {code for code, check in checks.items() if not check["ok"]}


# How each host gets its files: all three ways the role knows are used once.
def source(host: str, name: str) -> str:
    folder = sets(host)[name]
    if host == "chita":
        return f"http://{SUBNET}.0.1:{web_server()}/{folder.relative_to(WORK)}"
    # The host that takes its files from its own repository has no broken one in it.
    return str(folder) if host == "tver" or name == BROKEN else ""


@functools.cache
def web_server() -> int:
    """Serves the sets' files on the lab's VPN, as a site's mirror would; returns the port."""
    handler = functools.partial(Quiet, directory=str(WORK))
    server = http.server.ThreadingHTTPServer((f"{SUBNET}.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@functools.cache
def sets(host: str) -> dict[str, Path]:
    """The sets of a host as directories of packages: old, new, and a new one that cannot be installed."""
    if host == "train":
        return _rpm_sets()
    # One host takes its kernel into the set, the other shows the driver alone and is faster.
    kind = "kernel" if host == "chita" else "driver"
    return {
        name: folder(
            WORK / f"{name}-{kind}", [p for p in paths if kind == "kernel" or not p.name.startswith("linux-")]
        )
        for name, paths in _deb_paths().items()
    }


@functools.cache
def _deb_paths() -> dict[str, list[Path]]:
    old, new = ([package.path for package in found] for found in (debian.older(), debian.newer()))
    modprobe = next(path for path in new if path.name.startswith("nvidia-modprobe_"))
    return {OLD: old, NEW: new, BROKEN: [path for path in new if path != modprobe] + [_failing(modprobe)]}


def _failing(package: Path) -> Path:
    """The same package with a postinst that fails: what a full disk or a build that breaks looks like to dpkg."""
    target = WORK / "failing" / package.name
    if not target.exists():
        tree = WORK / "failing" / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        tree.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
        script = tree / "DEBIAN/postinst"
        script.write_text('#!/bin/sh\necho "this postinst fails on purpose" >&2\nexit 1\n')
        script.chmod(0o755)
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", tree, target], check=True, capture_output=True
        )
    return target


def folder(directory: Path, paths: list[Path]) -> Path:
    """`directory` with hard links to `paths`, and to nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    for stranger in directory.iterdir():
        if stranger.name not in {path.name for path in paths}:
            stranger.unlink()
    for path in paths:
        target = directory / path.name
        if not target.exists() or not target.samefile(path):
            target.unlink(missing_ok=True)
            target.hardlink_to(path)
    return directory


def _rpm_sets() -> dict[str, Path]:
    """RPMs of the same files, signed with the lab's key; made once for the same inputs."""
    store = lab_store()
    inputs = [path for name in (OLD, NEW) for path in _deb_paths()[name]] + [
        p.path for p in debian.newer_kernel()
    ]
    sources = [
        Path(__file__),
        Path(__file__).with_name("rpm_drivers.py"),
        ROOT / "lab/outpost_lab/rpm_build.py",
    ]
    tag = store.tag("rpm")
    wanted = hashlib.sha256(
        "".join([tag, *(p.parent.name + p.name for p in inputs), *(p.read_text() for p in sources)]).encode()
    ).hexdigest()[:12]
    base = WORK / f"rpm-{wanted}"
    if not (base / "whole").exists():
        store.ensure(["rpm"])
        shutil.rmtree(base, ignore_errors=True)
        kernel = [p.path for p in debian.newer_kernel()]
        for name, paths in (
            (OLD, _deb_paths()[OLD]),
            (NEW, _deb_paths()[NEW]),
            ("later", kernel),
        ):
            _make_rpms(base / name, paths, tag)
        # The kernel stays what it was: the very same file, not one built a second later.
        for path in (base / OLD).glob("kernel-*.rpm"):
            shutil.copy(path, base / NEW)
        shutil.copytree(base / NEW, base / BROKEN)
        _make_rpms(
            base / BROKEN,
            [p for p in _deb_paths()[NEW] if p.name.startswith("nvidia-modprobe_")],
            tag,
            "fail",
        )
        (base / "whole").touch()
    return {name: base / name for name in (OLD, NEW, BROKEN, "later")}


def _make_rpms(output: Path, debs: list[Path], tag: str, *more: str) -> None:
    keys = ROOT / ".lab/cache/rpm-key"
    inputs = folder(WORK / "rpm-input", debs)
    output.mkdir(parents=True, exist_ok=True)
    mounts = {ROOT / "lab": "/lab:ro", ROOT / "tests/drivers": "/tests:ro", keys: "/keys", inputs: "/debs:ro",
              output: "/output"}  # fmt: skip
    command = [
        "docker",
        "run",
        "--rm",
        *(f"--volume={host}:{inside}" for host, inside in mounts.items()),
        tag,
    ]
    program = f"python3 -B /tests/rpm_drivers.py /keys /output {os.getuid()}:{os.getgid()} {' '.join(more)} /debs/*.deb"
    done = subprocess.run([*command, "sh", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@functools.cache
def lab_store():  # type: ignore[no-untyped-def] # the lab's package is found at run time
    from outpost_lab.images import ImageStore
    from outpost_lab.settings import read_settings

    return ImageStore(read_settings(ENVIRONMENT))


@functools.cache
def sets_file(host: str) -> Path:
    """The host's sets as the project's own tool writes them. RPMs are read in a container: this machine has no rpm."""
    lines: list[str] = []
    for name, folder in sets(host).items():
        driver = "535.261.03" if name == OLD else "550.163.01"
        tool = ROOT / "roles/nvidia_driver/files"
        command = [tool / "outpost-driver-set", folder]
        if host == "train":
            mounts = [f"--volume={tool}:/tool:ro", f"--volume={folder}:{folder}:ro"]
            command = [
                "docker",
                "run",
                "--rm",
                *mounts,
                lab_store().tag("rpm"),
                "/tool/outpost-driver-set",
                folder,
            ]
        made = subprocess.run(
            [*command, name, _driver(folder, driver)], check=True, capture_output=True, text=True
        )
        lines += made.stdout.splitlines()[0 if not lines else 1 :]
    path = WORK / f"sets-{host}.yml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _driver(folder: Path, expected: str) -> str:
    """The driver's version as its files say; Debian may have moved on by a point release."""
    for path in (*folder.glob("libnvidia-ml1_*"), *folder.glob("libnvidia-ml-*")):
        return path.name.replace("libnvidia-ml1_", "").replace("libnvidia-ml-", "").split("-")[0]
    return expected


def installed(host: str) -> dict[str, str]:
    """Name -> version of what the host's package manager holds of the driver and the kernel."""
    ask = (
        "dpkg-query -W -f '${Package} ${Version}\\n'"
        if host != "train"
        else "rpm -qa --qf '%{NAME} %{EVR}\\n'"
    )
    rows = (line.split() for line in on(host, ask).splitlines())
    words = ("nvidia", "libcuda", "libnvcuvid", "glx", "linux-image", "kernel-lt")
    return {row[0]: row[1] for row in rows if len(row) == 2 and any(word in row[0] for word in words)}


def publish(host: str, *names: str) -> None:
    """The host's repository: at first the old version alone, then the newer beside it."""
    if host == "train":
        for name in names:
            put(host, sets(host)[name], f"/srv/new/{name}")
        on(
            host,
            "mkdir -p /srv/repo && for set in /srv/new/*; do cp -f $set/*.rpm /srv/repo/; done && rm -r /srv/new",
        )
        on(host, "createrepo_c -q /srv/repo")
        repository = (
            "[drivers]\nname=drivers\nbaseurl=file:///srv/repo\ngpgcheck=1\nmetadata_expire=0\n"
            "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-OUTPOST-LAB\n"
        )
        on(host, f"cat > /etc/yum.repos.d/drivers.repo <<'X'\n{repository}X\n")
        return
    for name in names:
        put(host, sets(host)[name], f"/srv/repo/{name}")
    packages = WORK / f"Packages-{host}"
    packages.write_text(packages_index({name: sets(host)[name] for name in names}))
    put(host, packages, "/srv/repo/Packages")
    index(host, "echo 'deb [trusted=yes] file:/srv/repo ./' > /etc/apt/sources.list.d/drivers.list")


def packages_index(folders: dict[str, Path]) -> str:
    """The Packages file of a repository in which each of the folders lies under its name."""
    stanzas = []
    files = [(name, path) for name, folder in folders.items() for path in sorted(folder.glob("*.deb"))]
    for name, path in files:
        control = subprocess.run(["dpkg-deb", "-f", path], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        stanzas.append(f"{control.strip()}\nFilename: {name}/{path.name}\nSize: {size}\nSHA256: {digest}\n")
    return "\n".join(stanzas)


_VERSION_LOCK = """
Name: python3-dnf-plugin-versionlock
Version: 4
Release: 1
Summary: dnf's version lock
License: GPL-2.0-or-later
BuildArch: noarch
AutoReqProv: no
%description
The plugin's files as dnf-plugins-core has them.
%install
for file in FILES; do mkdir -p %{buildroot}/${file%/*}; cp $file %{buildroot}/$file; done
%files
FILES
"""
_VERSION_LOCK_FILES = (
    "/etc/dnf/plugins/versionlock.conf",
    "/usr/lib/python3/dist-packages/dnf-plugins/versionlock.py",
)


def publish_version_lock(host: str) -> None:
    """Takes dnf's version lock from a host, where it came with dnf, and offers it as a package, as RED OS does."""
    output = WORK / "version-lock"
    output.mkdir(parents=True, exist_ok=True)
    spec = _VERSION_LOCK.replace("FILES;", " ".join(_VERSION_LOCK_FILES) + ";")
    (output / "lock.spec").write_text(spec.replace("FILES\n", "\n".join(_VERSION_LOCK_FILES) + "\n"))
    build = "rpmbuild --quiet -bb --define '_topdir /tmp' --define '_rpmdir /output' /output/lock.spec"
    command = [
        "docker",
        "run",
        "--rm",
        f"--volume={output}:/output",
        lab_store().tag("rpm"),
        "sh",
        "-c",
        build,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    put(host, output, "/srv/lock")
    repository = "[lock]\nname=lock\nbaseurl=file:///srv/lock\ngpgcheck=0\nmetadata_expire=0\n"
    on(host, f"createrepo_c -q /srv/lock && cat > /etc/yum.repos.d/lock.repo <<'X'\n{repository}X\n")
    on(host, f"rm {' '.join(_VERSION_LOCK_FILES)}")


def index(host: str, before: str) -> None:
    """Runs `before`, then has apt see what the repository holds. It has an origin: unattended-upgrades asks for one."""
    release = (
        "cd /srv/repo && { echo 'Origin: drivers'; echo 'Label: drivers'; echo 'Suite: site'; echo 'SHA256:';"
        " echo \" $(sha256sum Packages | cut -d' ' -f1) $(stat -c %s Packages) Packages\"; } > Release"
    )
    on(host, f"{before} && {release} && apt-get update -q")
