"""The charts' arithmetic: round axes, series that keep their spikes, labels that don't touch."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from allam.report.bars import Bar, grouped_bars, histogram, intervals, stacked_shares
from allam.report.lines import Line, Span, TokenAxis, line_chart, running_mean, staged_chart, thinned
from allam.report.svg import Key, LogScale, keep_apart, log_ticks, nice_domain, ticks
from allam.report.words import change, compact, count, direction, duration, is_arabic, isolated, percent, shortened, size

NUMBERS = st.floats(-1e9, 1e9, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-6)


def test_ticks_are_round_and_lie_within_the_domain() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1.2, 6.9, 4) == [2, 4, 6]
    assert ticks(3, 3) == [3]


@given(st.lists(NUMBERS, min_size=1))
def test_a_domain_holds_all_values_and_ends_on_ticks(values: list[float]) -> None:
    low, high = nice_domain(values)
    room = (high - low) * 1e-6
    assert low - room <= min(values) <= max(values) <= high + room
    assert low < high


@given(st.lists(st.floats(0, 300), min_size=1, max_size=15))
def test_labels_kept_apart_never_touch(positions: list[float]) -> None:
    placed = sorted(keep_apart(positions, 15, 0, 300))
    assert all(b - a >= 15 - 1e-6 for a, b in itertools.pairwise(placed))
    assert placed[-1] <= 300


def test_a_thinned_series_keeps_its_spikes_and_its_ends() -> None:
    points = [(float(i), 1.0) for i in range(10_000)]
    points[7777] = (7777.0, 50.0)
    kept = thinned(points, 100)
    assert len(kept) <= 202
    assert (7777.0, 50.0) in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_a_running_mean_looks_back_only() -> None:
    assert running_mean([(0, 2.0), (1, 4.0), (2, 6.0)], 2) == [(0, 2.0), (1, 3.0), (2, 5.0)]


def test_a_value_that_is_no_number_is_left_out_of_a_line() -> None:
    chart = line_chart([Line("loss", "c-all", [(0, 1.0), (1, float("nan")), (2, 3.0)])], "t", "step", "loss")
    assert "nan" not in chart.svg


def test_a_short_stage_keeps_a_width_that_can_be_seen() -> None:
    axis = TokenAxis([Span("a", 0, 1e9), Span("b", 1e9, 1e9 + 1000)], 0, 1000)
    widths = [b - a for a, b in zip(axis.edges, axis.edges[1:], strict=False)]
    assert widths[1] >= 110
    assert abs(sum(widths) - 1000) < 1e-6
    assert axis.at(1, 1e9 + 500) == (axis.edges[1] + axis.edges[2]) / 2


def test_the_numbers_of_the_token_axis_do_not_touch() -> None:
    spans, at = [], 0.0
    for name, tokens in (("pretraining", 2.4e6), ("continued", 2.4e6), ("SFT", 9e4), ("DPO", 6e4)):
        spans.append(Span(name, at, at + tokens))
        at += tokens
    chart = staged_chart(spans, [[Line("English", "c-en", [(s.start, 2.0), (s.end, 1.0)])] for s in spans], "t", "bits per byte")
    places = sorted(float(x) for x in re.findall(r'<text x="([\d.]+)" y="332" class="tick"', chart.svg))
    assert len(places) >= 4
    assert all(b - a > 46 for a, b in itertools.pairwise(places))


def test_each_chart_has_labelled_axes_and_a_name_for_those_who_do_not_see_it() -> None:
    charts = [line_chart([Line("a", "c-en", [(0, 1), (1, 2)])], "name", "across", "up"),
              grouped_bars(["g"], [Key("c-en", "s")], {("g", "s"): Bar(0.5, 0.1, 0.25)}, "name", "up"),
              histogram({"English": [1, 2]}, {"English": "c-en"}, [0, 1, 2], "name", "across", [1])]
    for chart in charts:
        assert 'role="img" aria-label="name"' in chart.svg
        assert ">up</text>" in chart.svg or ">share of documents</text>" in chart.svg
    for chart in (charts[0], charts[2], intervals([("m", 1000, 990, 1010)], "c-en", "name", "across"),
                  stacked_shares(["r"], [Key("k1", "spam")], {("r", "spam"): 3}, {"r": 30}, {"r": "90 % kept"}, "name", "across")):
        assert ">across</text>" in chart.svg


def test_charts_hold_no_style_of_their_own() -> None:
    chart = line_chart([Line("a", "c-en", [(0, 1), (1, 2)])], "t", "x", "y")
    assert "style=" not in chart.svg
    assert "fill=" not in chart.svg


def test_numbers_are_said_with_sensible_precision() -> None:
    assert [count(12345.2), count(None), compact(1_843_200), compact(56_320), compact(999)] == ["12,345", "–", "1.84\u202fM", "56.3\u202fk", "999"]
    assert [percent(0.123), change(0.031), change(-0.5)] == ["12.3\u202f%", "+3.1\u202f%", "−50.0\u202f%"]
    assert [duration(4.21), duration(192), duration(3 * 3600 + 240)] == ["4.2 s", "3 min 12 s", "3 h 04 min"]
    assert [size(20), size(999.6), size(1536), size(999_600), size(1.08e9), size(2.5e15)] == ["20 B", "1 kB", "1.54 kB", "1 MB", "1.08 GB", "2,500 TB"]


def test_a_text_is_arabic_where_a_third_of_its_letters_are() -> None:
    assert is_arabic("العدد الذري لعنصر Helium هو 2")
    assert not is_arabic("The capital of Oman is Muscat (مسقط), on the coast")
    assert not is_arabic("2 + 2 = 4")
    assert not is_arabic("")
    assert direction("مرحبا") == 'lang="ar" dir="rtl"'
    assert isolated("<b>") == '<bdi lang="en" dir="ltr">&lt;b&gt;</bdi>'


def test_a_long_text_is_cut_at_a_space() -> None:
    assert shortened("one two three", 9) == "one two …"
    assert shortened(" short ") == "short"


def test_an_axis_of_steps_shows_whole_steps_only() -> None:
    chart = line_chart([Line("loss", "c-all", [(1, 0.7), (2, 0.6)])], "t", "optimizer step", "loss")
    assert re.findall(r'text-anchor="middle">([\d.]+)</text>', chart.svg) == ["0", "1", "2"]


def test_values_that_span_more_than_a_power_of_ten_stand_on_a_logarithmic_axis_that_says_so():
    spans = [Span("pretraining", 0, 100)]
    wide = staged_chart(spans, [[Line("Arabic", "c-ar", [(0, 18.0), (50, 3.0), (100, 0.4)])]], "t", "bits per byte").svg
    narrow = staged_chart(spans, [[Line("Arabic", "c-ar", [(0, 3.0), (100, 1.0)])]], "t", "bits per byte").svg
    assert "logarithmic" in wide
    assert "logarithmic" not in narrow
    assert log_ticks([0.4, 18.0]) == [0.2, 0.5, 1, 2, 5, 10, 20]
    scale = LogScale(0.2, 20, 300, 0)
    assert scale(0.2) == 300
    assert abs(scale(2) - 150) < 1e-9
