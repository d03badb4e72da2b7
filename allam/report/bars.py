"""Bar charts: grouped bars, shares stacked to a whole, histograms, and ratings with their intervals."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from allam.report.svg import CHARACTER, Chart, Key, Scale, dot, drawing, left_margin, line, nice_domain, path, rectangle, text, ticks, x_axis, y_axis
from allam.report.words import percent, plain


@dataclass(frozen=True)
class Bar:
    """One bar: its value, half the width of its error bar, and the value of pure chance, each None where there is none."""

    value: float | None
    error: float | None = None
    chance: float | None = None


def grouped_bars(groups: Sequence[str], series: Sequence[Key], bars: Mapping[tuple[str, str], Bar], title: str, y_label: str, *,
                 show: Callable[[float], str] = plain, axis_show: Callable[[float], str] = plain, top: float | None = None,
                 width: int = 720, height: int = 300) -> Chart:
    """Upright bars, `bars[group, series label]`, with error bars, chance as a dotted line across a group, and values above where they fit."""
    highest = max([b.value + (b.error or 0) for b in bars.values() if b.value is not None] or [1.0])
    low, high = (0.0, top) if top is not None else nice_domain([0.0, highest * 1.06], from_zero=True)
    left, right = left_margin(low, high, y_label, axis_show), width - 10.0
    y = Scale(low, high, height - 34, 18)
    parts = [*y_axis(y, left, right, y_label, show=axis_show), line(left, y.start, right, y.start, "axis")]
    room = (right - left) / max(len(groups), 1)
    thick = min(46.0, room * 0.82 / max(len(series), 1))
    values: list[str] = []  # above all lines
    for g, group in enumerate(groups):
        start = left + room * g + (room - thick * len(series)) / 2
        parts.append(text(left + room * (g + 0.5), y.start + 19, group, "tick strong", "middle"))
        for s, key in enumerate(series):
            bar = bars.get((group, key.label), Bar(None))
            marks, value = _bar(bar, start + thick * s, thick, y, key, group, show)
            parts += marks
            values += value
        chances = [b.chance for k in series if (b := bars.get((group, k.label))) is not None and b.chance is not None]
        if chances and chances[0] > low:
            parts.append(line(start - 5, y(chances[0]), start + thick * len(series) + 5, y(chances[0]), "chance"))
    return drawing(parts + values, width, height, title, series)


def _bar(bar: Bar, x: float, thick: float, y: Scale, key: Key, group: str, show: Callable[[float], str]) -> tuple[list[str], list[str]]:
    """The marks of a bar, and its value where that fits."""
    middle = x + thick / 2
    if bar.value is None:
        return [], [text(middle, y.start - 5, "–", "value", "middle")]
    said = show(bar.value)
    parts = [rectangle(x + 1, y(bar.value), thick - 2, y.start - y(bar.value), f"bar {key.colour}", f"{key.label}, {group}: {said}")]
    above = y(bar.value)
    if bar.error:
        above = y(bar.value + bar.error)
        parts += [line(middle, above, middle, y(max(bar.value - bar.error, 0)), "error"), line(middle - 3, above, middle + 3, above, "error"),
                  line(middle - 3, y(max(bar.value - bar.error, 0)), middle + 3, y(max(bar.value - bar.error, 0)), "error")]
    return parts, [text(middle, above - 5, said, "value", "middle")] if len(said) * CHARACTER * 0.92 <= thick + 6 else []


def stacked_shares(rows: Sequence[str], series: Sequence[Key], values: Mapping[tuple[str, str], float], wholes: Mapping[str, float],
                   notes: Mapping[str, str], title: str, x_label: str, width: int = 780) -> Chart:
    """One horizontal bar a row: its parts, `values[row, series label]`, as shares of the row's whole; a note stands at the right of each row."""
    left = 14 + max((len(row) for row in rows), default=0) * CHARACTER
    high, right = 25.0, width - 24.0 - max((len(note) for note in notes.values()), default=0) * CHARACTER
    bottom = 8 + high * len(rows)
    sums = [sum(values.get((row, key.label), 0) for key in series) / (wholes[row] or 1) for row in rows]
    x = Scale(0, nice_domain([0.0, *sums], from_zero=True)[1], left, right)
    marks = ticks(x.low, x.high)
    digits = 0 if all(abs(100 * m - round(100 * m)) < 1e-9 for m in marks) else 1
    parts = [line(x(mark), 4, x(mark), bottom, "grid") for mark in marks]
    for r, row in enumerate(rows):
        at, top = 0.0, 8 + high * r
        parts += [text(left - 9, top + 16, row, "tick strong", "end"), text(width - 6, top + 16, notes.get(row, ""), "tick", "end")]
        for key in series:
            share = values.get((row, key.label), 0) / (wholes[row] or 1)
            if share:
                said = f"{row}, {key.label}: {values[row, key.label]:,.0f} ({percent(share, 2)})"
                parts.append(rectangle(x(at), top + 3, x(at + share) - x(at), high - 6, f"bar {key.colour}", said))
                at += share
    parts += x_axis(x, bottom, x_label, marks, lambda v: percent(v, digits))
    return drawing(parts, width, bottom + 44, title, series)


