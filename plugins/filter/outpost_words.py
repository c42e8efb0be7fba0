"""What playbooks say, in the language of outpost_language; the texts are in service/outpost/codes/run.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from jinja2 import pass_context
from jinja2.runtime import Context

sys.path.insert(0, str(Path(__file__).parents[2] / "service"))
from outpost.codes import run


@pass_context
def outpost_stop(context: Context, code: str, **values: Any) -> str:
    """The message of a `fail` or `assert`: [CODE], what happened and what to do.

    Args:
        code: of outpost.codes.run.
        values: what its text fills in; `host` is the host's name where it is not given.

    Raises:
        AnsibleFilterError: the code or a value of its text is unknown, which a test rules out.
    """
    try:
        return run.stop(code, _language(context), _known(context, values))
    except KeyError as missing:
        raise AnsibleFilterError(f"outpost_stop: {code}: {missing} is unknown") from missing


@pass_context
def outpost_say(context: Context, key: str, **values: Any) -> str:
    """What a playbook says that has done its work; the same arguments and errors."""
    try:
        return run.say(key, _language(context), _known(context, values))
    except KeyError as missing:
        raise AnsibleFilterError(f"outpost_say: {key}: {missing} is unknown") from missing


def _language(context: Context) -> Any:
    return "ru" if context.get("outpost_language") == "ru" else "en"


def _known(context: Context, values: dict[str, Any]) -> dict[str, Any]:
    return {"host": context.get("inventory_hostname"), **values}


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {"outpost_say": outpost_say, "outpost_stop": outpost_stop}
