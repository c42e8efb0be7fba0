"""Builds the signed RPM repository. Runs inside a container of the image `rpm`, as root:

    python3 -m outpost_lab.rpm_build PAYLOADS KEYS DEBS OUTPUT OWNER

PAYLOADS: lab/images/rpm/payloads; KEYS: GnuPG home with the lab's key; DEBS: cache of downloaded packages;
OUTPUT: an empty directory for the repository; OWNER: uid:gid the results are given to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from outpost_lab.rpm_catalogue import CATALOGUE, Payload, as_markdown
from outpost_lab.rpm_spec import Tree, spec

# Debian unpacks into these on systems whose /bin is a link; RED OS files are under /usr.
_UNDER_USR = ("bin", "sbin", "lib")
_NOT_PACKAGED = (
    "/usr/share/doc/*/*",
    "/usr/share/lintian*",
    "/usr/share/man*",
    "/usr/lib/udev*",
)


def main(payloads: str, keys: str, debs: str, output: str, owner: str) -> None:
    names = [deb for payload in CATALOGUE for deb in payload.debs]
    _call("apt-get", "update", "-qq")
    subprocess.run(["apt-get", "download", "-qq", *names], cwd=debs, check=True)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(max_workers=2) as pool:
        for done in [pool.submit(_build, p, Path(payloads), Path(debs), Path(scratch)) for p in CATALOGUE]:
            done.result()
        for built in Path(scratch).glob("*/RPMS/*/*.rpm"):
            shutil.copy(built, output)
    rpms = sorted(str(path) for path in Path(output).glob("*.rpm"))
    signer = {"_gpg_path": keys, "__gpg": "/usr/bin/gpg", "_gpg_name": "lab@outpost.invalid"}
    _call("rpmsign", *(f"--define={name} {value}" for name, value in signer.items()), "--addsign", *rpms)
    _call("createrepo_c", "--quiet", "--simple-md-filenames", output)
    _call("gpg", "--homedir", keys, "--batch", "--armor", "--detach-sign", f"{output}/repodata/repomd.xml")
    _call("gpgconf", "--homedir", keys, "--kill", "all")
    Path(output, "mirror.md").write_text(as_markdown())
    for directory in (keys, debs, output):
        _call("chown", "-R", owner, directory)


def _build(payload: Payload, payloads: Path, debs: Path, scratch: Path) -> None:
    top = scratch / payload.name
    tree = top / "tree"
    tree.mkdir(parents=True)
    packages = [_newest(debs, deb) for deb in payload.debs]
    for package in packages:
        _call("dpkg-deb", "-x", str(package), str(tree))
    arrange(payload, tree)
    extra = payloads / payload.name
    if extra.is_dir():
        shutil.copytree(extra, tree, dirs_exist_ok=True, symlinks=True)
    for directory in (path for rpm in payload.rpms for path, *_ in rpm.directories):
        (tree / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)

    version = subprocess.run(
        ["dpkg-deb", "-f", str(packages[0]), "Version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    spec_file = top / f"{payload.name}.spec"
    spec_file.write_text(spec(payload, version, survey(tree)))
    build = ["rpmbuild", "--quiet", "-bb", "--define", f"_topdir {top}", str(spec_file)]
    built = subprocess.run(build, check=False, capture_output=True, text=True)
    if built.returncode:
        sys.exit(f"rpmbuild of {payload.name}: {built.stdout[-3000:]}{built.stderr[-3000:]}")


def _newest(debs: Path, name: str) -> Path:
    found = sorted(debs.glob(f"{name}_*.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f"{name}: apt downloaded no such package")
    return found[-1]


def arrange(payload: Payload, tree: Path) -> None:
    """Turn an unpacked Debian tree into what the payload's RPMs hold."""
    for name in _UNDER_USR:
        if (tree / name).is_dir():
            shutil.copytree(tree / name, tree / "usr" / name, dirs_exist_ok=True, symlinks=True)
            shutil.rmtree(tree / name)
    for source, target in payload.moves:
        _move(tree, source, target)
    # Licences stay: copyright files are what the payloads may be passed on under.
    licences = {path: path.read_bytes() for path in tree.glob("usr/share/doc/*/copyright") if path.is_file()}
    for pattern in (*_NOT_PACKAGED, *payload.drop):
        for path in _matches(tree, pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path, licence in licences.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(licence)
    for name, target in payload.links:
        link = tree / name.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to(target)
    for name, old, new in payload.edits:
        path = tree / name.lstrip("/")
        text = path.read_text()
        if old not in text:
            sys.exit(f"{name} of {payload.name}: {old!r} is not in it any more; correct the catalogue")
        path.write_text(text.replace(old, new))


def _matches(tree: Path, pattern: str) -> list[Path]:
    return sorted(tree.glob(pattern.lstrip("/")))


def _move(tree: Path, source: str, target: str) -> None:
    """Move what matches `source`: onto `target` when it is one path, into it when a glob."""
    matches = _matches(tree, source)
    if not matches:
        sys.exit(f"{source}: nothing to move; the Debian package has changed, correct the catalogue")
    destination = tree / target.lstrip("/")
    if source.endswith("*"):
        destination.mkdir(parents=True, exist_ok=True)
    else:
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.is_symlink():
            destination.unlink()
    for match in matches:
        shutil.move(match, destination)


def survey(tree: Path) -> Tree:
    """Files and links of `tree`, and its directories that the host does not have from elsewhere."""
    files, directories = [], []
    for path in tree.rglob("*"):
        name = "/" + str(path.relative_to(tree))
        if path.is_symlink() or not path.is_dir():
            files.append(name)
        elif not Path(name).is_dir():
            directories.append(name)
    return Tree(str(tree), tuple(files), tuple(directories))


def _call(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main(*sys.argv[1:])
