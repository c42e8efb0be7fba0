"""Real NVIDIA packages for the driver tests: two versions of one closure, from the Debian mirror this machine uses.

The older is Debian bookworm's 535, the newer trixie's 550. They are fetched by the names below, checked against the
mirror's signed index and kept by their sha256 under .lab/cache/drivers: a second run fetches nothing.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".lab" / "cache" / "drivers"
sys.path.insert(0, str(ROOT / "lab"))

from outpost_lab import apt_sources  # noqa: E402 - the lab's package stands beside its program

# The part of a driver that a machine without a display needs, and what its packages depend on inside the family.
CLOSURE = (
    "firmware-nvidia-gsp glx-alternative-mesa glx-alternative-nvidia glx-diversions libcuda1 libcudadebugger1 "
    "libnvcuvid1 libnvidia-cfg1 libnvidia-encode1 libnvidia-ml1 libnvidia-pkcs11-openssl3 libnvidia-ptxjitcompiler1 "
    "nvidia-alternative nvidia-installer-cleanup nvidia-kernel-common nvidia-kernel-support nvidia-legacy-check "
    "nvidia-modprobe nvidia-persistenced nvidia-smi nvidia-support update-glx"
).split()
# What the newer has more than the older: a way back must take it away again.
NEW_IN_NEWER = ["libnvidia-gpucomp"]
# What DKMS builds the module of, what that depends on inside the family, and one library.
MODULE = (
    "nvidia-kernel-dkms nvidia-kernel-support nvidia-kernel-common nvidia-modprobe nvidia-alternative "
    "nvidia-legacy-check nvidia-installer-cleanup libnvidia-ml1 firmware-nvidia-gsp glx-alternative-nvidia "
    "glx-alternative-mesa glx-diversions update-glx"
).split()
# What a program that computes loads. Debian makes `nvidia` a name that modprobe knows only where libcuda1 is.
LIBRARIES = "libcuda1 libnvidia-pkcs11-openssl3 libnvidia-ptxjitcompiler1 nvidia-support".split()
# A kernel of the older point release; Debian's security suite has a newer one at any time.
KERNEL = ["linux-image-cloud-amd64"]

COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware")
# A day: an index that moved in the middle of a point release heals by itself.
INDEX_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Package:
    """One package of a suite; `path` is the cached file once fetched."""

    name: str
    version: str
    sha256: str
    uri: str
    depends: str

    @property
    def path(self) -> Path:
        return CACHE / self.sha256[:16] / self.uri.rsplit("/", 1)[1]


def mirror(security: bool) -> str:
    """The Debian mirror of this machine, for releases or for their security updates."""
    for source in apt_sources.read_machine():
        debian = source.suite.startswith(("bookworm", "trixie")) and "main" in source.components
        if debian and source.suite.endswith("-security") == security:
            return source.uri.rstrip("/")
    raise RuntimeError(
        "This machine's apt sources name no Debian mirror, and the driver tests need Debian's non-free packages. "
        "Run them on a Debian machine, or add a Debian source."
    )


def _fetch(uri: str) -> bytes:
    with urllib.request.urlopen(uri, timeout=120) as answer:  # noqa: S310 - the machine's own mirror
        return bytes(answer.read())


def index(suite: str) -> dict[str, Package]:
    """Packages of a suite by name, from its index as the signed Release file names it."""
    kept = CACHE / f"index-{suite}.json"
    if kept.exists() and time.time() - kept.stat().st_mtime < INDEX_SECONDS:
        return {row["name"]: Package(**row) for row in json.loads(kept.read_text())}
    base = mirror(suite.endswith("-security"))
    components = COMPONENTS[:1] if suite.endswith("-security") else COMPONENTS
    with tempfile.NamedTemporaryFile() as signed, tempfile.NamedTemporaryFile() as checked:
        signed.write(_fetch(f"{base}/dists/{suite}/InRelease"))
        signed.flush()
        command = ["gpgv", "--quiet", "--keyring", apt_sources.KEYRING, "--output", checked.name, signed.name]
        subprocess.run(command, check=True, capture_output=True)
        release = Path(checked.name).read_text()
    rows = []
    for component in components:
        name = f"{component}/binary-amd64/Packages.xz"
        wanted = re.search(rf"^ ([0-9a-f]{{64}}) +\d+ {re.escape(name)}$", release, re.MULTILINE)
        assert wanted, f"{suite} has no {name}"
        packed = _fetch(f"{base}/dists/{suite}/{name}")
        assert hashlib.sha256(packed).hexdigest() == wanted[1], (
            f"{name} of {suite} is not what its Release says"
        )
        for stanza in lzma.decompress(packed).decode().split("\n\n"):
            fields = dict(
                re.findall(r"^(Package|Version|SHA256|Filename|Depends): (.*)$", stanza, re.MULTILINE)
            )
            if fields:
                uri = f"{base}/{fields['Filename']}"
                rows.append(
                    Package(
                        fields["Package"], fields["Version"], fields["SHA256"], uri, fields.get("Depends", "")
                    )
                )
    CACHE.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([row.__dict__ for row in rows]))
    return {row.name: row for row in rows}


def fetch(packages: list[Package]) -> list[Package]:
    """Brings the files into the cache; each is proven by its sha256 before it gets its name."""
    for package in packages:
        if package.path.exists():
            continue
        content = _fetch(package.uri)
        assert hashlib.sha256(content).hexdigest() == package.sha256, f"{package.uri} is damaged on its way"
        package.path.parent.mkdir(parents=True, exist_ok=True)
        partial = package.path.with_suffix(".partial")
        partial.write_bytes(content)
        partial.rename(package.path)
    return packages


def older() -> list[Package]:
    """Bookworm's 535 with its kernel."""
    found = index("bookworm")
    kernel = [found[name] for name in KERNEL]
    return fetch([found[name] for name in CLOSURE] + kernel + [found[_image(kernel[0])]])


