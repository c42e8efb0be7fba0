"""Which GPU a PCI id is: the generated table first, then the id ranges, with a mark of how it was known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

KnownBy = Literal["table", "range", "nothing"]
_HERE: Final = Path(__file__).parent
_ID = re.compile(r"(?:10de:)?(?:0x)?(?P<device>[0-9a-f]{4})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. What `known_by` "nothing" leaves open is empty; a range knows the architecture alone."""

    id: str
    name: str
    chip: str
    architecture: str
    compute_capability: str
    known_by: KnownBy
    last_branch: int | None = None
    open_modules: bool | None = None
    first_driver: str = ""

    @property
    def spoken(self) -> str:
        """For messages: "GeForce GTX 1080 Ti (10de:1b06)"."""
        return f"{self.name} ({self.id})" if self.name else self.id


class UnknownId(ValueError):
    """What was given is no PCI id of an NVIDIA device."""


@cache
def knowledge() -> Mapping[str, Any]:
    """The one data file: branches, architectures, CUDA, torch, each with its source."""
    loaded: dict[str, Any] = json.loads((_HERE / "drivers.json").read_text())
    return loaded


@cache
def _devices() -> Mapping[str, Mapping[str, Any]]:
    devices: dict[str, dict[str, Any]] = json.loads((_HERE / "gpus.json").read_text())["devices"]
    return devices


def lookup(pci_id: str) -> Gpu:
    """The GPU of "10de:1b06" (or "1b06", "0x1B06").

    Raises:
        UnknownId: that is not four hexadecimal digits of vendor 10de.
    """
    matched = _ID.fullmatch(pci_id.strip())
    if not matched:
        raise UnknownId(
            f"{pci_id!r} is no PCI id of an NVIDIA GPU: it looks like 10de:1b06. "
            f"`cat /sys/bus/pci/devices/*/device` or `lspci -nn | grep -i nvidia` shows it."
        )
    device = matched["device"].lower()
    row = _devices().get(device)
    known = knowledge()
    first = known["device_floors"].get(device, {}).get("driver", "")
    if row is not None:
        chip = str(row["chip"])
        architecture = next(
            (name for name, arch in known["architectures"].items() if chip[:2] in arch["chips"]), ""
        )
        return Gpu(
            id=f"10de:{device}",
            name=row["name"],
            chip=chip,
            architecture=architecture,
            compute_capability=known["compute_capabilities"].get(chip, {}).get("cc", ""),
            known_by="table",
            last_branch=row.get("last"),
            open_modules=row.get("open"),
            first_driver=first,
        )
    number = int(device, 16)
    for name, arch in known["architectures"].items():
        for low, high in arch["id_ranges"]:
            if int(low, 16) <= number <= int(high, 16):
                return Gpu(f"10de:{device}", "", "", name, "", "range", first_driver=first)
    return Gpu(f"10de:{device}", "", "", "", "", "nothing", first_driver=first)
