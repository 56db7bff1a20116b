"""Time to answer and throughput as more requests are in flight, and where one variant overtakes another."""

import itertools
from collections.abc import Iterator, Sequence

from qtool.records.latency import LatencyProfile, LoadLevel
from qtool.records.report import Report
from qtool.report.plots.plot import Plot, Spec, amount, by_variant, told, whole
from qtool.report.texts.numbers import ms_text, quantile, quantile_text

_HEIGHT = 300
_TELLING = 0.02  # throughput closer than this is called equal: no interval is recorded for it


def latency(report: Report) -> Plot | None:
    """End-to-end time [y] against requests in flight [x]; a line a variant, p95 dashed."""
    profiles = _profiles(report)
    points = [point for profile in profiles for level in profile.levels for point in _times(profile, level)]
    if not points:
        return None
    drawn = ("in_flight", "requests in flight"), ("ms", "time of a request, ms")
    dash = {"field": "measure", "type": "nominal", "legend": {"title": None}, "sort": ["p50", "p95"]}
    spec = _lines(points, *drawn, [profile.variant for profile in profiles], strokeDash=dash)
    rows = tuple(
        (profile.variant, str(level.concurrency), *(quantile_text(quantile(level.e2e, q)) for q in (0.5, 0.95)))
        for profile in profiles
        for level in profile.levels
    )
    return Plot(
        kind="latency",
        title="Time to answer under load",
        caption="The median (p50) and the time that 95 % of requests stay below (p95); the band is the "
        "distribution-free 95 % interval of the median. A quantile is left out where the sample is too small for it.",
        alt=f"Line plot of end-to-end time over requests in flight for {_names(profiles)}; numbers in the table.",
        spec=spec,
        head=("variant", "in flight", "median", "p95"),
        rows=rows,
    )


def throughput(report: Report) -> Plot | None:
    """Output tokens a second [y] against requests in flight [x]; a line a variant."""
    profiles = [profile for profile in _profiles(report) if len(profile.levels) > 1]
    if not profiles:
        return None
    points = [_rate(profile, level) for profile in profiles for level in profile.levels]
    drawn = ("in_flight", "requests in flight"), ("rate", "output tokens a second")
    crossed = crossovers(report)
    return Plot(
        kind="throughput",
        title="Throughput under load",
        caption=" ".join(f"{sentence}." for sentence in crossed) + " No interval is recorded for throughput: read "
        "differences of a few percent as noise.",
        alt=f"Line plot of output tokens a second over requests in flight for {_names(profiles)}. "
        + ". ".join(crossed),
        spec=_lines(points, *drawn, [profile.variant for profile in profiles]),
        head=("variant", "in flight", "tokens a second", "requests a second"),
        rows=tuple(
            (profile.variant, str(level.concurrency), f"{level.output_tokens_per_second:,.0f}",
             f"{level.requests_per_second:.3g}")
            for profile in profiles
            for level in profile.levels
        ),
    )  # fmt: skip


def crossovers(report: Report) -> tuple[str, ...]:
    """For each variant, between which loads it stops, or begins, to answer more tokens a second than the baseline."""
    profiles = {profile.variant: profile for profile in _profiles(report)}
    base = profiles.pop(report.baseline, None)
    if base is None:
        return ()
    return tuple(text for profile in profiles.values() if (text := _crossing(base, profile)))


def _crossing(base: LatencyProfile, other: LatencyProfile) -> str:
    rates = {level.concurrency: level.output_tokens_per_second for level in base.levels}
    ratios = sorted(
        (level.concurrency, level.output_tokens_per_second / rates[level.concurrency])
        for level in other.levels
        if rates.get(level.concurrency)
    )
    signs = [(load, 1 if ratio > 1 + _TELLING else -1 if ratio < 1 - _TELLING else 0) for load, ratio in ratios]
    for (before, was), (after, now) in itertools.pairwise(signs):
        if was > 0 > now:
            return f"{other.variant} is ahead of {base.variant} up to {before} and behind from {after} in flight"
        if was < 0 < now:
            return f"{other.variant} is behind {base.variant} up to {before} and ahead from {after} in flight"
    return ""


def _profiles(report: Report) -> list[LatencyProfile]:
    return [row.latency for row in report.rows if row.latency is not None and row.latency.levels]


def _names(profiles: Sequence[LatencyProfile]) -> str:
    return ", ".join(profile.variant for profile in profiles)


def _times(profile: LatencyProfile, level: LoadLevel) -> Iterator[dict[str, object]]:
    for q in (0.5, 0.95):
        found = quantile(level.e2e, q)
        if found is None or found.value_ms is None:
            continue
        measure = f"p{100 * q:g}"
        span = found.interval if q == 0.5 else None
        yield {
            "variant": profile.variant,
            "in_flight": level.concurrency,
            "measure": measure,
            "ms": found.value_ms,
            "low": span.low if span else found.value_ms,
            "high": span.high if span else found.value_ms,
            "about": f"{profile.variant}, {level.concurrency} in flight: {measure} {ms_text(found.value_ms)}, "
            f"n {found.samples}",
        }


def _rate(profile: LatencyProfile, level: LoadLevel) -> dict[str, object]:
    rate = level.output_tokens_per_second
    return {
        "variant": profile.variant,
        "in_flight": level.concurrency,
        "rate": rate,
        "low": rate,
        "high": rate,
        "about": f"{profile.variant}, {level.concurrency} in flight: {rate:,.0f} tokens a second",
    }


def _lines(
    points: Sequence[dict[str, object]],
    across: tuple[str, str],
    up: tuple[str, str],
    names: Sequence[str],
    **more: Spec,
) -> Spec:
    loads = sorted({int(str(point[across[0]])) for point in points})
    x = {**amount(*across, values=loads, grid=False), "scale": {"type": "log", "base": 2, "nice": False, "padding": 16}}
    y = {**amount(*up, tickCount=6), "scale": {"zero": True}}
    colour = by_variant(names)
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.05, "aria": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour, **_detail(more)},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": y, "color": colour, **more},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": told(), "description": told()},
        },
    ]
    return whole(layers, points, height=_HEIGHT)


def _detail(more: dict[str, Spec]) -> Spec:
    return {"detail": {"field": more["strokeDash"]["field"]}} if "strokeDash" in more else {}
