"""One level's times under the names that vLLM's `bench serve` writes, for tools that read those."""

import statistics
from collections.abc import Sequence

from qtool.latency.quantiles import QUANTILES, quantile
from qtool.latency.timing import Limits, Load, Timed


def bench_serve(load: Load, timed: Sequence[Timed], seconds: float, limits: Limits) -> dict[str, object]:
    """vLLM's field names; times in ms but `ttfts` and `itls` in seconds. A refused percentile is null."""
    done = [request for request in timed if request.failed is None]
    given, made = sum(one.prompt_tokens for one in done), sum(len(one.token_times_s) for one in done)
    found: dict[str, object] = {
        "num_prompts": len(timed),
        "request_rate": "inf" if load.rate_per_second is None else load.rate_per_second,
        "burstiness": 1.0,  # exponential gaps
        "max_concurrency": load.concurrency if load.rate_per_second is None else None,
        "duration": seconds,
        "completed": len(done),
        "failed": len(timed) - len(done),
        "total_input_tokens": given,
        "total_output_tokens": made,
        "request_throughput": _rate(len(done), seconds),
        "request_goodput": _rate(sum(map(limits.keeps, done)), seconds),
        "output_throughput": _rate(made, seconds),
        "total_token_throughput": _rate(given + made, seconds),
        "input_lens": [one.prompt_tokens for one in done],
        "output_lens": [len(one.token_times_s) for one in done],
        "ttfts": [one.ttft_ms / 1e3 for one in done],
        "itls": [[gap / 1e3 for gap in one.itl_ms] for one in done],
        "errors": [one.failed or "" for one in timed],
    }
    found |= _statistics("ttft", [one.ttft_ms for one in done])
    found |= _statistics("tpot", [tpot for one in done if (tpot := one.tpot_ms) is not None])
    found |= _statistics("itl", [gap for one in done for gap in one.itl_ms])
    return found | _statistics("e2el", [one.e2e_ms for one in done])


def _statistics(name: str, samples_ms: Sequence[float]) -> dict[str, object]:
    values = {f"p{100 * q:g}": quantile(samples_ms, q).value_ms for q in QUANTILES}
    return {
        f"mean_{name}_ms": statistics.fmean(samples_ms) if samples_ms else None,
        f"median_{name}_ms": values.pop("p50"),
        f"std_{name}_ms": statistics.pstdev(samples_ms) if samples_ms else None,
        **{f"{label}_{name}_ms": value for label, value in values.items()},
    }


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0
