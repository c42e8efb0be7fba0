"""What a person at the centre's terminal asks, with the words of any other host: an answer, or where to ask."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fleet_serving import write_config
from postgres_cluster import Fleet, the_fleet

from outpost.cli import _parser, main
from outpost.config import load
from outpost.controller import certificates
from outpost.fleet.collector import sync_all
from outpost.fleet.config import FleetConfig

# What the centre answers; of everything else that takes a system's configuration it says where to ask.
ANSWERED = {
    ("status",),
    ("top",),
    ("config", "check"),
    ("fleet", "sync"),
    ("fleet", "serve"),
    ("fleet", "table"),
}
VALUES = {"first": "2026-01-01", "last": "2026-01-02"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(the_fleet(), tmp_path_factory.mktemp("console") / "fleet.yaml", 8090)


@pytest.fixture
def fleet(config: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """Three regions that work, each with a study, just read."""
    monkeypatch.setenv("OUTPOST_LANGUAGE", "en")
    monkeypatch.delenv("OUTPOST_UNIT", raising=False)
    monkeypatch.setenv("OUTPOST_CONFIG", str(config))
    fleet = the_fleet()
    fleet.reset()
    for region in fleet.regions.values():
        region.write(1)
        region.beat()
    sync_all(load(config, FleetConfig))
    return fleet


def test_status_as_json_is_what_the_page_knows(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["statement"] == "3 of 3 regions work; data of 3 fresh"
    assert [row["region"] for row in found["regions"]] == ["chita", "train", "tver"]
    assert {(row["region"], row["system"], row["colour"]) for row in found["systems"]} == {
        (code, "brain", "green") for code in fleet.regions
    }
    assert {(row["region"], row["outcome"], row["studies"]) for row in found["summary"]} == {
        (code, "delivered", 1) for code in fleet.regions
    }
    assert {row["told"] for row in found["marked"]} == {True}
    assert datetime.fromisoformat(found["at"]).utcoffset() is not None
    assert datetime.fromisoformat(found["regions"][0]["data_through"]).utcoffset() is not None
    assert (found["kind"], found["fault"]) == ("fleet", "")


def test_a_region_that_does_not_work_is_the_exit_status(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status"]) == 0
    assert "3 of 3 regions work" in capsys.readouterr().out
    fleet.attach("ghost")
    assert main(["status", "--json"]) == 1
    assert {row["region"] for row in json.loads(capsys.readouterr().out)["regions"]} == {
        *fleet.regions,
        "ghost",
    }
    assert main(["status"]) == 1
    assert "3 of 4 regions work" in capsys.readouterr().out
    assert main(["fleet", "table"]) == 0, "which only shows"
    assert "3 of 4 regions work" in capsys.readouterr().out


def test_status_is_said_in_russian_too(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.attach("ghost")
    assert main(["status", "--language", "ru"]) == 1
    said = capsys.readouterr().out
    for words in (
        "Работают 3 из 4 регионов",
        "ВНИМАНИЕ",
        "РАБОТАЕТ",
        "ПРИЧИНА",
        "доставлен",
        "ИССЛЕДОВАНИЙ",
    ):
        assert words in said
    assert "REASON" not in said
    assert "never" not in said


def test_top_shows_the_regions_once_where_it_is_piped(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top"]) == 0, "captured output is no terminal"
    said = capsys.readouterr().out
    assert "3 of 3 regions work" in said
    assert "STUDIES" not in said, "what is wrong fits a screen; the counts are in status"
    assert main(["top", "--once", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["systems"]) == len(fleet.regions)


@pytest.mark.usefixtures("fleet")
def test_a_collector_that_does_not_run_is_said_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTPOST_UNIT", "failed (failed), exit-code 2, restarted 4 times")
    assert main(["status"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("collector: failed (failed), exit-code 2")
    assert "journalctl -u outpost-fleet" in said.splitlines()[0]
    assert main(["status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["unit"].startswith("failed")
    monkeypatch.setenv("OUTPOST_UNIT", "active (running)")
    assert main(["status"]) == 0


@pytest.mark.parametrize(("years", "status"), [(40, 1), (0, 0)], ids=["ended", "good"])
def test_a_certificate_of_the_page_that_ends_is_said(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str], years: int, status: int
) -> None:
    issued = certificates.server(
        "5a" * 32, "centre", ["10.0.0.10"], datetime.now(UTC) - timedelta(days=365 * years)
    )
    (tmp_path / "page.pem").write_text(issued.certificate + issued.key)
    pem = str(tmp_path / "page.pem")
    path = write_config(fleet, tmp_path / "fleet.yaml", 8090, tls={"certificate": pem, "key": pem})
    assert main(["status", "--config", str(path)]) == status
    assert capsys.readouterr().out.startswith("the page's certificate ends on 20") == bool(status)


@pytest.mark.usefixtures("fleet")
def test_the_centre_itself_may_always_be_taken_out_of_service(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--drained", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"drained": True, "waiting": {}}
    assert main(["status", "--drained"]) == 0
    assert capsys.readouterr().out.startswith("fleet: ")


def test_a_database_that_is_away_is_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(the_fleet(), tmp_path / "fleet.yaml", 8090)
    path.write_text(path.read_text().replace("centre:\n", "centre:\n  database: absent\n"))
    for words in (["status"], ["top", "--once"]):
        assert main([*words, "--json", "--config", str(path)]) == 3
        assert "absent" in json.loads(capsys.readouterr().out)["fault"]
        assert main([*words, "--config", str(path)]) == 3
        assert "absent" in capsys.readouterr().out


def commands(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield words, parser
    for action in below:
        for name, one in action.choices.items():
            yield from commands(one, (*words, name))


@pytest.mark.usefixtures("fleet")
def test_every_other_command_says_where_to_ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1").write_bytes(b"")
    refused = 0
    for words, parser in commands(_parser()):
        options = [option for action in parser._actions for option in action.option_strings]
        if "--config" not in options or words in ANSWERED:
            continue
        needed = [VALUES.get(a.dest, "1") for a in parser._actions if a.required and not a.option_strings]
        named = [
            word
            for action in parser._actions
            if action.required and action.option_strings
            for word in (action.option_strings[0], VALUES.get(action.dest, "1"))
        ]
        assert main([*words, *needed, *named]) == 2, words
        said = capsys.readouterr().err
        assert "is the centre's" in said, words
        assert "outpost status" in said, words
        refused += 1
    assert refused > 15
    assert list(tmp_path.iterdir()) == [tmp_path / "1"]


@pytest.mark.usefixtures("fleet")
def test_the_other_way_round_it_says_so_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    system = tmp_path / "brain.yaml"
    system.write_text("system: brain\nregion: chita\n")
    for verb in ("sync", "serve", "table"):
        assert main(["fleet", verb, "--config", str(system)]) == 2
        said = capsys.readouterr().err
        assert "is an inference system's" in said
        assert "/etc/outpost/fleet.yaml" in said


@pytest.mark.usefixtures("fleet")
def test_config_check_knows_the_centres_file(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": str(config), "kind": "fleet", "ok": True, "faults": [],
    }  # fmt: skip
    path = tmp_path / "fleet.yaml"
    path.write_text(
        f"centre:\n  password: x\n  sslmode: verify-full\n  sslrootcert: {tmp_path}/none.pem\napi:\n  prot: 1\n"
    )
    assert main(["config", "check", str(path)]) == 1
    assert "line 6: api.prot: there is no such key; did you mean port?" in capsys.readouterr().out
    path.write_text(path.read_text().replace("prot: 1", "port: 8090"))
    assert main(["config", "check", str(path)]) == 1
    assert f"line 4: centre.sslrootcert: {tmp_path}/none.pem is not there" in capsys.readouterr().out
