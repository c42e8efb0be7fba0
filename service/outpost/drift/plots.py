"""The plots of a page, as SVG text: what windows held over time beside the reference, and how far they are from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from html import escape

from outpost.drift.alarms import Alarm
from outpost.drift.book import Sketch
from outpost.drift.categorical import Categories
from outpost.drift.compare import common_categories
from outpost.drift.judge import Finding, Limits, least_effect
from outpost.drift.quantiles import Quantiles

_WIDTH, _HEIGHT, _STRIP = 460, 96, 34
# The reference has a column of its own; windows begin right of it.
_REFERENCE_WIDE, _LEFT = 38.0, 46
_SHOWN = 5  # categories with a colour of their own

# Says a word of ours in the language of the page.
Say = Callable[[str], str]
Column = tuple[float, float, Sketch]  # left edge, width, what it shows


def _x(index: float, count: int) -> float:
    """Of the windows; the reference has a column of its own at the left."""
    return _LEFT + (_WIDTH - _LEFT) * index / max(1, count)


def shares(
    before: Categories, sketches: Sequence[Sketch | None], days: Sequence[tuple[date, date]], say: Say
) -> tuple[str, str]:
    """Shares of the most frequent values in each window; the plot and its key."""
    total = Categories()
    for sketch in sketches:
        if isinstance(sketch, Categories):
            total = total.merged(sketch)
    labels, _ = common_categories(before, total)
    named = [label for label in labels if label not in ("other", "missing")][:_SHOWN]
    colours = {label: f"var(--c{place})" for place, label in enumerate(named)}
    order = [*named, "other", "missing"]
    colours |= {"other": "var(--other)", "missing": "var(--missing)"}
    columns: list[Column] = [(0.0, _REFERENCE_WIDE, before), *_columns(sketches)]
    drawn = []
    seen: dict[str, None] = {}
    for left, wide, sketch in columns:
        assert isinstance(sketch, Categories)
        size = max(1, sketch.present + sketch.missing)
        counts = dict.fromkeys(order, 0)
        for count, label in sketch.cells.values():
            counts[label if label in colours else "other"] += count
        counts["missing"] = sketch.missing
        top = float(_HEIGHT)
        for label in order:
            tall = _HEIGHT * counts[label] / size
            if tall > 0:
                seen.setdefault(label)
                top -= tall
                told = f"{_named(label, say)}: {100 * counts[label] / size:.3g} %"
                drawn.append(_rect(left, top, wide, tall, colours[label], told))
    key = "".join(
        f'<span><i class="{_swatch(colours[label])}"></i>{escape(_named(label, say))}</span>'
        for label in order
        if label in seen
    )
    return _plot("".join(drawn), days, say), f'<p class="key">{key}</p>'


def _named(label: str, say: Say) -> str:
    """A value as the sender wrote it; what is none of a sender's in the language of the page."""
    return say(label) if label in ("other", "missing") else label


def _swatch(colour: str) -> str:
    """The class of the style sheet that fills with this colour: a page's policy takes no styles of single elements."""
    return colour.replace("var(--", "in-").rstrip(")")


def _columns(sketches: Sequence[Sketch | None]) -> list[Column]:
    count = len(sketches)
    wide = (_x(1, count) - _x(0, count)) * (0.92 if count < 90 else 1)
    return [
        (_x(index, count), wide, sketch)
        for index, sketch in enumerate(sketches)
        if sketch is not None and sketch.present + sketch.missing
    ]


