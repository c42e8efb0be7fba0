"""Judging a configuration file without starting anything: each fault with its line, what was found and what to do."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from outpost.config import Config, ConfigError, UniqueKeyLoader, faults_of, load

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Fault:
    """`line` counts from 1; 0 where the fault is of the file as a whole. The text is key, reason, value, remedy."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True, slots=True)
class Judged:
    """What kind of configuration it is (`system` or `fleet`), and what is wrong with it."""

    kind: str
    faults: tuple[Fault, ...]

    def as_json(self, path: Path) -> str:
        found = {"file": str(path), "kind": self.kind, "ok": not self.faults}
        return json.dumps(found | {"faults": [asdict(fault) for fault in self.faults]}, ensure_ascii=False)


def judge(path: Path) -> Judged:
    """Judge the file of an inference system, or of the centre's collector (it has `centre:`)."""
    from pydantic import ValidationError

    root = _nodes(path)
    model: type[BaseModel] = Config
    if _is_centre(root):
        from outpost.fleet.config import FleetConfig

        model = FleetConfig
    kind = "system" if model is Config else "fleet"
    try:
        config = load(path, model)
    except ConfigError as error:
        faults = tuple(Fault(0, text) for text in error.faults)
        if root is not None:
            # The same once more, for the places: the error of `load` is made for people and has none.
            value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
            try:
                model.model_validate(value)
            except ValidationError as invalid:
                placed = faults_of(model, invalid)
                faults = tuple(Fault(_line(root, place), text) for place, text in placed)
        return Judged(kind, faults)
    files = _named_files(config, root) if isinstance(config, Config) else _centre_files(config, root)
    return Judged(kind, tuple(files))


def is_centre(path: Path) -> bool:
    """Whether the file configures the centre's collector; not so where it cannot be read."""
    return _is_centre(_nodes(path))


def _is_centre(root: yaml.Node | None) -> bool:
    keys = {key.value for key, _ in root.value} if isinstance(root, yaml.MappingNode) else set()
    return "centre" in keys and "system" not in keys


class _Loader(UniqueKeyLoader):
    """The service's own loader, so that what it refuses is refused here."""


def _nodes(path: Path) -> yaml.Node | None:
    """The file as YAML nodes, which know their lines; None where it is none, which `load` explains."""
    try:
        text = path.read_text(encoding="utf-8")
        yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        return yaml.compose(text, Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError):
        return None


def _line(root: yaml.Node, place: tuple[int | str, ...]) -> int:
    """Of a key or an item: its own line, or that of the nearest section that is there."""
    node, line = root, root.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _named_files(config: Config, root: yaml.Node | None) -> list[Fault]:
    """Files that the configuration names and that are not there, or wrong; asked only on the host it is of."""
    if root is None or not config.storage.root.is_dir():
        return []
    from outpost.filter.rulefile import RulesInvalid, load_rules
    from outpost.health.host import secret_files

    faults = []
    for key, file in dict(secret_files(config)).items():
        try:
            file.open("rb").close()
        except OSError as error:
            told = f"{key}: {file} cannot be read ({error.strerror}): put it there, readable for the service's user"
            faults.append(Fault(_line(root, tuple(key.split("."))), told))
    bundle = config.inference.bundle
    if not (bundle / "outpost.yaml").is_file():
        told = f"inference.bundle: {bundle} is no model bundle (no outpost.yaml): name one of the release's"
        faults.append(Fault(_line(root, ("inference", "bundle")), told))
    if config.filter.rules is not None:
        try:
            load_rules(config.filter.rules)
        except RulesInvalid as invalid:
            told = f"filter.rules: {'; '.join(map(str, invalid.faults))} in {config.filter.rules}"
            faults.append(Fault(_line(root, ("filter", "rules")), told))
    return faults


def _centre_files(config: BaseModel, root: yaml.Node | None) -> list[Fault]:
    """The same of the centre's configuration; asked where there is a folder of certificates."""
    from outpost.fleet.config import FleetConfig
    from outpost.tls import TlsUnusable, server_context

    faults = []
    if root is None or not isinstance(config, FleetConfig):
        return []
    authorities, tls = config.centre.sslrootcert, config.api.tls
    if authorities is not None and authorities.parent.is_dir() and not authorities.is_file():
        told = f"centre.sslrootcert: {authorities} is not there: the playbook centre.yml writes it"
        faults.append(Fault(_line(root, ("centre", "sslrootcert")), told))
    if tls is not None and tls.certificate.parent.is_dir():
        try:
            server_context(tls, "api.tls")
        except TlsUnusable as unusable:
            faults.append(Fault(_line(root, ("api", "tls")), str(unusable)))
    return faults
