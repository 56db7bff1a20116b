"""Numbers, axes and labels of the report."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qtool.records.evaluation import Interval, Score
from qtool.records.latency import Quantile
from qtool.report.drawing.axis_scale import Axis, padded, round_ticks, share_bend, share_ticks
from qtool.report.drawing.labels import Box, place_label
from qtool.report.texts.numbers import bytes_text, ms_text, quantile_text, signed, value_text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 KB"), (999_499, "999 KB"), (999_600, "1 MB"), (2e13, "20 TB")],
)
def test_bytes(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0.0"), (0.04, "0.0"), (-0.06, "−0.1"), (3.0, "+3.0")])
def test_zero_has_no_sign_and_minus_is_a_minus(value, text):
    assert signed(value) == text


def test_percent_only_for_fractions():
    assert value_text(Score("exact", 0.934, Interval(0.9, 0.95), 500, "fraction")) == "93.4 %"
    assert value_text(Score("words_per_surprise", 7.4449, Interval(7, 8), 500, "perplexity")) == "7.445"
    assert value_text(Score("perplexity", 7.4449, Interval(7, 8), 500)) == "7.445", "written before units were stored"
    assert value_text(Score("klondike", 0.934, Interval(0.9, 0.95), 500, "fraction")) == "93.4 %", "a name is no unit"


def test_a_quantile_without_enough_samples_is_refused():
    assert quantile_text(Quantile(0.99, None, None, 24, 299)) == "needs n 299, has 24"
    assert ms_text(1234.4) == "1,234 ms"


@given(st.floats(0.001, 1e6), st.floats(1.001, 1e4))
def test_ticks_are_inside_and_few(low, factor):
    ticks = round_ticks(low, low * factor, 6)
    assert 1 <= len(ticks) <= 13
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)


@example([5e-324])
@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=8))
def test_padded_range_holds_all_values(values):
    low, high = padded(values)
    assert low <= min(values)
    assert max(values) <= high
    assert low < high


@given(st.floats(-2000, -1.6), st.floats(0.5, 30))
def test_zero_and_margin_are_always_labelled_and_ticks_keep_apart(low, high):
    axis = Axis(low, high, 400, 20, share_bend)
    ticks = share_ticks(axis, apart=12)
    assert 0 in ticks
    places = [axis.at(tick) for tick in ticks]
    assert all(first - second >= 12 for first, second in itertools.pairwise(places))


def test_a_label_avoids_its_neighbour():
    frame = Box(0, 0, 700, 400)
    neighbour = Box(330, 180, 420, 220)
    label = place_label("w8a16 · 960 KB", 300, 200, 15, obstacles=[neighbour], frame=frame)
    assert label.box.overlap(neighbour) == 0
    assert label.box.overlap(frame) == pytest.approx(label.box.area)
