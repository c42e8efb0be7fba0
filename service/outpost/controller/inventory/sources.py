"""The inventory's files as they are on disk: what cannot be read, and where each variable is written.

Ansible says where a text or a number comes from, but not where an empty value or yes comes from, nor how it was
written before YAML made another value of it. So the files are read here as well, by PyYAML's own composer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from outpost.controller.inventory.fault import Fault, Place, fault, near
from outpost.controller.inventory.names import nearest
from outpost.platform.line import Words, same

Scope = tuple[Literal["host", "group"], str]
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EXTENSIONS: Final = ("", ".yml", ".yaml", ".json")
_YAML: Final = frozenset({".yml", ".yaml", ".json"})
_VAULT: Final = b"$ANSIBLE_VAULT;"
_GROUP_KEYS: Final = ("hosts", "vars", "children")
# Beside the hosts they are for, and no hosts: ansible.cfg of this checkout says so to Ansible.
_NEVER: Final = re.compile(r"^(rules|driver-sets)$")
_MERGE: Final = "tag:yaml.org,2002:merge"
_MARKS: Final = (
    (b"\xff\xfe\x00\x00", "UTF-32"), (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"),
)  # fmt: skip
# What a YAML text must not hold, and what looks like a space and is none.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ODD_SPACE: Final = re.compile("[\u00a0\u2000-\u200b\u202f\u3000\ufeff]")


@dataclass(frozen=True, slots=True)
class Definition:
    """One place where a variable is written. `own`: in a file of group_vars or host_vars, which Ansible reads last."""

    name: str
    scope: Scope
    file: str
    line: int
    node: yaml.Node | None
    own: bool


@dataclass(slots=True)
class Sources:
    """What the files say.

    definitions: by variable. hosts: host as written -> where it is listed, in which group, with which variables.
    promised: hosts that Ansible must have loaded, as they are written in YAML.
    vaults: files that are encrypted whole, with their scope, None of a file of hosts.
    named: files of group_vars and host_vars by scope.
    fatal: whether Ansible cannot load the variables, so that nothing more can be judged.
    """

    faults: list[Fault] = field(default_factory=list)
    definitions: dict[str, list[Definition]] = field(default_factory=dict)
    hosts: dict[str, list[tuple[Place, str, frozenset[str]]]] = field(default_factory=dict)
    promised: dict[str, Place] = field(default_factory=dict)
    groups: dict[str, Place] = field(default_factory=dict)
    vaults: list[tuple[str, Scope | None]] = field(default_factory=list)
    named: list[tuple[Scope, str]] = field(default_factory=list)
    _index: dict[str, tuple[int, dict[Scope, list[Definition]]]] = field(default_factory=dict)

    @property
    def fatal(self) -> bool:
        return any(one.code in _FATAL for one in self.faults)

    def place(self, name: str, host: str, groups: Sequence[str], path: Sequence[str | int] = ()) -> Place:
        """Where the host's value of `name`, or what is at `path` in it, is written; as near as can be told."""
        found = self.definition(name, host, groups)
        if found is None:
            return Place(who=host)
        return Place(found.file, _at(found, path)[0])

    def written(self, name: str, host: str, groups: Sequence[str], path: Sequence[str | int]) -> str | None:
        """A plain scalar as it is written in the file; None where it is quoted, is no scalar or is not known."""
        found = self.definition(name, host, groups)
        node = _at(found, path)[1] if found is not None else None
        if (
            isinstance(node, yaml.ScalarNode) and not node.style
        ):  # libyaml says '' of a plain one, Python's own None
            return str(node.value)
        return None

    def definition(self, name: str, host: str, groups: Sequence[str]) -> Definition | None:
        """The one that Ansible takes: the host's own before its groups', the deepest group's before others'.

        groups: of the host, in the order in which Ansible reads them.
        """
        defined = self.definitions.get(name, [])
        size, by_scope = self._index.get(name, (0, {}))
        if size != len(defined):
            by_scope = {}
            for one in defined:
                by_scope.setdefault(one.scope, []).append(one)
            self._index[name] = (len(defined), by_scope)
        hosts: list[Scope] = [("host", host)]
        hosts += [
            scope for scope in by_scope if scope[0] == "host" and "[" in scope[1] and _matches(scope[1], host)
        ]
        for scope in [*hosts, *(("group", group) for group in reversed(groups))]:
            if found := by_scope.get(scope):
                return next((one for one in reversed(found) if one.own), found[-1])
        return None


_FATAL: Final = frozenset({"encoding", "tab", "yaml", "unreadable", "character", "unread"})


