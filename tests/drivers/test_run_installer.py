"""The .run route on the RED OS stand-in: built for two kernels, broken off, taken back, cut off by a power cut.

NVIDIA's installer is a STAND-IN (tests/drivers/stand-in-installer): its options, order, log and uninstaller are those
of NVIDIA's published source; its libraries, DKMS, gcc, the kernels' headers and the compiled modules are real. The
tests are one story in the order they stand; a later one begins where the one before ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import driver_lab as lab
import pytest
import run_payloads as payloads

ROOT, WORK = lab.ROOT, payloads.WORK
CONTAINER = "drivers-run"
OLD, NEW, BROKEN, REAL = "run-old", "run-new", "run-broken", "run-real"
UNDER_WAY = "/etc/outpost/driver-change-under-way.json"
# Ends on a signal, and everything in the container with it, as a machine whose power goes.
UNTIL_THE_POWER_GOES = "trap 'exit 0' USR1; while :; do sleep 1000 & wait $!; done"


def inside(script: str, *, check: bool = True) -> str:
    command = ["docker", "exec", "-i", "-e", "LC_ALL=C", CONTAINER, "bash", "-c", script]
    done = subprocess.run(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=900
    )
    assert done.returncode == 0 or not check, f"{script}\n{done.stdout[-4000:]}"
    return done.stdout


def put(source: Path, target: str) -> None:
    inside(f"mkdir -p {Path(target).parent}")
    subprocess.run(["docker", "cp", source, f"{CONTAINER}:{target}"], check=True, capture_output=True)


def playbook(path: str, *more: str, **variables: object) -> lab.Ran:
    host = {
        "ansible_connection": "community.docker.docker",
        "ansible_host": CONTAINER,
        "ansible_become": False,
    }
    inventory = WORK / "hosts.json"
    inventory.write_text(json.dumps({"region": {"hosts": {"tayga": host}}}))
    given = {"nvidia_driver_managed": True, **variables}
    command = ["ansible-playbook", "-i", inventory, path, "-e", json.dumps(given), *more]
    begun = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=lab.ENVIRONMENT, text=True, capture_output=True, check=False, timeout=3000
    )
    recap = next((line for line in done.stdout.splitlines() if line.startswith("tayga ")), "")
    changed = int(recap.split("changed=")[1].split()[0]) if recap else -1
    said = " ".join((done.stdout + done.stderr).split())
    return lab.Ran(done.returncode, said, changed, time.monotonic() - begun, 0.0)


def role(name: str, *more: str, **variables: object) -> lab.Ran:
    given = {
        "nvidia_driver_set": name,
        "nvidia_driver_sets_file": str(sets_file()),
        "nvidia_driver_repository": str(WORK / name),
        **variables,
    }
    return playbook("tests/drivers/driver.yml", *more, **given)


def doctor() -> tuple[int, dict[str, dict[str, object]]]:
    ran = playbook("playbooks/doctor.yml", doctor_directory=str(WORK))
    assert ran.changed == 0, "the doctor changes nothing"
    return ran.code, {c["code"]: c for c in json.loads((WORK / "tayga.json").read_text())["checks"]}


def sets_file() -> Path:
    """The sets as the project's own tool writes them."""
    path = WORK / "sets.yml"
    if not path.exists():
        tool, lines = ROOT / "roles/nvidia_driver/files/outpost-driver-set", ["nvidia_driver_sets:"]
        for name in (OLD, NEW, BROKEN, REAL):
            command = [tool, WORK / name, name, version(name), "--platform", "redos-8", "--modules", "kernel"]
            made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            lines += made.splitlines()[1:]
        path.write_text("\n".join(lines) + "\n")
    return path


def version(name: str) -> str:
    return payloads.older_version() if name in (OLD, REAL) else payloads.newer_version()


def file_of(name: str) -> str:
    return f"NVIDIA-Linux-x86_64-{version(name)}.run"


FIRST, SECOND = (release for release, _ in payloads.kernels())


