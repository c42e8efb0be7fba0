"""The verdict as a page to send: one file, no scripts, nothing fetched, readable on paper too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from outpost.platform.line import Language, Words
from outpost.platform.verdict import STATUS, by_level

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; --soft: #8883; --dim: #767676; }
body { max-width: 64rem; margin: 2rem auto; padding: 0 1.2rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p.dim, .dim { color: var(--dim); }
.banner { border-radius: .5rem; padding: .8rem 1rem; margin: 1.2rem 0; color: #fff; }
.banner { font-size: 1.1rem; font-weight: 600; }
.banner.ok { background: #1f7a37; } .banner.warning { background: #96600a; } .banner.critical { background: #b32424; }
.banner.none { background: #5a5a5a; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.line { border-left: .3rem solid var(--soft); padding: .35rem .9rem; margin: .6rem 0; break-inside: avoid; }
.line.critical { border-color: #c62f2f; } .line.warning { border-color: #c98210; }
.line code.code { font-size: .85em; color: var(--dim); }
.line .remedy { margin-top: .15rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--soft); vertical-align: top; }
th { font-weight: 500; color: var(--dim); }
td { overflow-wrap: anywhere; } td:first-child { white-space: nowrap; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
.tag { font-size: .8em; border: 1px solid currentColor; border-radius: .3rem; padding: 0 .35rem; white-space: nowrap; }
.level { font-weight: 600; white-space: nowrap; }
.level.ok { color: #2a8a3e; } .level.warning { color: #b57600; } .level.critical { color: #d33; }
/* On a telephone a row is a card: no table is wider than the screen, nothing is read by scrolling sideways. */
@media (max-width: 40rem) {
  body { margin: 1rem auto; padding: 0 .8rem; }
  thead { display: none; }
  table, tbody, tr, td { display: block; width: auto; }
  tr { border-bottom: 1px solid var(--soft); padding: .4rem 0; }
  td { border: 0; padding: .05rem 0; }
  td:empty { display: none; }
  td:first-child { white-space: normal; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
}
@media print { body { margin: 0; max-width: none; } .banner { print-color-adjust: exact; } }
"""
_SAID: Final[Mapping[str, Words]] = {
    "title": Words("Verdict on {host}", "Заключение по узлу {host}"),
    "fleet": Words("Verdicts on {n} hosts", "Заключения по узлам: {n}"),
    "made": Words("Made {at}. Nothing on the host was changed.", "Составлено {at}. На узле ничего не изменено."),
    "system": Words("Operating system", "Операционная система"),
    "gpus": Words("Video cards", "Видеокарты"),
    "asked": Words("To run there", "Должно работать"),
    "none": Words("none", "нет"),
    "stops": Words("What stops it", "Что мешает"),
    "warnings": Words("Warnings", "Предупреждения"),
    "passed": Words("What is right", "Что в порядке"),
    "systems": Words("Inference systems", "ИИ-системы"),
    "checked": Words("checked", "проверяется"),
    "driver": Words("driver", "драйвер"),
    "modules": Words("modules", "модуль"),
    "seen": Words("seen", "есть"),
    "wanted": Words("wanted", "нужно"),
    "do": Words("What to do", "Что делать"),
    "unverified": Words("not verified", "не проверено"),
    "source": Words("source", "источник"),
    "code": Words("Code", "Код"),
    "host": Words("Host", "Узел"),
    "verdict": Words("Verdict", "Заключение"),
    "judged": Words("Judged", "Когда"),
    "silent": Words("no verdict: not reached, or its system is not supported; see the run's output",
                    "заключения нет: узел недоступен или его система не поддерживается; смотрите вывод запуска"),
    "sources": Words("“Not verified” marks a fact taken from memory: such a line never stops a host by itself.",
                     "«Не проверено» отмечает сведения по памяти: такая строка сама узел не останавливает."),
}  # fmt: skip


def host_page(report: Mapping[str, Any], at: str = "") -> str:
    """The page of one host.

    Args:
        report: what Verdict.as_json gave.
        at: when it was judged, as people read it; empty leaves that sentence out.
    """
    language: Language = report["language"]
    lines = by_level(report["lines"])
    body = [
        f"<h1>{_said('title', language, host=report['host'])}</h1>",
        f'<p class="dim">{_said("made", language, at=at)}</p>' if at else "",
        f'<div class="banner {report["level"]}">{escape(_sentence(report["status"]))}</div>',
        _about(report, lines, language),
    ]
    for key, level in (("stops", "critical"), ("warnings", "warning")):
        of_level = [one for one in lines if one["level"] == level]
        if of_level:
            body.append(f"<h2>{_said(key, language)} ({len(of_level)})</h2>")
            body += [_problem(one, language) for one in of_level]
    right = [one for one in lines if one["ok"]]
    if right:
        body.append(f"<h2>{_said('passed', language)} ({len(right)})</h2>")
        head = "".join(f"<th>{_said(key, language)}</th>" for key in ("code", "seen", "wanted"))
        rows = "".join(
            f"<tr><td><code>{escape(one['code'])}</code></td>"
            f"<td>{escape(one['value'])}{_tag(one, language)}</td><td>{escape(one['wanted'])}</td></tr>"
            for one in right
        )
        body.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    if any(not one["verified"] for one in lines):
        body.append(f'<p class="dim">{_said("sources", language)}</p>')
    return _page(language, f"{report['host']}: {report['status']}", body)


