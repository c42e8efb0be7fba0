"""The rule set in use: changed while the service runs, never replaced by a wrong one, journalled by its digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from outpost.filter.active import ActiveRules
from outpost.filter.rulefile import RulesInvalid, source_of
from outpost.records.journal import Journal

GOOD = "rules:\n  - {name: one, require: {tag: Modality, equals: MR}}\n"
OTHER = "missing: accept\n"
BAD = "rules:\n  - {name: one, require: {tag: Modalty, equals: MR}}\n"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite3", "brain")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "filter.yaml"
    file.write_text(GOOD)
    return file


def events(journal: Journal) -> list[tuple[str, str]]:
    return [(event.code, event.detail) for event in reversed(journal.events())]


def test_a_wrong_file_at_the_start_is_refused(file: Path, journal: Journal, tmp_path: Path) -> None:
    file.write_text(BAD)
    with pytest.raises(RulesInvalid, match=r"line 2: rules\[0\]\.require\.tag: 'Modalty'"):
        ActiveRules(file, tmp_path / "rules", journal)


def test_a_change_takes_effect_and_is_journalled_with_its_digest_and_kept(
    file: Path, journal: Journal, tmp_path: Path
) -> None:
    rules = ActiveRules(file, tmp_path / "rules", journal)
    first = rules.file
    rules.look()
    assert rules.file is first
    file.write_text(OTHER)
    rules.look()
    assert rules.file is first, "it may be half saved"
    rules.look()
    assert rules.file.text == OTHER.encode()
    assert [code for code, _ in events(journal)] == ["FILTER_RULES_CHANGED"] * 2
    assert [first.short in events(journal)[0][1], rules.file.short in events(journal)[1][1]] == [True, True]
    # What judged can be read later, by the digest that stands in the journal.
    assert {copy.name: copy.read_text() for copy in (tmp_path / "rules").iterdir()} == {
        f"{first.digest}.yaml": GOOD,
        f"{rules.file.digest}.yaml": OTHER,
    }


def test_the_same_rule_set_after_a_restart_is_no_event(file: Path, journal: Journal, tmp_path: Path) -> None:
    ActiveRules(file, tmp_path / "rules", journal)
    ActiveRules(file, tmp_path / "rules", journal)
    assert len(events(journal)) == 1
    file.write_text(OTHER)
    ActiveRules(file, tmp_path / "rules", journal)
    assert len(events(journal)) == 2


def test_a_half_saved_file_never_judges(file: Path, journal: Journal, tmp_path: Path) -> None:
    rules = ActiveRules(file, tmp_path / "rules", journal)
    judging = rules.file
    for half in ("", OTHER[: len(OTHER) // 2], OTHER[:-3]):  # an empty file is a rule set, too
        file.write_text(half)
        rules.look()
        assert rules.file is judging
    file.write_text(OTHER)
    rules.look()
    rules.look()
    assert rules.file.text == OTHER.encode()


@pytest.mark.parametrize("damage", ["wrong", "gone"])
def test_a_wrong_or_lost_file_keeps_the_rules_that_judge_and_says_so_once(
    file: Path, journal: Journal, tmp_path: Path, damage: str
) -> None:
    rules = ActiveRules(file, tmp_path / "rules", journal)
    judging = rules.file
    if damage == "wrong":
        file.write_text(BAD)
    else:
        file.unlink()
    for _ in range(4):
        rules.look()
    assert rules.file is judging
    assert "filter.yaml" in rules.fault
    assert ("line 2" in rules.fault) is (damage == "wrong")
    refused = [detail for code, detail in events(journal) if code == "FILTER_RULES_REFUSED"]
    assert len(refused) == 1
    assert f"{judging.short} goes on judging" in refused[0]
    file.write_text(GOOD)  # back to what judges: right again, and nothing changes
    rules.look()
    assert (rules.fault, rules.file) == ("", judging)
    file.write_text(BAD)
    rules.look()
    rules.look()
    file.write_text(OTHER)
    rules.look()
    rules.look()
    assert (rules.fault, rules.file.text) == ("", OTHER.encode())


def test_the_sites_file_comes_before_the_bundles_and_none_is_none(tmp_path: Path, file: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    assert source_of(bundle, None) is None
    (bundle / "filter.yaml").write_text(OTHER)
    assert source_of(bundle, None) == bundle / "filter.yaml"
    assert source_of(bundle, file) == file


def test_without_a_file_what_is_known_by_name_is_judged(journal: Journal, tmp_path: Path) -> None:
    rules = ActiveRules(None, tmp_path / "rules", journal)
    rules.look()
    assert (rules.file.short, rules.fault, rules.file.rules.rules) == ("built-in", "", ())


def test_a_full_disk_is_no_reason_not_to_judge(file: Path, journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("a file where the folder should be")
    assert ActiveRules(file, tmp_path / "rules", journal).file.text == GOOD.encode()
