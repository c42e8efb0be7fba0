"""The configuration: what is accepted, and that every fault is named with its remedy and without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from outpost.config import Config, ConfigError, load

MINIMAL = """
system: brain
region: chita
storage: {root: /var/lib/outpost/brain}
delivery:
  destinations:
    - {name: pacs, ae_title: ORTHANC, host: 10.78.0.5, port: 4242}
records: {password: "secret-one", uid_key: "secret-two"}
"""


def faults(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "brain.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, Config)
    return caught.value.faults


def test_a_dozen_lines_are_a_whole_configuration(tmp_path: Path) -> None:
    file = tmp_path / "brain.yaml"
    file.write_text(MINIMAL, encoding="utf-8")
    config = load(file, Config)
    assert config.intake.dicom_port == 11112
    assert config.inference.bundle == Path("/opt/outpost/bundles/brain_extraction")
    assert config.delivery.destinations[0].port == 4242
    assert config.records.password.get_secret_value() == "secret-one"
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("intake: {dicom_prot: 1}", "intake.dicom_prot: there is no such key; did you mean dicom_port?"),
        ("dicom_port: 1", "dicom_port: there is no such key; did you mean intake.dicom_port?"),
        ("studdy: {}", "studdy: there is no such key; did you mean study?"),
        (
            "api: {xyzzy: 1}",
            "api.xyzzy: there is no such key; known keys here: listen, port, tls, tokens, open, hosts",
        ),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_known_one(tmp_path: Path, line: str, fault: str) -> None:
    assert faults(tmp_path, MINIMAL + line) == [fault]


def test_a_fault_inside_a_list_is_found_by_its_index(tmp_path: Path) -> None:
    found = faults(tmp_path, MINIMAL.replace("host: 10.78.0.5", "hots: 10.78.0.5"))
    assert found == [
        "delivery.destinations[0].hots: there is no such key; did you mean host?",
    ]


def test_all_faults_are_listed_at_once_with_value_and_reason(tmp_path: Path) -> None:
    text = MINIMAL.replace("/var/lib", "var/lib").replace("4242", "99999").replace("brain\n", "Brain!\n", 1)
    found = "\n".join(faults(tmp_path, text + "intake: {listen: here, ae_title: SEVENTEEN-LETTERS}\n"))
    for expected in (
        "system: use 2 to 31 of a-z, 0-9 and '-', beginning with a letter (found 'Brain!')",
        "intake.listen: this is not an IP address",
        "intake.ae_title: an AE title is 1 to 16 ASCII characters without a backslash (found 'SEVENTEEN",
        "storage.root: the path must be absolute (begin with /) (found 'var/lib/outpost/brain')",
        "delivery.destinations[0].port: Input should be less than or equal to 65535 (found 99999)",
    ):
        assert expected in found
    assert found.count("\n") == 4


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    text = MINIMAL.replace('"secret-one"', "[secret-one]").replace('"secret-two"', "424242")
    found = "\n".join(faults(tmp_path, text))
    assert "records.password: this must be text: put it in quotes" in found
    assert "records.uid_key: this must be text: put it in quotes" in found
    assert "secret" not in found
    assert "424242" not in found


def test_records_need_their_secrets_unless_they_are_switched_off(tmp_path: Path) -> None:
    without = MINIMAL.replace('records: {password: "secret-one", uid_key: "secret-two"}', "records: {}")
    assert faults(tmp_path, without) == [
        "records: password and uid_key missing: set it, or set records.enabled to false"
    ]
    file = tmp_path / "brain.yaml"
    file.write_text(without.replace("records: {}", "records: {enabled: false}"), encoding="utf-8")
    assert not load(file, Config).records.enabled


def test_a_key_written_twice_is_a_fault(tmp_path: Path) -> None:
    [fault] = faults(tmp_path, MINIMAL + "region: tver\n")
    assert "the key 'region' appears twice: keep one (line" in fault


@pytest.mark.parametrize("text", ["", "- a\n- list\n", "a: [1\n", "\t"])
def test_what_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    [fault] = faults(tmp_path, text)
    assert "not YAML" in fault or "not keys and values" in fault


def test_destinations_have_names_of_their_own_and_sensible_pauses(tmp_path: Path) -> None:
    pacs = "    - {name: pacs, ae_title: ORTHANC, host: 10.78.0.5, port: 4242}\n"
    [fault] = faults(tmp_path, MINIMAL.replace(pacs, pacs + pacs))
    assert fault == "delivery: two destinations are called pacs: give each its own name"
    [fault] = faults(tmp_path, MINIMAL.replace("delivery:\n", "delivery:\n  retry_first_seconds: 400\n"))
    assert "retry_max_seconds is smaller than retry_first_seconds" in fault


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: 1 fault\n  - cannot be read"):
        load(tmp_path / "none.yaml", Config)


def test_the_character_set_of_a_sender_is_its_own_entrys_or_that_of_all_and_python_knows_it(
    tmp_path: Path,
) -> None:
    senders = (
        "intake: {senders: [{ae_title: CT1, character_set: ISO_IR 144}, {ae_title: stow, character_set: cp866},"
        " {ae_title: '*', character_set: windows-1251}]}\n"
    )
    (tmp_path / "brain.yaml").write_text(MINIMAL + senders, encoding="utf-8")
    intake = load(tmp_path / "brain.yaml", Config).intake
    found = [intake.character_set_of(names) for names in (["CT1"], ["MR1", "CT1"], ["stow"], ["MR1"], [])]
    assert found == ["iso_ir_144", "iso_ir_144", "cp866", "windows-1251", "windows-1251"]
    for name in found:
        assert "И".encode(name).decode(name) == "И"


@pytest.mark.parametrize(
    ("senders", "told"),
    [
        ("{ae_title: CT1, character_set: ISO_IR 1444}", "did you mean ISO_IR 144?"),
        ("{ae_title: CT1, character_set: koi9}", "this is no character set"),
        (
            "{ae_title: CT1, character_set: cp1251}, {ae_title: CT1, character_set: cp866}",
            "senders names CT1 twice",
        ),
        ("{ae_title: CT1}", "intake.senders[0]: neither character_set nor addresses"),
        ("{ae_title: CT1, addresses: [192.168.7.1/24]}", "a network by its first one"),
    ],
)
def test_a_sender_that_is_configured_wrong_is_named(tmp_path: Path, senders: str, told: str) -> None:
    [fault] = faults(tmp_path, MINIMAL + f"intake: {{senders: [{senders}]}}\n")
    assert told in fault


def test_the_budget_of_revisions_has_bounds(tmp_path: Path) -> None:
    found = faults(tmp_path, MINIMAL + "study: {revisions: 0, revisions_hours: 0}\n")
    assert [fault.partition(":")[0] for fault in found] == ["study.revisions", "study.revisions_hours"]