def index_page(
    reports: Sequence[Mapping[str, Any]],
    silent: Sequence[str],
    language: Language,
    at: str,
    earlier: Sequence[tuple[Mapping[str, Any], str]] = (),
) -> str:
    """The page over all hosts.

    Args:
        reports: verdicts of this run.
        silent: hosts of this run without a verdict.
        language: en or ru.
        at: when this run was, as people read it.
        earlier: verdicts of hosts that were not in this run, each with when it was made.
    """
    count = len(reports) + len(silent) + len(earlier)
    body = [
        f"<h1>{_said('fleet', language, n=count)}</h1>",
        f'<p class="dim">{_said("made", language, at=at)}</p>',
    ]
    order = {"critical": 0, "warning": 1, "ok": 2}
    rows = []
    judged = [*((report, at) for report in reports), *earlier]
    for report, when in sorted(judged, key=lambda one: (order[one[0]["level"]], one[0]["host"])):
        stops = [one["code"] for one in report["lines"] if one["level"] == "critical"]
        codes = " ".join(f"<code>{escape(code)}</code>" for code in dict.fromkeys(stops))
        rows.append(
            f'<tr><td><a href="{escape(report["host"])}.html">{escape(report["host"])}</a></td>'
            f"<td>{escape(report['platform'].get('pretty', ''))}</td>"
            f'<td class="level {report["level"]}">{escape(report["status"])}</td><td>{codes}</td>'
            f'<td class="dim">{escape(when)}</td></tr>'
        )
    for host in silent:
        rows.append(
            f'<tr><td>{escape(host)}</td><td></td><td colspan="3">{_said("silent", language)}</td></tr>'
        )
    head = "".join(
        f"<th>{_said(key, language)}</th>" for key in ("host", "system", "verdict", "stops", "judged")
    )
    body.append(f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")
    return _page(language, _said("fleet", language, n=count), body)


def _about(report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], language: Language) -> str:
    platform, asked = report["platform"], report["asked"]
    os_line = next(
        (one["value"] for one in lines if one["code"] == "os-supported"), platform.get("pretty", "")
    )
    known = {one["subject"]: one["value"] for one in lines if one["code"] == "gpu-known"}
    gpus = [known.get(gpu, gpu) for gpu in platform.get("gpus", ())]
    spoken = {key: _said(key, language) if key in _SAID else key for key in asked}
    wanted = [f"{spoken[key]} {value}" for key, value in asked.items() if value]
    rows = [
        ("system", escape(os_line)),
        ("gpus", "<br>".join(escape(gpu) for gpu in gpus) or _said("none", language)),
        ("asked", escape(", ".join(wanted)) or _said("none", language)),
    ]
    if report["systems"]:
        levels = (
            f'{escape(name)}: <span class="level {level}">{escape(STATUS[level].said(language))}</span>'
            for name, level in report["systems"].items()
        )
        rows.append(("systems", "<br>".join(levels)))
    return (
        "<dl>"
        + "".join(f"<dt>{_said(key, language)}</dt><dd>{value}</dd>" for key, value in rows if value)
        + "</dl>"
    )


def _problem(one: Mapping[str, Any], language: Language) -> str:
    source = (
        f'<div class="dim">{_said("source", language)}: {escape(one["source"])}</div>'
        if one["source"]
        else ""
    )
    return (
        f'<div class="line {one["level"]}"><strong>{escape(_titled(one))}</strong>{_tag(one, language)} '
        f'<code class="code">{escape(one["code"])}</code>'
        f"<div>{_said('wanted', language)}: {escape(one['wanted'])}</div>"
        f'<div class="dim">{_said("checked", language)}: {_marked(one["proves"])}</div>'
        f'<div class="remedy">{_said("do", language)}: {_marked(one["remedy"])} '
        f'<span class="dim">({escape(one["runbook"])})</span></div>{source}</div>'
    )


def _titled(one: Mapping[str, Any]) -> str:
    """The value, and of which of several things it is where it does not say so itself."""
    value: str = one["value"]
    return value if not one["subject"] or one["subject"] in value else f"{one['subject']}: {value}"


def _tag(one: Mapping[str, Any], language: Language) -> str:
    return "" if one["verified"] else f' <span class="tag dim">{_said("unverified", language)}</span>'


def _marked(text: str) -> str:
    """Commands between backticks, as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _said(key: str, language: Language, **values: object) -> str:
    return escape(_SAID[key].by(**values).said(language))


def _page(language: Language, title: str, body: Sequence[str]) -> str:
    inner = "\n".join(part for part in body if part)
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{inner}\n</body></html>\n"
    )
