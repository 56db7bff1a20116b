"""What was timed, as text: one line a level, and where a variant is slower or faster than the first one."""

from collections.abc import Sequence

from qtool.records.latency import LatencyProfile, LoadLevel, Quantile


def text(profiles: Sequence[LatencyProfile]) -> str:
    """All profiles, and each one beside the first."""
    lines: list[str] = []
    for profile in profiles:
        lines += [f"{profile.variant}: {_start(profile)}", *_facts(profile), *map(_level, profile.levels)]
    for profile in profiles[1:]:
        lines += beside(profiles[0], profile)
    return "\n".join(lines)


def beside(first: LatencyProfile, other: LatencyProfile) -> list[str]:
    """From which load on `other` is slower or faster a token than `first`, where the intervals do not touch."""
    found: list[str] = []
    for arrivals, unit in (("closed", "in flight"), ("open", "requests a second")):
        pairs = [
            (before, after)
            for before, after in zip(first.levels, other.levels, strict=True)
            if before.arrivals == arrivals
        ]
        for word, sign in (("slower", 1), ("faster", -1)):
            found += _said(first.variant, other.variant, [(*pair, _sign(*pair) == sign) for pair in pairs], word, unit)
    return found


def _said(first: str, other: str, pairs: list[tuple[LoadLevel, LoadLevel, bool]], word: str, unit: str) -> list[str]:
    hits = [index for index, (_, _, hit) in enumerate(pairs) if hit]
    if not hits:
        return []
    every = len(hits) == len(pairs) - hits[0]  # at no later level is it otherwise
    loads = [_load(pairs[index][1]) for index in hits]
    where = f"from {loads[0]} {unit} on" if every else f"at {', '.join(loads)} {unit}"
    before, after, _ = pairs[hits[0]]
    was, now = before.tpot[0].interval, after.tpot[0].interval
    assert was is not None
    assert now is not None
    times = f"TPOT {now.low:.1f} to {now.high:.1f} ms against {was.low:.1f} to {was.high:.1f}"
    return [f"{other} is {word} than {first} {where} ({times} at {loads[0]})"]


def _sign(before: LoadLevel, after: LoadLevel) -> int:
    was, now = before.tpot[0].interval, after.tpot[0].interval
    if was is None or now is None:
        return 0
    return int(now.low > was.high) - int(now.high < was.low)


def _load(level: LoadLevel) -> str:
    return f"{level.rate_per_second:g}" if level.rate_per_second is not None else str(level.concurrency)


def _start(profile: LatencyProfile) -> str:
    if not profile.first_token_seconds:
        return "a server; what it holds and how it starts is not known here"
    gpu = f", {profile.peak_gpu_bytes / 1e6:.0f} MB of them on the GPU" if profile.peak_gpu_bytes else ""
    return (
        f"first token {profile.first_token_seconds:.2f} s after process start, "
        f"load {profile.load_seconds:.2f} s, peak memory {profile.peak_memory_bytes / 1e6:.0f} MB{gpu}, "
        f"weights {profile.weight_bytes / 1e6:.1f} MB"
    )


def _facts(profile: LatencyProfile) -> list[str]:
    lines = []
    if profile.roofline_ratio is not None and profile.bandwidth_bytes_per_second:
        lines.append(
            f"  decoding alone moves its weights at {100 * profile.roofline_ratio:.0f} % of the measured "
            f"{profile.bandwidth_bytes_per_second / 1e9:.1f} GB/s"
        )
    if profile.simulated:
        lines.append("  speed is simulated: this machine has no kernel for the scheme")
    return lines + [f"  {note}" for note in profile.notes]


def _level(level: LoadLevel) -> str:
    load = f"{_load(level)} {'in flight' if level.arrivals == 'closed' else 'req/s'}"
    parts = [f"{name} {_quantiles(getattr(level, name))}" for name in ("ttft", "tpot", "itl", "e2e")]
    return (
        f"  {load:<12} n {level.requests}  {'  '.join(parts)}  {level.output_tokens_per_second:.1f} tok/s  "
        f"{level.requests_per_second:.2f} req/s  goodput {level.goodput_per_second or 0.0:.2f} req/s"
        + (f"  failed {level.failed}, first: {level.failure}" if level.failed else "")
    )


def _quantiles(found: Sequence[Quantile]) -> str:
    shown = [f"p{100 * entry.q:g} {_value(entry)}" for entry in found]
    return " ".join(shown) + " ms"


def _value(entry: Quantile) -> str:
    if entry.value_ms is None:
        return f"(needs n {entry.samples_needed})"
    span = f" [{entry.interval.low:.1f}, {entry.interval.high:.1f}]" if entry.interval else ""
    return f"{entry.value_ms:.1f}{span}"
