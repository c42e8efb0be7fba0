"""Spec files for repackaged payloads. Pure text: no file is read or written here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from outpost_lab.rpm_catalogue import Payload, Rpm

# No stripping, no debug packages, no compression of manual pages: the binaries are final.
_PREAMBLE = """\
%global __os_install_post %{{nil}}
%global debug_package %{{nil}}
%global _build_id_links none
%global _binary_payload w3.zstdio
%global _unpackaged_files_terminate_build 1

Name: lab-{payload.name}
Version: {version}
Release: {release}
Summary: {payload.name} of Debian, repackaged for the lab of Outpost
License: {payload.licence}
BuildArch: x86_64

%description
Debian's {debs}, rearranged.

%install
cp -a {tree}/. %{{buildroot}}/
"""


@dataclass(frozen=True)
class Tree:
    """The unpacked payload: absolute paths of files and links, and of directories that no host has yet."""

    location: str
    files: tuple[str, ...]
    own_directories: tuple[str, ...]


def rpm_version(debian: str) -> str:
    """Upstream version of a Debian version: '20.10.24+dfsg1-1+deb12u1' -> '20.10.24'."""
    upstream = debian.split(":", 1)[-1].rsplit("-", 1)[0] if "-" in debian else debian.split(":", 1)[-1]
    upstream = re.split(r"[+~](?:dfsg|ds|really)", upstream)[0]
    return re.sub(r"[^A-Za-z0-9._+~^]", ".", upstream)


def rpm_release(debian: str) -> str:
    """Release that still tells the Debian revision: '15.20-0+deb12u1' -> '0.deb12u1.red80'."""
    revision = debian.rsplit("-", 1)[1] if "-" in debian else "0"
    return re.sub(r"[^A-Za-z0-9]+", ".", revision).strip(".") + ".red80"


def assign_files(payload: Payload, paths: Iterable[str]) -> dict[str, list[str]]:
    """Which RPM gets which path: the first whose glob matches. A path nobody wants is a catalogue mistake."""
    owned: dict[str, list[str]] = {rpm.name: [] for rpm in payload.rpms}
    for path in sorted(paths):
        for rpm in payload.rpms:
            if any(_matches(path, pattern) for pattern in rpm.files):
                owned[rpm.name].append(path)
                break
        else:
            raise ValueError(
                f"{path} of payload {payload.name} belongs to no RPM; add it to files or drop it"
            )
    return owned


def _matches(path: str, pattern: str) -> bool:
    if pattern.endswith("/**"):
        return path.startswith(pattern[:-2])
    return PurePosixPath(path).match(pattern)


def spec(payload: Payload, debian_version: str, tree: Tree) -> str:
    """The whole spec file: one subpackage an RPM, none for the payload itself."""
    version, release = rpm_version(debian_version), rpm_release(debian_version)
    parts = [
        _PREAMBLE.format(
            payload=payload,
            version=version,
            release=release,
            debs=", ".join(payload.debs),
            tree=tree.location,
        )
    ]
    owned = assign_files(payload, tree.files)
    for rpm in payload.rpms:
        parts.append(_package(rpm, {"version": version, "release": release}, payload))
        parts.append(_scripts(rpm))
        parts.append(_file_list(rpm, owned[rpm.name], tree.own_directories))
    return "\n".join(parts)


def _package(rpm: Rpm, values: Mapping[str, str], payload: Payload) -> str:
    lines = [f"%package -n {rpm.name}", f"Summary: {rpm.summary}"]
    lines += [f"Requires: {wanted.format(**values)}" for wanted in rpm.requires]
    if rpm.before_install:
        lines.append("Requires(pre): shadow-utils")
    lines += [f"Provides: {offered.format(**values)}" for offered in rpm.provides]
    lines += [
        "",
        f"%description -n {rpm.name}",
        f"{rpm.summary}. Debian's {', '.join(payload.debs)} for the lab.",
    ]
    return "\n".join(lines) + "\n"


def _scripts(rpm: Rpm) -> str:
    """Scriptlets. systemd's RPM macros do not exist on Debian, so what they expand to stands here."""
    units = " ".join(rpm.units)
    install, removal, after_removal = rpm.after_install, "", ""
    if units:
        install += f"systemctl daemon-reload || :\nif [ $1 -eq 1 ]; then systemctl preset {units} || :; fi\n"
        removal = f"if [ $1 -eq 0 ]; then systemctl --no-reload disable --now {units} || :; fi\n"
        after_removal = "systemctl daemon-reload || :\n"
    sections = {"pre": rpm.before_install, "post": install, "preun": removal, "postun": after_removal}
    return "".join(f"%{section} -n {rpm.name}\n{body}\n" for section, body in sections.items() if body)


def _file_list(rpm: Rpm, files: list[str], own_directories: Iterable[str]) -> str:
    """%files: every directory that is not the system's belongs to each RPM with something in it."""
    special = {path for path, *_ in rpm.directories}
    lines = [f"%files -n {rpm.name}"]
    lines += [f"%attr({mode},{user},{group}) %dir {path}" for path, mode, user, group in rpm.directories]
    inhabited = (
        path for path in sorted(own_directories) if any(file.startswith(f"{path}/") for file in files)
    )
    lines += [f"%dir {path}" for path in inhabited if path not in special]
    for path in files:
        config = "%config(noreplace) " if path.startswith("/etc/") else ""
        owner = next(
            (f"%attr(-,{u},{g}) " for parent, _, u, g in rpm.directories if path.startswith(f"{parent}/")), ""
        )
        lines.append(f"{config}{owner}{path}")
    return "\n".join(lines) + "\n"
