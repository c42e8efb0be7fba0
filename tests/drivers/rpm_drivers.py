"""The same driver files as RPMs, for the RED OS stand-in. Runs inside a container of the lab's image `rpm`:

    python3 /tests/rpm_drivers.py KEYS OUTPUT OWNER [fail] DEB...

With the word `fail` the packages refuse to be installed: their %pre fails, which is what stops a package in rpm.

Names follow NVIDIA's own RPM repository, not RED OS, whose names no source confirms. `libnvidia-nscq` and
`nvidia-imex` carry other files of the driver under the two names that escape a lock of `*nvidia*580*`; the kernel's
name carries only the metapackage's papers: a lock sees names and versions, no files.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, "/lab")

from outpost_lab.rpm_build import arrange, survey
from outpost_lab.rpm_catalogue import Payload, Rpm
from outpost_lab.rpm_spec import spec

LICENCE = "NVIDIA (test only, never passed on)"
DROP = ("/usr/share/bug*", "/etc/init.d*", "/usr/share/initramfs-tools*", "/etc/X11*")

# RPM -> the Debian packages whose files it has; the first gives the version.
RPMS: dict[str, tuple[str, ...]] = {
    "kernel-lt": ("linux-image-cloud-amd64",),
    "libnvidia-cfg": ("libnvidia-cfg1",),
    "libnvidia-gpucomp": ("libnvidia-gpucomp",),
    "libnvidia-ml": ("libnvidia-ml1",),
    "libnvidia-nscq": ("libnvidia-encode1",),
    "nvidia-driver-cuda": ("nvidia-smi",),
    "nvidia-driver-cuda-libs": ("libcuda1", "libnvidia-ptxjitcompiler1", "libnvidia-pkcs11-openssl3"),
    "nvidia-imex": ("nvidia-support",),
    "nvidia-kmod-common": ("firmware-nvidia-gsp",),
    "nvidia-modprobe": ("nvidia-modprobe",),
}
REQUIRES = {
    "nvidia-driver-cuda": (
        "libnvidia-ml = {version}-{release}",
        "nvidia-driver-cuda-libs = {version}-{release}",
    ),
    "nvidia-driver-cuda-libs": ("nvidia-kmod-common = {version}-{release}",),
}


def main(keys: str, output: str, owner: str, *debs: str) -> None:
    before = "echo 'this scriptlet fails on purpose' >&2\nexit 1\n" if debs[0] == "fail" else ""
    by_name = {Path(deb).name.split("_")[0]: deb for deb in debs if deb != "fail"}
    with tempfile.TemporaryDirectory() as scratch:
        for name, parts in RPMS.items():
            if parts[0] in by_name:
                build(name, [by_name[part] for part in parts], Path(scratch, name), before)
        for built in Path(scratch).glob("*/RPMS/*/*.rpm"):
            shutil.copy(built, output)
    rpms = sorted(str(path) for path in Path(output).glob("*.rpm"))
    signer = {"_gpg_path": keys, "__gpg": "/usr/bin/gpg", "_gpg_name": "lab@outpost.invalid"}
    subprocess.run(
        ["rpmsign", *(f"--define={k} {v}" for k, v in signer.items()), "--addsign", *rpms], check=True
    )
    subprocess.run(["gpgconf", "--homedir", keys, "--kill", "all"], check=True)
    subprocess.run(["chown", "-R", owner, keys, output], check=True)


def build(name: str, debs: list[str], top: Path, before: str, licence: str = LICENCE) -> None:
    tree = top / "tree"
    tree.mkdir(parents=True)
    for deb in debs:
        subprocess.run(["dpkg-deb", "-x", deb, str(tree)], check=True)
    for link in tree.glob(
        "usr/share/doc/*"
    ):  # to a directory of another package: what is dropped there is dropped once
        if link.is_symlink():
            link.unlink()
    rpm = Rpm(
        name,
        f"{name} of the driver tests",
        requires=REQUIRES.get(name, ()),
        before_install=before,
        after_install="/sbin/ldconfig\n",
    )
    payload = Payload(name, tuple(Path(deb).name for deb in debs), licence, (rpm,), drop=DROP)
    arrange(payload, tree)
    flatten(tree)
    version = subprocess.run(
        ["dpkg-deb", "-f", debs[0], "Version"], check=True, capture_output=True, text=True
    ).stdout
    spec_file = top / f"{name}.spec"
    # Every RPM finds its own libraries; what the host lacks of others is no matter of a lock.
    spec_file.write_text(
        "%global __requires_exclude ^(lib|perl).*$\n" + spec(payload, version.strip(), survey(tree))
    )
    command = ["rpmbuild", "--quiet", "-bb", "--define", f"_topdir {top}", str(spec_file)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    if built.returncode:
        sys.exit(f"rpmbuild of {name}: {built.stdout[-2000:]}{built.stderr[-2000:]}")


def flatten(tree: Path) -> None:
    """Libraries where an RPM system's linker looks: Debian keeps them behind alternatives in nvidia/current."""
    current = tree / "usr/lib/x86_64-linux-gnu/nvidia/current"
    if current.is_dir():
        (tree / "usr/lib64").mkdir(parents=True, exist_ok=True)
        for path in current.iterdir():
            shutil.move(path, tree / "usr/lib64" / path.name)
        shutil.rmtree(tree / "usr/lib/x86_64-linux-gnu/nvidia")
    private = tree / "usr/lib/nvidia/current"
    if private.is_dir():
        (tree / "usr/bin").mkdir(parents=True, exist_ok=True)
        for path in private.iterdir():
            shutil.move(path, tree / "usr/bin" / path.name)
        shutil.rmtree(tree / "usr/lib/nvidia")


if __name__ == "__main__":
    main(*sys.argv[1:])