def histogram(series: Mapping[str, Sequence[float]], colours: Mapping[str, str], edges: Sequence[float], title: str, x_label: str,
              limits: Sequence[float] = (), width: int = 430, height: int = 220) -> Chart:
    """Outlines of histograms over the same bins, each as shares of its own total; dashed lines are limits.

    All bins are equally wide on the page, whatever they span: lengths and language scores need fine bins at one end only.
    """
    shares = {name: [c / (sum(counts) or 1) for c in counts] for name, counts in series.items()}
    low, high = nice_domain([0.0, *(v for values in shares.values() for v in values)], from_zero=True, wanted=4)
    left, bottom = left_margin(low, high, "share", _whole_percent), height - 46
    x, y = Scale(0, len(edges) - 1, left, width - 18), Scale(low, high, bottom, 28)
    parts = y_axis(y, left, width - 18, "share of documents", ticks(low, high, 4), _whole_percent)
    for name, values in shares.items():
        corners = [(x(0), y(0))]
        for i, value in enumerate(values):
            corners += [(x(i), y(value)), (x(i + 1), y(value))]
        corners.append((x(len(values)), y(0)))
        parts += [path(corners, f"area {colours[name]}"), path(corners, f"line {colours[name]}")]
    for value in limits:
        at = x(_position(edges, value))
        near_end = at > (left + width) / 2
        parts += [line(at, 10, at, bottom, "threshold"),
                  text(at + (-5 if near_end else 5), 19, f"limit {plain(value)}", "tick", "end" if near_end else "start")]
    numbers = ticks_of_bins(edges, int((width - left) / 44))
    parts += x_axis(x, bottom, x_label, numbers, lambda i: plain(edges[round(i)]))
    return drawing(parts, width, height, title, [Key(colours[name], name) for name in series])


def _whole_percent(value: float) -> str:
    return percent(value, 0)


def _position(edges: Sequence[float], value: float) -> float:
    """Where a value lies among the bins, in bins from the left."""
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        if value <= high:
            return i + max(value - low, 0.0) / (high - low)
    return len(edges) - 1.0


def ticks_of_bins(edges: Sequence[float], most: int) -> list[float]:
    """The numbers of the bins' borders to label: every so many, and always the last."""
    every = -(-(len(edges) - 1) // max(most, 1))
    found = [float(i) for i in range(0, len(edges) - 1, every)]
    if found and len(edges) - 1 - found[-1] < every * 0.75:
        found.pop()
    return [*found, float(len(edges) - 1)]


def intervals(rows: Sequence[tuple[str, float, float, float]], colour: str, title: str, x_label: str, width: int = 460) -> Chart:
    """A dot with its interval a row: (label, value, low, high)."""
    low, high = nice_domain([v for _, *values in rows for v in values])
    left = 14 + max(len(label) for label, *_ in rows) * CHARACTER
    step = 32.0
    bottom = 10 + step * len(rows)
    x = Scale(low, high, left, width - 20)
    parts = [line(x(mark), 6, x(mark), bottom, "grid") for mark in ticks(low, high)]
    for r, (label, value, least, most) in enumerate(rows):
        y = 8 + step * (r + 0.5)
        parts += [text(left - 9, y + 4, label, "tick strong", "end"), line(x(least), y, x(most), y, f"line {colour}"),
                  line(x(least), y - 5, x(least), y + 5, f"line {colour}"), line(x(most), y - 5, x(most), y + 5, f"line {colour}"),
                  dot(x(value), y, 4.5, f"dot {colour}", f"{label}: {value:.1f} ({least:.1f} to {most:.1f})")]
    parts += x_axis(x, bottom, x_label)
    return drawing(parts, width, bottom + 46, title)
