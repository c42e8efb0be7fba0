"""The launcher on the host: what it tells Docker for the unit, and for a command beside it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def launcher() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(
        "outpost_run", str(ROOT / "roles/inference/files/outpost-run")
    )
    spec = importlib.util.spec_from_loader("outpost_run", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", [["serve"], ["fleet", "serve"]])
def test_a_units_container_has_the_units_name(launcher: ModuleType, command: list[str]) -> None:
    assert "--name=outpost-brain" in launcher.command_line("brain", command, "sha256:1", "0.1.0")


def test_a_single_command_gets_a_container_that_does_not_replace_the_units(launcher: ModuleType) -> None:
    line = launcher.command_line("brain", ["quarantine", "list"], "sha256:1", "0.1.0")
    [name] = [argument for argument in line if argument.startswith("--name=")]
    assert name.startswith("--name=outpost-brain-")
    assert line[-3:] == ["quarantine", "list", "--config=/etc/outpost/brain.yaml"]


def test_commands_inside_a_container_know_its_configuration_and_the_callers_token(
    launcher: ModuleType,
) -> None:
    line = launcher.command_line("brain", ["serve"], "sha256:1", "0.1.0")
    assert "--env=OUTPOST_CONFIG=/etc/outpost/brain.yaml" in line
    assert "--env=OUTPOST_TOKEN" in line  # by name: its value stands in no process list
