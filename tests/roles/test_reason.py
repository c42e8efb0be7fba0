"""Why a hidden task failed, without what was hidden: messages as Ansible's modules make them."""

from __future__ import annotations

import base64

import pytest
from derivable import NOW, STOW_TOKEN

from outpost.controller.certificates import authority
from outpost.controller.reason import MASK, masked_text, reason
from outpost.derived import derived

PASSWORD = derived(NOW, "postgres/chita/fleet_reader")
CONTEXT = f"SQL statement \"CREATE USER MAPPING FOR x SERVER y OPTIONS (password '{PASSWORD}')\""
# As community.postgresql 4 fails.
REFUSED = {
    "failed": True,
    "msg": f"Cannot execute SQL 'SELECT fleet.attach_region(host => %s, password => %s)' ['10.0.0.1', '{PASSWORD}']: "
    f"value for \"sslmode\" is out of range\nHINT:  ask the admin\nCONTEXT:  {CONTEXT}, query list: ['SELECT 1']",
}


def test_of_a_refused_statement_the_servers_words_are_left() -> None:
    assert reason(REFUSED) == 'PostgreSQL refused: value for "sslmode" is out of range HINT: ask the admin.'


def test_of_a_loop_each_failed_item_is_told_once() -> None:
    loop = {
        "results": [REFUSED, {"failed": False, "msg": "fine"}, REFUSED, {"failed": True, "msg": "no room"}],
        "msg": "One or more",
    }
    assert reason(loop).count("out of range") == 1
    assert reason(loop).endswith("no room.")


def test_of_a_crash_the_exception_is_told_and_not_what_is_above_it() -> None:
    crash = {
        "msg": "MODULE FAILURE",
        "module_stderr": f"Traceback\n  password='{PASSWORD}'\nOSError: no space left\n",
        "module_stdout": PASSWORD,
    }
    assert reason(crash) == "MODULE FAILURE: OSError: no space left."


@pytest.mark.parametrize("silent", [{}, {"msg": ""}, {"msg": None}, {"results": []}, {"results": "?"}])
def test_a_result_without_a_word_is_a_sentence_all_the_same(silent: dict[str, object]) -> None:
    assert reason(silent) == "the task failed without a word."


@pytest.mark.parametrize(
    "secret",
    [
        PASSWORD, NOW, NOW.upper(), base64.b64encode(NOW.encode()).decode(),
        base64.b64encode(PASSWORD.encode()).decode(),
        authority(NOW).key, authority(NOW).key.replace("\n", "\\n"), authority(NOW).key[:120],
    ],
    ids=["derived", "root", "upper", "root in base64", "derived in base64", "key", "key on one line", "torn key"],
)  # fmt: skip
@pytest.mark.parametrize("around", ["{}", "dsn 'password={} host=x'", "('{}',)", "https://u:{}@pacs/"])
def test_whatever_looks_like_a_derived_secret_is_masked(secret: str, around: str) -> None:
    text = masked_text(around.format(secret))
    assert MASK in text
    assert secret[-40:-8] not in text
    assert "PRIVATE KEY" not in text


def test_a_secret_of_the_site_is_masked_where_it_is_named() -> None:
    told = reason(
        {"msg": f"401 for {STOW_TOKEN} and {base64.b64encode(STOW_TOKEN.encode()).decode()}"},
        [STOW_TOKEN, "", None],
    )
    assert told == f"401 for {MASK} and {MASK}."


def test_paths_addresses_and_words_stay() -> None:
    said = "Destination /var/lib/postgresql/15/main/conf.d/outpost.conf not writable for postgres at 10.77.0.11:5432."
    assert reason({"msg": said}) == said


def test_a_long_reason_is_cut() -> None:
    assert len(reason({"msg": "word " * 500})) < 420