@pytest.fixture(scope="module", autouse=True)
def _host() -> Iterator[None]:
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "sets.yml").unlink(missing_ok=True)
    for name, suite, source in (
        (OLD, "bookworm", "tiny"), (NEW, "trixie", "tiny"), (BROKEN, "trixie", "broken"), (REAL, "bookworm", "real"),
    ):  # fmt: skip
        payloads.installer(WORK / name, suite, version(name), source)
    store = lab.lab_store()
    store.ensure(["redos"])
    subprocess.run(["docker", "rm", "-f", CONTAINER], capture_output=True, check=False)
    command = ["docker", "run", "-d", "--name", CONTAINER, "--entrypoint", "bash", store.tag("redos"), "-c"]
    subprocess.run([*command, UNTIL_THE_POWER_GOES], check=True, capture_output=True)
    try:
        put(payloads.rpms(), "/srv/rpms")
        # Two kernels, the headers of one; what builds a module lies in the repository.
        inside("""
        mkdir -p /srv/repo && cp /srv/rpms/{dkms,gcc,make}-*.rpm /srv/repo/ && createrepo_c -q /srv/repo
        rm /etc/yum.repos.d/*.repo
        printf '[base]\\nname=base\\nbaseurl=file:///srv/repo\\ngpgcheck=0\\nmetadata_expire=0\\n' > base.repo
        mv base.repo /etc/yum.repos.d/
        rpm -i /srv/rpms/kernel-lt-6*.rpm /srv/rpms/kernel-build-tools-*.rpm
        """)
        inside(f"rpm -i /srv/rpms/kernel-lt-devel-{_rpm_version(FIRST)}*.rpm")
        yield
    finally:
        if not os.environ.get("LAB_KEEP"):
            subprocess.run(["docker", "rm", "-f", CONTAINER], check=True, capture_output=True)


def _rpm_version(release: str) -> str:
    packages = dict(payloads.kernels())[release]
    return packages[0].version.split("-")[0]


def photograph() -> str:
    """All a failed or dry run must not have touched."""
    return inside("rpm -qa | sort | sha256sum; find /etc /opt /usr /lib/modules /var/lib/dkms /var/lib/nvidia -xdev"
                  " ! -path '*/__pycache__*' -type f 2>/dev/null | sort | sha256sum")  # fmt: skip


def built(release: str) -> str:
    """The version of the module that the kernel `release` would load."""
    return inside(f"modinfo -k {release} -F version nvidia", check=False).strip()


def libraries() -> dict[str, set[str]]:
    """Version of the driver's libraries on disk -> their names."""
    found: dict[str, set[str]] = {}
    for path in inside("ls /usr/lib64/lib*.so.*.*", check=False).split():
        name, dot, version = path.partition(".so.")
        if dot:
            found.setdefault(version, set()).add(name.rpartition("/")[2])
    return found


def stands(name: str) -> None:
    """The driver is whole: libraries, uninstaller, module of both kernels, no second version in DKMS."""
    driver = version(name)
    assert libraries() == {driver: {"libcuda", "libnvidia-cfg", "libnvidia-ml", "libnvidia-ptxjitcompiler"}}
    assert inside("ls /usr/bin/nvidia-*").split() == [
        f"/usr/bin/nvidia-{name}" for name in ("installer", "smi", "uninstall")
    ]
    assert {built(FIRST), built(SECOND)} == {driver}
    status = inside("dkms status").splitlines()
    assert sorted(line.split(",")[1].strip() for line in status) == sorted([FIRST, SECOND]), status
    assert all(line.startswith(f"nvidia/{driver},") and line.endswith("installed") for line in status), status
    assert f"({driver})" in inside("head -1 /var/lib/nvidia/log")
    assert inside(f"ls {UNDER_WAY}", check=False).startswith("ls: cannot access")


def gone() -> None:
    """Nothing of a driver is left."""
    left = "ls /usr/lib64/libnvidia* /usr/lib64/libcuda* /usr/bin/nvidia* /var/lib/nvidia /usr/src/nvidia*"
    assert [line for line in inside(left, check=False).splitlines() if "cannot access" not in line] == []
    assert inside("! command -v dkms >/dev/null || dkms status; find /lib/modules -name 'nvidia.ko*'") == ""


