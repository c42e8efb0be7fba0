"""The report by sender as one HTML page with plots: no scripts, nothing loaded from elsewhere, fit to be mailed."""

from __future__ import annotations

import re
from html import escape
from itertools import groupby

from outpost.quarantine.report import (
    OTHERS,
    Day,
    Report,
    Sender,
    Share,
    headline,
    marked_sentences,
    meaning,
    percent,
    period,
    refused_sentence,
    remedy,
    sender_name,
    sentence,
)
from outpost.reasons import Language

_STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--line:#dde2e8;--paper:#fff;--track:#eef1f5;
--delivered:#2f77b4;--rejected:#dd9a12;--quarantined:#b0305c}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#9aa6b5;--line:#2c343f;--paper:#14181e;--track:#222932;
--delivered:#5fa5dd;--rejected:#e9b44c;--quarantined:#e0668f}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;
padding:0 1.25rem}
h1{font-size:1.35rem;margin:0}h2{font-size:1.05rem;margin:2.2rem 0 .5rem}
h3{font-size:1rem;margin:1.8rem 0 .3rem}
.note{color:var(--soft);margin:.2rem 0 .6rem}.lead{font-size:1.15rem;margin:1rem 0}
.legend span{margin-right:1.2rem;white-space:nowrap}
.legend i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
svg{display:block;width:100%;height:auto;margin:.2rem 0}svg text{font:13px system-ui,sans-serif;fill:var(--ink)}
svg .soft{fill:var(--soft)}svg .on-delivered,svg .on-quarantined{fill:#fff}svg .on-rejected{fill:#1c2430}
.delivered{fill:var(--delivered);background:var(--delivered)}
.rejected{fill:var(--rejected);background:var(--rejected)}
.quarantined{fill:var(--quarantined);background:var(--quarantined)}
.track{fill:var(--track)}.line{stroke:var(--line)}
ul{margin:.4rem 0 0;padding-left:1.2rem}li{margin:.25rem 0}
table{border-collapse:collapse;width:100%;margin-bottom:.6rem;table-layout:fixed}
.share{width:3.6rem}.bar{width:9.6rem}.count{width:4.6rem}
th,td{text-align:left;padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft)}td.number,th.number{text-align:right;white-space:nowrap}
td.bar svg{margin:.3rem 0 0}
code{font-size:.88em;overflow-wrap:anywhere}
@media(max-width:44rem){.bar{display:none}svg{min-width:36rem}section{overflow-x:auto}}
@media print{body{margin:0}section{break-inside:avoid}}
"""
_WIDTH = 900
_FOREMOST = 3  # sentences at the top
_OUTCOMES = ("delivered", "rejected", "quarantined")
_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "title": "What is sent to system {system}",
        "kind": "Report by sending AE title",
        "senders": "By sender",
        "days": "By day (UTC)",
        "why": "Why, and what to do",
        "delivered": "delivered",
        "rejected": "rejected: nothing for the model",
        "quarantined": "quarantined: for a person to look at",
        "share": "Share",
        "studies": "Studies",
        "reason": "Reason",
        "remedy": "What to do",
        "from": "From {name}",
        "of": "{unusable} of {studies} studies gave no result",
        "none": "Every study of this sender gave a result.",
        "foot": "Each study counts once, as it ended at last, for the sender of its first image; partial and "
        "doubtful results count one by one, also where a whole one followed. "
        "No patient and no study is named here.",
    },
    "ru": {
        "title": "Что присылают в систему {system}",
        "kind": "Отчёт по AE-заголовкам отправителей",
        "senders": "По отправителям",
        "days": "По дням (UTC)",
        "why": "Почему и что делать",
        "delivered": "доставлено",
        "rejected": "отклонено: модели нечего делать",
        "quarantined": "карантин: должен посмотреть человек",
        "share": "Доля",
        "studies": "Исслед.",
        "reason": "Причина",
        "remedy": "Что делать",
        "from": "От {name}",
        "of": "без результата {unusable} из {studies} исследований",
        "none": "Все исследования этого отправителя дали результат.",
        "foot": "Каждое исследование учтено один раз, по последнему исходу, за отправителем первого снимка; неполные и "
        "сомнительные результаты учтены каждый, даже если за ним пришёл полный. "
        "Ни пациенты, ни исследования здесь не названы.",
    },
}


def render(report: Report, language: Language) -> str:
    """The whole page."""
    words = _WORDS[language]
    body = [
        f'<p class="note">{words["kind"]}</p>',
        f"<h1>{escape(words['title'].format(system=report.system))}</h1>",
        f'<p class="note">{period(report, language)}</p>',
        f'<p class="lead">{escape(headline(report, language))}</p>',
    ]
    if report.studies:
        body += [
            _foremost(report, language),
            f"<section><h2>{words['senders']}</h2>{_legend(words)}{_bars(report, language)}</section>",
            f"<section><h2>{words['days']}</h2>{_columns(report.days, words['days'])}</section>",
        ]
    if report.senders:
        body.append(f"<h2>{words['why']}</h2>")
        body += [_section(sender, language) for sender in report.senders]
    body.append(f'<p class="note">{words["foot"]}</p>')
    title = escape(words["title"].format(system=report.system))
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>"
    )


def _foremost(report: Report, language: Language) -> str:
    """The sentences that most studies are in."""
    shares = [
        (sender, share) for sender in report.senders for share in sender.reasons if sender.name != OTHERS
    ]
    shares.sort(key=lambda pair: -pair[1].count)
    told = "".join(f"<li>{_prose(sentence(*pair, language))}</li>" for pair in shares[:_FOREMOST])
    return f"<ul>{told}</ul>" if told else ""


def _prose(text: str) -> str:
    """Escaped; what stands between backticks is shown as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _legend(words: dict[str, str]) -> str:
    keys = "".join(f'<span><i class="{name}"></i>{words[name]}</span>' for name in _OUTCOMES)
    return f'<p class="note legend">{keys}</p>'


