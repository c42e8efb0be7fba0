"""Judges the inventory whole before the first play of a playbook of ours, and stops the run where it is wrong.

A callback and no play: it sees what Ansible itself has loaded, whatever -l, --tags or --start-at-task leave out, also
where no host was left to run a play on; and every playbook has it without a line of its own (docs/decisions/0019).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleError, AnsibleTemplateSyntaxError, AnsibleUndefinedVariable
from ansible.inventory.helpers import sort_groups
from ansible.inventory.manager import IGNORED, split_host_pattern
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "service"))
from outpost.controller.inventory import judge
from outpost.controller.inventory.fault import Fault, Place, fault
from outpost.controller.inventory.hosts import Host
from outpost.controller.inventory.names import Known
from outpost.controller.inventory.sources import Sources, decrypted, read
from outpost.controller.inventory.values import UNKNOWN
from outpost.platform.line import Words

DOCUMENTATION = """
    name: outpost_inventory
    type: aggregate
    short_description: judges the inventory before any host is asked
    description:
      - Stops a run of Outpost's playbooks whose inventory is wrong, with one line for each fault.
"""

_ROOT = Path(__file__).resolve().parents[2]
# Of Ansible's own variables these are judged.
_CONNECTION = (
    "ansible_host", "ansible_port", "ansible_connection",
    "ansible_password", "ansible_ssh_pass", "ansible_become_password", "ansible_become_pass",
)  # fmt: skip
# Computing these may ask somebody over the network, for each host.
_LOOKUPS = ("lookup(", "query(", "q(")
# A failed host ends a run with this status; so does a wrong inventory.
_STATUS = 2


class CallbackModule(CallbackBase):
    """Stops the run; on_start is the last moment before a play takes its hosts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "outpost_inventory"
    CALLBACK_NEEDS_ENABLED = False

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Judges, where the playbook is one of ours."""
        plays = playbook.get_plays()
        if not plays or not _is_ours(playbook, plays):
            return
        self._say_which_configuration()
        try:
            lines = _verdict(plays)
        except Exception as error:  # else it would be a warning, and the run go on
            self._display.error(
                f"The inventory could not be judged: {type(error).__name__}: {error}. Nothing was changed."
            )
            sys.exit(_STATUS)
        if lines:
            for line in lines:
                self._display.display(line, color=C.COLOR_ERROR)
            sys.exit(_STATUS)
        if any(role.get_name() == "dicom_filter" for play in plays for role in play.get_roles()):
            # Each task of each host is a fork of this process: what is loaded here is not loaded in each of them.
            with suppress(ImportError):  # the filter says what is missing
                importlib.import_module("outpost.filter.rulefile")

    def _say_which_configuration(self) -> None:
        """Our ansible.cfg is not needed to run, but a cut link is noticed by it in 40 s instead of hours."""
        ours = _ROOT / "ansible.cfg"
        used = C.CONFIG_FILE
        if used is None or not Path(str(used)).exists() or not Path(str(used)).samefile(ours):
            self._display.warning(
                f"This run uses {used or 'no configuration'} and not {ours}: a link that is cut is noticed late."
                f" export ANSIBLE_CONFIG={ours}"
            )


def _verdict(plays: list[Any]) -> list[str]:
    """The lines to print on a run of these plays; empty where nothing is wrong."""
    manager = plays[0].get_variable_manager()
    inventory = manager._inventory
    limit = split_host_pattern(context.CLIARGS.get("subset") or [])
    chosen = None
    if limit and not any("{{" in str(play.hosts) for play in plays):
        chosen = {host.name for play in plays for host in inventory.get_hosts(play.hosts)}
    roles = {role.get_name() for play in plays for role in play.get_roles()}
    deploys, asks = "inference" in roles, bool(roles & {"inference", "preflight"})
    return verdict(
        inventory, manager, plays[0].get_loader(), limit=limit, chosen=chosen, deploys=deploys, asks=asks
    )


def verdict(
    inventory: Any,
    manager: Any,
    loader: Any,
    *,
    limit: Sequence[str] = (),
    chosen: Collection[str] | None = None,
    deploys: bool = True,
    asks: bool = True,
) -> list[str]:
    """Judges what Ansible's own objects hold: InventoryManager, VariableManager, DataLoader."""
    sources = read([str(source) for source in inventory._sources or ()], IGNORED)
    sources.faults += list(_vaults(sources, loader))
    names = judge.variables(_ROOT)
    if sources.fatal or any(one.code == "vault" for one in sources.faults):
        return judge.said(sources.faults, [], sources)
    try:
        known = inventory.get_hosts("all", ignore_limits=True, ignore_restrictions=True)
        hosts = [_host(host, manager, loader, names, sources) for host in known]
    except AnsibleError as error:
        # No file showed it, so only Ansible can say it.
        value = Words("cannot be read: {e}", "не читается: {e}").by(e=" ".join(str(error).split()))
        where = Place(str(inventory._sources[0])) if inventory._sources else Place()
        return judge.said(
            [*sources.faults, fault("unread", where, value=value, file=where.file)], [], sources
        )
    bundles = frozenset(path.parent.name for path in _ROOT.glob("service/bundles/*/outpost.yaml"))
    judged = judge.Inventory(hosts, list(inventory.groups), limit, chosen, deploys, asks, bundles)
    return judge.said(judge.faults(judged, sources, names), hosts, sources)


