"""The preflight verdict for the playbooks: service/outpost/platform judges, here are only the names Ansible calls.

Codes are documented in docs/preflight.md; a code never changes its meaning.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from jinja2 import pass_context
from jinja2.runtime import Context

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from outpost.codes.driver import in_russian
from outpost.controller import docker_settings, removal, strangers
from outpost.platform.collected import collected_json
from outpost.platform.facts import ReadError
from outpost.platform.fit import Asked, AskedWrong, Bundle
from outpost.platform.gpus import UnknownId
from outpost.platform.ground import disk_wanted_mib, release_lines, secret_line
from outpost.platform.host import capacity_lines, inventory_lines
from outpost.platform.line import LANGUAGES, Line, Words
from outpost.platform.packages import looking
from outpost.platform.surroundings import surroundings_lines
from outpost.platform.verdict import judge, text

_ROLES = Path(__file__).parents[2] / "roles"
_BUNDLES = Path(__file__).parents[2] / "service/bundles"


def outpost_inventory_checks(
    systems: dict[str, dict[str, Any]], language: str = "en"
) -> list[dict[str, Any]]:
    """Judges the inventory's systems alone; needs no host.

    Args:
        systems: name -> dicom_port, api_port (TCP), cores (number), memory_mib, vram_mib (MiB).
        language: en or ru.
    """
    return _as_json(inventory_lines(systems), language)


def outpost_preflight(
    read: dict[str, Any],
    systems: dict[str, dict[str, Any]],
    clock: float,
    disk_min_mib: int,
    memory_reserve_mib: int,
    clock_skew_max: int,
) -> list[dict[str, Any]]:
    """Judges what a host offers against its systems; see outpost.platform.host.capacity_lines."""
    lines = capacity_lines(
        read, systems, clock, disk_min_mib=disk_min_mib, memory_reserve_mib=memory_reserve_mib,
        clock_skew_max=clock_skew_max,
    )  # fmt: skip
    return _as_json(lines, "en")


def outpost_verdict(facts: dict[str, Any], host: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """The whole verdict on one host, as the JSON report.

    Args:
        facts: platform_facts.
        host: its name in the inventory.
        wanted: `read` (of preflight_read), `clock`, `systems`, `bundles` (system -> bundle), `driver`, `modules`,
            `cuda`, `torch`, `language`, `disk_min_mib`, `memory_reserve_mib`, `clock_skew_max`, `key_enrolled`;
            `packages` and `archive` as the read was given; `strangers` (of outpost_strangers), and for it
            `extra_ports`, `database_port`, `docker` (fields of docker_settings.Wanted), `networks`,
            `docker_packages`; may have `other_firewalls`; where the host's systems and its database were looked for,
            also `left`, `renamed`, `database` (outpost.controller.removal.lines).

    Raises:
        AnsibleFilterError: a version, a GPU or a bundle's name cannot be read.
    """
    systems = wanted["systems"]
    try:
        bundles = tuple(_bundle(system, name) for system, name in wanted["bundles"].items())
        asked = Asked(
            *(str(wanted[key]).strip() for key in ("driver", "modules", "cuda", "torch")), bundles=bundles
        )
        # A host that could not be asked is judged by what it is.
        more = wanted["read"] and capacity_lines(
            wanted["read"], systems, wanted["clock"], disk_min_mib=wanted["disk_min_mib"],
            memory_reserve_mib=wanted["memory_reserve_mib"], clock_skew_max=wanted["clock_skew_max"],
            bundles=bundles, other_firewalls=bool(wanted.get("other_firewalls")),
        )  # fmt: skip
        others = wanted["strangers"] and strangers.lines(wanted["strangers"], _asked(wanted, facts))
        if "left" in wanted:
            found = removal.lines(wanted["left"], wanted["renamed"], wanted["database"])
            more = [*more, *found]
        verdict = judge(
            host, facts, asked, datetime.now(UTC).date(), systems=systems,
            more=[*inventory_lines(systems), *more, *surroundings_lines(wanted["read"], wanted), *others],
            key_enrolled=bool(wanted["key_enrolled"]),
        )  # fmt: skip
    except (AskedWrong, UnknownId, OSError) as error:
        raise AnsibleFilterError(f"{host}: {error}") from error
    return verdict.as_json(_language(wanted["language"]))


def _asked(wanted: Mapping[str, Any], facts: Mapping[str, Any]) -> strangers.Asked:
    return strangers.Asked(
        systems=wanted["systems"], database_port=int(wanted["database_port"]), extra_ports=wanted["extra_ports"],
        docker=docker_settings.Wanted(**wanted["docker"]), networks=wanted["networks"],
        packages=wanted["docker_packages"], family=str(facts.get("family", "deb")),
    )  # fmt: skip


def outpost_verdict_text(report: dict[str, Any], show: str = "all") -> list[str]:
    """A report as lines of text; `show` problems leaves out what is ok."""
    return text(report, only_problems=show == "problems")


def outpost_failed(checks: Sequence[Mapping[str, Any]], language: str = "en") -> list[str]:
    """Renders what stops a host, a line each, for one message.

    The driver's checks have no level: each that is not ok stops the host. They are judged in English; in Russian the
    table says what to do, and what was judged stays behind it, as it may name a command with this host's versions.
    """
    said = Words(
        "[{code}] is: {value}; wanted: {wanted}. {remedy}",
        "[{code}] есть: {value}; нужно: {wanted}. {remedy}",
    )
    lines = []
    for check in filter(_stops, checks):
        remedy = Words(check["remedy"], check["remedy"] if "level" in check else in_russian(check))
        lines.append(said.by(**{**check, "remedy": remedy}).said(_language(language)))
    return lines


@pass_context
def _failed(context: Context, checks: Sequence[Mapping[str, Any]], language: str = "") -> list[str]:
    """`outpost_failed` in the language of the inventory (outpost_language) where none is named."""
    return outpost_failed(checks, language or ("ru" if context.get("outpost_language") == "ru" else "en"))


def outpost_release_torch(directory: str, release: str) -> str:
    """The build of torch in a release, out of its manifest on the controller; empty where it is not known.

    A release that is not here (it is built later in the run, or the run deploys none) and one made before manifests
    named torch are no faults of a host.
    """
    manifest = Path(directory, release, "manifest.json")
    if not (directory and release and manifest.is_file()):
        return ""
    try:
        return str(json.loads(manifest.read_text()).get("torch", ""))
    except ValueError as error:
        raise AnsibleFilterError(
            f"{manifest} is no manifest ({error}); build or copy the release again"
        ) from error


def outpost_ground_checks(
    root_secret: Any, releases: Sequence[Mapping[str, Any]], deploys: bool = True, language: str = "en"
) -> list[dict[str, Any]]:
    """Judges what a run starts from; asks no host and says no secret.

    Args:
        root_secret: outpost_root_secret.
        releases: of the hosts of the run, `directory`, `release`, `url`; the same one is judged once.
        deploys: whether the run deploys them. One that only asks whether a host will do needs no release yet.
        language: en or ru.
    """
    distinct = {
        tuple(str(release.get(key) or "") for key in ("directory", "release", "url")) for release in releases
    }
    lines = [secret_line(root_secret)]
    for directory, release, url in sorted(distinct):
        if not deploys and not Path(directory, release, "manifest.json").is_file():
            continue
        lines += release_lines(directory, release, url, datetime.now(UTC))
    return _as_json(lines, language)


def outpost_release_of(host: Mapping[str, Any]) -> dict[str, str]:
    """What a host's inventory says of the release: directory, release, url."""
    return {
        "directory": str(host.get("outpost_release_directory") or ""),
        "release": str(host.get("outpost_release") or ""),
        "url": str(host.get("outpost_release_url") or ""),
    }


