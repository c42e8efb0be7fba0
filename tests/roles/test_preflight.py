"""The preflight verdict over hosts that fit and hosts that do not, and each message's remedy."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

SYSTEMS = {"brain": {"dicom_port": 11112, "api_port": 8080, "cores": 2, "memory_mib": 3072}}
GOOD: dict[str, Any] = {
    "memory_mib": 8192, "cores": 4, "disk_free_mib": {"/var/lib": 50_000}, "pid1": "systemd", "uid": 0, "clock": 1000.0,
}  # fmt: skip


def failed(
    preflight: ModuleType, changes: dict[str, Any], systems: dict[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    checks = preflight.outpost_preflight({**GOOD, **changes}, systems or SYSTEMS, 1001.0, 6144, 1024, 60)
    return {check["code"]: check for check in checks if not check["ok"]}


def test_a_fitting_host_passes_every_check(preflight: ModuleType) -> None:
    assert failed(preflight, {}) == {}


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("init-systemd", {"pid1": "init"}),
        ("rights-root", {"uid": 1000}),
        ("memory", {"memory_mib": 4095}),
        ("cores", {"cores": 1}),
        ("clock", {"clock": 1001.0 + 3600}),
        ("disk", {"disk_free_mib": {"/var/lib": 6143}}),
        ("firewall-other", {"firewalls": ["firewalld"]}),
        ("firewall-other", {"firewalls": ["nftables inet filter input"]}),
    ],
)
def test_each_shortage_is_found_and_nothing_else(
    preflight: ModuleType, code: str, changes: dict[str, Any]
) -> None:
    found = failed(preflight, changes)
    assert list(found) == [code]
    assert found[code]["remedy"]


def test_several_systems_must_fit_together(preflight: ModuleType) -> None:
    two = {**SYSTEMS, "chest": {"dicom_port": 11113, "api_port": 8081, "cores": 3, "memory_mib": 6000}}
    assert set(failed(preflight, {}, two)) == {"memory", "cores"}


@pytest.mark.parametrize(
    ("systems", "code", "said"),
    [
        ({"Brain!": SYSTEMS["brain"]}, "system-name", "Brain!"),
        ({"brain": {**SYSTEMS["brain"], "coers": 1}}, "system-keys", "unknown coers"),
        ({"brain": {"dicom_port": 1, "api_port": 2, "cores": 1}}, "system-keys", "no memory_mib"),
        (
            {"brain": {**SYSTEMS["brain"], "device": "gpu"}},
            "system-keys",
            "device gpu, not auto, cpu, cuda or cuda:N",
        ),
        (
            {"brain": SYSTEMS["brain"], "chest": SYSTEMS["brain"]},
            "ports-distinct",
            "brain.dicom_port and chest.dicom_port",
        ),
    ],
)
def test_a_wrong_inventory_is_named_before_any_host_is_asked(
    preflight: ModuleType, systems: dict[str, Any], code: str, said: str
) -> None:
    lines = preflight.outpost_failed(preflight.outpost_inventory_checks(systems))
    assert any(line.startswith(f"[{code}]") and said in line for line in lines), lines
