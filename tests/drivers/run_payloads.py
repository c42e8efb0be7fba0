"""Files for the tests of the .run route: stand-ins for NVIDIA's installer around real files, and RPMs to build with.

NVIDIA's own .run files cannot be had where the tests run. A stand-in is `stand-in-installer`, packed as NVIDIA packs
theirs, with Debian's libraries of that version and the source of a kernel module that is really compiled: NVIDIA's own
(of Debian's nvidia-kernel-dkms), or for most tests a tiny one of the same name and version, for NVIDIA's takes minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import debian_drivers as debian
import driver_lab as lab

WORK = lab.WORK / "run"
STAND_IN = Path(__file__).with_name("stand-in-installer")
LIBRARIES = ("libnvidia-ml1", "libnvidia-cfg1", "libcuda1", "libnvidia-ptxjitcompiler1", "nvidia-smi")
REAL_MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm", "nvidia-peermem")
# gcc, its parts and what it links with; the root file system of the RED OS stand-in has the rest.
TOOLCHAIN = (
    "gcc gcc-12 cpp cpp-12 binutils binutils-common binutils-x86-64-linux-gnu libbinutils libctf-nobfd0 libctf0 "
    "libgprofng0 libgcc-12-dev libcc1-0 libisl23 libmpc3 libmpfr6 libgomp1 libitm1 libatomic1 libasan8 liblsan0 "
    "libtsan2 libubsan1 libquadmath0 libc6-dev libc-dev-bin linux-libc-dev libcrypt-dev libjansson4"
).split()

_TINY_SOURCE = """\
#include <linux/module.h>
static int __init tiny_init(void) { return 0; }
static void __exit tiny_exit(void) { }
module_init(tiny_init);
module_exit(tiny_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_VERSION("@@");
"""
_TINY_MAKEFILE = """\
KERNEL_UNAME ?= $(shell uname -r)
obj-m := nvidia.o
modules clean:
\t$(MAKE) -C /lib/modules/$(KERNEL_UNAME)/build M=$(CURDIR) $@
"""
_DKMS = """\
PACKAGE_NAME="nvidia"
PACKAGE_VERSION="{version}"
AUTOINSTALL="yes"
MAKE[0]="'make' -j2 KERNEL_UNAME=${{kernelver}} modules"
CLEAN="true"
"""
_HEAD = """\
#!/bin/sh
# A STAND-IN for NVIDIA-Linux-x86_64-{version}.run, made by Outpost's tests. Unpacks itself as NVIDIA's does.
TMPROOT=${{TMPDIR:=/tmp}}
into=$TMPROOT/selfgz$$
mkdir -p "$into" && tail -n +{skip} "$0" | tar -xzf - -C "$into" || exit 1
"$into/NVIDIA-Linux-x86_64-{version}/nvidia-installer" "$@"
ended=$?
rm -rf "$into"
exit $ended
"""


def older_version() -> str:
    return debian.index("bookworm")["libnvidia-ml1"].version.split("-")[0]


def newer_version() -> str:
    return debian.index("trixie")["libnvidia-ml1"].version.split("-")[0]


def installer(folder: Path, suite: str, version: str, source: str) -> Path:
    """A stand-in .run of `version` with the suite's libraries and the kernel module `source`: real, tiny or broken."""
    debs = [debian.index(suite)[package] for package in LIBRARIES]
    debs += [debian.index("bookworm")["nvidia-kernel-dkms"]] if source == "real" else []
    name = f"NVIDIA-Linux-x86_64-{version}"
    target, inputs = folder / f"{name}.run", folder / "inputs"
    sources = [Path(__file__).read_text(), STAND_IN.read_text(), *(deb.sha256 for deb in debs)]
    wanted = hashlib.sha256("".join(sources).encode()).hexdigest()
    if inputs.exists() and inputs.read_text() == wanted:
        return target
    shutil.rmtree(folder, ignore_errors=True)
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    tree, top = scratch / "debs", scratch / name
    for deb in debian.fetch(debs):
        subprocess.run(["dpkg-deb", "-x", deb.path, tree], check=True)
    _libraries(tree, top)
    _module(tree, top, version, source)
    (top / "version").write_text(f"{version}\n")
    shutil.copy(STAND_IN, top / "nvidia-installer")
    head = _HEAD.format(version=version, skip=_HEAD.count("\n") + 1)
    packed = subprocess.run(
        ["tar", "-C", scratch, "-cf", "-", "-I", "gzip -1", name], check=True, stdout=subprocess.PIPE
    )
    target.write_bytes(head.encode() + packed.stdout)
    shutil.rmtree(scratch)
    inputs.write_text(wanted)
    return target


def _libraries(tree: Path, top: Path) -> None:
    for directory in ("lib64", "bin"):
        (top / directory).mkdir(parents=True)
    current = [tree / "usr/lib/x86_64-linux-gnu", tree / "usr/lib/x86_64-linux-gnu/nvidia/current"]
    for path in sorted(path for directory in current for path in directory.glob("lib*.so*")):
        shutil.copy(path, top / "lib64" / path.name, follow_symlinks=False)
    shutil.copy(tree / "usr/lib/nvidia/current/nvidia-smi", top / "bin")


def _module(tree: Path, top: Path, version: str, source: str) -> None:
    """The module's source in `kernel`, with the dkms.conf that NVIDIA's package has and Debian's replaces."""
    modules, kernel = ("nvidia",), top / "kernel"
    if source == "real":
        modules = REAL_MODULES
        shutil.copytree(next(tree.glob("usr/src/nvidia-*")), kernel, symlinks=True)
    else:
        kernel.mkdir()
        broken = "#error this source is broken on purpose\n" if source == "broken" else ""
        (kernel / "nvidia.c").write_text(broken + _TINY_SOURCE.replace("@@", version))
        (kernel / "Makefile").write_text(_TINY_MAKEFILE)
    lines = [
        f'BUILT_MODULE_NAME[{n}]="{module}"\nDEST_MODULE_LOCATION[{n}]="/kernel/drivers/video"\n'
        for n, module in enumerate(modules)
    ]
    (kernel / "dkms.conf").write_text(_DKMS.format(version=version) + "".join(lines))


def kernels() -> list[tuple[str, list[debian.Package]]]:
    """Two kernels of Debian's: release, then the image and the headers. The second is of the security suite."""
    first = debian.building()
    image = next(package.name for package in first if package.name.startswith("linux-image-"))
    security = debian.index("bookworm-security")
    release = min(
        name.removeprefix("linux-headers-")
        for name in security
        if name.startswith("linux-headers-6.1.0-") and name.endswith("-cloud-amd64")
    )
    assert release != image.removeprefix("linux-image-"), "the security suite must be ahead of the release"
    common = release.replace("-cloud-amd64", "-common")
    second = [f"linux-image-{release}", f"linux-headers-{release}", f"linux-headers-{common}"]
    names = {f"linux-headers-{image.removeprefix('linux-image-')}"}
    names |= {name.replace("-cloud-amd64", "-common") for name in names} | {image}
    return [
        (image.removeprefix("linux-image-"), [package for package in first if package.name in names]),
        (release, debian.fetch([security[name] for name in second])),
    ]


def rpms() -> Path:
    """A directory with RPMs: kernel-lt and kernel-lt-devel twice, kernel-build-tools, dkms, gcc, make."""
    found, security = debian.index("bookworm"), debian.index("bookworm-security")
    groups: list[tuple[str, list[debian.Package]]] = []
    for _, packages in kernels():
        groups.append(("kernel-lt", [p for p in packages if p.name.startswith("linux-image-")]))
        groups.append(("kernel-lt-devel", [p for p in packages if p.name.startswith("linux-headers-")]))
    # The newest serve every kernel of 6.1, as on a Debian host.
    tools = [security[name] for name in ("linux-kbuild-6.1", "linux-compiler-gcc-12-x86")]
    groups.append(("kernel-build-tools", tools))
    groups.append(("dkms", [found["dkms"], found["patch"]]))
    groups.append(("gcc", [found[name] for name in TOOLCHAIN]))
    groups.append(("make", [found["make"]]))
    for _, packages in groups:
        debian.fetch(packages)
    sources = [Path(__file__).with_name(name) for name in ("rpm_toolchain.py", "rpm_drivers.py")]
    sources += [lab.ROOT / "lab/outpost_lab" / name for name in ("rpm_build.py", "rpm_spec.py")]
    listed = json.dumps([[name, [p.sha256 for p in packages]] for name, packages in groups])
    key = hashlib.sha256("".join([listed, *(path.read_text() for path in sources)]).encode()).hexdigest()[:12]
    output = WORK / f"rpms-{key}"
    if not (output / "whole").exists():
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        _build_rpms(output, groups)
        (output / "whole").touch()
    return output


def _build_rpms(output: Path, groups: list[tuple[str, list[debian.Package]]]) -> None:
    store = lab.lab_store()
    store.ensure(["rpm"])
    debs = lab.folder(WORK / "debs", [package.path for _, packages in groups for package in packages])
    named = [[name, [f"/debs/{package.path.name}" for package in packages]] for name, packages in groups]
    (output / "groups.json").write_text(json.dumps(named))
    mounts = {
        lab.ROOT / "lab": "/lab:ro",
        lab.ROOT / "tests/drivers": "/tests:ro",
        debs: "/debs:ro",
        output: "/output",
    }
    command = ["docker", "run", "--rm", *(f"--volume={host}:{inside}" for host, inside in mounts.items())]
    program = f"python3 -B /tests/rpm_toolchain.py /output {os.getuid()}:{os.getgid()} /output/groups.json"
    done = subprocess.run(
        [*command, store.tag("rpm"), "sh", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