def _bars(report: Report, language: Language) -> str:
    """A bar a sender, as long as it sent studies, divided by how they ended."""
    senders = [sender for sender in report.senders if sender.studies]
    most = max(sender.studies for sender in senders)
    left, right, row, thick = 230, 70, 34, 20
    room = _WIDTH - left - right
    parts = []
    for number, sender in enumerate(senders):
        y, x = number * row + 6, float(left)
        name = sender_name(sender.name, language)
        parts.append(f'<text x="{left - 12}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        for outcome in _OUTCOMES:
            count = getattr(sender, outcome)
            if not count:
                continue
            width = room * count / most
            share = percent(count, sender.studies)
            parts.append(
                f'<rect class="{outcome}" x="{x:.1f}" y="{y}" width="{max(width, 1.5):.1f}" height="{thick}">'
                f"<title>{count} / {sender.studies}: {escape(outcome)}</title></rect>"
            )
            if width > 44:
                parts.append(
                    f'<text class="on-{outcome}" x="{x + width / 2:.1f}" y="{y + 15}" text-anchor="middle">'
                    f"{escape(share)}</text>"
                )
            x += width
        parts.append(f'<text class="soft" x="{x + 8:.1f}" y="{y + 15}">{sender.studies}</text>')
    return _svg(len(senders) * row + 6, "".join(parts), _WORDS[language]["senders"])


def _columns(days: tuple[Day, ...], label: str) -> str:
    """A column a day; where there are more days than fit, a column is a week or more."""
    per_column = -(-len(days) // 62)
    columns = [list(group) for _, group in groupby(enumerate(days), key=lambda item: item[0] // per_column)]
    sums = [
        (group[0][1].day, *(sum(getattr(day, outcome) for _, day in group) for outcome in _OUTCOMES))
        for group in columns
    ]
    most = max(1, *(sum(counts) for _, *counts in sums))
    left, top, height, foot = 46, 10, 150, 26
    step = (_WIDTH - left - 12) / max(len(sums), 12)
    parts = []
    for mark in _marks(most):
        y = top + height * (1 - mark / most)
        parts.append(
            f'<line class="line" x1="{left}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="soft" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{mark}</text>'
        )
    every = max(1, -(-len(sums) // 9))
    for number, (day, *counts) in enumerate(sums):
        x, y = left + number * step, float(top + height)
        for outcome, count in zip(_OUTCOMES, counts, strict=True):
            if count:
                tall = height * count / most
                y -= tall
                parts.append(
                    f'<rect class="{outcome}" x="{x + step * 0.14:.1f}" y="{y:.1f}" width="{step * 0.72:.1f}" '
                    f'height="{tall:.1f}"><title>{day}: {count} {outcome}</title></rect>'
                )
        if number % every == 0:
            anchor = f'x="{x + step / 2:.1f}" y="{top + height + 19}" text-anchor="middle"'
            parts.append(f'<text class="soft" {anchor}>{day:%d.%m}</text>')
    return _svg(top + height + foot, "".join(parts), label)


def _marks(most: int) -> list[int]:
    """Round numbers up the axis."""
    step = 1
    while most / step > 4:
        step *= 5 if str(step)[0] == "1" else 2
    return list(range(0, most + 1, step))


def _section(sender: Sender, language: Language) -> str:
    words = _WORDS[language]
    name = sender_name(sender.name, language)
    kinds = f" ({', '.join(sender.modalities)})" if sender.modalities else ""
    title = f"<h3>{escape(words['from'].format(name=name))}{escape(kinds)}</h3>"
    unusable = sender.rejected + sender.quarantined
    told = words["of"].format(unusable=unusable, studies=sender.studies) if sender.studies else ""
    if sender.studies and not unusable:
        told = words["none"]
    rows = "".join(_row(sender, share, language) for share in sender.reasons)
    table = (
        f'<table><tr><th class="number share">{words["share"]}</th><th class="bar"></th>'
        f'<th class="number count">{words["studies"]}</th>'
        f"<th>{words['reason']}</th><th>{words['remedy']}</th></tr>{rows}</table>"
        if rows
        else ""
    )
    marked = "".join(
        f"<p>{_prose(sentence)} {_prose(advice)}</p>"
        for sentence, advice in marked_sentences(sender, language)
    )
    refused = "".join(
        f"<p>{_prose(refused_sentence(sender, share, language))} {_prose(remedy(share.reason, language))}</p>"
        for share in sender.refused_reasons
    )
    return f'<section>{title}<p class="note">{escape(told)}</p>{table}{marked}{refused}</section>'


def _row(sender: Sender, share: Share, language: Language) -> str:
    width = 140 * share.count / sender.studies
    bar = (
        '<svg viewBox="0 0 140 12" role="img" aria-hidden="true"><rect class="track" width="140" height="12" rx="2"/>'
        f'<rect class="rejected" width="{max(width, 2):.1f}" height="12" rx="2"/></svg>'
    )
    return (
        f'<tr><td class="number"><b>{escape(percent(share.count, sender.studies))}</b></td><td class="bar">{bar}</td>'
        f'<td class="number">{share.count}</td>'
        f"<td>{_prose(meaning(share.reason, language))} <code>{escape(share.reason)}</code></td>"
        f"<td>{_prose(remedy(share.reason, language))}</td></tr>"
    )


def _svg(height: int, inside: str, label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{inside}</svg>'
