"""What role inference writes for a system is what the service reads: each optional part given, and none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starting import ROOT_SECRET

from outpost.config import Config
from outpost.derived import configured, system_tokens
from outpost.fleet.config import FleetConfig
from outpost.shares import workers_of
from outpost.web.tokens import digest

ROLE = Path(__file__).parents[2] / "roles/inference"
FLEET_ROLE = ROLE.parent / "fleet_database"
SYSTEM = {"dicom_port": 11112, "api_port": 8080, "cores": 2, "memory_mib": 4096}
TLS = {
    "certificate": "/etc/outpost/tls/c.pem",
    "key": "/etc/outpost/tls/k.pem",
    "ca": "/etc/outpost/tls/ca.pem",
}
# Every option of the role that is empty by default, as a region might set it.
GIVEN = {
    "inference_known_ae_titles": ["CT1"],
    "inference_dicom_tls": TLS,
    "inference_api_tls": TLS,
    "inference_api_tokens": [{"name": "duty", "role": "read", "sha256": "0" * 64}],
    "inference_quarantine": {"max_items": 7, "reasons": [{"reason": "NO_PIXELS", "max_mib": 1, "max_items": 2}],
                             "senders": [{"ae_title": "NOISY", "max_mib": 1, "max_items": 3}]},
    "inference_intake": {"max_associations": 12, "max_associations_per_peer": 4, "stall_seconds": 90,
                         "unused_seconds": 9, "max_waiting_studies": 300, "max_waiting_studies_per_peer": 200,
                         "max_instances_per_study": 4000},
    "inference_drift": {"enabled": True, "window_days": 14, "min_sample": 50, "effect": 0.3},
    "inference_study": {"forced_seconds": 1800, "open_quiet_seconds": 40, "revisions": 3, "revisions_hours": 0.5},
    "inference_senders": [{"ae_title": "*", "character_set": "cp1251", "addresses": ["10.1.0.0/16"]}],
    "inference_ae_title": "AI",
    "inference_called_ae_titles": ["OLD_AI"],
    "inference_check_called_ae_title": False,
    "inference_api_hosts": ["outpost.hospital.ru", "10.1.2.3"],
    "inference_delivery": {"retry_max_seconds": 60, "refused_retry_seconds": 3600},
    "inference_rule_files": {"brain": "/etc/outpost/filter/brain.yaml"},
}  # fmt: skip


def rendered(role: Path, template: str, given: dict[str, Any]) -> Any:
    """What the role would write with its own defaults and `given`."""
    folder = FileSystemLoader(role / "templates")
    environment = Environment(loader=folder, undefined=StrictUndefined, autoescape=False)  # noqa: S701 - YAML
    environment.filters["to_json"] = json.dumps
    environment.filters["outpost_token_entries"] = configured
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    values = {"fleet_database_port": 5432, **defaults, "ansible_managed": "", **given}
    return yaml.safe_load(environment.get_template(template).render(values, float=float))


def written(given: dict[str, Any]) -> Config:
    """The configuration of a system."""
    values = {
        "inference_database_port": 5432,
        "inference_region": "chita", "inference_database_password": "x",
        "inference_uid_key": "y" * 32, "inference_api_hosts": ["chita"],
        "inference_dicom_tls": {}, "inference_api_tls": {}, "inference_api_own_tokens_before": {},
        "inference_api_own_tokens": {"brain": system_tokens(ROOT_SECRET, "chita", "brain")},
        "item": {"key": "brain", "value": SYSTEM},
        "inference_destinations": [{"name": "pacs", "host": "127.0.0.1", "port": 4242, "ae_title": "PACS"}], **given,
    }  # fmt: skip
    return Config.model_validate(rendered(ROLE, "system.yaml.j2", values))


def test_with_nothing_given_the_services_own_settings_count() -> None:
    config = written({})
    assert config.drift == type(config.drift)()
    assert config.quarantine == type(config.quarantine)()


@pytest.mark.parametrize("cores", [0.1, 1, 1.9, 2, 3.5, 16])
def test_as_many_workers_are_started_as_preflight_counts_memory_for(cores: float) -> None:
    config = written({"item": {"key": "brain", "value": {**SYSTEM, "cores": cores}}})
    assert config.inference.workers == workers_of(cores)


def test_every_option_arrives() -> None:
    config = written(GIVEN)
    assert (config.drift.window_days, config.drift.min_sample, config.drift.effect) == (14, 50, 0.3)
    assert config.quarantine.max_items == 7
    assert config.quarantine.senders[0].ae_title == "NOISY"
    intake = config.intake
    assert (intake.max_associations, intake.max_associations_per_peer) == (12, 4)
    assert (intake.stall_seconds, intake.unused_seconds) == (90, 9)
    assert (intake.max_waiting_studies, intake.max_waiting_studies_per_peer) == (300, 200)
    assert intake.max_instances_per_study == 4000
    assert (config.delivery.retry_max_seconds, config.delivery.refused_retry_seconds) == (60, 3600)
    assert config.filter.rules == Path("/etc/outpost/filter/brain.yaml")
    assert config.intake.tls is not None
    assert config.api.tls is not None
    assert [token.name for token in config.api.tokens] == ["fleet-read", "fleet-send", "fleet-admin", "duty"]
    assert config.api.hosts == ("outpost.hospital.ru", "10.1.2.3")
    assert config.intake.ae_title == "AI"
    assert config.intake.called_ae_titles == ("OLD_AI",)
    assert config.intake.is_called("ANYTHING")
    assert not config.intake.may_come_from("CT1", "10.2.0.1")
    assert list(config.intake.known_ae_titles) == ["CT1"]
    study = config.study
    assert (study.quiet_seconds, study.forced_seconds) == (10, 1800)
    assert (study.revisions, study.revisions_hours) == (3, 0.5)
    assert config.intake.character_set_of(["CT1"]) == "cp1251"


def test_the_roles_options_are_those_of_the_service() -> None:
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    drift = options["inference_drift"]["options"]
    assert set(drift) == set(type(written({}).drift).model_fields)
    study = options["inference_study"]["options"]
    assert {*study, "quiet_seconds"} == set(type(written({}).study).model_fields)
    delivery = set(options["inference_delivery"]["options"])
    assert delivery == set(type(written({}).delivery).model_fields) - {"destinations"}


def test_a_setting_that_the_service_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="min_samples"):
        written({"inference_drift": {"min_samples": 50}})


def test_a_system_is_closed_by_tokens_of_its_own_unless_it_is_opened_by_choice() -> None:
    closed = written({}).api
    tokens = system_tokens(ROOT_SECRET, "chita", "brain")
    assert {token.role: token.sha256 for token in closed.tokens} == {
        role: digest(token) for role, token in tokens.items()
    }
    assert not closed.open
    assert len({*tokens.values(), *system_tokens(ROOT_SECRET, "tver", "brain").values()}) == 6
    assert not {*tokens.values()} & {*system_tokens(ROOT_SECRET, "chita", "lungs").values()}
    assert written({}).intake.is_called("OUTPOST")
    assert not written({}).intake.is_called("ANY-SCP")
    opened = written({**GIVEN, "inference_api_open": True}).api
    assert (opened.open, opened.tokens) == (True, ())


def test_the_centres_page_is_closed_likewise() -> None:
    values = {
        "fleet_database_port": 5432,
        "fleet_database_page_token": "t" * 32,
        "fleet_database_page_token_before": "",
        "fleet_database_password": "x",
        "fleet_database_page_hosts": [],
        "fleet_database_page_tls": {},
    }
    more = [{"name": "duty", "role": "read", "sha256": "0" * 64}]
    closed = FleetConfig.model_validate(
        rendered(FLEET_ROLE, "fleet.yaml.j2", {**values, "fleet_database_page_tokens": more})
    ).api
    assert [(token.role, token.sha256) for token in closed.tokens] == [
        ("read", digest("t" * 32)),
        ("read", "0" * 64),
    ]
    opened = FleetConfig.model_validate(
        rendered(FLEET_ROLE, "fleet.yaml.j2", {**values, "fleet_database_page_open": True})
    ).api
    assert (opened.open, opened.tokens) == (True, ())


def test_the_centres_page_speaks_tls_by_the_fleets_certificate_or_the_sites_own() -> None:
    values = {
        "fleet_database_port": 5432,
        "fleet_database_page_token": "t" * 32, "fleet_database_page_token_before": "",
        "fleet_database_password": "x", "fleet_database_page_hosts": [],
    }  # fmt: skip
    own = {key: TLS[key] for key in ("certificate", "key")}
    for given, clients in (
        ({}, None),
        (own, False),
        ({**TLS, "require_client_certificate": True}, True),
    ):
        page = {**values, "fleet_database_page_tls": given}
        tls = FleetConfig.model_validate(rendered(FLEET_ROLE, "fleet.yaml.j2", page)).api.tls
        assert (tls and tls.require_client_certificate) == clients, given
    assert tls is not None
    assert tls.ca == Path(TLS["ca"])
    page = {**values, "fleet_database_page_tls": own}
    tls = FleetConfig.model_validate(rendered(FLEET_ROLE, "fleet.yaml.j2", page)).api.tls
    assert tls is not None
    assert str(tls.ca) == "/etc/outpost/tls/fleet-ca.pem"


def test_while_the_root_secret_is_rotated_the_tokens_of_both_open_the_api_and_the_page() -> None:
    before = {"brain": system_tokens(ROOT_SECRET[::-1], "chita", "brain")}
    tokens = written({"inference_api_own_tokens_before": before}).api.tokens
    now = system_tokens(ROOT_SECRET, "chita", "brain")
    assert {token.sha256 for token in tokens} == {
        digest(one) for one in [*now.values(), *before["brain"].values()]
    }
    assert len({token.name for token in tokens}) == 6, "a log says which of the two was shown"
    page = {
        "fleet_database_port": 5432,
        "fleet_database_page_token": "t" * 32, "fleet_database_page_token_before": "u" * 32,
        "fleet_database_password": "x", "fleet_database_page_hosts": [], "fleet_database_page_tls": {},
    }  # fmt: skip
    centre = FleetConfig.model_validate(rendered(FLEET_ROLE, "fleet.yaml.j2", page))
    assert [token.sha256 for token in centre.api.tokens] == [digest("t" * 32), digest("u" * 32)]
    assert (centre.centre.sslmode, str(centre.centre.sslrootcert)) == (
        "verify-full",
        "/etc/outpost/tls/fleet-ca.pem",
    )


def test_the_recorder_is_told_to_trust_the_fleets_authority_alone() -> None:
    records = written({}).records
    assert (records.sslmode, records.authorities) == ("verify-full", "/etc/outpost/tls/fleet-ca.pem")
    with pytest.raises(ValueError, match="sslrootcert"):
        type(records).model_validate({"password": "x", "uid_key": "y", "sslmode": "verify-full"})
