"""The fleet view as one HTML page, English or Russian: no scripts, nothing from elsewhere, refreshed by the browser.

What is wrong comes first, in words, with since when; what works is folded. Colours never speak alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape
from itertools import zip_longest
from typing import Final, NamedTuple

from outpost.codes import answers
from outpost.fleet.view import (
    Counted,
    Health,
    Marked,
    Region,
    Removed,
    Study,
    age,
    headline,
    marked_newest,
    marks,
    model_name,
    moment,
)
from outpost.options import Language

REFRESH_SECONDS = 10
RUNBOOK: Final = "docs/runbooks/{language}/region-is-red.md"

_STYLE = """
*{box-sizing:border-box}body{font:15px/1.45 system-ui,sans-serif;margin:1rem auto;max-width:78rem;padding:0 1rem;
color:#1c2430;background:#fff;overflow-wrap:anywhere}
h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:1.6rem 0 .4rem}
.note{color:#5b6675;margin:.2rem 0 1rem}a{color:#1f5fa8}
.top{display:flex;justify-content:space-between;gap:1rem;align-items:baseline}.top span{white-space:nowrap}
table{overflow-wrap:break-word}
.card{border:1px solid #dde2e8;border-left:.4rem solid;border-radius:.3rem;padding:.6rem .8rem;margin:.6rem 0}
.card.red{border-left-color:#a3001b}.card.amber{border-left-color:#b57a00}
.card h3{font-size:1rem;margin:0;display:flex;flex-wrap:wrap;gap:.3rem .8rem;align-items:baseline}
.card ul{margin:.4rem 0;padding-left:1.2rem}.card p{margin:.2rem 0;color:#5b6675}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #dde2e8;vertical-align:top}
th{font-weight:600;color:#5b6675}td.number,th.number{text-align:right}
.state{font-weight:600;white-space:nowrap}
.green{color:#17692f}.amber,.grave{color:#7a5200}.red{color:#a3001b}.card{color:inherit}
summary{cursor:pointer;font-weight:600;margin:1.6rem 0 .4rem}code{font-size:.9em}
@media(max-width:46rem){body{margin:.6rem auto;padding:0 .7rem}table,tbody,tr,td{display:block;width:100%}
tr.head{display:none}tr{border-bottom:1px solid #dde2e8;padding:.5rem 0}
td,td.number{border:0;padding:.1rem 0;text-align:left}td::before{content:attr(data-label) ": ";color:#5b6675}}
@media(prefers-color-scheme:dark){body{color:#e4e8ee;background:#14181e}.note,th,.card p,td::before{color:#9aa6b5}
a{color:#8ab8f0}th,td,tr,.card{border-color:#2c343f}.green{color:#6fd08c}.amber,.grave{color:#e5b454}.red{color:#ff7d8c}
.card{color:inherit}.card.red{border-left-color:#ff7d8c}.card.amber{border-left-color:#e5b454}}
@media print{summary{display:none}}
"""

_WORDS: Final[dict[Language, dict[str, str]]] = {
    "en": {
        "title": "Outpost fleet",
        "other": '<a href="/?lang=ru" lang="ru">по-русски</a>',
        "as_of": "As of {now} UTC; this page renews itself every {seconds} s.",
        "wrong": "What needs a person",
        "all_well": "Every system works.",
        "do": "What each code means, how to look and what to do:",
        "works": "Systems that work: {count}",
        "green": "works",
        "amber": "needs attention",
        "red": "does not work",
        "since": "since {when} UTC",
        "heartbeat": "Last heartbeat {age} ago",
        "no_heartbeat": "No heartbeat known",
        "queue": "queue {n}",
        "outbox": "results waiting {n}",
        "release": "release {text}",
        "no_system": "no system known",
        "regions": "How old the data is",
        "gone": "Removed regions: their history stays",
        "h_removed": "Removed on (UTC)",
        "studies": "Studies, each counted once",
        "marked": "Results that say they are partial or doubtful, last 24 h",
        "last": "Received last",
        "as_data": "The same as data",
        "h_region": "Region",
        "h_system": "System",
        "h_health": "Health",
        "h_since": "Since (UTC)",
        "h_beat": "Heartbeat",
        "h_queue": "Queue",
        "h_outbox": "Outbox",
        "h_disk": "Disk used",
        "h_release": "Release",
        "h_data": "Data",
        "h_age": "Age",
        "h_through": "Data through (UTC)",
        "h_reason": "Reason",
        "h_outcome": "Outcome",
        "h_model": "Model",
        "h_rung": "Rung",
        "h_studies": "Studies",
        "h_last": "Last study (UTC)",
        "h_partial": "Partial",
        "h_doubtful": "Doubtful",
        "h_newest": "Newest of any day (UTC)",
        "h_received": "Received (UTC)",
        "h_study": "Study",
        "h_modality": "Modality",
        "h_instances": "Instances",
        "h_says": "The result says",
        "not_told": "not told",
        "no_region": "No region is attached yet: add one to the inventory and run the playbook.",
        "no_studies": "No studies yet.",
        "cannot": "The fleet view cannot be shown",
    },
    "ru": {
        "title": "Outpost: регионы",
        "other": '<a href="/?lang=en" lang="en">in English</a>',
        "as_of": "На {now} UTC; страница обновляется сама каждые {seconds} с.",
        "wrong": "Где нужен человек",
        "all_well": "Все системы работают.",
        "do": "Что значит каждый код, как посмотреть и что делать:",
        "works": "Работающие системы: {count}",
        "green": "работает",
        "amber": "требует внимания",
        "red": "не работает",
        "since": "с {when} UTC",
        "heartbeat": "Последний сигнал {age} назад",
        "no_heartbeat": "Сигналов не было",
        "queue": "в очереди {n}",
        "outbox": "ждут отправки {n}",
        "release": "версия {text}",
        "no_system": "системы неизвестны",
        "regions": "Насколько свежи данные",
        "gone": "Выведенные регионы: их история остаётся",
        "h_removed": "Выведен (UTC)",
        "studies": "Исследования, каждое по одному разу",
        "marked": "Результаты с пометкой «неполный» или «сомнительный» за сутки",
        "last": "Получены последними",
        "as_data": "То же в виде данных",
        "h_region": "Регион",
        "h_system": "Система",
        "h_health": "Состояние",
        "h_since": "С (UTC)",
        "h_beat": "Сигнал",
        "h_queue": "Очередь",
        "h_outbox": "К отправке",
        "h_disk": "Диск занят",
        "h_release": "Версия",
        "h_data": "Данные",
        "h_age": "Возраст",
        "h_through": "Данные по (UTC)",
        "h_reason": "Причина",
        "h_outcome": "Исход",
        "h_model": "Модель",
        "h_rung": "Ступень",
        "h_studies": "Исследований",
        "h_last": "Последнее (UTC)",
        "h_partial": "Неполных",
        "h_doubtful": "Сомнительных",
        "h_newest": "Новейший за всё время (UTC)",
        "h_received": "Получено (UTC)",
        "h_study": "Исследование",
        "h_modality": "Модальность",
        "h_instances": "Снимков",
        "h_says": "Пометки результата",
        "not_told": "не сообщает",
        "no_region": "Регионов пока нет: добавьте регион в инвентарь и запустите плейбук.",
        "no_studies": "Исследований пока нет.",
        "cannot": "Сводку показать нельзя",
    },
}
# How the words of the database are shown in Russian; what is not here stays as it is.
_RUSSIAN: Final[dict[str, str]] = {
    "fresh": "свежие",
    "late": "опаздывают",
    "stale": "устарели",
    "dead": "очень старые",
    "incompatible": "несовместимы",
    "never": "не было",
    "delivered": "доставлен",
    "rejected": "отклонён",
    "quarantined": "в карантине",
    "pending": "в работе",
    "partial": "неполный",
    "doubtful": "сомнительный",
}
_UNITS: Final[tuple[tuple[str, str], ...]] = ((" min", " мин"), (" s", " с"), (" h", " ч"), (" d", " сут."))


class _Column(NamedTuple):
    """A heading by its key in `_WORDS`, and the class of its cells."""

    key: str
    style: str = ""


class _Cell(NamedTuple):
    html: str
    style: str = ""


def render(
    regions: Sequence[Region],
    counted: Sequence[Counted],
    studies: Sequence[Study],
    now: datetime,
    marked: Sequence[Marked] = (),
    health: Sequence[Health] = (),
    language: Language = "en",
    removed: Sequence[Removed] = (),
) -> str:
    """The whole page."""
    words = _WORDS[language]
    wrong = [line for line in health if line.colour != "green"]
    well = [line for line in health if line.colour == "green"]
    works = (
        f"<details><summary>{escape(words['works'].format(count=len(well)))}</summary>"
        f"{_works(well, language)}</details>"
        if well
        else ""
    )
    problems = "".join(_card(line, language) for line in wrong) or (
        f'<p class="state green">{escape(words["all_well"])}</p>' if well else ""
    )
    return _frame(
        f"<h1>{escape(headline_in(regions, language))}</h1>",
        f"<h2>{escape(words['wrong'])}</h2>{problems}{_what_to_do(language) if wrong else ''}{works}"
        if health
        else "",
        f"<h2>{escape(words['regions'])}</h2>{_regions(regions, language)}",
        f"<h2>{escape(words['gone'])}</h2>{_removed(removed, language)}" if removed else "",
        f"<h2>{escape(words['studies'])}</h2>{_counted(counted, language)}",
        f"<h2>{escape(words['marked'])}</h2>{_marked(marked, language)}",
        f"<h2>{escape(words['last'])}</h2>{_studies(studies, language)}",
        f'<p class="note">{escape(words["as_data"])}: <a href="/health.json">health.json</a>, '
        '<a href="/freshness.json">freshness.json</a>, <a href="/studies.json">studies.json</a>, '
        '<a href="/metrics">metrics</a>, <a href="/health">health</a>, <a href="/docs">API</a></p>',
        now=now,
        language=language,
    )


def render_fault(fault: str, now: datetime, language: Language = "en") -> str:
    """The page when the centre's own database does not answer."""
    return _frame(
        f"<h1>{escape(_WORDS[language]['cannot'])}</h1>",
        f'<p class="red">{escape(answers.said(fault, language))}</p>',
        now=now,
        language=language,
    )


def headline_in(regions: Sequence[Region], language: Language) -> str:
    """`view.headline` in this language."""
    if language == "en" or not regions:
        return headline(regions) if language == "en" else _WORDS["ru"]["no_region"]
    colours = Counter(region.colour for region in regions)
    fresh = sum(region.state == "fresh" for region in regions)
    wrong = ", ".join(
        f"{_WORDS['ru'][colour]}: {colours[colour]}" for colour in ("red", "amber") if colours[colour]
    )
    return (
        f"Работают {colours['green']} из {len(regions)} регионов"
        + (f" ({wrong})" if wrong else "")
        + (f"; свежие данные от {fresh}")
    )


def _frame(first: str, *parts: str, now: datetime, language: Language) -> str:
    words = _WORDS[language]
    as_of = words["as_of"].format(now=moment(now), seconds=REFRESH_SECONDS)
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{escape(words["title"])}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}"><style>{_STYLE}</style></head>'
        f'<body><div class="top">{first}<span>{words["other"]}</span></div>'
        f'<p class="note">{escape(as_of)}</p>{"".join(parts)}</body></html>'
    )


def _card(line: Health, language: Language) -> str:
    words = _WORDS[language]
    why = line.why_ru if language == "ru" else line.why
    reasons = "".join(
        f"<li>{escape(reason)}{f' <code>{escape(code)}</code>' if code else ''}</li>"
        for reason, code in zip_longest(why, line.codes[: len(why)], fillvalue="")
    )
    facts = [
        words["heartbeat"].format(age=age_in(line.beat_age_seconds, language))
        if line.beat_age_seconds is not None
        else words["no_heartbeat"]
    ]
    if line.queue is not None:
        facts.append(words["queue"].format(n=line.queue))
    if line.outbox is not None:
        facts.append(words["outbox"].format(n=line.outbox))
    if line.release:
        facts.append(words["release"].format(text=line.release))
    return (
        f'<div class="card {escape(line.colour)}"><h3><span>{escape(line.title)} <code>{escape(line.region)}</code> '
        f'{escape(line.system or words["no_system"])}</span><span class="state {escape(line.colour)}">'
        f"{escape(words.get(line.colour, line.colour))}</span>"
        f"<span>{escape(words['since'].format(when=moment(line.since)))}</span></h3>"
        f"<ul>{reasons}</ul>"
        f"<p>{escape('; '.join(facts))}</p></div>"
    )


def _what_to_do(language: Language) -> str:
    """Where each code has its row."""
    return f'<p class="note">{escape(_WORDS[language]["do"])} <code>{RUNBOOK.format(language=language)}</code></p>'


def _works(lines: Sequence[Health], language: Language) -> str:
    words = _WORDS[language]
    rows = [
        [
            _Cell(f"{escape(h.title)} <code>{escape(h.region)}</code>"),
            _Cell(escape(h.system or "-")),
            _Cell(escape(words["green"]), "state green"),
            _Cell(moment(h.since)),
            _Cell(age_in(h.beat_age_seconds, language), "number"),
            _Cell(_number(h.queue), "number"),
            _Cell(_number(h.outbox), "number"),
            _Cell("-" if h.disk_used_percent is None else f"{h.disk_used_percent:.0f} %", "number"),
            _Cell(escape(h.release or "-")),
        ]
        for h in lines
    ]
    columns = [_Column("h_region"), _Column("h_system"), _Column("h_health"), _Column("h_since")]
    columns += [_Column(key, "number") for key in ("h_beat", "h_queue", "h_outbox", "h_disk")]
    return _table([*columns, _Column("h_release")], rows, "", language)


def _regions(regions: Sequence[Region], language: Language) -> str:
    words = _WORDS[language]
    rows = [
        [
            _Cell(f"{escape(r.title)} <code>{escape(r.region)}</code>"),
            _Cell(escape(words.get(r.colour, r.colour)), f"state {escape(r.colour)}"),
            # Data can be fresh of a region that does not work: that is no reason for a colour.
            _Cell(escape(word_in(r.state, language)), "" if r.state == "fresh" else "grave"),
            _Cell(age_in(r.age_seconds, language), "number"),
            _Cell(moment(r.data_through)),
            _Cell(escape(r.release or "-")),
            _Cell(
                escape(r.health_ru if language == "ru" else r.reason)
                + (f" <code>{escape(fault_code(r))}</code>" if fault_code(r) else "")
            ),
        ]
        for r in regions
    ]
    columns = [_Column("h_region"), _Column("h_health"), _Column("h_data"), _Column("h_age", "number")]
    columns += [_Column("h_through"), _Column("h_release"), _Column("h_reason")]
    return _table(columns, rows, words["no_region"], language)


def _removed(removed: Sequence[Removed], language: Language) -> str:
    rows = [
        [
            _Cell(f"{escape(r.title)} <code>{escape(r.region)}</code>"),
            _Cell(moment(r.removed_at)),
            _Cell(moment(r.last_at)),
        ]
        for r in removed
    ]
    return _table([_Column("h_region"), _Column("h_removed"), _Column("h_last")], rows, "", language)


def fault_code(region: Region) -> str:
    """The code of why the region is not read, as the runbook has it; empty where it is."""
    return f"FAULT_{region.error_class.upper()}" if region.error_class else ""


def _counted(counted: Sequence[Counted], language: Language) -> str:
    rows = [
        [
            _Cell(f"<code>{escape(c.region)}</code>"),
            _Cell(escape(c.system)),
            _Cell(escape(word_in(c.outcome, language))),
            _Cell(escape(model_name(c))),
            _Cell(escape(c.rung or "-")),
            _Cell(str(c.studies), "number"),
            _Cell(moment(c.last_finished_at or c.last_received_at)),
        ]
        for c in counted
    ]
    columns = [_Column(f"h_{name}") for name in ("region", "system", "outcome", "model", "rung")]
    columns += [_Column("h_studies", "number"), _Column("h_last")]
    return _table(columns, rows, _WORDS[language]["no_studies"], language)


def _marked(marked: Sequence[Marked], language: Language) -> str:
    def day(line: Marked, count: int | None) -> _Cell:
        text = str(count or 0) if line.told else _WORDS[language]["not_told"]
        return _Cell(escape(text), f"number {_grave(count)}")

    rows = [
        [
            _Cell(f"<code>{escape(m.region)}</code>"),
            day(m, m.partial_day),
            day(m, m.doubtful_day),
            _Cell(escape(_newest(m, language))),
        ]
        for m in marked
    ]
    columns = [
        _Column("h_region"),
        _Column("h_partial", "number"),
        _Column("h_doubtful", "number"),
        _Column("h_newest"),
    ]
    return _table(columns, rows, _WORDS[language]["no_region"], language)


def _newest(line: Marked, language: Language) -> str:
    told = marked_newest(line)
    if language == "ru":
        for english in ("partial", "doubtful"):
            told = told.replace(english, _RUSSIAN[english], 1)
    return told


def _studies(studies: Sequence[Study], language: Language) -> str:
    rows = [
        [
            _Cell(moment(s.received_at)),
            _Cell(f"<code>{escape(s.region)}</code>"),
            _Cell(f"<code>{escape(s.study_key[:12])}</code> r{s.revision}"),
            _Cell(escape(s.modality or "-")),
            _Cell(str(s.instances), "number"),
            _Cell(escape(word_in(s.outcome, language))),
            _Cell(escape(s.reason or "-")),
            _Cell(
                escape(
                    ", ".join(word_in(mark, language) for mark in marks(s.partial, s.doubtful).split(", "))
                ),
                _grave(s.partial or s.doubtful),
            ),
        ]
        for s in studies
    ]
    columns = [_Column(f"h_{name}") for name in ("received", "region", "study", "modality")]
    columns += [
        _Column("h_instances", "number"),
        _Column("h_outcome"),
        _Column("h_reason"),
        _Column("h_says"),
    ]
    return _table(columns, rows, _WORDS[language]["no_studies"], language)


def _table(
    columns: Sequence[_Column], rows: Sequence[Sequence[_Cell]], empty: str, language: Language
) -> str:
    """A table that a narrow screen shows as a list: each cell knows its heading."""
    if not rows:
        return f'<p class="note">{escape(empty)}</p>'
    words = _WORDS[language]
    head = "".join(f'<th class="{c.style}">{escape(words[c.key])}</th>' for c in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{cell.style.strip()}" data-label="{escape(words[column.key])}">{cell.html}</td>'
            for column, cell in zip(columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<table><tbody><tr class="head">{head}</tr>{body}</tbody></table>'


def word_in(text: str, language: Language) -> str:
    """A word of the database, such as a state or an outcome, in this language."""
    return _RUSSIAN.get(text, text) if language == "ru" else text


def age_in(seconds: float | None, language: Language) -> str:
    """`view.age` in this language."""
    text = age(seconds)
    if language == "ru":
        for english, russian in _UNITS:
            if text.endswith(english):
                return text.removesuffix(english) + russian
    return text


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _grave(something: object) -> str:
    """The class of a cell that a person should see."""
    return "grave" if something else ""