def _is_ours(playbook: Any, plays: list[Any]) -> bool:
    """Whether a play comes from playbooks/ of this checkout; other playbooks may use the roles as they like."""
    ours = _ROOT / "playbooks"
    folders = [playbook._basedir, *(play._included_path for play in plays)]
    return any(folder and Path(str(folder)).resolve() == ours for folder in folders)


def _vaults(sources: Sources, loader: Any) -> Iterator[Fault]:
    """Opens the encrypted files; those that the given passwords do not open are faults."""
    for file, scope in sources.vaults:
        try:
            text = loader.get_text_file_contents(file)
        except AnsibleError:
            given = bool(getattr(loader._vault, "secrets", None))
            why = (
                Words("the password given is another", "заданный пароль другой")
                if given
                else Words("none was given", "пароль не задан")
            )
            yield fault("vault", Place(file), value=Words("encrypted", "зашифрован"), why=why)
        else:
            decrypted(file, scope, str(text), sources)


def _host(host: Any, manager: Any, loader: Any, names: Known, sources: Sources) -> Host:
    """A host with its variables of ours, templates replaced."""
    loaded = manager.get_vars(host=host, include_hostvars=False)
    wanted = [name for name in loaded if name in _CONNECTION or not name.startswith("ansible_")]
    groups = tuple(group.name for group in sort_groups(host.get_groups()))
    templar: Any = None
    variables: dict[str, Any] = {}
    for name in wanted:
        value = loaded[name]
        option = names.options.get(name)
        if option is None:
            # Its name alone is judged.
            variables[name] = UNKNOWN
            continue
        if _has(value, "{{") or _has(value, "{%"):
            if option.secret or any(_has(value, word) for word in _LOOKUPS):
                variables[name] = UNKNOWN
                continue
            if templar is None:
                templar = Templar(loader=loader, variables=loaded)
            value = _computed(name, value, templar, host.name, groups, sources)
        variables[name] = _plain(value, name, host.name, groups, sources)
    given = frozenset(name for name in manager.extra_vars if name in loaded)
    return Host(host.name, groups, variables, given)


def _computed(
    name: str, value: Any, templar: Any, host: str, groups: tuple[str, ...], sources: Sources
) -> Any:
    """The value of a template; UNKNOWN where it rests on what only the run will know."""
    try:
        return templar.template(value)
    except AnsibleTemplateSyntaxError as error:
        why = Words("Correct it: {e}", "Исправьте: {e}").by(e=" ".join(str(error).split()))
        place = sources.place(name, host, groups)
        seen = Words("a template with a fault", "шаблон с ошибкой")
        if not any(one.place == place and one.code == "template" for one in sources.faults):
            sources.faults.append(fault("template", place, name, seen, why=why))
    except (AnsibleUndefinedVariable, AnsibleError):
        pass
    return UNKNOWN


def _has(value: Any, word: str) -> bool:
    if isinstance(value, str):
        return word in value
    if isinstance(value, Mapping):
        return any(_has(inner, word) for inner in value.values())
    if isinstance(value, list | tuple):
        return any(_has(inner, word) for inner in value)
    return False


def _plain(value: Any, name: str, host: str, groups: tuple[str, ...], sources: Sources) -> Any:
    """A value without Ansible's tags. One that is encrypted by itself is text, if its password is at hand."""
    if isinstance(value, Mapping):
        return {
            _plain(key, name, host, groups, sources): _plain(inner, name, host, groups, sources)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(inner, name, host, groups, sources) for inner in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if type(value).__name__ != "EncryptedString":
        return value
    try:
        str(value)
    except AnsibleError:
        why = Words("it does not open {n}", "он не открывает {n}").by(n=name)
        place = sources.place(name, host, groups)
        found = fault("vault", place, name, Words("encrypted", "зашифрован"), why=why)
        if found not in sources.faults:
            sources.faults.append(found)
    return UNKNOWN
