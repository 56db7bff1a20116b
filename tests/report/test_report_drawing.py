"""Numbers, axes and labels of the report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtool.records.evaluation import Interval, Score
from qtool.records.latency import Quantile
from qtool.report.drawing.axis_scale import Axis, share_bend
from qtool.report.texts.numbers import (
    bytes_text,
    dollars_text,
    large_text,
    ms_text,
    quantile_text,
    seconds_text,
    signed,
    value_text,
)


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


@given(st.floats(-2000, -1.6), st.floats(0.5, 30), st.floats(-3000, 100))
def test_an_axis_keeps_every_value_inside(low, high, value):
    axis = Axis(low, high, 400, 20, share_bend)
    assert 20 <= axis.at(value) <= 400
    assert axis.at(low) == 400
    assert axis.at(high) == 20


@pytest.mark.parametrize(
    ("value", "text"), [(0, "$0"), (0.00312, "$0.0031"), (0.5, "$0.50"), (4.2, "$4.20"), (1234.4, "$1,234")]
)
def test_dollars_keep_two_digits(value, text):
    assert dollars_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(12.4, "12.4 s"), (200, "3 min 20 s"), (0.314, "0.314 s")])
def test_seconds(value, text):
    assert seconds_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(12, "12"), (340_000, "340 thousand"), (2.28e6, "2.28 million")])
def test_large_counts_are_read_at_a_glance(value, text):
    assert large_text(value) == text
