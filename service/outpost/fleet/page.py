"""The fleet view as one HTML page: no scripts, nothing loaded from elsewhere, refreshed by the browser."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from outpost.fleet.view import (
    Counted,
    Marked,
    Region,
    Study,
    age,
    headline,
    marked_day,
    marked_newest,
    marks,
    model_name,
    moment,
)

REFRESH_SECONDS = 10

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem;color:#1c2430;background:#fff}
h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:1.6rem 0 .4rem}
.note{color:#5b6675;margin:.2rem 0 1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;min-width:60%}
th,td{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #dde2e8;vertical-align:top}
th{font-weight:600;color:#5b6675}td.number,th.number{text-align:right}
.state{font-weight:600;white-space:nowrap}
.fresh{color:#17692f}.late{color:#7a5200}.stale,.incompatible{color:#a33c00}.dead,.never{color:#a3001b}
code{font-size:.9em}
@media(prefers-color-scheme:dark){body{color:#e4e8ee;background:#14181e}.note,th{color:#9aa6b5}
th,td{border-color:#2c343f}.fresh{color:#6fd08c}.late{color:#e5b454}.stale,.incompatible{color:#ff9a5c}
.dead,.never{color:#ff7d8c}}
"""


def render(
    regions: Sequence[Region],
    counted: Sequence[Counted],
    studies: Sequence[Study],
    now: datetime,
    marked: Sequence[Marked] = (),
) -> str:
    """The whole page."""
    return _frame(
        f"<h1>{escape(headline(regions))}</h1>"
        f'<p class="note">As of {moment(now)} UTC; this page renews itself every {REFRESH_SECONDS} s.</p>'
        f"<h2>Regions</h2>{_regions(regions)}"
        f"<h2>Studies, each counted once</h2>{_counted(counted)}"
        f"<h2>Results that say they are partial or doubtful, last 24 h</h2>{_marked(marked)}"
        f"<h2>Received last</h2>{_studies(studies)}"
        '<p class="note">The same as data: <a href="/freshness.json">freshness.json</a>, '
        '<a href="/studies.json">studies.json</a>, <a href="/metrics">metrics</a>, '
        '<a href="/health">health</a>, <a href="/docs">API</a></p>'
    )


def render_fault(fault: str, now: datetime) -> str:
    """The page when the centre's own database does not answer."""
    return _frame(
        "<h1>The fleet view cannot be shown</h1>"
        f'<p class="never">{escape(fault)}</p>'
        f'<p class="note">As of {moment(now)} UTC; this page renews itself every {REFRESH_SECONDS} s.</p>'
    )


def _frame(body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Outpost fleet</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}"><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>"
    )


def _regions(regions: Sequence[Region]) -> str:
    rows = [
        f"<tr><td>{escape(r.title)} <code>{escape(r.region)}</code></td>"
        f'<td class="state {escape(r.state)}">{escape(r.state)}</td>'
        f'<td class="number">{age(r.age_seconds)}</td><td>{moment(r.data_through)}</td>'
        f"<td>{escape(r.release or '-')}</td><td>{escape(r.reason)}</td></tr>"
        for r in regions
    ]
    return _table(
        '<th>Region</th><th>State</th><th class="number">Age</th><th>Data through (UTC)</th>'
        "<th>Release</th><th>Reason</th>",
        rows,
        "No region is attached yet: add one to the inventory and run the playbook.",
    )


def _counted(counted: Sequence[Counted]) -> str:
    rows = [
        f"<tr><td><code>{escape(c.region)}</code></td><td>{escape(c.system)}</td>"
        f"<td>{escape(c.outcome)}</td><td>{escape(model_name(c))}</td><td>{escape(c.rung or '-')}</td>"
        f'<td class="number">{c.studies}</td><td>{moment(c.last_finished_at or c.last_received_at)}</td></tr>'
        for c in counted
    ]
    return _table(
        "<th>Region</th><th>System</th><th>Outcome</th><th>Model</th><th>Rung</th>"
        '<th class="number">Studies</th><th>Last study (UTC)</th>',
        rows,
        "No studies yet.",
    )


def _marked(marked: Sequence[Marked]) -> str:
    rows = [
        f'<tr><td><code>{escape(m.region)}</code></td><td class="number {_grave(m.partial_day)}">'
        f'{marked_day(m, m.partial_day)}</td><td class="number {_grave(m.doubtful_day)}">'
        f"{marked_day(m, m.doubtful_day)}</td><td>{escape(marked_newest(m))}</td></tr>"
        for m in marked
    ]
    return _table(
        '<th>Region</th><th class="number">Partial</th><th class="number">Doubtful</th>'
        "<th>Newest of any day (UTC)</th>",
        rows,
        "No region is attached yet.",
    )


def _grave(something: object) -> str:
    """The class of a cell that a person should see."""
    return "stale" if something else ""


def _studies(studies: Sequence[Study]) -> str:
    rows = [
        f"<tr><td>{moment(s.received_at)}</td><td><code>{escape(s.region)}</code></td>"
        f"<td><code>{escape(s.study_key[:12])}</code> r{s.revision}</td><td>{escape(s.modality or '-')}</td>"
        f'<td class="number">{s.instances}</td><td>{escape(s.outcome)}</td>'
        f'<td>{escape(s.reason or "-")}</td><td class="{_grave(s.partial or s.doubtful)}">'
        f"{escape(marks(s.partial, s.doubtful))}</td></tr>"
        for s in studies
    ]
    return _table(
        "<th>Received (UTC)</th><th>Region</th><th>Study</th><th>Modality</th>"
        '<th class="number">Instances</th><th>Outcome</th><th>Reason</th><th>The result says</th>',
        rows,
        "No studies yet.",
    )


def _table(head: str, rows: Sequence[str], empty: str) -> str:
    if not rows:
        return f'<p class="note">{escape(empty)}</p>'
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
