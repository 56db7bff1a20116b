"""The contract every observer keeps; the catalog is the list."""

import inspect

import numpy as np
import pytest
from test_log2_histogram import heavy_tailed, histogram_of

from qtool import catalog
from qtool.calibrate.observe import PACKAGE, Seen, check_columns, kept_for, observe, parse
from qtool.calibrate.observers import entropy
from qtool.calibrate.statistics.inputs import Kept, NothingObserved
from qtool.errors import UnknownName, UsageError
from qtool.records.histogram import empty, merge

NAMES = catalog.names(PACKAGE)
HEADINGS = ("What it does", "When to use it", "What it costs", "When it fails")


def seen_in(*parts: np.ndarray) -> Seen:
    histograms = [histogram_of(part) for part in parts]
    total = empty()
    for histogram in histograms:
        total = merge(total, histogram)
    return Seen(total, tuple((float(part.min()), float(part.max())) for part in parts))


def asymmetric_input() -> np.ndarray:
    return (heavy_tailed(20_000, 4) + 2.0).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_docstring_has_the_four_headings(name: str) -> None:
    text = inspect.cleandoc(catalog.docstring(PACKAGE, name, kind="observer"))
    places = [text.find(f"{heading}: ") for heading in HEADINGS]
    assert places == sorted(places)
    assert places[0] > 0


@pytest.mark.parametrize("form", ["", ":asymmetric"])
@pytest.mark.parametrize("name", NAMES)
def test_low_is_not_above_high_and_zero_is_inside(name: str, form: str) -> None:
    low, high = observe(parse(name + form), seen_in(asymmetric_input()), "layer")
    assert low <= 0.0 <= high
    assert low < high
    assert np.isfinite([low, high]).all()


@pytest.mark.parametrize("name", NAMES)
def test_symmetric_ranges_are_symmetric(name: str) -> None:
    low, high = observe(parse(name), seen_in(asymmetric_input()), "layer")
    assert low == -high


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fixed"])
@pytest.mark.parametrize("value", [0.37, -0.37])
def test_a_constant_input_is_kept(name: str, value: float) -> None:
    low, high = observe(parse(name), seen_in(np.full(1000, value, dtype=np.float32)), "layer")
    # a log2 bin is 1/64 wide; entropy and mse search on a grid that may end at the middle of the bin
    assert high == pytest.approx(0.37, rel=1 / 64)
    assert low == -high


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fixed"])
def test_an_input_of_zeros_has_the_range_zero(name: str) -> None:
    assert observe(parse(name), seen_in(np.zeros(10, dtype=np.float32)), "layer") == (0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_input_has_no_range(name: str) -> None:
    with pytest.raises(NothingObserved, match=r"model\.layer: saw no tokens"):
        observe(parse(name), Seen(empty(), ()), "model.layer")


@pytest.mark.parametrize("form", ["", ":asymmetric"])
@pytest.mark.parametrize("name", NAMES)
def test_merged_parts_give_what_one_pass_gives(name: str, form: str) -> None:
    values = asymmetric_input()
    one_pass = Seen(histogram_of(values), seen_in(values[:7000], values[7000:]).steps)
    merged = seen_in(values[:7000], values[7000:])
    assert observe(parse(name + form), merged, "layer") == observe(parse(name + form), one_pass, "layer")


def test_percentile_counts_magnitudes_or_both_tails() -> None:
    values = heavy_tailed(200_000, 9)
    _, high = observe(parse("percentile:99"), seen_in(values), "layer")
    assert high == pytest.approx(np.quantile(np.abs(values), 0.99), rel=0.011)
    low, high = observe(parse("percentile:99:asymmetric"), seen_in(asymmetric_input()), "layer")
    expected = np.quantile(asymmetric_input(), [0.005, 0.995])
    assert (low, high) == pytest.approx(expected, rel=0.05)


def test_mse_gives_up_outliers_at_few_bits_and_keeps_them_at_many() -> None:
    values = np.append(np.random.default_rng(0).normal(size=100_000), [30.0]).astype(np.float32)
    narrow = observe(parse("mse:4"), seen_in(values), "layer")[1]
    wide = observe(parse("mse:12"), seen_in(values), "layer")[1]
    # for a Gaussian the best 4-bit clip lies near 2.7 standard deviations; the search starts at a tenth of absmax
    assert narrow == pytest.approx(3.0, abs=0.6)
    assert wide > 2 * narrow


def test_mse_finds_the_minimum_that_a_search_over_the_values_finds() -> None:
    values = heavy_tailed(50_000, 2)
    found = observe(parse("mse:6"), seen_in(values), "layer")[1]

    def error(high: float) -> float:
        step = high / 31
        return float(((np.clip(np.round(values / step), -31, 31) * step - values) ** 2).sum())

    candidates = np.linspace(0.1, 1, 181) * np.abs(values).max()
    assert error(found) <= 1.02 * min(map(error, candidates))


def test_entropy_finds_the_least_divergent_of_all_cuts() -> None:
    seen = seen_in(heavy_tailed(50_000, 7))
    largest = seen.histogram.absmax
    linear = entropy._equal_bins(seen.histogram.magnitudes(), largest)

    def divergence(cut: int) -> float:
        kept = linear[:cut].copy()
        spread = np.zeros(cut)
        for level in range(128):
            bins = slice(level * cut // 128, (level + 1) * cut // 128)
            occupied = kept[bins] > 0
            spread[bins][occupied] = kept[bins].sum() / max(occupied.sum(), 1)
        kept[-1] += linear[cut:].sum()
        p, q = kept / kept.sum(), spread / spread.sum()
        both = (p > 0) & (q > 0)
        return float((p[both] * np.log(p[both] / q[both])).sum() + p[(p > 0) & (q == 0)].sum() * np.log(1e6))

    expected = [divergence(cut) for cut in range(128, 2049)]
    np.testing.assert_allclose(entropy._divergences(linear), expected, rtol=1e-9, atol=1e-12)
    assert observe(parse("entropy"), seen, "layer")[1] == largest * (128 + int(np.argmin(expected))) / 2048


def test_groups_of_columns_have_a_range_each() -> None:
    asked = parse("percentile:99.9:group128:asymmetric")
    assert (asked.granularity, asked.columns) == ("group", 128)
    kept = kept_for([parse("mse:group96"), parse("percentile:group64"), parse("absmax:channel"), parse("absmax")])
    assert kept == Kept(column_group=32)  # both sizes are sums of 32 columns; bounds are kept in any case
    assert kept_for([parse("moving_average:channel")]) == Kept(column_steps=True)
    check_columns([parse("absmax:group64")], [("a", 128)])
    with pytest.raises(UsageError, match="b has 96 columns, which is no multiple of 64; use 32 instead"):
        check_columns([parse("absmax:group64")], [("a", 128), ("b", 96)])


def test_moving_average_follows_the_groups_in_order() -> None:
    seen = seen_in(*(np.array([-high, high], dtype=np.float32) for high in (1.0, 2.0, 4.0)))
    assert observe(parse("moving_average:0.5"), seen, "layer")[1] == pytest.approx(2.75)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absmax:3", "takes no number"),
        ("percentile:banana", "no number"),
        ("percentile:101", "between 50 and 100"),
        ("absmax:group", "takes no number"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_a_misspelt_observer_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean percentile"):
        parse("percentil")


def test_the_name_is_kept_and_read() -> None:
    asked = parse("percentile:99.9:token:asymmetric")
    assert (asked.name, asked.number, asked.granularity, asked.symmetric) == ("percentile", 99.9, "token", False)
