"""The answers of `outpost.console.look` for one screen: what is wrong first, what is well in few lines."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from outpost.codes import answers
from outpost.codes.event_texts import EVENTS
from outpost.codes.found import detail, shown
from outpost.health.codes import remedy
from outpost.options import Language
from outpost.reasons import explain

_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "fail": ("FAIL", "СБОЙ"),
    "warn": ("warn", "вним"),
    "ok": ("well: it takes studies and computes them", "здорова: принимает и считает исследования"),
    "degraded": ("works, but needs a person", "работает, но нужен человек"),
    "failed": ("NOT READY: studies are kept and wait", "НЕ ГОТОВА: исследования хранятся и ждут"),
    "silent": (
        "DOES NOT ANSWER, though its process holds the storage: it starts, or it hangs",
        "НЕ ОТВЕЧАЕТ, хотя её процесс держит хранилище: запускается или зависла",
    ),
    "stopped": (
        "STOPPED: what follows is read from its files",
        "ОСТАНОВЛЕНА: дальше - прочитанное из её файлов",
    ),
    "unknown": ("IT IS NOT TO BE SEEN whether it runs", "НЕ ВИДНО, работает ли она"),
    "running": ("answers, but not with its verdict", "отвечает, но заключения не даёт"),
    "unit": ("unit", "служба"),
    "wanted": ("wanted", "нужно"),
    "do": ("do", "сделать"),
    "found": ("found", "есть"),
    "passed": ("checks passed", "проверок пройдено"),
    "rung": ("rung", "ступень"),
    "queue": ("queue", "очередь"),
    "nothing": ("nothing waits", "ничего не ждёт"),
    "oldest": ("oldest", "старейшее"),
    "outbox": ("results waiting", "результаты ждут"),
    "none": ("none", "нет"),
    "disk": ("disk", "диск"),
    "mib": ("MiB", "МиБ"),
    "free": ("free", "свободно"),
    "reserve": ("reserve", "резерв"),
    "day": ("last 24 h", "за сутки"),
    "hour": ("last hour", "за час"),
    "refused": ("images refused in 24 h", "отказано снимкам за сутки"),
    "held": ("held", "придержано"),
    "last": ("last studies", "последние исследования"),
    "inwork": ("in work", "считаются"),
    "event": ("last event", "последнее событие"),
    "nostudy": ("no study was received yet", "исследований ещё не было"),
    "start": (
        "sudo systemctl start outpost@{system}; its last words: journalctl -u outpost@{system} -n 30 --no-pager",
        "sudo systemctl start outpost@{system}; последние слова: journalctl -u outpost@{system} -n 30 --no-pager",
    ),
    "restart": (
        "wait 3 minutes; if it stays: sudo systemctl restart outpost@{system}",
        "подождите 3 минуты; если не прошло: sudo systemctl restart outpost@{system}",
    ),
    "drained": ("nothing is on its way: every study has ended", "ничего в пути: все исследования завершены"),
    "undrained": ("NOT YET, studies are on their way", "ЕЩЁ НЕТ, исследования в пути"),
    "receiving": ("receiving", "принимается"),
    "complete": ("to compute", "ждёт счёта"),
    "inferring": ("computing", "считается"),
    "delivering": ("delivering", "доставляется"),
    "delivered": ("delivered", "доставлено"),
}


def said(key: str, language: Language, **values: str) -> str:
    """A word or sentence in the language; the key itself where there is none."""
    found = _WORDS.get(key)
    return (found[language == "ru"] if found else key).format_map(values)


def width() -> int:
    """Columns of the terminal, at most 120."""
    return min(shutil.get_terminal_size((110, 40)).columns, 120)


def status(found: Mapping[str, Any], language: Language) -> str:
    """One screen."""
    return "\n".join(_status(found, language))


def _status(found: Mapping[str, Any], language: Language) -> Iterator[str]:
    service = found["service"]
    word = service["verdict"] or service["state"]
    yield f"{found['system']} ({found['region']}), {found['release']}: {said(word, language)}"
    if service["unit"]:
        yield f"  {said('unit', language)}: {service['unit']}"
    if service["fault"] and service["state"] != "stopped":
        yield from _folded("  ", answers.said(service["fault"], language))
    if word in ("stopped", "silent"):
        action = said("start" if word == "stopped" else "restart", language, system=found["system"])
        yield from _folded(f"  {said('do', language)}: ", action)
    for check in found["failing"]:
        mark = said("fail" if check["critical"] else "warn", language)
        yield f"  {mark}  {check['code']}"
        yield from _folded(f"        {said('found', language)}: ", shown(check["value"], language))
        yield from _folded(f"        {said('wanted', language)}: ", shown(check["wanted"], language))
        told = remedy(check["code"], language) or check["remedy"]
        yield from _folded(f"        {said('do', language)}: ", told)
    line = f"  {found['passed']} {said('passed', language)}"
    yield line + (f"; {said('rung', language)} {found['rung']}" if found["rung"] else "")
    if disk := found["disk"]:
        yield (
            f"  {said('disk', language)}: {said('free', language)} {disk['free_mib']} {said('mib', language)}, "
            f"{disk['used_percent']} %; {said('reserve', language)} {disk['reserve_mib']} {said('mib', language)}"
        )
    if found["work"] is None:
        yield from _folded("  ", answers.said(found["work_fault"], language))
        return
    yield from _work(found, language)


def _work(found: Mapping[str, Any], language: Language) -> Iterator[str]:
    work = found["work"]
    parts = []
    for state, queue in work["queue"].items():
        oldest = shown(span(queue["oldest_seconds"]), language)
        parts.append(f"{said(state, language)} {queue['studies']} ({said('oldest', language)} {oldest})")
    parts += [f"{said('held', language)} {code} {count}" for code, count in work["held"].items()]
    yield f"  {said('queue', language)}: {', '.join(parts) or said('nothing', language)}"
    outbox = found["outbox"]
    if outbox and outbox["studies"]:
        yield f"  {said('outbox', language)}: {outbox['studies']}, {outbox['mib']} {said('mib', language)}"
    for late in work["waiting_for"]:
        error = answers.said(late["error"] or "-", language)
        text = f"{late['destination']} {late['results']}: {error}"
        yield from _folded("    ", text)
    ended = ", ".join(
        f"{' '.join(filter(None, (e['state'], e['reason'])))} {e['studies']}" for e in work["ended_last_day"]
    )
    yield from _folded(f"  {said('day', language)}: ", ended or said("none", language))
    if work["refused_last_day"]:
        refused = ", ".join(f"{r['reason']} {r['images']}" for r in work["refused_last_day"])
        yield from _folded(f"  {said('refused', language)}: ", refused)
    if event := work["last_event"]:
        yield f"  {said('event', language)}: {clock(event['at'])} {event['code']}"
    if not work["last"]:
        yield f"  {said('nostudy', language)}"
        return
    yield f"  {said('last', language)} (UTC):"
    yield from (f"    {line}" for line in table(_rows(work["last"], language)))


def drained(system: str, waiting: Mapping[str, int], language: Language) -> str:
    """Whether anything is still on its way, in a line."""
    if not waiting:
        return f"{system}: {said('drained', language)}"
    left = ", ".join(f"{said(state, language)} {count}" for state, count in waiting.items())
    return f"{system}: {said('undrained', language)}: {left}"


def top(found: Mapping[str, Any], language: Language) -> str:
    """The same with what is being computed."""
    lines = list(_status(found, language))
    if work := found["work"]:
        mean = shown(f", {work['mean_seconds']} s", language) if work["mean_seconds"] is not None else ""
        lines.insert(
            1,
            f"  {said('hour', language)}: {said('delivered', language)} {work['delivered_last_hour']}{mean}",
        )
        if work["in_work"]:
            lines.insert(2, f"  {said('inwork', language)}:")
            lines[3:3] = [f"    {line}" for line in table(_rows(work["in_work"], language))]
    return "\n".join(lines)


def _rows(studies: Sequence[Mapping[str, Any]], language: Language) -> list[tuple[str, ...]]:
    return [
        (
            study["study"],
            clock(study["received_at"]),
            ", ".join(study["senders"]) or "?",
            f"{study['modality'] or '?'} {study['instances']}",
            " ".join(filter(None, (study["state"], study["reason"]))),
            study["rung"],
            shown(f"{study['seconds']:.1f} s", language) if study["seconds"] is not None else "",
        )
        for study in studies
    ]


def events(found: Sequence[Mapping[str, Any]], language: Language, *, remedies: bool) -> str:
    """A line an event; with `remedies` what it means and what to do below those that need a person."""
    lines = []
    for event in found:
        text = EVENTS.get(event["code"])
        mark = "!" if text is not None and text.needs_person else " "
        told_there = detail(event["detail"], language)
        lines += _folded(f"{mark} {clock(event['at'])}  {event['code']}  ", told_there)
        if remedies and text is not None and text.needs_person:
            told = (text.meaning_ru, text.remedy_ru) if language == "ru" else (text.meaning, text.remedy)
            lines += _folded("    ", " ".join(told))
            lines += [line for code in _named(event["detail"]) for line in _reason(code, language)]
    return "\n".join(lines)


def _named(detail: str) -> list[str]:
    """Reason codes that the detail of an event names, each once."""
    return [
        code
        for code in dict.fromkeys(re.findall(r"\b[A-Z][A-Z_]{3,}\b|\b[a-z]+(?:-[a-z]+)+\b", detail))
        if explain(code)
    ]


def _reason(code: str, language: Language) -> list[str]:
    reason = explain(code)
    assert reason is not None
    told = (reason.meaning_ru, reason.remedy_ru) if language == "ru" else (reason.meaning, reason.remedy)
    return _folded(f"    {code}: ", " ".join(told))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns one below the other."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def clock(moment: str) -> str:
    """2026-11-30T15:04:05+00:00 as 2026-11-30 15:04."""
    return moment[:16].replace("T", " ")


def span(seconds: float) -> str:
    """A length of time as people say it: 8 s, 5 min, 3 h, 2 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _folded(begin: str, text: str) -> list[str]:
    indent = " " * min(len(begin), 24)
    return textwrap.wrap(
        text, max(40, width()), initial_indent=begin, subsequent_indent=indent, break_long_words=False
    ) or [begin.rstrip()]