def band(
    before: Quantiles, sketches: Sequence[Sketch | None], days: Sequence[tuple[date, date]], say: Say
) -> tuple[str, str]:
    """Median and middle 80 % in each window, and how many had no value; the plot and its key."""
    columns: list[Column] = [(0.0, _REFERENCE_WIDE, before), *_columns(sketches)]
    spreads: list[tuple[float, float, list[float], float]] = []
    for left, wide, sketch in columns:
        assert isinstance(sketch, Quantiles)
        found = [sketch.quantile(share) for share in (0.1, 0.5, 0.9)]
        missing = sketch.missing / max(1, sketch.present + sketch.missing)
        spreads.append((left, wide, [value for value in found if value is not None], missing))
    values = [value for _, _, spread, _ in spreads for value in spread]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = low - 1, high + 1

    def y(value: float) -> float:
        return 6 + (_HEIGHT - 12) * (high - value) / (high - low)

    drawn = []
    for place, (left, wide, spread, missing) in enumerate(spreads):
        colour = "var(--then)" if place == 0 else "var(--now)"
        if missing:
            told = say("missing in {} %").format(f"{100 * missing:.3g}")
            drawn.append(_rect(left, 0, wide, _HEIGHT * missing, "var(--missing)", told, 0.55))
        if spread:
            ten, half, ninety = spread
            told = say("median {}, 80 % in {} to {}").format(
                *(f"{value:.4g}" for value in (half, ten, ninety))
            )
            drawn.append(
                _rect(left, y(ninety), wide, max(1.0, y(ten) - y(ninety)), colour, told, 0.38)
                + _rect(left, y(half) - 1, wide, 2, colour, told)
            )
    drawn.append(f'<text x="{_WIDTH}" y="10" text-anchor="end">{high:.4g}</text>')
    drawn.append(f'<text x="{_WIDTH}" y="{_HEIGHT - 3}" text-anchor="end">{low:.4g}</text>')
    key = f'<p class="key"><span><i class="in-now"></i>{say("median and middle 80 %")}</span>'
    if any(missing for *_, missing in spreads):
        key += f'<span><i class="in-missing"></i>{say("share missing, from above")}</span>'
    return _plot("".join(drawn), days, say), f"{key}</p>"


def _plot(drawn: str, days: Sequence[tuple[date, date]], say: Say) -> str:
    count = len(days)
    marks = [0, *(index for index in range(1, count) if days[index][0].year != days[index - 1][0].year)]
    if len(marks) == 1 and count > 1:
        marks.append(count - 1)
    told = [f'<text x="0" y="{_HEIGHT + 13}">{say("reference")}</text>']
    free = 58.0
    for mark in marks:
        x = _x(mark, count)
        if x >= free or mark == 0:
            label = str(days[mark][0].year) if len(marks) > 2 else str(days[mark][0])
            x = min(x if mark else max(x, free), _WIDTH - 7.0 * len(label))
            told.append(f'<text x="{x:.1f}" y="{_HEIGHT + 13}">{label}</text>')
            free = x + 7.0 * len(label)
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 16}" role="img">{drawn}{"".join(told)}</svg>'


def strip(
    findings: Sequence[Sequence[Finding]],
    alarms: Sequence[Alarm],
    days: Sequence[tuple[date, date]],
    limits: Limits,
    say: Say,
) -> str:
    """The effect over time, each aspect a line, with the time of alarms behind it."""
    count = len(days)
    drawn = []
    for alarm in alarms:
        inside = [
            index
            for index, (_, last) in enumerate(days)
            if alarm.raised_on <= last and (alarm.ended_on is None or last < alarm.ended_on)
        ]
        if inside:
            left, right = _x(inside[0], count), _x(inside[-1] + 1, count)
            drawn.append(_rect(left, 0, right - left, _STRIP, "var(--bad)", say(str(alarm)), 0.16))
    lines: dict[str, list[str]] = {}
    least: dict[float, None] = {}
    for index, found in enumerate(findings):
        for finding in found:
            y = _STRIP * (1 - min(1.0, finding.comparison.effect))
            lines.setdefault(finding.aspect, []).append(f"{_x(index + 0.5, count):.1f},{y:.1f}")
            least.setdefault(least_effect(finding, limits))
    for effect in least:
        y = _STRIP * (1 - effect)
        drawn.append(_line(y, 'stroke="var(--soft)" stroke-dasharray="3 3" opacity=".7"'))
    for aspect, points in lines.items():
        dash = ' stroke-dasharray="2 2"' if aspect == "missing" else ""
        drawn.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="var(--bad)" stroke-width="1.6"{dash}/>'
        )
    drawn.append(f'<text x="0" y="{_STRIP - 3}">{say("effect")}</text>')
    drawn.append(_line(_STRIP, 'stroke="var(--line)"'))
    return f'<svg viewBox="0 0 {_WIDTH} {_STRIP + 1}" role="img">{"".join(drawn)}</svg>'


def _rect(
    left: float, top: float, wide: float, tall: float, fill: str, told: str, opacity: float = 1.0
) -> str:
    shown = f' opacity="{opacity:g}"' if opacity < 1 else ""
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{tall:.1f}" fill="{fill}"{shown}>'
        f"<title>{escape(told)}</title></rect>"
    )


def _line(y: float, style: str) -> str:
    return f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" {style}/>'
