"""The NVIDIA driver of a host: what is wanted, what would change, how it is locked, what is wrong.

The host's module nvidia_driver_read says what is there; everything it means is decided here. A check has the same form
as preflight's: code, ok, value, wanted, remedy. Codes are documented in docs/driver-codes.md and keep their meaning.
"""

from __future__ import annotations

import datetime
import re
from fnmatch import fnmatchcase
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ansible.errors import AnsibleFilterError

Set = dict[str, Any]
Read = dict[str, Any]
Check = dict[str, Any]

_DRIVER = re.compile(r"\d{3}\.\d+(\.\d+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

RECORD = "/etc/outpost/driver.json"
UNDER_WAY = "/etc/outpost/driver-change-under-way.json"
STORE = "/opt/outpost/drivers"
_PREFERENCES = "/etc/apt/preferences.d/outpost-driver"
_BLACKLIST = "/etc/apt/apt.conf.d/91outpost-driver"
_NEEDRESTART = "/etc/needrestart/conf.d/outpost-driver.conf"
_VERSIONLOCK = "/etc/dnf/plugins/versionlock.list"
_NOUVEAU = "/etc/modprobe.d/outpost-nouveau.conf"

# A restart of these by a helper of the package manager would take a GPU from a container, or a study from a worker.
_NEVER_RESTART = ("outpost@", "docker", "containerd", "nvidia-persistenced")


def _check(code: str, ok: bool, value: Any, wanted: Any, remedy: str) -> Check:
    return {"code": code, "ok": bool(ok), "value": str(value), "wanted": str(wanted), "remedy": remedy}


def _some(names: list[str] | set[str], most: int = 6) -> str:
    """The first few of many names, for a message."""
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def outpost_driver_set(sets: dict[str, Set], name: str, platform: str = "") -> Set:
    """Picks the set `name` and proves that it names everything exactly.

    Raises:
        AnsibleFilterError: no such set, made for another platform, or a version or checksum is missing.
    """
    if name not in sets:
        raise AnsibleFilterError(
            f"There is no driver set {name!r} for {platform or 'this host'}; known: "
            f"{', '.join(sorted(sets)) or 'none'}. Make one with playbooks/driver_set.yml "
            f"(docs/runbooks/en/driver-set.md), and name its file in nvidia_driver_sets_file."
        )
    chosen: Set = {"packages": [], "run": {}, "kernel": "", "platforms": [], **sets[name], "name": name}
    wrong = []
    if not _DRIVER.fullmatch(str(chosen.get("driver", ""))):
        wrong.append(f"driver is {chosen.get('driver')!r}, wanted is a full version such as '580.95.05'")
    if platform and chosen["platforms"] and platform not in chosen["platforms"]:
        wrong.append(f"it is made for {', '.join(chosen['platforms'])}, not for {platform}")
    if bool(chosen["packages"]) == bool(chosen["run"]):
        wrong.append("it must have either packages or run")
    for package in chosen["packages"]:
        where = f"package {package.get('name', '?')}"
        if not package.get("name") or not str(package.get("version", "")):
            wrong.append(f"{where} has no exact version")
        if "*" in str(package.get("version", "")):
            wrong.append(f"{where}: version {package['version']} is a pattern, not a version")
        if not _SHA256.fullmatch(str(package.get("sha256", ""))) or not package.get("file"):
            wrong.append(f"{where} has no file with a sha256")
    if chosen["run"] and not (
        _SHA256.fullmatch(str(chosen["run"].get("sha256", ""))) and chosen["run"].get("file")
    ):
        wrong.append("run has no file with a sha256")
    if not _NAME.fullmatch(name):
        wrong.append("its name must be of a-z 0-9 . + - (it becomes a directory)")
    if wrong:
        raise AnsibleFilterError(f"Driver set {name!r} cannot be used: {'; '.join(wrong)}.")
    return chosen


def outpost_window_open(window: str, timezone: str, clock: float, minutes: float = 0) -> bool:
    """Whether the moment `clock` (seconds since 1970) lies in `window`, in the region's own time zone.

    Args:
        window: "HH:MM-HH:MM", may cross midnight, and may name days in front: "sat,sun 01:00-05:00". The day is the one
            on which the window begins. Empty is never.
        minutes: for how long it must stay open from then on.
    """
    if not window:
        return False
    *days, hours = window.lower().split()
    match = _WINDOW.fullmatch(hours)
    named = [day for word in days for day in word.split(",") if day]
    if not match or len(days) > 1 or any(day not in _DAYS for day in named):
        raise AnsibleFilterError(
            f"The window {window!r} is not understood. Write '01:00-05:00' or 'sat,sun 01:00-05:00' "
            f"(days: {', '.join(_DAYS)})."
        )
    try:
        now = datetime.datetime.fromtimestamp(clock, ZoneInfo(timezone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise AnsibleFilterError(f"The time zone {timezone!r} is unknown; write it as Asia/Chita.") from error
    begin, end, minute = (
        int(match[1]) * 60 + int(match[2]),
        int(match[3]) * 60 + int(match[4]),
        now.hour * 60 + now.minute,
    )
    if begin <= end:
        inside, day = begin <= minute < end, now.weekday()
    else:
        inside, day = minute >= begin or minute < end, (now.weekday() - (minute < end)) % 7
    if not inside or (named and _DAYS[day] not in named):
        return False
    # By the clock on the wall, then as seconds: a night in which the clocks change is shorter or longer than it looks.
    closes = now.replace(hour=end // 60, minute=end % 60, second=0, microsecond=0, fold=0)
    closes += datetime.timedelta(days=minute >= end)
    return closes.timestamp() - clock >= minutes * 60


def _family(read: Read, chosen: Set, families: list[str], allow: list[str]) -> set[str]:
    """Installed packages of the driver's families that the set does not name and nobody has allowed."""
    named = {package["name"] for package in chosen["packages"]}
    return {
        name
        for name, package in read["packages"].items()
        if name not in named
        and package["state"] == "installed"
        and any(fnmatchcase(name, pattern) for pattern in families)
        and not any(fnmatchcase(name, pattern) for pattern in allow)
    }


def _differing(read: Read, chosen: Set) -> list[dict[str, str]]:
    found = []
    for package in chosen["packages"]:
        there = read["packages"].get(package["name"], {})
        version = (
            there.get("version", "")
            if there.get("state") not in (None, "not-installed", "config-files")
            else ""
        )
        if version != package["version"] or there.get("state") != "installed":
            found.append({"name": package["name"], "from": version, "to": package["version"]})
    return found


def _of_families(names: set[str], families: list[str]) -> set[str]:
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in families)}


def _torn(read: Read, chosen: Set) -> set[str]:
    """Packages outside the set that are there in part."""
    named = {package["name"] for package in chosen["packages"]}
    whole_or_gone = ("installed", "config-files", "not-installed")
    return {
        name for name, p in read["packages"].items() if name not in named and p["state"] not in whole_or_gone
    }


def _again(under_way: dict[str, Any], chosen: Set, families: list[str]) -> list[list[str]]:
    """Files to lay over what changes that were cut off left, a list a set, the wanted one last.

    No kernel: an upgrade of it would remove the running one.
    """
    sets = {s["name"]: s["packages"] for s in under_way.get("sets", []) if s["name"] != chosen["name"]}
    sets = {**sets, chosen["name"]: chosen["packages"]} if under_way else {}
    paths = [
        [f"{STORE}/{name}/{p['file']}" for p in packages if _of_families({p["name"]}, families)]
        for name, packages in sets.items()
    ]
    return [files for files in paths if files]


def _builds_module(chosen: Set) -> bool:
    """Whether the set's kernel module is compiled on the host."""
    return bool(chosen["run"]) or any("dkms" in package["name"] for package in chosen["packages"])


def _brings_module(chosen: Set) -> bool:
    """Whether the set is to give every kernel a module, built here or by the vendor (a headless test set is not)."""
    ready_made = ("linux-modules-nvidia-", "kmod-nvidia")
    return _builds_module(chosen) or any(
        package["name"].startswith(ready_made) for package in chosen["packages"]
    )


def _has_module(kernel: dict[str, Any], chosen: Set) -> bool:
    """What DKMS says decides where it has the kernel at all: a module file of an unfinished build proves nothing.

    NVIDIA's installer goes on where it could not tell DKMS of its module; such a one is built for no other kernel.
    """
    dkms = kernel["dkms"]
    if dkms:
        return bool(dkms["state"] == "installed" and dkms["version"] == chosen["driver"])
    return bool(not chosen["run"] and kernel["file_version"] == chosen["driver"])


def _unbuilt(read: Read, chosen: Set) -> list[str]:
    """The installed kernels for which the set's module is not there."""
    return [
        kernel["release"]
        for kernel in read["kernels"]
        if _brings_module(chosen) and not _has_module(kernel, chosen)
    ]


def _needs_installer(read: Read, chosen: Set) -> bool:
    """Whether NVIDIA's installer has to run, and not DKMS alone for one kernel more.

    It tells DKMS of its module before it copies the libraries: after a power cut both can look whole. So a change that
    was cut off counts as well.
    """
    known = any(
        kernel["dkms"] and kernel["dkms"]["version"] == chosen["driver"] for kernel in read["kernels"]
    )
    libraries = set(read["libraries"]) == {chosen["driver"]}
    return bool(chosen["run"]) and not (known and libraries and not read["under_way"])


def outpost_driver_plan(read: Read, chosen: Set, settings: dict[str, Any]) -> dict[str, Any]:
    """What a run would do on this host, and what forbids it.

    Args:
        read: what nvidia_driver_read returned.
        chosen: what outpost_driver_set returned.
        settings: families, allow (globs of names), gpus (ids), containers (bool: they are to get the GPUs),
            window_open (bool: for as long as a change takes), key_enrolled (bool).

    Returns:
        change (bool), install [{name, from, to}], remove [names], torn [names: half installed, and not in the set],
        left [names that a change that was cut off may have brought, and the set has not],
        again [[paths]: files of sets that were cut off, then of this one],
        installer (bool: NVIDIA's own has to run), kernel (the one it builds for), build [kernels without the module],
        reboot (bool: the change needs one),
        finish (bool: the set is whole here, but its change ended before the reboot it needs, and the window is open),
        adopt (bool: the set is whole here already, but the host does not remember it),
        describe (bool: the devices are described to containers as another driver's, or not at all, and can be now),
        refusals (failed checks), say (lines for a person).
    """
    record = read["record"]
    install = _differing(read, chosen)
    under_way = read["under_way"]
    tried = {package["name"] for each in under_way.get("sets", []) for package in each["packages"]}
    before = tried | {package["name"] for package in record.get("packages", [])}
    strangers = _family(read, chosen, settings["families"], settings["allow"])
    torn = _torn(read, chosen) & before
    remove = sorted(strangers & before)
    installer, unbuilt = _needs_installer(read, chosen), _unbuilt(read, chosen) if chosen["run"] else []
    releases = [kernel["release"] for kernel in read["kernels"]]
    # What a change that was cut off has left cannot be told from versions alone: rpm's database follows the files.
    change = bool(install or remove or installer or unbuilt or under_way)
    outlived = (bool(read["loaded"]) and read["loaded"] != chosen["driver"]) or read["nouveau"]["loaded"]
    reboot = change and outlived
    # A power cut or a lost link can come between the record and the reboot.
    finish = (
        outlived
        and not change
        and not _forgotten(record, chosen)
        and settings["window_open"]
        and _is_whole(read, chosen, settings)
    )
    refusals = _refusals(read, chosen, settings, strangers - before, install) if change else []
    if reboot and not settings["window_open"]:
        refusals.append(
            _check("WINDOW_OPEN", False, f"the kernel holds {read['loaded'] or 'nouveau'}", "a reboot in a window",
                   "Changing the driver under a loaded module breaks the next container that starts. Set "
                   "nvidia_driver_reboot_window (such as '01:00-05:00', the region's time) and run within it, at least "
                   "nvidia_driver_window_minutes before it closes.")
        )  # fmt: skip
    lines = [f"the change to {under_way['name']} was cut off: the set is installed anew"] if under_way else []
    lines += [f"{item['name']}: {item['from'] or 'absent'} -> {item['to']}" for item in install]
    lines += [f"{name}: removed" for name in sorted({*remove, *torn})]
    if installer:
        lines.append(
            f"{chosen['run']['file']}: {_some(set(read['libraries'])) or 'absent'} -> {chosen['driver']}"
        )
    lines += [f"module for kernel {release}: built here" for release in unbuilt]
    if finish:
        lines.append(
            f"reboot: the change to this set ended without it, the kernel holds {read['loaded'] or 'nouveau'}"
        )
    return {
        "change": change,
        "install": install,
        "remove": remove,
        "torn": sorted(torn),
        "left": sorted(_of_families(tried, settings["families"]) - {p["name"] for p in chosen["packages"]}),
        "again": _again(under_way, chosen, settings["families"]),
        "reboot": bool(reboot),
        "finish": bool(finish),
        "installer": installer,
        # Any installed kernel will do, DKMS builds for the others. The running one can be gone from disk already.
        "kernel": read["kernel"] if read["kernel"] in releases else "".join(releases[-1:]),
        "build": unbuilt,
        "adopt": not change and _forgotten(record, chosen) and _is_whole(read, chosen, settings),
        "describe": _can_describe(read, chosen)
        and any(
            c["code"].startswith("CDI_") and not c["ok"]
            for c in outpost_driver_checks(read, chosen, settings)
        ),
        "refusals": refusals,
        "say": lines,
    }


def _can_describe(read: Read, chosen: Set) -> bool:
    """Whether nvidia-ctk can tell what the driver has: without a loaded module it fails (its issue 1611)."""
    driver = chosen["driver"]
    return bool(read["toolkit"] and read["loaded"] == driver and set(read["libraries"]) == {driver})


def _forgotten(record: dict[str, Any], chosen: Set) -> bool:
    """Whether what the host remembers is not this set, in name or in what it names."""
    return any(record.get(key) != value for key, value in chosen.items())


def _is_whole(read: Read, chosen: Set, settings: dict[str, Any]) -> bool:
    """Whether the set stands as after a change that went well: only such a one may count as a way back."""
    proofs = ("PACKAGES", "FOREIGN_PACKAGES", "LIBRARIES", "MODULE_BUILT")
    return all(c["ok"] for c in outpost_driver_checks(read, chosen, settings) if c["code"] in proofs)


def _refusals(
    read: Read, chosen: Set, settings: dict[str, Any], foreign: set[str], install: list[dict[str, str]]
) -> list[Check]:
    """What forbids a change before anything is touched."""
    digsig, headers_come = (
        read["digsig_mode"] == "1",
        any(re.match(r"(linux-headers-|kernel.*-devel)", package["name"]) for package in chosen["packages"]),
    )
    without = [kernel["release"] for kernel in read["kernels"] if not kernel["headers"]]
    release = "".join(without[:1])
    builds = _builds_module(chosen)
    unmanaged = sorted(item["name"] for item in install if item["from"])
    if chosen["run"]:
        unmanaged = [
            f"libraries {version}" for version in sorted(set(read["libraries"]) - {chosen["driver"]})
        ]
    unmanaged = [] if read["record"] or read["under_way"] else unmanaged
    checks = [
        _check("FOREIGN_PACKAGES", not foreign, _some(foreign), "no package of the driver outside the set",
               "Another branch beside ours breaks programs later. Remove them, add them to the set, or allow them in "
               "nvidia_driver_allow."),
        _check("WAY_BACK", not unmanaged, f"a driver that no set describes: {_some(unmanaged)}",
               "a known set to go back to",
               "Make a set of what is installed (playbooks/driver_set.yml), run with it once: it changes no package, "
               "locks, and keeps the set and its files as the way back. Then choose the new one."),
        _check("CLOSED_ENVIRONMENT", not (digsig and chosen["run"]), "DIGSIG_ELF_MODE=1", "no unsigned program",
               "Astra's closed software environment runs no .run installer. Use the vendor's signed packages, or have "
               "the security officer decide about astra-digsig-control."),
        _check("SECURE_BOOT",
               not (builds and read["secure_boot"] == "on") or (settings["key_enrolled"] and not chosen["run"]),
               "Secure Boot is on", "Secure Boot off" if chosen["run"] else "an enrolled key for modules built here",
               "Enrol a machine owner key at the console (mokutil --import, reboot) and set "
               "nvidia_driver_secure_boot_key_enrolled, or switch Secure Boot off in the firmware."
               if not chosen["run"] else
               "The installer hands DKMS a module that nobody has signed. Switch Secure Boot off in the firmware, or "
               "use a set of packages."),
        _check("HEADERS", not (builds and without and not headers_come), f"no headers of {', '.join(without)}",
               "headers of every installed kernel",
               f"Install them for each named kernel at its exact version. apt: linux-headers-{release}. dnf: "
               f"`dnf --disableplugin=versionlock install kernel-lt-devel-{release}`, kernel-devel-... where "
               "`rpm -qa 'kernel*'` shows no kernel-lt. Or remove that kernel."),
        _check("PACKAGES_OVER_RUN", not (chosen["packages"] and read["installer"]), "a driver of NVIDIA's installer",
               "no .run driver under packages",
               "Its files belong to no package and would stay between the new ones. Stop the inference systems, run "
               "`nvidia-uninstall --silent`, then this again."),
    ]  # fmt: skip
    brought = any(package["name"].startswith("nvidia-container-toolkit") for package in chosen["packages"])
    if settings["gpus"] and settings["containers"]:
        checks.append(_toolkit(read["toolkit"] or brought))
    if chosen["run"]:
        packaged = _family(read, chosen, settings["families"], settings["allow"])
        checks.append(
            _check("HEADERS", bool(read["kernels"]), "no kernel in /lib/modules", "an installed kernel",
                   "The installer builds its module for an installed kernel: install one with its headers.")
        )  # fmt: skip
        checks.append(
            _check("RUN_OVER_PACKAGES", not packaged, _some(packaged), "no packaged driver under a .run installer",
                   "Remove the packages first: the installer overwrites their files and their next update breaks both.")
        )  # fmt: skip
    return [check for check in checks if not check["ok"]]


def _toolkit(there: bool) -> Check:
    return _check(
        "TOOLKIT", there, "present" if there else "no /usr/bin/nvidia-ctk", "NVIDIA's container toolkit",
        "Without it no container gets a GPU. Put nvidia-container-toolkit, nvidia-container-toolkit-base, "
        "libnvidia-container-tools and libnvidia-container1, one version, into the set; beside a .run installer "
        "install them and name them in nvidia_driver_allow. Where the processor is to compute: "
        "nvidia_driver_containers: false, and device: cpu for the systems.",
    )  # fmt: skip


def _sees_remedy(said: str, system: str) -> str:
    """What to do about a container that does not see the driver, by what it says."""
    restart = f"`systemctl restart outpost@{system}`, once LATENT_MISMATCH is ok."
    if "executable file not found" in said:
        describe = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
        return f"The specification gives no nvidia-smi: {describe}, then {restart}"
    if "Unknown Error" in said:
        return f"Something reloaded systemd, which took the GPU from the container. {restart}"
    if said.startswith("no GPU was given"):
        return f"Mend what it names (docs/runbooks/en/gpu-not-in-the-container.md), then {restart}"
    return f"The container runs on what another driver left. {restart}"


def outpost_driver_checks(read: Read, chosen: Set, settings: dict[str, Any]) -> list[Check]:
    """What is right and wrong with the driver as it stands. Needs no change to be planned."""
    driver = chosen["driver"]
    names = {package["name"] for package in chosen["packages"]}
    differing = _differing(read, chosen)
    foreign = _family(read, chosen, settings["families"], settings["allow"])
    unlocked = {n for n, package in read["packages"].items() if n in names and not package["held"]}
    versions = sorted(read["libraries"])
    unbuilt = _unbuilt(read, chosen)
    unlocked |= {"the driver's families"} if chosen["run"] and not read["families_locked"] else set()
    nouveau = read["nouveau"]
    places = (["the kernel"] if nouveau["loaded"] else []) + nouveau["initial_ramdisk"]
    places += ["/etc/X11/xorg.conf"] if nouveau["xorg"] else []
    places += [f"{path} is older than the settings that keep it out" for path in nouveau["old_ramdisks"]]
    stale = {path: found for path, found in read["cdi"].items() if set(found) - {driver}}
    loaded = read["loaded"]
    move = sorted(set(read["upgrades"]) & names) + sorted(
        n for n in read["upgrades"] if n not in names and any(fnmatchcase(n, p) for p in settings["families"])
    )
    checks = [
        _check("PACKAGES", not differing,
               "; ".join(f"{item['name']} {item['from'] or 'absent'}" for item in differing[:6]) or "as in the set",
               f"set {chosen['name']}", "Run site.yml for this host; it installs and locks the set."),
        _check("FOREIGN_PACKAGES", not foreign, _some(foreign) or "none", "no package of the driver outside the set",
               "Remove them, add them to the set, or allow them in nvidia_driver_allow."),
        _check("LOCKED", not unlocked, f"not locked: {_some(unlocked)}" if unlocked else "locked",
               "every package locked",
               "Run site.yml for this host: it locks again. Until then do not upgrade packages there."),
        _check("UPGRADE_MOVES", not move, _some(move) or "nothing",
               "an upgrade of the host moves nothing of the driver",
               "Run site.yml for this host. Until then do not upgrade packages there."),
        _check("LIBRARIES", versions == [driver], ", ".join(versions) or "none", driver,
               "Two versions side by side: find the owner of the wrong files (`dpkg -S` or `rpm -qf`) and remove it."),
        _check("MODULE_BUILT", not unbuilt, f"not built for {', '.join(unbuilt)}" if unbuilt else "built",
               "the module built for every installed kernel",
               "`dkms status`, then the make.log it names. Do not reboot this host before it is built."),
        _check("NOUVEAU_OFF", not places, "; ".join(places) or "off", "nouveau nowhere",
               "Run site.yml for this host; a loaded nouveau leaves with the next reboot, which a run within "
               "nvidia_driver_reboot_window does."),
        _check("LATENT_MISMATCH", not loaded or not versions or versions == [loaded],
               f"module {loaded or 'none'}, libraries {', '.join(versions) or 'none'}", "the same version",
               "Running containers go on; the next one that starts fails. Restart no container and no Docker before "
               "this host is rebooted in its window."),
        _check("CDI_FRESH", not stale, "; ".join(f"{p}: {', '.join(v)}" for p, v in sorted(stale.items())) or "fresh",
               driver,
               "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, and remove the stale file."),
    ]  # fmt: skip
    for name, said in sorted(read["containers"].items()):
        checks.append(
            _check("CONTAINER_SEES", said == driver, f"{name}: {said}", driver,
                   _sees_remedy(said, name.removeprefix("outpost-")))
        )  # fmt: skip
    # Without a card the module says "No NVIDIA GPU found", rightly.
    if settings["gpus"]:
        checks += [
            _check("MODULE_LOADED", bool(loaded), loaded or "not loaded", driver,
                   "`modprobe nvidia; dmesg | tail` says why not. docs/runbooks/en/driver-does-not-come-up.md"),
            _check("NO_REFUSAL", not read["refusals"], " | ".join(read["refusals"]) or "none",
                   "a driver that serves every card",
                   "The card and the branch do not fit: Maxwell, Pascal and Volta end with 580; Blackwell needs open "
                   "modules."),
        ]  # fmt: skip
    if settings["gpus"] and settings["containers"]:
        checks.append(_toolkit(read["toolkit"]))
        checks.append(
            _check("CDI_PRESENT", bool(read["cdi"]), ", ".join(sorted(read["cdi"])) or "none",
                   "a specification of nvidia.com/gpu",
                   "Run site.yml for this host, or `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`.")
        )  # fmt: skip
    if chosen["kernel"]:
        checks.append(
            _check("KERNEL_RUNS", read["kernel"] == chosen["kernel"], read["kernel"], chosen["kernel"],
                   "Reboot the host in its window; if another kernel comes up again, set the boot loader's default.")
        )  # fmt: skip
    return checks


def outpost_driver_lock(
    chosen: Set, manager: str, settings: dict[str, Any], record: dict[str, Any]
) -> dict[str, Any]:
    """The lock of a set as whole files, and the names to hold and to release.

    Args:
        settings: families, kernel_families (globs of names), lock_kernel (bool).
        record: what the host keeps of the set before, {} for none.
    """
    packages = sorted(chosen["packages"], key=lambda package: str(package["name"]))
    names = [package["name"] for package in packages]
    families = [*settings["families"], *(settings["kernel_families"] if settings["lock_kernel"] else [])]
    head = f"Set {chosen['name']} (driver {chosen['driver']}), written by Outpost's role nvidia_driver. Do not edit."
    # The same for every set: each change of it costs a new initial ramdisk.
    nouveau = "# Written by Outpost. A blacklist alone does not stop what the initial ramdisk asks for.\n"
    files = [{"path": _NOUVEAU, "content": nouveau + "blacklist nouveau\noptions nouveau modeset=0\n"}]
    # Written when a change begins: a lock ends it.
    ended = {"path": UNDER_WAY, "content": None}
    if manager == "dnf":
        lines = [f"# {head}"] + [f"{package['name']}-{package['version']}.*" for package in packages]
        # Whatever else the repositories hold of these families is invisible to dnf: new names of a newer branch, and
        # nvidia-imex and libnvidia-nscq, which a lock by the branch's number misses.
        lines += [f"!{family}" for family in families]
        return {
            "files": [
                *files,
                {"path": _VERSIONLOCK, "content": "\n".join(lines) + "\n", "block": "outpost-driver"},
                ended,
            ],
            "hold": [],
            "release": [],
        }

    stanzas = [f"Explanation: {head}"]
    by_version: dict[str, list[str]] = {}
    for package in packages:
        by_version.setdefault(str(package["version"]), []).append(package["name"])
    stanzas = [
        f"Explanation: {head}\nPackage: {' '.join(there)}\nPin: version {version}\nPin-Priority: 1001\n"
        for version, there in sorted(by_version.items())
    ]
    stanzas.append(
        "Explanation: Nothing else of these families may come: no other version, no new name of another branch.\n"
        f"Package: {' '.join(families)}\nPin: version *\nPin-Priority: -1\n"
    )
    # Regular expressions from the start of the name, as unattended-upgrades matches them.
    patterns = [f"^{_pattern(name)}$" for name in names] + [f"^{_pattern(family)}$" for family in families]
    blacklist = "\n".join(f'    "{pattern}";' for pattern in patterns)
    services = "\n".join(f"push @{{$nrconf{{blacklist_rc}}}}, qr(^{name});" for name in _NEVER_RESTART)
    files += [
        {"path": _PREFERENCES, "content": "\n".join(stanzas)},
        {
            "path": _BLACKLIST,
            "content": f"// {head}\nUnattended-Upgrade::Package-Blacklist {{\n{blacklist}\n}};\n",
        },
        {"path": _NEEDRESTART, "content": f"# {head}\n{services}\n"},
        ended,
    ]
    before = [package["name"] for package in record.get("packages", [])]
    return {"files": files, "hold": names, "release": sorted(set(before) - set(names))}


def outpost_driver_unlock(lock: dict[str, Any]) -> dict[str, Any]:
    """Takes back what outpost_driver_lock wrote: for a first installation that failed, where no lock was before."""
    files = [{**file, "content": None} for file in lock["files"]]
    return {"files": files, "hold": [], "release": sorted({*lock["hold"], *lock["release"]})}


def _pattern(glob: str) -> str:
    """A package name or glob as a regular expression. Not re.escape: it escapes hyphens, which nobody could read."""
    return glob.replace(".", r"\.").replace("+", r"\+").replace("*", ".*")


def outpost_driver_record(chosen: Set, record: dict[str, Any]) -> dict[str, Any]:
    """What the host keeps: the set as installed, and the one before it, whole, so that a way back needs nobody."""
    before = {key: value for key, value in record.items() if key != "previous"}
    if before.get("name") == chosen["name"]:
        before = record.get("previous", {})
    return {**chosen, "previous": before}


def outpost_driver_under_way(chosen: Set, read: Read) -> dict[str, Any]:
    """What the host keeps while a change runs: the sets it may hold parts of, and the names from before the first try.

    A power cut leaves it behind. The next run knows by it what on the host is ours although no set has it.
    """
    sets = [s for s in read["under_way"].get("sets", []) if s["name"] != chosen["name"]]
    coming = {"name": chosen["name"], "packages": chosen["packages"]}
    before = read["under_way"].get("before", sorted(read["packages"]))
    return {"name": chosen["name"], "sets": [*sets, coming], "before": before}


def outpost_driver_report(checks: list[Check], host: str, name: str, stand: str = "") -> dict[str, Any]:
    """The doctor's answer for one host, the same form as the service's health verdict."""
    failed = [check["code"] for check in checks if not check["ok"]]
    return {"host": host, "set": name, "status": "failed" if failed else "ok", "failed": failed, "note": stand,
            "checks": checks}  # fmt: skip


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_driver_checks": outpost_driver_checks,
            "outpost_driver_lock": outpost_driver_lock,
            "outpost_driver_plan": outpost_driver_plan,
            "outpost_driver_record": outpost_driver_record,
            "outpost_driver_report": outpost_driver_report,
            "outpost_driver_set": outpost_driver_set,
            "outpost_driver_under_way": outpost_driver_under_way,
            "outpost_driver_unlock": outpost_driver_unlock,
            "outpost_window_open": outpost_window_open,
        }