def well() -> None:
    code, checks = doctor()
    assert (code, lab.failed(checks)) == (0, set()), {c: checks[c] for c in lab.failed(checks)}


@contextmanager
def damaged_headers(release: str) -> Iterator[None]:
    """Headers that are there and do not compile: an update that broke off. The installer builds for the other."""
    config = f"/usr/src/linux-headers-{release}/include/generated/autoconf.h"
    inside(f"cp {config} /root/ && echo '#error headers of {release} are damaged on purpose' >> {config}")
    yield
    inside(f"cp /root/autoconf.h {config}")


# --- refused before anything is touched


def test_a_kernel_without_headers_is_refused_with_the_command_that_brings_them() -> None:
    before = photograph()
    ran = role(OLD)
    assert ran.code == 2
    assert f"[HEADERS] is: no headers of {SECOND}" in ran.said, ran.said[-3000:]
    assert f"install kernel-lt-devel-{SECOND}" in ran.said
    assert photograph() == before
    inside(f"rpm -i /srv/rpms/kernel-lt-devel-{_rpm_version(SECOND)}*.rpm")


def test_a_first_dry_run_says_what_would_come_and_changes_nothing() -> None:
    before = photograph()
    ran = role(OLD, "--check", "--diff")
    assert ran.code == 0, ran.said[-3000:]
    assert f"{file_of(OLD)}: absent -> {version(OLD)}" in ran.said
    assert f"module for kernel {FIRST}: built here" in ran.said
    assert f"module for kernel {SECOND}: built here" in ran.said
    assert photograph() == before


def test_a_file_that_is_not_what_the_set_says_is_refused(tmp_path: Path) -> None:
    (tmp_path / file_of(OLD)).write_bytes((WORK / OLD / file_of(OLD)).read_bytes() + b"x")
    ran = role(OLD, nvidia_driver_repository=str(tmp_path))
    assert ran.code == 2
    assert "are not what its sha256 says" in ran.said, ran.said[-3000:]
    gone()
    inside("rm -r /opt/outpost")


def test_a_run_file_without_a_place_it_comes_from_is_asked_for_in_words() -> None:
    ran = role(OLD, nvidia_driver_repository="")
    assert ran.code == 2
    assert f"{file_of(OLD)} is in no distribution's repository" in ran.said, ran.said[-3000:]
    gone()


# --- a first installation


def test_a_first_installation_that_breaks_leaves_nothing_behind_and_says_the_compilers_reason() -> None:
    ran = role(BROKEN)
    assert ran.code == 2
    assert "There was no set before: what it brought was taken away again" in ran.said, ran.said[-4000:]
    assert "this source is broken on purpose" in ran.said
    assert "nvidia-installer.log says" in ran.said
    gone()
    assert "outpost-driver" not in inside("cat /etc/dnf/plugins/versionlock.list", check=False)
    code, checks = doctor()
    assert (code, lab.failed(checks)) == (0, set()), "no GPU and no set: nothing to find"


def test_a_first_installation_that_builds_for_one_kernel_only_is_taken_away_whole() -> None:
    with damaged_headers(FIRST):
        ran = role(OLD)
    assert ran.code == 2
    assert f"headers of {FIRST} are damaged on purpose" in ran.said, ran.said[-4000:]
    assert "There was no set before: what it brought was taken away again" in ran.said
    assert "is now complete" in inside("cat /var/log/nvidia-installer.log"), (
        "the installer itself had come to its end"
    )
    gone()


def test_the_driver_is_installed_and_built_for_both_kernels_and_a_second_run_changes_nothing() -> None:
    kernels = inside("rpm -qa 'kernel*' | sort")
    ran = role(OLD)
    assert ran.code == 0, ran.said[-4000:]
    stands(OLD)
    assert inside("rpm -qa 'kernel*' | sort") == kernels
    again = role(OLD)
    assert (again.code, again.changed) == (0, 0), again.said[-3000:]
    well()


