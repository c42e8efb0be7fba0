"""Drift as one HTML page: plots drawn in the page itself, no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from typing import Final

from outpost.codes.answers import said
from outpost.drift.alarms import Alarm
from outpost.drift.book import ALL, Book, Sketch
from outpost.drift.categorical import Categories
from outpost.drift.judge import SENDER_TAG, Limits, sketches_of
from outpost.drift.plots import Say, band, shares, strip
from outpost.drift.replay import Window
from outpost.drift.tags import tag_of
from outpost.errand import go_on
from outpost.options import Language

_STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--line:#dde2e8;--paper:#fff;--card:#f7f9fb;--bad:#b3261e;--good:#17692f;
--c0:#2f6db5;--c1:#e08a1e;--c2:#3a9a63;--c3:#8a5cc2;--c4:#c2476b;--other:#9aa6b5;--missing:#d5dbe2;--now:#2f6db5;--then:#9aa6b5}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#9aa6b5;--line:#2c343f;--paper:#14181e;--card:#1b2129;
--bad:#ff8a80;--good:#6fd08c;--c0:#6aa5e8;--c1:#f0ac55;--c2:#67c48d;--c3:#b493e0;--c4:#e880a0;--other:#6d7988;
--missing:#3a4350;--now:#6aa5e8;--then:#6d7988}}
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:80rem;padding:0 1rem;
color:var(--ink);background:var(--paper)}
h1{font-size:1.35rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}h3{font-size:.95rem;margin:0;font-weight:600}
.note{color:var(--soft);margin:.2rem 0 .8rem}.bad{color:var(--bad)}.good{color:var(--good)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft)}td.n{white-space:nowrap}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(30rem,1fr));gap:1rem}
@media(max-width:34rem){.cards{grid-template-columns:1fr}}
.card{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.7rem .9rem}
.card.alarm{border-color:var(--bad)}.top{display:flex;justify-content:space-between;gap:1rem;align-items:baseline}
.top span{white-space:nowrap;color:var(--soft);font-size:.85rem}.top .bad{color:var(--bad);font-weight:600}
svg{display:block;width:100%;height:auto;margin-top:.35rem}svg text{font:10.5px system-ui,sans-serif;fill:var(--soft)}
.key{font-size:.8rem;color:var(--soft);margin:.3rem 0 0;display:flex;flex-wrap:wrap;gap:.1rem .9rem}
.key i{display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.35em}
.in-c0{background:var(--c0)}.in-c1{background:var(--c1)}.in-c2{background:var(--c2)}
.in-c3{background:var(--c3)}.in-c4{background:var(--c4)}.in-other{background:var(--other)}
.in-missing{background:var(--missing)}.in-now{background:var(--now)}.in-then{background:var(--then)}
details{margin:.8rem 0}summary{cursor:pointer;color:var(--soft)}
"""


_NO_REFERENCE: Final = (
    "There is no reference yet: nothing is judged. When a few weeks of usual work are counted, freeze them: "
    "outpost drift "
    "freeze --from DAY --to DAY."
)
_LEGEND: Final = (
    "Shares, or the median with the range of the middle 80 %, over time; below, the effect: how far each window is "
    "from "
    "the reference, 0 to 1. An alarm begins at the dashed line ({} for categories and missing values, {} for "
    "numbers) where "
    "chance does not explain it."
)
_RUSSIAN: Final = {
    _NO_REFERENCE: "Эталонного периода ещё нет: судить не с чем. Когда наберётся несколько недель обычной работы, "
    "закрепите их: outpost drift freeze --from ДЕНЬ --to ДЕНЬ.",
    _LEGEND: "Доли или медиана с размахом средних 80 % во времени; ниже эффект: насколько окно далеко от эталона, от 0 "
    "до 1. Тревога начинается от пунктира ({} для категорий и пропусков, {} для чисел), если это не объяснить случаем.",
    "Drift of {}": "Дрейф: {}",
    "As of {}.": "На {}.",
    "Nothing is counted yet.": "Ещё ничего не посчитано.",
    "no open alarm": "открытых тревог нет",
    "Reference: {} to {}, {} observations. ": "Эталон: с {} по {}, наблюдений {}. ",
    "Open alarms": "Открытые тревоги",
    "{} alarms that are over": "Прошедшие тревоги: {}",
    "Sender": "Отправитель",
    "What": "Что",
    "Before": "Было",
    "Now": "Стало",
    "Since about": "Примерно с",
    "Seen": "Замечено",
    "Over": "Кончилась",
    "Test": "Критерий",
    " missing": ": нет значения",
    "effect": "эффект",
    "all senders": "все отправители",
    "All senders": "Все отправители",
    "too few to judge": "слишком мало, чтобы судить",
    "alarm, ": "тревога, ",
    "reference": "эталон",
    "missing in {} %": "нет значения в {} %",
    "median {}, 80 % in {} to {}": "медиана {}, 80 % от {} до {}",
    "median and middle 80 %": "медиана и средние 80 %",
    "share missing, from above": "доля без значения, сверху",
    "missing": "нет значения",
    "other": "прочие",
}


