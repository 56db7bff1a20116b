"""Numbers as people read them: percent, points, bytes and milliseconds, each with its interval."""

import math

from qtool.records.evaluation import Comparison, Interval, Score
from qtool.records.latency import LatencyProfile, LoadLevel, Quantile
from qtool.records.quantile_rule import samples_needed

_UNITS = ("B", "KB", "MB", "GB", "TB")


def value_text(score: Score) -> str:
    """The value of a score: `93.4 %` for fractions, four significant digits otherwise."""
    return f"{100 * score.value:.1f} %" if score.is_fraction else f"{score.value:.4g}"


def score_text(score: Score) -> str:
    """`93.4 % [91.0, 95.2], n 500`."""
    return f"{value_text(score)} {span_text(score)}"


def span_text(score: Score) -> str:
    """The interval and n that belong to a score: `[91.0, 95.2], n 500`."""
    if score.is_fraction:
        return f"[{100 * score.interval.low:.1f}, {100 * score.interval.high:.1f}], n {score.items:,}"
    return f"[{score.interval.low:.4g}, {score.interval.high:.4g}], n {score.items:,}"


def difference_text(comparison: Comparison, score: Score) -> str:
    """`−0.4 points [−1.2, +0.4]`, in nats a token for perplexity; more is better."""
    if score.is_fraction:
        return f"{signed(100 * comparison.difference)} {interval_text(comparison.interval, 100)}"
    return f"{signed(comparison.difference, 3)} nats {interval_text(comparison.interval, 1, 3)}"


def margin_text(comparison: Comparison, score: Score) -> str:
    """`1 point`, or nats a token for perplexity."""
    if not score.is_fraction:
        return f"{comparison.margin:.3g} nats"
    points = 100 * comparison.margin
    return f"{points:.3g} point{'' if points == 1 else 's'}"


def signed(value: float, digits: int = 1) -> str:
    """A value with its sign, minus as a true minus, and no sign on zero."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def interval_text(interval: Interval, factor: float = 1, digits: int = 1) -> str:
    """`[−1.2, +0.4]`, each end multiplied by `factor`."""
    return f"[{signed(factor * interval.low, digits)}, {signed(factor * interval.high, digits)}]"


def bytes_text(count: float) -> str:
    """A size in decimal units: `1.9 MB`."""
    size = float(count)
    for unit in _UNITS[:-1]:
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} {_UNITS[-1]}"


def ms_text(value: float) -> str:
    """Milliseconds with three significant digits."""
    if value >= 99.95:
        return f"{value:,.0f} ms"
    return f"{value:.3g} ms"


def item_ms_text(value: float | None, q: float) -> str:
    """Milliseconds an item, or how many items quantile `q` takes."""
    return f"needs n {samples_needed(q)}" if value is None else ms_text(value)


def quantile_text(quantile: Quantile | None) -> str:
    """`12.1 ms [11.8, 12.6], n 24`, or why there is no value."""
    if quantile is None:
        return "not measured"
    if quantile.value_ms is None:
        return f"needs n {quantile.samples_needed}, has {quantile.samples}"
    return f"{ms_text(quantile.value_ms)}{',' if quantile.interval is None else ''} {short_quantile(quantile)}"


def short_quantile(quantile: Quantile) -> str:
    """What belongs to a quantile's value: `[11.8, 12.6], n 24`."""
    count = f"n {quantile.samples}"
    if quantile.interval is None:
        return count
    return f"[{bare_ms(quantile.interval.low)}, {bare_ms(quantile.interval.high)}], {count}"


def quantile(quantiles: tuple[Quantile, ...], q: float) -> Quantile | None:
    """The entry for quantile `q`, if it was asked for."""
    return next((entry for entry in quantiles if abs(entry.q - q) < 1e-9), None)


def lowest_level(profile: LatencyProfile | None) -> LoadLevel | None:
    """The load level with the fewest requests in flight."""
    if profile is None or not profile.levels:
        return None
    return min(profile.levels, key=lambda level: level.concurrency)


def median(profile: LatencyProfile | None) -> Quantile | None:
    """Median end-to-end time at the lowest load, where it was measured."""
    level = lowest_level(profile)
    found = quantile(level.e2e, 0.5) if level is not None else None
    return found if found is not None and found.value_ms is not None else None


def speed_span(base: LatencyProfile | None, profile: LatencyProfile | None) -> Interval | None:
    """What the intervals of both medians allow for the ratio base / variant: a careful interval for the speedup."""
    before, after = median(base), median(profile)
    if before is None or after is None or before.interval is None or after.interval is None:
        return None
    return Interval(before.interval.low / after.interval.high, before.interval.high / after.interval.low)


def count_text(count: int, singular: str, plural: str | None = None) -> str:
    """`1 item`, `2 items`."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def bare_ms(value: float) -> str:
    """Milliseconds without their unit, where it stands beside."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def dollars_text(value: float) -> str:
    """Dollars with two significant digits below ten: `$0.0031`, `$4.20`, `$1,234`."""
    if value == 0:
        return "$0"
    if value >= 100:
        return f"${value:,.0f}"
    if value >= 1:
        return f"${value:,.2f}"
    digits = 1 - math.floor(math.log10(value))
    return f"${value:.{digits}f}"


def seconds_text(value: float) -> str:
    """`0.31 s`, `12.4 s`, `3 min 20 s`."""
    if value >= 120:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{value:.3g} s"


def large_text(value: float) -> str:
    """`1.2 million`, `340 thousand`, `12`."""
    for size, word in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:.3g}"


def date_text(moment: str) -> str:
    """`2026-11-28 14:03 UTC` of an ISO time."""
    return f"{moment[:10]} {moment[11:16]} UTC"