def test_dnf_brings_no_newer_kernel_and_no_package_of_the_driver() -> None:
    for name in (lab.NEW, "later"):
        put(lab.sets("train")[name], f"/srv/new-{name}")
    inside("cp -n /srv/new-*/*.rpm /srv/repo/ && createrepo_c -q /srv/repo")
    control = inside("dnf -q --disableplugin=versionlock check-update", check=False)
    assert "kernel-lt." in control, "without the lock a newer kernel would come, or this test proves nothing"
    offered = inside("dnf -q --disableplugin=versionlock list --available", check=False)
    assert "nvidia-driver-cuda." in offered
    before = photograph()
    for attempt in (
        "upgrade", "update --best", "distro-sync", "install nvidia-driver-cuda", "install libnvidia-ml",
        "upgrade 'kernel*'", "install kernel-lt", "upgrade-minimal", "autoremove",
    ):  # fmt: skip
        inside(f"dnf -y {attempt}", check=False)
        assert photograph() == before, attempt
    well()


def test_a_lock_that_is_gone_is_found_and_written_again() -> None:
    inside("mv /etc/dnf/plugins/versionlock.list /root/")
    code, checks = doctor()
    assert code == 2
    assert {"LOCKED", "LOCK_FILES"} <= lab.failed(checks), lab.failed(checks)
    assert checks["LOCKED"]["value"] == "not locked: the driver's families"
    ran = role(OLD)
    assert (ran.code, ran.changed) == (0, 1), ran.said[-3000:]
    well()


def test_a_kernel_without_the_module_gets_it_from_dkms_alone() -> None:
    begun = inside("stat -c %Y /usr/lib64/libcuda.so.*.*")
    inside(f"dkms uninstall -m nvidia -v {version(OLD)} -k {SECOND}")
    code, checks = doctor()
    assert code == 2
    assert checks["MODULE_BUILT"]["value"] == f"not built for {SECOND}"
    ran = role(OLD)
    assert ran.code == 0, ran.said[-3000:]
    stands(OLD)
    assert inside("stat -c %Y /usr/lib64/libcuda.so.*.*") == begun, "the installer had nothing to do"
    well()


# --- packages and .run exclude each other


def test_packages_beside_a_run_driver_are_refused_in_both_directions() -> None:
    before = photograph()
    inside("rpm -i --nodeps --justdb /srv/new-new-550/libnvidia-ml-*.rpm")
    ran = role(NEW)
    inside("rpm -e --nodeps --justdb libnvidia-ml")
    assert ran.code == 2
    assert "[RUN_OVER_PACKAGES] is: libnvidia-ml" in ran.said, ran.said[-3000:]
    packages = {
        "nvidia_driver_set": lab.NEW,
        "nvidia_driver_sets_file": str(lab.sets_file("train")),
        "nvidia_driver_repository": str(lab.sets("train")[lab.NEW]),
    }
    ran = playbook("tests/drivers/driver.yml", **packages)
    assert ran.code == 2
    assert "[PACKAGES_OVER_RUN] is: a driver of NVIDIA's installer" in ran.said, ran.said[-3000:]
    assert "nvidia-uninstall --silent" in ran.said
    assert photograph() == before
    well()


# --- the version changes, breaks, and comes back


def test_a_change_under_a_loaded_module_waits_for_a_window() -> None:
    inside(f"mkdir -p /root/sys/module/nvidia && echo {version(OLD)} > /root/sys/module/nvidia/version")
    before = photograph()
    ran = role(NEW, nvidia_driver_sysfs="/root/sys")
    assert ran.code == 2
    assert f"[WINDOW_OPEN] is: the kernel holds {version(OLD)}" in ran.said, ran.said[-3000:]
    assert photograph() == before


def test_a_version_that_does_not_compile_leaves_the_old_one_whole_and_untouched() -> None:
    before = inside("stat -c %i-%y /usr/lib64/lib*.so.*.* /var/lib/nvidia/log")
    ran = role(BROKEN)
    assert ran.code == 2
    assert f"The host is on {OLD} again, whole and locked" in ran.said, ran.said[-4000:]
    assert "this source is broken on purpose" in ran.said
    assert inside("stat -c %i-%y /usr/lib64/lib*.so.*.* /var/lib/nvidia/log") == before
    stands(OLD)
    well()


