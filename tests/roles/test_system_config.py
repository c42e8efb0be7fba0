"""What role inference writes for a system is what the service reads: each optional part given, and none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from outpost.config import Config

ROLE = Path(__file__).parents[2] / "roles/inference"
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
    "inference_quarantine": {"max_items": 7, "reasons": [{"reason": "NO_PIXELS", "max_mib": 1, "max_items": 2}]},
    "inference_drift": {"enabled": True, "window_days": 14, "min_sample": 50, "effect": 0.3},
    "inference_study": {"forced_seconds": 1800, "open_quiet_seconds": 40, "revisions": 3, "revisions_hours": 0.5},
    "inference_senders": [{"ae_title": "*", "character_set": "cp1251"}],
    "inference_delivery": {"retry_max_seconds": 60, "refused_retry_seconds": 3600},
    "inference_rule_files": {"brain": "/etc/outpost/filter/brain.yaml"},
}  # fmt: skip


def written(given: dict[str, Any]) -> Config:
    """The configuration that the role would write with its own defaults and `given`."""
    folder = FileSystemLoader(ROLE / "templates")
    environment = Environment(loader=folder, undefined=StrictUndefined, autoescape=False)  # noqa: S701 - YAML
    environment.filters["to_json"] = json.dumps
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    values = {
        **defaults, "ansible_managed": "", "inference_region": "chita", "inference_database_password": "x",
        "inference_uid_key": "y" * 32, "inference_dicom_tls": {},
        "inference_api_tls": {}, "item": {"key": "brain", "value": SYSTEM},
        "inference_destinations": [{"name": "pacs", "host": "127.0.0.1", "port": 4242, "ae_title": "PACS"}], **given,
    }  # fmt: skip
    text = environment.get_template("system.yaml.j2").render(values, float=float)
    return Config.model_validate(yaml.safe_load(text))


def test_with_nothing_given_the_services_own_settings_count() -> None:
    config = written({})
    assert config.drift == type(config.drift)()
    assert config.quarantine == type(config.quarantine)()


def test_every_option_arrives() -> None:
    config = written(GIVEN)
    assert (config.drift.window_days, config.drift.min_sample, config.drift.effect) == (14, 50, 0.3)
    assert config.quarantine.max_items == 7
    assert (config.delivery.retry_max_seconds, config.delivery.refused_retry_seconds) == (60, 3600)
    assert config.filter.rules == Path("/etc/outpost/filter/brain.yaml")
    assert config.intake.tls is not None
    assert config.api.tls is not None
    assert config.api.tokens[0].name == "duty"
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