def _image(metapackage: Package) -> str:
    """Name of the kernel that a metapackage stands for."""
    named = re.search(r"linux-image-\d[\w.-]+", metapackage.depends)
    assert named, f"{metapackage.name} names no kernel: {metapackage.depends}"
    return named[0]


def building(suite: str = "bookworm", flavour: str = "cloud-amd64") -> list[Package]:
    """What builds the suite's module for bookworm's kernel: DKMS's package, the kernel, its headers, one library."""
    found = index("bookworm")
    image = _image(found[f"linux-image-{flavour}"])
    release = image.removeprefix("linux-image-")
    names = [
        image,
        f"linux-headers-{release}",
        f"linux-headers-{release.removesuffix(flavour)}common",
        "linux-kbuild-6.1",
        "linux-compiler-gcc-12-x86",
    ]
    driver = fetch([index(suite)[name] for name in MODULE])
    return fetch([found[name] for name in names]) + [_for_bookworm(package) for package in driver]


def computing(suite: str, flavour: str) -> list[Package]:
    """Likewise, and the libraries of a host that computes."""
    found = index(suite)
    libraries = fetch([found[name] for name in LIBRARIES])
    return building(suite, flavour) + [_for_bookworm(package) for package in libraries]


def newer() -> list[Package]:
    """Trixie's 550 with the kernel of the older: a driver's branch changes, the kernel stays."""
    found = index("trixie")
    kernel = [package for package in older() if package.name.startswith("linux-")]
    return [
        _for_bookworm(package) for package in fetch([found[name] for name in (*CLOSURE, *NEW_IN_NEWER)])
    ] + kernel


def newer_kernel() -> list[Package]:
    """The kernel's metapackage of the security suite: newer than the older set's at any time."""
    return fetch([index("bookworm-security")[name] for name in KERNEL])


def _for_bookworm(package: Package) -> Package:
    """The same payload where trixie's names of unchanged libraries (libssl3t64) are bookworm's (libssl3).

    The hosts of the lab are bookworm underneath, and its DKMS of one point release less builds trixie's module as well.
    Nothing but the control file's dependencies changes.
    """
    if _old_names(package.depends) == package.depends:
        return package
    rebuilt = CACHE / f"{package.sha256[:16]}-bookworm" / package.path.name
    if not rebuilt.exists():
        with tempfile.TemporaryDirectory() as scratch:
            tree = Path(scratch, "tree")
            subprocess.run(["dpkg-deb", "-R", package.path, tree], check=True)
            control = tree / "DEBIAN" / "control"
            control.write_text(
                re.sub(r"^Depends: .*$", lambda m: _old_names(m[0]), control.read_text(), flags=re.MULTILINE)
            )
            rebuilt.parent.mkdir(parents=True, exist_ok=True)
            command = ["dpkg-deb", "--root-owner-group", "-Zxz", "-b", tree, rebuilt]
            subprocess.run(command, check=True, capture_output=True)
    digest = hashlib.sha256(rebuilt.read_bytes()).hexdigest()
    kept = CACHE / digest[:16] / package.path.name
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.hardlink_to(rebuilt)
    return replace(package, sha256=digest)


def _old_names(depends: str) -> str:
    return depends.replace("t64", "").replace("dkms (>= 3.0.11)", "dkms")


if __name__ == "__main__":
    for package in (*older(), *newer()):
        print(package.name, package.version, package.path)