def test_a_version_that_builds_for_one_kernel_only_is_taken_back() -> None:
    with damaged_headers(FIRST):
        ran = role(NEW)
    assert ran.code == 2
    assert f"headers of {FIRST} are damaged on purpose" in ran.said, ran.said[-4000:]
    assert f"The host is NOT whole on {OLD}" in ran.said
    assert f"[MODULE_BUILT] is: not built for {FIRST}" in ran.said, "its own module cannot be built either"
    assert set(libraries()) == {version(OLD)}
    assert built(SECOND) == version(OLD)
    ran = role(OLD)
    assert ran.code == 0, ran.said[-3000:]
    stands(OLD)
    well()


def test_the_version_changes_and_a_second_run_changes_nothing() -> None:
    ran = role(NEW)
    assert ran.code == 0, ran.said[-4000:]
    stands(NEW)
    again = role(NEW)
    assert (again.code, again.changed) == (0, 0), again.said[-3000:]
    well()


def test_the_way_back_is_the_old_installer_and_asks_no_repository() -> None:
    inside("mv /srv/repo /srv/off")
    ran = playbook("playbooks/driver_rollback.yml")
    inside("mv /srv/off /srv/repo")
    assert ran.code == 0, ran.said[-4000:]
    stands(OLD)
    well()


# --- the power goes


def cut_the_power(when: str, name: str) -> None:
    """Runs the role; all of the host stops the moment `when`, a shell condition, comes true."""
    watch = f"until {when}; do :; done; kill -USR1 1"
    subprocess.run(["docker", "exec", "-d", CONTAINER, "bash", "-c", watch], check=True)
    ran = role(name)
    assert ran.code != 0
    running = ["docker", "inspect", "--format", "{{.State.Running}}", CONTAINER]
    state = subprocess.run(running, check=True, capture_output=True, text=True).stdout
    assert state == "false\n", "the power was to go"
    subprocess.run(["docker", "start", CONTAINER], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("moment", "when"),
    [
        ("while the module compiles", "pgrep -x cc1 >/dev/null"),
        ("while the libraries are copied", "[ -e /usr/lib64/libcuda.so.{new} ]"),
        (
            "while the other kernel's module is built",
            "compgen -G '/var/lib/dkms/nvidia/{new}/build/*' >/dev/null",
        ),
    ],
)
def test_an_installation_that_a_power_cut_broke_off_is_finished_by_the_next_run(
    moment: str, when: str
) -> None:
    cut_the_power(when.format(new=version(NEW)), NEW)
    assert json.loads(inside(f"cat {UNDER_WAY}"))["name"] == NEW, moment
    before = photograph()
    inside("dnf -y upgrade; dnf -y install nvidia-driver-cuda", check=False)
    assert photograph() == before, "what is half done is locked"
    ran = role(NEW)
    assert ran.code == 0, ran.said[-4000:]
    stands(NEW)
    assert inside("ls /opt/outpost/drivers/run-new").split() == [file_of(NEW)], "nothing unpacked stays"
    well()
    ran = role(OLD)
    assert ran.code == 0, ran.said[-4000:]
    stands(OLD)


# --- NVIDIA's own source


def test_nvidias_own_module_is_built_for_both_kernels(
    record_property: Callable[[str, object], None],
) -> None:
    inside("nvidia-uninstall --silent && rm /etc/outpost/driver.json")
    gone()
    ran = role(REAL)
    assert ran.code == 0, ran.said[-4000:]
    stands(REAL)
    for release in (FIRST, SECOND):
        shown = inside(f"modinfo -k {release} nvidia-uvm nvidia | grep -E '^(version|vermagic|license)'")
        assert f"vermagic:       {release} " in shown
        assert "license:        NVIDIA" in shown
    record_property("driver", f"{version(REAL)} in a stand-in installer")
    record_property("kernels", f"{FIRST}, {SECOND}")
    print(f"first installation with NVIDIA's own module for two kernels: {ran.seconds:.0f} s")
    well()
