"""One variable's value against what it wants: type, keys inside, form. Pure; where it is written is asked by path."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from outpost.controller.inventory.fault import Fault, Place, fault, near
from outpost.controller.inventory.names import Option, nearest
from outpost.controller.inventory.shapes import BARE, ELSEWHERE, FORMS, KINDS, ZONES, has_kind
from outpost.controller.networks import NotANetwork, network
from outpost.platform.line import Words, same

Path = tuple[str | int, ...]


class Unknown:
    """A value that is not known before the run: encrypted, computed on a host, or a lookup that costs time."""


UNKNOWN: Final = Unknown()


@dataclass(frozen=True, slots=True)
class Written:
    """How to find where a value is written: `place` by path in the variable, `text` as it was before YAML read it."""

    place: Callable[[Path], Place]
    text: Callable[[Path], str | None]


_OCTAL: Final = re.compile(r"[-+]?0[0-7_]+")
_SEXAGESIMAL: Final = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


def judge(name: str, option: Option, value: Any, written: Written, zones: Collection[str]) -> Iterator[Fault]:
    """What is wrong with the value of a variable. zones: the time zones that exist; empty where none are known."""
    yield from _judge(name, option, value, (), written, zones)


def _judge(
    name: str, option: Option, value: Any, path: Path, written: Written, zones: Collection[str]
) -> Iterator[Fault]:
    if isinstance(value, Unknown):
        return
    said = _dotted(name, path)
    key = str(path[-1]) if path and isinstance(path[-1], str) else name
    place = written.place(path)
    if option.secret:
        yield from _secret(said, key, option, value, place)
        return
    if name in NETWORKS and isinstance(value, list | tuple):
        yield from _networks(name, value, written)
        return
    if value is None:
        if name in ELSEWHERE:
            return
        empty = Words("empty", "пусто")
        yield fault("empty", place, said, empty, wanted=KINDS.get(option.kind, KINDS["str"]))
        return
    raw = written.text(path)
    if not has_kind(value, option.kind, bare=said in BARE) or _misread(value, option.kind, raw):
        if name not in ELSEWHERE or isinstance(value, str) is False:
            yield _wrong_kind(said, option, value, raw, place)
        return
    if option.kind == "dict" and isinstance(value, Mapping):
        yield from _keys(name, option, value, path, written, zones)
    elif option.kind == "list":
        inner = Option(option.elements or "any", options=option.options, choices=option.choices)
        for number, element in enumerate(value):
            if option.elements:
                yield from _judge(name, inner, element, (*path, number), written, zones)
        return
    if option.choices and str(value) not in option.choices:
        close = near(nearest(str(value), option.choices))
        yield fault("choice", place, said, repr(str(value)), choices=", ".join(option.choices), near=close)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        yield from _form(key, said, option, str(value), place, zones)


NETWORKS: Final = frozenset(
    {"outpost_hospital_networks", "outpost_admin_networks", "outpost_centre_networks"}
)


def _networks(name: str, value: Sequence[Any], written: Written) -> Iterator[Fault]:
    for number, word in enumerate(value):
        if isinstance(word, Unknown):
            continue
        try:
            network(word)
        except NotANetwork as error:
            yield fault("network", written.place((number,)), f"{name}[{number}]", _short(word), why=error)


def _secret(said: str, key: str, option: Option, value: Any, place: Place) -> Iterator[Fault]:
    """A secret is text, or a structure that holds some; its value is never shown."""
    if isinstance(value, str) or (option.kind in ("dict", "list") and has_kind(value, option.kind)):
        return
    seen = Words("empty", "пусто") if value is None else _type(value)
    yield fault("secret-type", place, said, seen, key=key)


def _keys(
    name: str, option: Option, value: Mapping[Any, Any], path: Path, written: Written, zones: Collection[str]
) -> Iterator[Fault]:
    if option.each is not None:
        for key, inner in value.items():
            yield from _judge(name, option.each, inner, (*path, str(key)), written, zones)
        return
    if option.options is None:
        return
    for key, inner in value.items():
        if str(key) in option.options:
            yield from _judge(name, option.options[str(key)], inner, (*path, str(key)), written, zones)
            continue
        where = (*path, str(key))
        close = near(nearest(str(key), option.options))
        known = ", ".join(option.options)
        yield fault(
            "unknown-key",
            written.place(where),
            _dotted(name, where),
            _short(inner, secret=True),
            known=known,
            near=close,
        )
    present = {str(key) for key in value}
    for key, wanted in option.options.items():
        if wanted.required and key not in present:
            kind = KINDS.get(wanted.kind, KINDS["str"])
            yield fault("missing", written.place(path), _dotted(name, (*path, key)), MISSING, wanted=kind)


MISSING: Final = Words("missing", "нет")


def _misread(value: Any, kind: str, raw: str | None) -> bool:
    """Whether YAML made another value of what is written: 0755, 22:00, 0x1F for a text."""
    if raw is None or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind in ("int", "float"):
        return bool(_OCTAL.fullmatch(raw) or _SEXAGESIMAL.fullmatch(raw))
    return kind in ("str", "path") and raw != str(value)


def _wrong_kind(said: str, option: Option, value: Any, raw: str | None, place: Place) -> Fault:
    wanted = KINDS.get(option.kind, KINDS["str"])
    seen = _short(value)
    quotes = Words("Put it into quotes.", "Возьмите значение в кавычки.")
    hint = quotes if option.kind in ("str", "path") else Words("Correct the value.", "Исправьте значение.")
    if option.kind == "list" and isinstance(value, str):
        hint = Words("Put it into brackets: [{v}].", "Возьмите в скобки: [{v}].").by(v=value)
    if raw is not None and raw != str(value):
        seen = Words("{r}, which YAML reads as {v}", "{r}, что YAML читает как {v}").by(
            r=raw, v=_short(value)
        )
        if option.kind in ("int", "float"):
            hint = Words(
                "Write it without a leading zero or a colon.", "Напишите без нуля впереди и без двоеточия."
            )
    return fault("type", place, said, seen, wanted=wanted, hint=hint)


def _form(
    key: str, said: str, option: Option, value: str, place: Place, zones: Collection[str]
) -> Iterator[Fault]:
    if said in ZONES and zones and value not in zones:
        yield fault("zone", place, said, repr(value), near=near(_zone(value, zones)))
    elif option.kind in ("str", "path") and key in FORMS:
        right, wanted = FORMS[key]
        if not right(value):
            yield fault("form", place, said, repr(value), wanted=wanted)
    elif option.kind == "int" and (
        key == "port" or key.endswith("_port") or said.startswith("preflight_extra_ports.")
    ):
        if not 1 <= int(float(value)) <= 65535:
            ports = Words("a TCP port, 1 to 65535", "TCP-порт, от 1 до 65535")
            yield fault("range", place, said, value, wanted=ports)
    elif option.kind in ("int", "float") and (key in _POSITIVE or key.endswith(_POSITIVE_ENDS)):
        least = 0 if key not in _POSITIVE else 1e-9
        if float(value) < least:
            wanted = (
                Words("a positive number", "положительное число")
                if least
                else Words("0 or more", "0 или больше")
            )
            yield fault("range", place, said, value, wanted=wanted)


_POSITIVE: Final = frozenset({"cores", "memory_mib"})
_POSITIVE_ENDS: Final = ("_seconds", "_mib", "_minutes", "_days", "_hours")


def _zone(value: str, zones: Collection[str]) -> str:
    """The zone that was meant: another case or an underscore, the city alone, or a slip of the hand."""
    folded = {zone.casefold(): zone for zone in zones}
    plain = value.strip().replace(" ", "_").casefold()
    if plain in folded:
        return folded[plain]
    cities = {zone.rpartition("/")[2].casefold(): zone for zone in sorted(zones)}
    if plain.rpartition("/")[2] in cities:
        return cities[plain.rpartition("/")[2]]
    return nearest(value, zones, 0.6)


def _dotted(name: str, path: Path) -> str:
    return name + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _type(value: Any) -> Words:
    if isinstance(value, bool):
        return Words("true or false", "true или false")
    if isinstance(value, int | float):
        return Words("a number", "число")
    if isinstance(value, Mapping):
        return Words("keys with values", "ключи со значениями")
    return Words("a list", "список") if isinstance(value, list | tuple) else Words("no text", "не текст")


def _short(value: Any, *, secret: bool = False) -> Words:
    """A value in a few characters; a structure by its kind, and where it may hold a secret, its kind alone."""
    if isinstance(value, Unknown):
        return Words("computed", "вычисляется")
    if isinstance(value, bool):
        return same(str(value).lower())
    if isinstance(value, Mapping | list | tuple):
        return _type(value)
    if value is None:
        return Words("empty", "пусто")
    if secret:
        return Words("not known", "неизвестно")
    said = str(value) if isinstance(value, int | float) else repr(str(value))
    return same(said if len(said) <= 60 else f"{said[:57]}...")