def read(sources: Iterable[str], ignored: re.Pattern[bytes] | None = None) -> Sources:
    """Reads all files of the inventory.

    sources: paths after -i, absolute. ignored: names in a directory that Ansible does not take for hosts.
    """
    found = Sources()
    done: set[str] = set()
    for source in sources:
        path = Path(source)
        if "," in source and not path.exists():
            continue  # a list of hosts
        if not path.exists():
            found.faults.append(
                fault("source-missing", Place(source), value=Words("is not there", "нет такого"))
            )
            continue
        for file in _host_files(path, ignored, found, top=True):
            if str(file) not in done:
                done.add(str(file))
                _read_hosts(file, found)
        base = path if path.is_dir() else path.parent
        if str(base) not in done:
            done.add(str(base))
            for scope, file in _variable_files(base):
                _read_variables(scope, file, found)
    return found


def decrypted(file: str, scope: Scope | None, text: str, found: Sources) -> None:
    """Reads what an encrypted file of `vaults` holds; its lines are those that `ansible-vault edit` shows."""
    if scope is None:
        _hosts_in(Path(file), text, found)
    else:
        _variables_in(scope, Path(file), text, found)


def _host_files(
    path: Path, ignored: re.Pattern[bytes] | None, found: Sources, *, top: bool = False
) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        found.faults.append(fault("unreadable", Place(str(path)), value=error.strerror or error))
        return
    for entry in entries:
        if entry.name in ("group_vars", "host_vars"):
            if not top and entry.is_dir():
                there = path.parent / entry.name
                found.faults.append(fault("vars-unread", Place(str(entry)), value=entry.name, there=there))
            continue
        if _NEVER.match(entry.name) or (ignored is not None and ignored.search(os.fsencode(entry.name))):
            continue
        yield from _host_files(entry, ignored, found)


def _variable_files(base: Path) -> Iterator[tuple[Scope, Path]]:
    """Files of group_vars and host_vars as Ansible finds them."""
    kinds: tuple[Literal["group", "host"], ...] = ("group", "host")
    for kind in kinds:
        folder = base / f"{kind}_vars"
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or entry.name.endswith("~"):
                continue
            if entry.is_dir():
                for file in _inside(entry):
                    yield (kind, entry.name), file
            elif entry.suffix in _YAML:
                yield (kind, entry.stem), entry
            elif entry.suffix not in (
                ".bak",
                ".orig",
                ".swp",
                ".md",
                ".txt",
                ".rst",
                ".retry",
                ".example",
                ".j2",
            ):
                yield (kind, entry.name), entry


