"""Lines on a host: what it is (facts.py) and what it offers (roles/preflight/library/preflight_read.py)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from outpost.platform.codes import line
from outpost.platform.facts import supported_list
from outpost.platform.fit import Asked, Bundle
from outpost.platform.line import Line, Words, listed, numbers, same
from outpost.shares import PARENT_MIB, needed_mib, workers_of

_SYSTEM_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}")
_SYSTEM_KEYS: Final = frozenset({"dicom_port", "api_port", "cores", "memory_mib"})
_SYSTEM_KEYS_OPTIONAL: Final = frozenset({"vram_mib", "device"})
_DEVICE: Final = re.compile(r"auto|cpu|cuda(:[0-9]+)?")
_PYTHON: Final = "3.8"
# A boot image with an NVIDIA module in it, rounded up; seen: 60 to 130 MiB.
_BOOT_IMAGE_MIB: Final = 150
_ORDINARY_FLAVOURS: Final = frozenset(
    {"generic", "lowlatency", "kernel", "kernel-lt", "aws", "azure", "gcp", "oracle", "kvm"}
)
_YES, _NO = Words("yes", "да"), Words("no", "нет")

Systems = Mapping[str, Mapping[str, Any]]


def inventory_lines(systems: Systems) -> list[Line]:
    """Judges the inventory's systems alone.

    Args:
        systems: name -> dicom_port, api_port (TCP), cores (number), memory_mib, vram_mib (MiB), device
            (auto, cpu, cuda, cuda:N).
    """
    lines = []
    for name, wanted in systems.items():
        lines.append(
            line(
                "system-name",
                bool(_SYSTEM_NAME.fullmatch(name)),
                name,
                Words("a letter, then 1 to 30 of a-z 0-9 -", "буква, затем от 1 до 30 знаков a-z 0-9 -"),
                subject=name,
            )
        )
        missing = sorted(_SYSTEM_KEYS - wanted.keys())
        unknown = sorted(wanted.keys() - _SYSTEM_KEYS - _SYSTEM_KEYS_OPTIONAL)
        faults = [Words("no {k}", "нет {k}").by(k=key) for key in missing]
        faults += [Words("unknown {k}", "неизвестно {k}").by(k=key) for key in unknown]
        device = str(wanted.get("device", "auto"))
        if not _DEVICE.fullmatch(device):
            faults.append(
                Words(
                    "device {d}, not auto, cpu, cuda or cuda:N", "device {d}, а не auto, cpu, cuda или cuda:N"
                ).by(d=device)
            )
        value = Words("complete", "всё есть") if not faults else _joined(faults, ", ")
        lines.append(line("system-keys", not faults, value, listed(sorted(_SYSTEM_KEYS)), subject=name))
    ports: dict[int, list[str]] = {}
    for name, wanted in systems.items():
        for key in ("dicom_port", "api_port"):
            ports.setdefault(int(wanted.get(key, 0)), []).append(f"{name}.{key}")
    shared = [
        Words("{port} used by {users}", "{port}: занят {users}").by(
            port=port, users=Words(" and ".join(users), " и ".join(users))
        )
        for port, users in ports.items()
        if len(users) > 1
    ]
    lines.append(
        line(
            "ports-distinct",
            not shared,
            _joined(shared, "; ") if shared else Words("distinct", "различны"),
            Words("one port each", "у каждой свой порт"),
        )
    )
    return lines


def device_lines(cards: int, systems: Systems) -> list[Line]:
    """Judges systems that compute on a GPU or not at all (device cuda, cuda:N) against the number of NVIDIA cards."""
    lines = []
    for name, wanted in systems.items():
        kind, _, number = str(wanted.get("device", "auto")).partition(":")
        if kind == "cuda":
            needed = int(number or 0) + 1
            found = Words("NVIDIA cards: {n}", "видеокарт NVIDIA: {n}").by(n=cards)
            least = Words("at least {n}", "не меньше {n}").by(n=needed)
            lines.append(line("gpu-asked", cards >= needed, found, least, subject=name))
    return lines


def platform_lines(facts: Mapping[str, Any], asked: Asked, *, key_enrolled: bool = False) -> list[Line]:
    """Judges what the host is: system, Python, kernel, Secure Boot, Astra's protection.

    Args:
        facts: of facts.py; a key that is missing was not read and is not judged.
        asked: a driver in it makes headers and Secure Boot matter.
        key_enrolled: an admin says that the key which signs our module is enrolled, whatever could be read.
    """
    return list(_platform(facts, asked, key_enrolled))


def _platform(facts: Mapping[str, Any], asked: Asked, key_enrolled: bool) -> Iterator[Line]:
    if "supported" in facts:
        yield line("os-supported", facts["supported"], _system_said(facts), supported_list())
    python = facts.get("python")
    if python is not None:
        try:
            new_enough = numbers(python) >= numbers(_PYTHON)
        except ValueError:
            new_enough = False
        yield line(
            "python",
            new_enough,
            python or Words("missing", "нет"),
            Words("{v} or later", "{v} или новее").by(v=_PYTHON),
        )
    if facts.get("gpus"):
        yield from _kernel(facts, asked)
        if asked.driver and "secure_boot" in facts:
            yield from _secure_boot(facts["secure_boot"], key_enrolled)
    if facts.get("id") == "astra" and "digsig" in facts:
        yield from _astra(facts)


def _system_said(facts: Mapping[str, Any]) -> str:
    version = facts.get("version") or facts.get("release") or "?"
    more = [facts.get("edition") or "", (facts.get("protection") or {}).get("name") or ""]
    pretty = facts.get("pretty") or facts.get("id") or "unknown"
    if not facts["supported"]:
        known = [facts.get("id") or "unknown", facts.get("release") or "unknown"]
        tool = facts.get("package_manager", "?") or "none found"
        return f"{pretty} (id {known[0]}, release {known[1]}, package tool {tool})"
    named = pretty if version in pretty else f"{pretty} {version}"
    return " ".join([named, *(f"({word})" for word in dict.fromkeys(more) if word)])


def _kernel(facts: Mapping[str, Any], asked: Asked) -> Iterator[Line]:
    kernel = facts.get("kernel") or {}
    if not kernel.get("release"):
        return
    release, package = kernel["release"], kernel.get("headers_package") or ""
    if asked.driver:
        wanted = Words("{p} installed or in the repositories", "{p}: в системе или в репозитории").by(
            p=package or Words("headers of {r}", "заголовки {r}").by(r=release)
        )
        present, available = kernel.get("headers_present"), kernel.get("headers_available")
        if present:
            yield line(
                "headers",
                True,
                Words("headers of {r} installed", "заголовки {r} установлены").by(r=release),
                wanted,
            )
        elif available is not None:
            value = (
                Words(
                    "headers not installed, in the repositories",
                    "заголовки не установлены, есть в репозитории",
                )
                if available
                else Words(
                    "headers not installed, in no repository of the host",
                    "заголовки не установлены, в репозиториях узла их нет",
                )
            )
            yield line("headers", available, value, wanted)
        else:
            yield line(
                "headers",
                False,
                Words(
                    "headers not installed; whether a repository has them is unknown",
                    "заголовки не установлены; есть ли они в репозитории, неизвестно",
                ),
                wanted,
                unverified=True,
            )
        others = [name for name in kernel.get("without_headers", ()) if name != release]
        yield line(
            "headers-all",
            not others,
            Words("without headers: {n}", "без заголовков: {n}").by(n=listed(others) or Words("none", "нет")),
            Words("headers of every installed kernel", "заголовки каждого установленного ядра"),
        )
    flavour = kernel.get("flavour") or ""
    yield line(
        "kernel-flavour",
        flavour in _ORDINARY_FLAVOURS,
        Words("kernel {r} ({f})", "ядро {r} ({f})").by(r=release, f=flavour or "?"),
        Words("generic, or RED OS's kernel or kernel-lt", "generic или kernel, kernel-lt в РЕД ОС"),
    )
    if asked.driver:
        loaded = "nouveau" in kernel.get("modules", ())
        yield line(
            "nouveau",
            not loaded,
            Words("nouveau loaded", "nouveau загружен")
            if loaded
            else Words("nouveau not loaded", "nouveau не загружен"),
            Words("not loaded", "не загружен"),
        )


def _secure_boot(secure_boot: Mapping[str, Any], key_enrolled: bool) -> Iterator[Line]:
    state = secure_boot.get("state", "unknown")
    enrolled = True if key_enrolled else secure_boot.get("key_enrolled")
    states = {
        "enabled": Words("on", "включён"),
        "disabled": Words("off", "выключен"),
        "unsupported": Words("off (no UEFI)", "выключен (нет UEFI)"),
        "unknown": Words("unknown", "неизвестно"),
    }
    value = same("Secure Boot: ") + states.get(state, states["unknown"])
    if state == "enabled":
        said = {True: _YES, False: _NO, None: Words("cannot be told", "узнать нельзя")}[enrolled]
        value = value + Words(", key enrolled: {e}", ", ключ внесён: {e}").by(e=said)
    ok = state in ("disabled", "unsupported") or (state == "enabled" and enrolled is True)
    # Where the firmware cannot be asked nothing is proven; where it is on and the key cannot be told, it stops.
    yield line(
        "secure-boot",
        ok,
        value,
        Words("off, or a key of ours enrolled", "выключен, или внесён наш ключ"),
        unverified=state == "unknown",
    )


def _astra(facts: Mapping[str, Any]) -> Iterator[Line]:
    digsig = facts["digsig"]
    states = {
        "absent": Words("not there", "нет"),
        "off": Words("off", "выключена"),
        "log": Words("logs only (mode 2)", "только запись (режим 2)"),
        "enforcing": Words("enforcing", "запрещает"),
    }
    # That mode 2 only logs is from memory: worth a look, no reason to stop.
    yield line(
        "digsig",
        digsig["state"] in ("absent", "off"),
        Words("closed software environment: ", "замкнутая программная среда: ") + states[digsig["state"]],
        Words("off", "выключена"),
        unverified=digsig["state"] == "log",
    )
    locks = facts.get("locks") or {}
    active = [lock for lock in ("nochmodx", "interpreters", "bash", "sudo", "ptrace") if locks.get(lock)]
    if any(locks.get(lock) is not None for lock in ("nochmodx", "interpreters", "bash", "sudo", "ptrace")):
        yield line(
            "astra-lock",
            not active,
            Words("active: {l}", "включены: {l}").by(l=listed(active))
            if active
            else Words("none active", "ни одна не включена"),
            Words("none active", "ни одна не включена"),
        )
    if locks.get("mic") is not None:
        yield line(
            "astra-integrity",
            not locks["mic"],
            Words("integrity control on", "контроль целостности включён")
            if locks["mic"]
            else Words("integrity control off", "контроль целостности выключен"),
            Words("off, or root at level 63", "выключен, или root на уровне 63"),
        )


def capacity_lines(
    read: Mapping[str, Any],
    systems: Systems,
    clock: float,
    *,
    disk_min_mib: int,
    memory_reserve_mib: int,
    clock_skew_max: int,
    bundles: Sequence[Bundle] = (),
    other_firewalls: bool = False,
) -> list[Line]:
    """Judges what a host offers against what its systems ask.

    Args:
        read: what the module preflight_read returned.
        systems: as in inventory_lines.
        clock: the controller's time, seconds since 1970, taken when the host was asked.
        disk_min_mib: free MiB wanted under each path read.
        memory_reserve_mib: MiB kept for the system and the database beside the systems' sum.
        clock_skew_max: seconds the host's clock may be off.
        bundles: named as the systems that run them.
        other_firewalls: an admin says that the host's own firewall lets our ports through.
    """
    return [
        *_capacity(read, systems, clock, disk_min_mib, memory_reserve_mib, clock_skew_max),
        *_firewalls(read, allowed=other_firewalls),
        *_bundle_memory(systems, bundles),
        *_network(read),
    ]


def _capacity(
    read: Mapping[str, Any],
    systems: Systems,
    clock: float,
    disk_min_mib: int,
    memory_reserve_mib: int,
    clock_skew_max: int,
) -> Iterator[Line]:
    at_least = Words("at least {n} {unit}", "не меньше {n} {unit}")
    asked_memory = sum(int(system["memory_mib"]) for system in systems.values()) + int(memory_reserve_mib)
    asked_cores = sum(float(system["cores"]) for system in systems.values())
    asked_vram = sum(int(system.get("vram_mib", 0)) for system in systems.values())
    skew = abs(float(read["clock"]) - float(clock))
    pid1 = Words("process 1 is {p}", "процесс 1: {p}").by(p=read["pid1"])
    yield line("init-systemd", read["pid1"] == "systemd", pid1, "systemd")
    yield line("rights-root", read["uid"] == 0, f"uid {read['uid']}", "uid 0")
    yield line(
        "memory",
        read["memory_mib"] >= asked_memory,
        Words("the host has {n} MiB", "на узле {n} MiB").by(n=read["memory_mib"]),
        at_least.by(n=asked_memory, unit="MiB"),
    )
    yield line(
        "cores",
        read["cores"] >= asked_cores,
        Words("the host has {n}", "на узле {n}").by(n=read["cores"]),
        Words("at least {n:g}", "не меньше {n:g}").by(n=asked_cores),
    )
    vram = read.get("gpu_memory_mib") or []
    if asked_vram and vram:
        # The systems share the first card; on unequal cards the smallest decides.
        yield line(
            "vram", min(vram) >= asked_vram, f"{listed(vram)} MiB", at_least.by(n=asked_vram, unit="MiB")
        )
    yield line(
        "clock",
        skew <= int(clock_skew_max),
        Words("{s:.0f} s off the controller", "отстают или спешат на {s:.0f} с").by(s=skew),
        Words("at most {n} s", "не больше {n} с").by(n=clock_skew_max),
    )
    for path, free in read["disk_free_mib"].items():
        if path == "/boot":
            yield line(
                "boot-space",
                free >= _BOOT_IMAGE_MIB,
                Words("{n} MiB free", "{n} MiB свободно").by(n=free),
                at_least.by(n=_BOOT_IMAGE_MIB, unit="MiB"),
                subject=path,
            )
            continue
        yield line(
            "disk",
            free >= int(disk_min_mib),
            Words("{n} MiB free at {path}", "{n} MiB свободно в {path}").by(n=free, path=path),
            at_least.by(n=disk_min_mib, unit="MiB"),
            subject=path,
            remedy=Words(
                "Free space under {path}; `du -xh {path} | sort -h | tail` names the largest.",
                "Освободите место в {path}; `du -xh {path} | sort -h | tail` покажет самое большое.",
            ).by(path=path),
        )


def _firewalls(read: Mapping[str, Any], *, allowed: bool) -> Iterator[Line]:
    if "firewalls" not in read:
        return
    found = listed(read["firewalls"])
    yield line(
        "firewall-other",
        allowed or not read["firewalls"],
        found or Words("none", "нет"),
        Words("none beside Outpost's own table", "кроме таблицы самого Outpost, нет"),
    )


def _bundle_memory(systems: Systems, bundles: Sequence[Bundle]) -> Iterator[Line]:
    for bundle in bundles:
        system = systems.get(bundle.name)
        if system is None:
            continue
        workers = workers_of(float(system["cores"]))
        memory = needed_mib(workers, bundle.memory_mib) if bundle.memory_mib else 0
        of_memory = Words(
            ">= {n} MiB: {w} workers of {m} MiB, {p} MiB for the service",
            ">= {n} MiB: рабочих процессов {w} по {m} MiB, {p} MiB самой службе",
        ).by(n=memory, w=workers, m=bundle.memory_mib, p=PARENT_MIB)
        for key, needed, wanted in (
            ("memory_mib", memory, of_memory),
            ("vram_mib", bundle.vram_mib, same(f">= {bundle.vram_mib} MiB")),
        ):
            given = int(system.get(key, 0))
            # No vram_mib declared means the whole card.
            if needed and given:
                yield line(
                    "bundle-memory",
                    given >= needed,
                    f"{key}: {given} MiB",
                    wanted,
                    subject=bundle.name,
                    source=f"{bundle.name}/outpost.yaml",
                )


def _network(read: Mapping[str, Any]) -> Iterator[Line]:
    for name, addresses in (read.get("names") or {}).items():
        yield line(
            "dns",
            bool(addresses),
            f"{name}: {listed(addresses) or '-'}",
            Words("an address", "адрес"),
            subject=name,
        )
    for code, answers in (("reach", read.get("reach")), ("registry", read.get("registry"))):
        for target, answer in (answers or {}).items():
            value = (
                Words("{t} answers", "{t} отвечает").by(t=target)
                if answer == "ok"
                else Words("{t}: {why}", "{t}: {why}").by(t=target, why=answer)
            )
            yield line(
                code, answer == "ok", value, Words("a TCP connection", "соединение TCP"), subject=target
            )


def _joined(parts: Sequence[Words], separator: str) -> Words:
    return Words(separator.join(part.en for part in parts), separator.join(part.ru for part in parts))