def _in_english(text: str) -> str:
    return text


def _in_russian(text: str) -> str:
    return _RUSSIAN.get(text) or said(text, "ru")


_SAY: Final[Mapping[Language, Say]] = {"en": _in_english, "ru": _in_russian}


def render(
    title: str,
    reference: Book | None,
    windows: Sequence[Window],
    alarms: Sequence[Alarm],
    limits: Limits,
    note: str = "",
    language: Language = "en",
) -> str:
    """The whole page.

    Args:
        title: whose data this is.
        reference: what windows are held against; without one the page only tells how to make one.
        windows: in order of time, each with its findings.
        alarms: open and ended ones, the newest last.
        limits: by which they were judged.
        note: where the data are from.
        language: of the page; names of tags and of tests are the same in both.
    """
    say = _SAY[language]
    if reference is None or not windows:
        what = say(_NO_REFERENCE) if reference is None else say("Nothing is counted yet.")
        body = f"<h1>{escape(title)}</h1><p class='note'>{escape(note)}</p><p>{what}</p>"
        return _frame(title, body, language)
    open_ = [alarm for alarm in alarms if alarm.ended_on is None]
    state = (
        f'<span class="bad">{_open_alarms(len(open_), language)}</span>'
        if open_
        else f'<span class="good">{say("no open alarm")}</span>'
    )
    frozen = reference.days
    told = (
        say("Reference: {} to {}, {} observations. ").format(*frozen, reference.observations)
        if frozen
        else ""
    )
    parts = [
        f"<h1>{escape(title)}: {state}</h1>",
        f'<p class="note">{told}{escape(note)}</p>',
        _alarms(say("Open alarms"), list(reversed(open_)), say),
        _ended([alarm for alarm in reversed(alarms) if alarm.ended_on is not None], say),
    ]
    newest = windows[-1].book
    senders = sorted(newest.senders, key=lambda sender: -_size(newest.senders[sender]))
    if len(senders) > 1:
        senders.insert(0, ALL)
    parts += [_sender(sender, reference, windows, alarms, limits, say) for sender in senders]
    legend = say(_LEGEND).format(f"{limits.effect:g}", f"{limits.effect_numbers:g}")
    parts.append(f'<p class="note">{legend}</p>')
    return _frame(title, "".join(parts), language)


def title_of(system: str, last: date, language: Language) -> tuple[str, str]:
    """(title, note) of the page of a system."""
    say = _SAY[language]
    return say("Drift of {}").format(system), say("As of {}.").format(last)


def _open_alarms(count: int, language: Language) -> str:
    if language == "ru":
        return f"открытых тревог: {count}"
    return f"{count} open alarm{'s' if count > 1 else ''}"


def _frame(title: str, body: str, language: Language) -> str:
    other, named = ("en", "in English") if language == "ru" else ("ru", "по-русски")
    switch = f'<p class="note"><a href="?lang={other}" lang="{other}">{named}</a></p>'
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}{switch}</body></html>"
    )


# --- alarms ---