def _inside(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name.endswith("~"):
            continue
        if entry.is_dir() and not entry.suffix:
            yield from _inside(entry)
        elif entry.is_file() and entry.suffix in _EXTENSIONS:
            yield entry


def _text(file: Path, scope: Scope | None, found: Sources) -> str | None:
    """The file as text; None where it is encrypted, a program, or cannot be read, which is said."""
    try:
        data = file.read_bytes()
    except OSError as error:
        found.faults.append(fault("unreadable", Place(str(file)), value=error.strerror or error))
        return None
    if data.startswith((b"#!", b"\x7fELF")) and file.suffix not in _YAML:
        return None
    for mark, name in _MARKS:
        if data.startswith(mark):
            found.faults.append(_encoded(file, 1, name))
            return None
    if data.startswith(b"\xef\xbb\xbf"):
        how = f"sed -i '1s/^\\xEF\\xBB\\xBF//' {file}"
        said = Words("begins with a byte order mark", "начинается с метки порядка байтов (BOM)")
        found.faults.append(fault("encoding", Place(str(file), 1), value=said, how=how))
        data = data[3:]
    if data.startswith(_VAULT):
        found.vaults.append((str(file), scope))
        return None
    if data.count(b"\0") > len(data) // 50:
        little = data[1::2].count(b"\0") > data[::2].count(b"\0")
        found.faults.append(_encoded(file, 1, "UTF-16LE" if little else "UTF-16BE"))
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found.faults.append(_encoded(file, line, _guess(data)))
        return None


def _encoded(file: Path, line: int, name: str) -> Fault:
    said = Words("is not UTF-8 (it looks like {n})", "это не UTF-8 (похоже на {n})").by(n=name)
    how = f"iconv -f {name} -t UTF-8 {file} > {file}.new && mv {file}.new {file}"
    return fault("encoding", Place(str(file), line), value=said, how=how)


def _guess(data: bytes) -> str:
    """The likeliest of the encodings of Russian texts: the one whose letters are most often in lower case."""

    def likely(name: str) -> int:
        said = data.decode(name, errors="replace")
        common = sum(said.count(letter) for letter in "оеаинтсрвл")
        return (
            2 * common
            + sum("а" <= letter <= "я" for letter in said)
            - 3
            * sum(not (letter.isascii() or "А" <= letter <= "я" or letter in "ёЁ№«»—–") for letter in said)
        )

    return max(
        ("WINDOWS-1251", "CP866", "KOI8-R"), key=lambda name: likely(name.lower().replace("windows-", "cp"))
    )


def _composed(file: Path, text: str, found: Sources) -> yaml.Node | None:
    """The file's YAML; None where it is empty or cannot be read, which is said."""
    if odd := _CONTROL.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        value = Words("the control character U+{c}", "управляющий знак U+{c}").by(c=f"{ord(odd[0]):04X}")
        found.faults.append(fault("character", Place(str(file), line), value=value))
        return None
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        if _is_json(text):
            return None  # which Ansible tries first; tabs are lawful there
        found.faults.append(_unparsable(file, text, error))
        return None
    if node is not None:
        found.faults += _duplicates(file, node, set())
    return node


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _unparsable(file: Path, text: str, error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark is not None else 0
    lines = text.splitlines()
    # The parser often notices a tab a line late.
    for number in (line, line - 1):
        written = lines[number - 1] if 0 < number <= len(lines) else ""
        if "\t" in written[: len(written) - len(written.lstrip())]:
            return fault(
                "tab",
                Place(str(file), number),
                value=Words("a tab in the indentation", "табуляция в отступе"),
            )
    for number in (line, line - 1):
        if 0 < number <= len(lines) and (odd := _ODD_SPACE.search(lines[number - 1])):
            value = Words("a space that is none, U+{c}", "пробел, который не пробел, U+{c}")
            return fault("character", Place(str(file), number), value=value.by(c=f"{ord(odd[0]):04X}"))
    problem = str(getattr(error, "problem", None) or "cannot be read")
    context = str(getattr(error, "context", None) or "")
    said = f"{context}, {problem}" if context else problem
    # Of a file with secrets nothing is repeated; the parser's own words name no value.
    return fault("yaml", Place(str(file), line), value=Words("no YAML: {s}", "это не YAML: {s}").by(s=said))


def _duplicates(file: Path, node: yaml.Node, seen: set[int]) -> list[Fault]:
    if id(node) in seen:
        return []
    seen.add(id(node))
    found: list[Fault] = []
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            found += _duplicates(file, inner, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], list[int]] = {}
        for key, inner in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                lines.setdefault((key.tag, key.value), []).append(key.start_mark.line + 1)
            found += _duplicates(file, inner, seen)
        for (_, name), where in lines.items():
            if len(where) > 1:
                value = Words("written {n} times", "написан {n} раза").by(n=len(where))
                listed = ", ".join(map(str, where))
                found.append(fault("duplicate-key", Place(str(file), where[-1]), name, value, lines=listed))
    return found


def _read_hosts(file: Path, found: Sources) -> None:
    text = _text(file, None, found)
    if text is not None:
        _hosts_in(file, text, found)


def _mapping_in(file: Path, text: str, found: Sources, wanted: Words) -> yaml.MappingNode | None:
    """What a file of YAML holds; None where it is empty or, which is a fault, something else."""
    node = _composed(file, text, found)
    if isinstance(node, yaml.MappingNode):
        return node
    if node is not None and not _empty(node):
        place = Place(str(file), node.start_mark.line + 1)
        found.faults.append(fault("shape", place, value=_kind(node), wanted=wanted))
    return None


def _hosts_in(file: Path, text: str, found: Sources) -> None:
    is_yaml = file.suffix in _YAML or _seems_yaml(text)
    if not is_yaml:
        _read_ini(file, text, found)
        return
    node = _mapping_in(file, text, found, Words("groups with their hosts", "группы с узлами"))
    if node is None:
        return
    if any(key.value == "plugin" for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
        return
    for key, inner in node.value:
        _read_group(file, str(key.value), key, inner, found)


def _seems_yaml(text: str) -> bool:
    for line in text.splitlines():
        said = line.strip()
        if said and not said.startswith("#"):
            return said == "---" or re.match(r"[\w.-]+:(\s|$)", said) is not None or said.startswith("{")
    return False


def _read_group(file: Path, group: str, key: yaml.Node, node: yaml.Node, found: Sources) -> None:
    found.groups.setdefault(group, Place(str(file), key.start_mark.line + 1))
    if _empty(node):
        return
    if not isinstance(node, yaml.MappingNode):
        wanted = Words("hosts, vars and children below the group", "hosts, vars и children под группой")
        found.faults.append(
            fault("shape", Place(str(file), key.start_mark.line + 1), group, _kind(node), wanted=wanted)
        )
        return
    for inner_key, inner in node.value:
        word, place = str(inner_key.value), Place(str(file), inner_key.start_mark.line + 1)
        if word not in _GROUP_KEYS:
            close = near(nearest(word, _GROUP_KEYS))
            found.faults.append(fault("group-key", place, f"{group}.{word}", _kind(inner), near=close))
            continue
        if _empty(inner):
            continue
        if not isinstance(inner, yaml.MappingNode):
            wanted = Words(
                "names with a colon, each on its own line", "имена с двоеточием, каждое в своей строке"
            )
            found.faults.append(fault("shape", place, f"{group}.{word}", _kind(inner), wanted=wanted))
        elif word == "vars":
            _define(("group", group), file, inner, found, own=False)
        elif word == "children":
            for child_key, child in inner.value:
                _read_group(file, str(child_key.value), child_key, child, found)
        else:
            _read_listed(file, group, inner, found)


def _read_listed(file: Path, group: str, node: yaml.MappingNode, found: Sources) -> None:
    for key, inner in node.value:
        host = str(key.value)
        place = Place(str(file), key.start_mark.line + 1)
        mapping = isinstance(inner, yaml.MappingNode)
        given = frozenset(str(name.value) for name, _ in inner.value) if mapping else frozenset()
        found.hosts.setdefault(host, []).append((place, group, given))
        found.promised.setdefault(host, place)
        if isinstance(inner, yaml.MappingNode):
            _define(("host", host), file, inner, found, own=False)
        elif not _empty(inner):
            wanted = Words("the host's variables below it", "переменные узла под ним")
            found.faults.append(fault("shape", place, host, _kind(inner), wanted=wanted))


def _read_variables(scope: Scope, file: Path, found: Sources) -> None:
    found.named.append((scope, str(file)))
    text = _text(file, scope, found)
    if text is not None:
        _variables_in(scope, file, text, found)


def _variables_in(scope: Scope, file: Path, text: str, found: Sources) -> None:
    node = _mapping_in(
        file, text, found, Words("variables, NAME: VALUE each", "переменные, каждая ИМЯ: ЗНАЧЕНИЕ")
    )
    if node is None:
        return
    _define(scope, file, node, found, own=True)


def _define(scope: Scope, file: Path, node: yaml.MappingNode, found: Sources, *, own: bool) -> None:
    for key, value in node.value:
        if key.tag == _MERGE:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(merged, yaml.MappingNode):
                    _define(scope, file, merged, found, own=own)
            continue
        name = str(key.value)
        one = Definition(name, scope, str(file), key.start_mark.line + 1, value, own)
        found.definitions.setdefault(name, []).append(one)


_INI_SECTION: Final = re.compile(r"\[(?P<name>[^\]:]+)(?::(?P<kind>\w+))?\]")


def _read_ini(file: Path, text: str, found: Sources) -> None:
    """Hosts and names of an INI inventory, for their lines; Ansible judges the form."""
    group, kind = "ungrouped", "hosts"
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(("#", ";")):
            continue
        if section := _INI_SECTION.match(line):
            group, kind = section["name"].strip(), section["kind"] or "hosts"
            found.groups.setdefault(group, Place(str(file), number))
            continue
        place = Place(str(file), number)
        if kind == "vars":
            name = line.partition("=")[0].strip()
            one = Definition(name, ("group", group), str(file), number, None, own=False)
            found.definitions.setdefault(name, []).append(one)
        elif kind == "hosts":
            host, _, rest = line.partition(" ")
            given = re.findall(r"([A-Za-z_]\w*)=", rest)
            found.hosts.setdefault(host, []).append((place, group, frozenset(given)))
            for name in given:
                one = Definition(name, ("host", host), str(file), number, None, own=False)
                found.definitions.setdefault(name, []).append(one)


def _at(found: Definition, path: Sequence[str | int]) -> tuple[int, yaml.Node | None]:
    """Line and node of what is at `path`; the nearest one above it that is there."""
    line, node = found.line, found.node
    for step in path:
        inner: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if str(key.value) == str(step):
                    line, inner = key.start_mark.line + 1, value
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            inner = node.value[step]
            line = inner.start_mark.line + 1
        if inner is None:
            return line, None
        node = inner
    return line, node


def _matches(written: str, host: str) -> bool:
    """Whether a host of a file is this one; `web[1:3]` stands for several."""
    if "[" not in written:
        return written == host
    parts = re.split(r"\[[^\]]*\]", written)
    return re.fullmatch(r"\w+".join(map(re.escape, parts)), host) is not None


def _empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _kind(node: yaml.Node) -> Words:
    if isinstance(node, yaml.MappingNode):
        return Words("a mapping", "набор ключей")
    if isinstance(node, yaml.SequenceNode):
        return Words("a list", "список")
    return Words("a single value", "одно значение") if node.value else same("''")
