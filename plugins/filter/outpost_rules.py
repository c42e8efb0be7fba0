"""Rule sets of the DICOM filter, from the inventory to the text that stands on a host.

They are judged on the controller by the service's own validator (`outpost filter check` uses the same), so that what
is wrong stops a run before a host is asked for anything.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

# Where the role puts them: a directory, which the container sees as one. A file mounted by itself would stay the one
# that was there when the container started, as each is replaced and not overwritten.
DIRECTORY = "/etc/outpost/filter"
_SERVICE = Path(__file__).resolve().parents[2] / "service"
_FAULT_LINE = re.compile(r"^line (?P<number>\d+): ")


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotes also where only the service's reader, which takes 08 for a number, would not keep it."""


# The class's own table: PyYAML's is shared by all dumpers.
_Dumper.yaml_implicit_resolvers = {
    first: list(entries) for first, entries in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
_Dumper.add_implicit_resolver(
    "outpost:digits", re.compile(r"^[-+]?\.?[0-9][0-9.eE+-]*$"), list("-+.0123456789")
)


def outpost_rule_files(rules: Mapping[str, Any]) -> dict[str, str]:
    """Names the rule file on the host of each system that has a rule set of its own."""
    return {str(system): f"{DIRECTORY}/{system}.yaml" for system, said in rules.items() if said != {}}


def outpost_rule_sets(rules: Mapping[str, Any], systems: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Judges the rule sets of a host.

    Args:
        rules: system -> a rule set, or the path of a rule file on the controller; {} is the bundle's own set.
        systems: the host's systems by name.

    Returns:
        files: for each system with a rule set of its own: system, text, and `short`, the name by which the running
        service's health says that it judges by this set.
        faults: a line each: system, file, line, key, reason and remedy; empty when all is right.
    """
    files, faults = [], []
    for system, said in rules.items():
        if system not in systems:
            near = difflib.get_close_matches(system, list(systems), n=1)
            remedy = f"did you mean {near[0]}?" if near else "correct dicom_filter_rules, or outpost_systems"
            faults.append(
                f"{system}: {_place(system)}the host has no such system "
                f"(it has {', '.join(systems) or 'none'}); {remedy}"
            )
        elif said == {}:
            continue
        elif isinstance(said, str):
            _judge(str(system), _read(said), {}, Path(said), files, faults)
        elif isinstance(said, Mapping):
            text, lines = _written(said)
            _judge(str(system), text, lines, Path(f"dicom_filter_rules.{system}"), files, faults)
        else:
            faults.append(
                f"{system}: {_place(system)}{said!r} is neither a rule set nor the path of one; "
                f"{{}} is the model's own"
            )
    return {"files": files, "faults": faults}


def outpost_rules_in_use(answer: Mapping[str, Any]) -> str:
    """Reads from the answer of /health/light by which rule set the service judges, or what it says is wrong with the
    file on disk; empty when there is no such answer."""
    checks = (answer.get("json") or {}).get("checks", [])
    return next((str(check["value"]) for check in checks if check["code"] == "FILTER_RULES"), "")


def _judge(
    system: str,
    text: bytes | str,
    lines: dict[int, str],
    source: Path,
    files: list[dict[str, str]],
    faults: list[str],
) -> None:
    """Adds to files or to faults. `text` that is a str says why there is none; `lines`: where each line comes from."""
    if isinstance(text, str):
        faults.append(f"{system}: {text}")
        return
    parse_rules, invalid = _validator()
    try:
        judged = parse_rules(text, source)
    except invalid as wrong:
        for fault in wrong.faults:
            line = _FAULT_LINE.match(fault)
            place = lines.get(int(line["number"])) if line else None
            told = f"{place}: {source}: {fault[line.end() :]}" if line and place else f"{source}: {fault}"
            faults.append(f"{system}: {told}")
    else:
        files.append({"system": system, "text": text.decode(), "short": judged.short})


def _validator() -> tuple[Any, type[Exception]]:
    """The service's reader of rule files. Only here, as most inventories hold no rule set."""
    if str(_SERVICE) not in sys.path:
        sys.path.insert(0, str(_SERVICE))
    try:
        from outpost.filter.rulefile import RulesInvalid, parse_rules
    except ImportError as error:
        raise AnsibleFilterError(
            f"The controller cannot judge rule sets: {error}. "
            f"Install what requirements-controller.txt names into {sys.prefix}."
        ) from error
    return parse_rules, RulesInvalid


def _read(path: str) -> bytes | str:
    """The text of a rule file, or what is wrong with its path."""
    if not path.startswith("/"):
        return (
            f"{_place(path)}{path!r} is no absolute path on the controller; "
            f"write {{{{ inventory_dir }}}}/rules/{Path(path).name}"
        )
    try:
        return Path(path).read_bytes()
    except OSError as error:
        return (
            f"{_place(path)}{path} cannot be read ({error.strerror}); name an existing file on the controller"
        )


def _written(rules: Mapping[str, Any]) -> tuple[bytes, dict[int, str]]:
    """A rule set of the inventory as the text of a file, and from where in the inventory each line comes."""
    text = "# Ansible managed: dicom_filter_rules of the inventory.\n" + yaml.dump(
        _plain(rules), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000
    )
    lines: dict[int, str] = {}
    _trace(yaml.compose(text, Loader=yaml.SafeLoader), rules, lines)
    return text.encode(), lines


def _plain(value: Any) -> Any:
    """A value without Ansible's tags; what the inventory takes for a date is text, as in a rule file."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def _trace(node: yaml.Node, value: Any, lines: dict[int, str]) -> None:
    if isinstance(node, yaml.MappingNode):
        for (key_node, inner_node), (key, inner) in zip(node.value, value.items(), strict=True):
            lines[key_node.start_mark.line + 1] = _place(key).removesuffix(": ")
            _trace(inner_node, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for inner_node, inner in zip(node.value, value, strict=True):
            lines.setdefault(inner_node.start_mark.line + 1, _place(inner).removesuffix(": "))
            _trace(inner_node, inner, lines)


def _place(value: Any) -> str:
    """File and line of a value of the inventory as the head of a message; empty where it was computed."""
    try:
        from ansible._internal._datatag._tags import Origin  # the pinned Ansible has no public name for it
    except ImportError:
        return ""
    origin = Origin.get_tag(value)
    return f"{origin.path}: line {origin.line_num}: " if origin and origin.path and origin.line_num else ""


class FilterModule:
    """Tells Ansible the names."""

    def filters(self) -> dict[str, Any]:
        return {
            "outpost_rule_files": outpost_rule_files,
            "outpost_rule_sets": outpost_rule_sets,
            "outpost_rules_in_use": outpost_rules_in_use,
        }