def _alarms(head: str, alarms: Sequence[Alarm], say: Say) -> str:
    if not alarms:
        return ""
    over = f"<th>{say('Over')}" if any(alarm.ended_on is not None for alarm in alarms) else ""

    def ended(alarm: Alarm) -> str:
        return f"<td class='n'>{alarm.ended_on or ''}</td>" if over else ""

    rows = "".join(
        f"<tr><td>{escape(_whose(alarm.sender, say))}</td><td>{escape(_called(alarm.tag))}"
        f"{say(' missing') if alarm.aspect == 'missing' else ''}</td>"
        f"<td>{escape(alarm.before)}</td><td>{escape(alarm.now)}</td><td class='n'>{alarm.since}</td>"
        f"<td class='n'>{alarm.raised_on}</td>{ended(alarm)}"
        f"<td>{alarm.test} {alarm.statistic:.4g}, {say('effect')} {alarm.effect:.2f}</td></tr>"
        for alarm in alarms
    )
    columns = "".join(
        f"<th>{say(name)}" for name in ("Sender", "What", "Before", "Now", "Since about", "Seen")
    )
    return f'<h2>{head}</h2><div class="wide"><table><tr>{columns}{over}<th>{say("Test")}</tr>{rows}</table></div>'


def _ended(alarms: Sequence[Alarm], say: Say) -> str:
    if not alarms:
        return ""
    head = say("{} alarms that are over").format(len(alarms))
    return f"<details><summary>{head}</summary>{_alarms('', alarms, say)}</details>"


def _whose(sender: str, say: Say) -> str:
    return say("all senders") if sender == ALL else sender


def _called(name: str) -> str:
    tag = tag_of(name)
    return tag.told if tag is not None else name


# --- one sender ---


def _sender(
    sender: str,
    reference: Book,
    windows: Sequence[Window],
    alarms: Sequence[Alarm],
    limits: Limits,
    say: Say,
) -> str:
    before = sketches_of(reference, sender)
    names = sorted(
        {name for window in windows for name in sketches_of(window.book, sender)} & before.keys(),
        key=lambda name: (name != SENDER_TAG, -_worst(sender, name, windows), name),
    )
    cards = [_card(sender, name, before[name], windows, alarms, limits, say) for name in names]
    whose = say("All senders") if sender == ALL else sender
    return f'<h2>{escape(whose)}</h2><div class="cards">{"".join(cards)}</div>'


def _worst(sender: str, name: str, windows: Sequence[Window]) -> float:
    effects = [
        finding.comparison.effect
        for window in windows
        for finding in window.findings
        if (finding.sender, finding.tag) == (sender, name)
    ]
    return max(effects, default=0.0)


def _card(
    sender: str,
    name: str,
    before: Sketch,
    windows: Sequence[Window],
    alarms: Sequence[Alarm],
    limits: Limits,
    say: Say,
) -> str:
    go_on()
    sketches = [sketches_of(window.book, sender).get(name) for window in windows]
    findings = [
        [finding for finding in window.findings if (finding.sender, finding.tag) == (sender, name)]
        for window in windows
    ]
    own = [alarm for alarm in alarms if (alarm.sender, alarm.tag) == (sender, name)]
    open_ = any(alarm.ended_on is None for alarm in own)
    last = max((finding.comparison.effect for finding in findings[-1]), default=None)
    told = say("too few to judge") if last is None else f"{say('effect')} {last:.2f}"
    days = [window.days for window in windows]
    if isinstance(before, Categories):
        drawn, key = shares(before, sketches, days, say)
    else:
        drawn, key = band(before, sketches, days, say)
    return (
        f'<div class="card{" alarm" if open_ else ""}"><div class="top"><h3>{escape(_called(name))}</h3>'
        f'<span class="{"bad" if open_ else ""}">{say("alarm, ") if open_ else ""}{told}</span></div>'
        f"{drawn}{strip(findings, own, days, limits, say)}{key}</div>"
    )


def _size(sketches: Mapping[str, Sketch]) -> int:
    return max((sketch.present + sketch.missing for sketch in sketches.values()), default=0)
