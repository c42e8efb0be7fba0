"""What the kernel says of this process's memory: the limit, what is in use, and whether it killed for it.

Reads control groups of both versions (Linux kernel, Documentation/admin-guide/cgroup-v1/memory.rst and
cgroup-v2.rst). Inside a container the group is usually mounted as the root of the tree.
"""

from __future__ import annotations

from pathlib import Path

MIB = 1 << 20
_UNLIMITED = 1 << 60  # version 1 writes a huge number where there is no limit

_CGROUP = Path("/sys/fs/cgroup")


def kills() -> int | None:
    """How many processes of this control group the kernel has killed for memory; None if it does not say."""
    for folder in _folders():
        for name in ("memory.events", "memory.oom_control"):
            for line in _lines(folder / name):
                key, _, value = line.partition(" ")
                if key == "oom_kill" and value.isdigit():
                    return int(value)
    return None


def limit_mib() -> int | None:
    """The least limit on the way from this process's control group to the host's memory, in MiB."""
    limits = []
    for folder in _folders():
        for name in ("memory.max", "memory.limit_in_bytes"):
            for line in _lines(folder / name):
                if line.isdigit() and int(line) < _UNLIMITED:
                    limits.append(int(line) // MIB)
    total = _meminfo("MemTotal")
    return min([*limits, *([total] if total is not None else [])], default=None)


def available_mib() -> int | None:
    """Memory the host could still give, in MiB; a limit of the control group is not looked at."""
    return _meminfo("MemAvailable")


def _meminfo(key: str) -> int | None:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) // 1024
    return None


def _folders() -> list[Path]:
    """Folders of the control group that counts our memory and of those around it, innermost first."""
    folders: list[Path] = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = _CGROUP
        elif "memory" in controllers.split(","):
            root = _CGROUP / "memory"
        else:
            continue
        group = root / path.lstrip("/")
        # A path that is not there belongs to the host's view; what is mounted here is our own.
        around = [group, *group.parents] if group.is_dir() else [root]
        folders += [folder for folder in around if folder == root or root in folder.parents]
    return folders


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
