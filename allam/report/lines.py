"""Line charts: values over training, stages side by side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from allam.report.svg import (
    CHARACTER,
    Chart,
    Key,
    LogScale,
    Scale,
    dot,
    drawing,
    keep_apart,
    left_margin,
    line,
    log_ticks,
    n,
    nice_domain,
    path,
    text,
    ticks,
    x_axis,
    y_axis,
)
from allam.report.words import compact, plain

Point = tuple[float, float]
MOST_POINTS = 600  # more than the pixels of a chart would make the page heavy and show nothing


@dataclass(frozen=True)
class Line:
    """One series. `faint` draws it as a background of another; `dots` marks each point, with its value as a tooltip."""

    label: str
    colour: str
    points: Sequence[Point]
    faint: bool = False
    dots: bool = False
    dashed: bool = False
    name_at_end: bool = False


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points: of each equal stretch the lowest and the highest, so that spikes stay visible."""
    points = [p for p in points if math.isfinite(p[1])]
    if len(points) <= most:
        return list(points)
    kept: list[Point] = [points[0]]
    bounds = [round(i * len(points) / (most // 2)) for i in range(most // 2 + 1)]
    for start, end in itertools.pairwise(bounds):
        stretch = points[start:end]
        low, high = min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])
        kept += sorted({low, high})
    return [*kept, points[-1]]


def running_mean(points: Sequence[Point], width: int) -> list[Point]:
    """The mean of the last `width` values at each point: what a noisy loss does on the whole."""
    result, total, values = [], 0.0, [p for p in points if math.isfinite(p[1])]
    for i, (x, y) in enumerate(values):
        total += y - (values[i - width][1] if i >= width else 0.0)
        result.append((x, total / min(i + 1, width)))
    return result


def line_chart(lines: Sequence[Line], title: str, x_label: str, y_label: str, width: int = 720, height: int = 300,
               from_zero: bool = False, x_show: Callable[[float], str] = plain) -> Chart:
    """Lines over one linear axis."""
    points = [p for item in lines for p in item.points if math.isfinite(p[1])]
    low, high = nice_domain([y for _, y in points], from_zero)
    left = left_margin(low, high, y_label)
    right = width - 14
    x = Scale(0.0, max((p[0] for p in points), default=1.0) or 1.0, left, right)
    y = Scale(low, high, height - 46, 12)
    whole = all(float(a).is_integer() for a, _ in points)  # there is no step 2.5
    marks = [mark for mark in ticks(x.low, x.high, max(2, int((right - left) / 70))) if not whole or float(mark).is_integer()]
    parts = y_axis(y, left, right, y_label) + x_axis(x, height - 46, x_label, marks, x_show)
    parts += [mark for item in lines for mark in _line(item, x, y)]
    return drawing(parts, width, height, title, _keys(lines))


def _keys(lines: Sequence[Line]) -> list[Key]:
    keys: list[Key] = []
    for item in lines:
        key = Key(item.colour, item.label, "dashed" if item.dashed else "faint" if item.faint else "line")
        if item.label and key not in keys:
            keys.append(key)
    return keys


def _line(item: Line, x: Callable[[float], float], y: Scale) -> list[str]:
    placed = [(x(a), y(b)) for a, b in thinned(item.points)]
    style = f"line {item.colour}" + (" faint" if item.faint else "") + (" dashed" if item.dashed else "")
    parts = [path(placed, style)] if len(placed) > 1 else []
    if item.dots or len(placed) == 1:
        parts += [dot(x(a), y(b), 3.2, f"dot {item.colour}", f"{item.label}: {plain(b)} at {compact(a)}") for a, b in thinned(item.points)]
    return parts


# --- stages side by side on one axis of tokens -----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Span:
    """The part of a training that one stage takes: its name and its tokens, counted from the start of the whole training.

    `begins_with` names what happened to the model just before, at the stage's left border.
    """

    label: str
    start: float
    end: float
    begins_with: str = ""


class TokenAxis:
    """Maps tokens of the whole training to pixels; each stage has a width by its tokens, but never less than `least` of the whole.

    Without a least width, finetuning on a few thousand tokens would vanish beside pretraining on millions.
    """

    def __init__(self, spans: Sequence[Span], start: float, end: float, least: float = 0.13) -> None:
        self.spans = list(spans)
        total = sum(s.end - s.start for s in spans) or 1.0
        shares = [max((s.end - s.start) / total, least) for s in spans]
        narrow = sum(least for s in shares if s <= least)
        wide = sum(s for s in shares if s > least) or 1.0
        shares = [least if s <= least else s / wide * (1 - narrow) for s in shares]
        scale = (end - start) / (sum(shares) or 1.0)
        edges = [start]
        for share in shares:
            edges.append(edges[-1] + share * scale)
        self.edges = edges

    def at(self, stage: int, tokens: float) -> float:
        """The pixel of a number of tokens within the stage of this number."""
        span = self.spans[stage]
        return Scale(span.start, span.end, self.edges[stage], self.edges[stage + 1])(min(max(tokens, span.start), span.end))


def staged_chart(spans: Sequence[Span], lines: Sequence[Sequence[Line]], title: str, y_label: str, width: int = 760, height: int = 360,
                 linear: bool = False) -> Chart:
    """Lines over the whole training: `lines[i]` belong to the stage `spans[i]`. The last points are named at their ends.

    Where the values span more than a factor of ten, as Arabic's do before the model knows any, the vertical axis is logarithmic and says so, unless `linear`.
    """
    values = [p[1] for stage in lines for item in stage for p in item.points]
    logarithmic = not linear and bool(values) and min(values) > 0 and max(values) > 10 * min(values)
    low, high = nice_domain(values, wanted=6)
    marks = None
    if logarithmic:
        marks = log_ticks(values)
        low, high, y_label = marks[0], marks[-1], f"{y_label} (logarithmic)"
    left, top, bottom = left_margin(low, high, y_label), 30, height - 48
    named = [item for stage in lines for item in stage if item.name_at_end]
    right = width - 16 - max((len(item.label) * CHARACTER for item in named), default=0)
    axis, y = TokenAxis(spans, left, right), (LogScale if logarithmic else Scale)(low, high, bottom, top)
    parts = [_band(axis, i, top, bottom) for i in range(len(spans))]
    parts += y_axis(y, left, right, y_label, marks) + _token_ticks(axis, bottom) + [_event(axis, i, top, bottom) for i in range(len(spans))]
    parts.append(text((left + right) / 2, bottom + 40, "tokens seen since the start of training", "label", "middle"))
    parts += [mark for i, stage in enumerate(lines) for item in stage for mark in _line(item, partial(axis.at, i), y)]
    ends = keep_apart([y(item.points[-1][1]) for item in named], 15, top + 4, bottom)
    parts += [text(right + 9, at + 4, item.label, f"end {item.colour}") for at, item in zip(ends, named, strict=True)]
    return drawing(parts, width, height, title, _keys([item for stage in lines for item in stage]))


def _band(axis: TokenAxis, i: int, top: float, bottom: float) -> str:
    """The background of a stage with its name above; every second one is shaded."""
    start, end = axis.edges[i], axis.edges[i + 1]
    shade = f'<rect x="{n(start)}" y="{n(top)}" width="{n(end - start)}" height="{n(bottom - top)}" class="band"/>' if i % 2 == 0 else ""
    return shade + text((start + end) / 2, top - 10, axis.spans[i].label, "stage", "middle")


def _event(axis: TokenAxis, i: int, top: float, bottom: float) -> str:
    """What happened to the model before this stage, at its left border; the words stand on the side where there is more room."""
    start, event = axis.edges[i], axis.spans[i].begins_with
    if not event:
        return ""
    leftwards = start - axis.edges[0] > axis.edges[-1] - start
    return line(start, top, start, bottom, "threshold") + text(start + (-6 if leftwards else 6), top + 14, event, "tick", "end" if leftwards else "start")


def _token_ticks(axis: TokenAxis, bottom: float) -> list[str]:
    """Ticks inside each stage as its width allows, and one at each border; numbers that would touch are left out."""
    parts = [line(axis.edges[0], bottom, axis.edges[-1], bottom, "axis")]
    taken: list[float] = []
    for edge in axis.edges:
        parts.append(line(edge, bottom, edge, bottom + 6, "axis"))
    borders = [axis.spans[0].start, *(s.end for s in axis.spans)] if axis.spans else []
    for edge, tokens in zip(axis.edges, borders, strict=False):
        if not taken or edge - taken[-1] > 46:
            parts.append(text(edge, bottom + 20, compact(tokens), "tick", "middle"))
            taken.append(edge)
    for i, span in enumerate(axis.spans):
        for value in ticks(span.start, span.end, max(1, int((axis.edges[i + 1] - axis.edges[i]) / 70))):
            at = axis.at(i, value)
            if all(abs(at - other) > 46 for other in taken):
                parts += [line(at, bottom, at, bottom + 4, "axis"), text(at, bottom + 20, compact(value), "tick", "middle")]
                taken.append(at)
    return parts
