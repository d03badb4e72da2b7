"""Vector graphics by hand: scales, ticks, axes and marks as SVG that takes its colours from the page's style sheet.

Charts hold no styles of their own but classes (`c-en`, `c-ar`, ...), so that one drawing follows the light and the dark theme and the
printer; a library's rendering carries fixed colours and fonts, and altair with vl-convert took 2.4 s to its first chart here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from allam.report.words import plain

CHARACTER = 6.4  # mean width in pixels of a character of the charts' 12 px type


@dataclass(frozen=True)
class Scale:
    """A linear map from a domain of values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        span = self.high - self.low
        return self.start + (self.end - self.start) * ((value - self.low) / span if span else 0.5)


@dataclass(frozen=True)
class LogScale(Scale):
    """The same for positive values that span more than one power of ten: equal ratios are equal distances."""

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return Scale(math.log10(self.low), math.log10(self.high), self.start, self.end)(math.log10(value))


@dataclass(frozen=True)
class Key:
    """One entry of a legend: the colour's class, what it stands for, and its shape: `bar`, `line`, `dashed` or `faint`."""

    colour: str
    label: str
    shape: str = "bar"


@dataclass
class Chart:
    """A finished drawing with its legend; the template sets both."""

    svg: Markup
    width: int
    keys: list[Key] = field(default_factory=list)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that lie within the domain."""
    if not high > low:
        return [low]
    rough = (high - low) / max(wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last that is not above the smallest value to the first that is not below the largest."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    marks = [round(m * 10.0 ** e, 12) for e in range(low, high + 1) for m in (1, 2, 5)]
    first = max(m for m in marks if m <= min(values))
    last = min(m for m in marks if m >= max(values))
    return [m for m in marks if first <= m <= last]


def nice_domain(values: Sequence[float], from_zero: bool = False, wanted: int = 5) -> tuple[float, float]:
    """A domain that ends on round numbers and holds all the values."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if low else (0.0, 1.0)
        low = 0.0 if from_zero and low > 0 else low
    for _ in range(3):  # a wider domain may ask for wider steps
        marks = ticks(low, high, wanted)
        step = marks[1] - marks[0] if len(marks) > 1 else high - low
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return low, high


def n(value: float) -> str:
    """A coordinate with a tenth of a pixel: short, and the same on every machine."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def text(x: float, y: float, content: str, classes: str = "", anchor: str = "start", turn: float | None = None) -> str:
    """A text mark; `turn` rotates it about its own anchor, in degrees."""
    rotated = f' transform="rotate({n(turn)} {n(x)} {n(y)})"' if turn is not None else ""
    return f'<text x="{n(x)}" y="{n(y)}" class="{escape(classes)}" text-anchor="{anchor}"{rotated}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    """A straight line."""
    return f'<line x1="{n(x1)}" y1="{n(y1)}" x2="{n(x2)}" y2="{n(y2)}" class="{escape(classes)}"/>'


def rectangle(x: float, y: float, width: float, height: float, classes: str, title: str = "") -> str:
    """A rectangle, with a tooltip where `title` is given."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    return f'<rect x="{n(x)}" y="{n(y)}" width="{n(max(width, 0))}" height="{n(max(height, 0))}" class="{escape(classes)}">{inside}</rect>'


def dot(x: float, y: float, radius: float, classes: str, title: str = "") -> str:
    """A circle, with a tooltip where `title` is given."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    return f'<circle cx="{n(x)}" cy="{n(y)}" r="{n(radius)}" class="{escape(classes)}">{inside}</circle>'


def path(points: Sequence[tuple[float, float]], classes: str) -> str:
    """A line through points given in pixels."""
    if not points:
        return ""
    return f'<path d="M{"L".join(f"{n(x)} {n(y)}" for x, y in points)}" class="{escape(classes)}"/>'


def y_axis(scale: Scale, left: float, right: float, label: str, marks: Sequence[float] | None = None, show: Callable[[float], str] = plain) -> list[str]:
    """Horizontal grid lines, their numbers, and the axis's label with its unit, turned."""
    marks = ticks(scale.low, scale.high) if marks is None else marks
    parts = []
    for value in marks:
        y = scale(value)
        parts += [line(left, y, right, y, "grid"), text(left - 7, y + 4, show(value), "tick", "end")]
    middle = (scale.start + scale.end) / 2
    return [*parts, text(13, middle, label, "label", "middle", turn=-90)] if label else parts


def x_axis(scale: Scale, y: float, label: str, marks: Sequence[float] | None = None, show: Callable[[float], str] = plain) -> list[str]:
    """The base line, short tick lines with their numbers, and the label with its unit below."""
    marks = ticks(scale.low, scale.high) if marks is None else marks
    parts = [line(scale.start, y, scale.end, y, "axis")]
    for value in marks:
        parts += [line(scale(value), y, scale(value), y + 4, "axis"), text(scale(value), y + 18, show(value), "tick", "middle")]
    return [*parts, text((scale.start + scale.end) / 2, y + 37, label, "label", "middle")] if label else parts


def left_margin(scale_low: float, scale_high: float, label: str, show: Callable[[float], str] = plain) -> float:
    """Room for the numbers of a vertical axis and its label."""
    widest = max(len(show(v)) for v in ticks(scale_low, scale_high))
    return 12 + widest * CHARACTER + (18 if label else 0)


def drawing(parts: Sequence[str], width: float, height: float, title: str, keys: Sequence[Key] = ()) -> Chart:
    """Wraps marks into an SVG with a name for those who don't see it."""
    body = "".join(parts)
    head = f'<svg viewBox="0 0 {n(width)} {n(height)}" width="{n(width)}" height="{n(height)}" role="img" aria-label="{escape(title)}">'
    return Chart(Markup(f"{head}{body}</svg>"), round(width), list(keys))


def keep_apart(positions: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """The positions moved as little as needed to lie `distance` apart, in their order, and within the bounds as far as they fit."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed = [0.0] * len(positions)
    previous = -math.inf
    for i in order:
        placed[i] = previous = max(positions[i], previous + distance, low)
    following = math.inf
    for i in reversed(order):
        placed[i] = following = min(placed[i], following - distance, high)
    return placed