def outpost_packages_asked(facts: Mapping[str, Any], own: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What the roles install on a host, for preflight_read: manager, names, the script that says what is there.

    Args:
        facts: platform_facts.
        own: role -> packages that the inventory names instead of the role's own; an empty list names none.
    """
    manager, names = facts["package_manager"], []
    for role in ("base", "container_runtime", "postgresql"):
        table = yaml.safe_load((_ROLES / role / f"vars/{facts['family']}.yml").read_text())
        names += [*(own.get(role) or table[f"__{role}_packages"])]
    return {"manager": manager, "names": names, "script": looking(manager, names)}


def outpost_archive_asked(release: Mapping[str, str], by_proxy: bool) -> dict[str, Any]:
    """What preflight_read asks of a release (as outpost_release_of): url, path on the host, bytes, by_proxy.

    Empty where the release is not known here: release-there says more.
    """
    manifest = Path(release["directory"], release["release"], "manifest.json")
    try:
        image = json.loads(manifest.read_text())["image"]
        archive, size = str(image["archive"]), int(image["archive_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    url = f"{release['url'].rstrip('/')}/{release['release']}/{archive}" if release["url"] else ""
    path = f"/opt/outpost/releases/{release['release']}/{archive}"
    return {"url": url, "path": path, "bytes": size, "by_proxy": bool(by_proxy)}


def outpost_release_disk(directory: str, release: str, least_mib: int) -> int:
    """Free MiB a host needs for a release: `least_mib`, or more where its manifest says so."""
    manifest = Path(directory, release, "manifest.json")
    if not (directory and release and manifest.is_file()):
        return least_mib
    try:
        return disk_wanted_mib(json.loads(manifest.read_text()), least_mib)
    except ValueError:
        return least_mib  # release-there says more


def outpost_collected(read: str, host: str) -> str:
    """The file of collect.yml out of what the host answered: redacted, complete or an error."""
    try:
        return collected_json(host, read)
    except ReadError as error:
        raise AnsibleFilterError(str(error)) from error


def _bundle(system: str, name: str) -> Bundle:
    """What a bundle of this checkout asks of a host."""
    described = yaml.safe_load((_BUNDLES / name / "outpost.yaml").read_text())
    gpu, resources = described.get("gpu") or {}, described.get("resources") or {}
    return Bundle(
        system,
        str(gpu.get("min_driver", "")),
        str(gpu.get("min_compute_capability", "")),
        int(resources.get("memory_mib", 0)),
        int(resources.get("vram_mib", 0)),
    )


def _stops(check: Mapping[str, Any]) -> bool:
    return bool(check["level"] == "critical" if "level" in check else not check["ok"])


def _language(language: str) -> Any:
    if language not in LANGUAGES:
        raise AnsibleFilterError(f"preflight_language is {language!r}; {' or '.join(LANGUAGES)} is wanted")
    return language


def _as_json(lines: Sequence[Line], language: str) -> list[dict[str, Any]]:
    return [line.as_json(_language(language)) for line in lines]


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_archive_asked": outpost_archive_asked,
            "outpost_collected": outpost_collected,
            "outpost_failed": _failed,
            "outpost_ground_checks": outpost_ground_checks,
            "outpost_inventory_checks": outpost_inventory_checks,
            "outpost_packages_asked": outpost_packages_asked,
            "outpost_preflight": outpost_preflight,
            "outpost_release_disk": outpost_release_disk,
            "outpost_release_of": outpost_release_of,
            "outpost_release_torch": outpost_release_torch,
            "outpost_verdict": outpost_verdict,
            "outpost_verdict_text": outpost_verdict_text,
        }
