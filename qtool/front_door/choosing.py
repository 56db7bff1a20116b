"""`qtool.choose`: which variant of a run to deploy under limits of one's own, and what it costs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.errors import UsageError
from qtool.front_door.paths import PathLike, optional_path
from qtool.records.cost import CostSettings

if TYPE_CHECKING:
    from qtool.records.choice import Choice

_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_MS = {"ms": 1.0, "s": 1000.0}


def choose(
    run: PathLike,
    *,
    load: int | None = None,
    max_memory: str | None = None,
    p95_ttft: str | None = None,
    p95_e2e: str | None = None,
    max_drop: Sequence[str] = (),
    max_cost: float | None = None,
    card: str | None = None,
    context: int | None = None,
    prices: PathLike | None = None,
    machine: str | None = None,
    dollars_per_hour: float | None = None,
    api_input: float | None = None,
    api_output: float | None = None,
    on_call: float | None = None,
    storage: float | None = None,
    egress: float | None = None,
) -> "Choice":
    """The variant that keeps every limit with confidence at the load, the next one, and what each other one broke.

    Sizes are written as "8GB", times as "300ms" or "2s", drops as "arithmetic=1" (points). What is not given is taken
    from the plan's [cost], then from the price table.
    """
    from qtool.records.choice import Limits
    from qtool.report.join import join
    from qtool.report.money.choose import choose as pick
    from qtool.report.money.cost import costs
    from qtool.report.money.prices import read_prices
    from qtool.report.stage import judge

    limits = Limits(
        load=load,
        memory_bytes=None if max_memory is None else round(_size(max_memory, "--max-memory", _BYTES, "8GB")),
        ttft_ms_p95=None if p95_ttft is None else _size(p95_ttft, "--p95-ttft", _MS, "300ms"),
        e2e_ms_p95=None if p95_e2e is None else _size(p95_e2e, "--p95-e2e", _MS, "2s"),
        dollars_per_million_tokens=max_cost,
        drops=tuple(map(_drop, max_drop)),
        card_bytes=None if card is None else round(_size(card, "--card", _BYTES, "24GB")),
        context_tokens=context,
    )
    folder, table = Path(run), read_prices(optional_path(prices))
    joined = join(folder)
    report = judge(joined, name=folder.resolve().name, command=f"qtool report {run}")
    planned = joined.plan.cost if joined.plan is not None else CostSettings()
    settings = CostSettings(
        machine=machine or planned.machine,
        dollars_per_hour=_first(dollars_per_hour, planned.dollars_per_hour),
        memory_gb=planned.memory_gb,
        api_input_dollars=_first(api_input, planned.api_input_dollars),
        api_output_dollars=_first(api_output, planned.api_output_dollars),
        on_call_dollars_per_month=_first(on_call, planned.on_call_dollars_per_month) or 0.0,
        storage_dollars_per_month=_first(storage, planned.storage_dollars_per_month) or 0.0,
        egress_dollars_per_month=_first(egress, planned.egress_dollars_per_month) or 0.0,
    )
    found = costs(report, settings, table)
    return pick(report, limits, costs=found, token_bytes=_token_bytes(folder, report.baseline))


def _first(typed: float | None, planned: float | None) -> float | None:
    return planned if typed is None else typed


def _size(text: str, option: str, units: dict[str, float] | dict[str, int], example: str) -> float:
    """A number with its unit: `8GB`, `300ms`. Raises UsageError with an example."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
    if found is None or found[2].lower() not in units or float(found[1]) <= 0:
        raise UsageError(f"{option} {text!r}: write a number above 0 with its unit ({', '.join(units)}): {example}")
    return float(found[1]) * units[found[2].lower()]


def _drop(text: str) -> tuple[str, float]:
    task, sign, points = text.partition("=")
    if not (task and sign and re.fullmatch(r"[0-9]+(\.[0-9]+)?", points) and 0 < float(points) <= 100):
        raise UsageError(f"--max-drop {text!r}: write it as TASK=POINTS, such as arithmetic=1")
    return task, float(points)


def _token_bytes(run: Path, baseline: str) -> int | None:
    """Bytes that one token takes in the cache of the run's model, by its configuration; None where that does not say.

    Keys and values of every layer in 16 bits: what a server allocates for a model with full attention, and the most
    that one with sliding windows or compressed keys needs.
    """
    from qtool.store.codec import read_json_object
    from qtool.store.layout import RunFolder

    path = RunFolder(run).variant(baseline) / "config.json"
    if not path.is_file():
        return None
    config = read_json_object(path)
    text = config.get("text_config", config)
    if not isinstance(text, dict):
        return None
    layers, heads = text.get("num_hidden_layers"), text.get("num_attention_heads")
    shared = text.get("num_key_value_heads", heads)
    width, hidden = text.get("head_dim"), text.get("hidden_size")
    if width is None and isinstance(hidden, int) and isinstance(heads, int) and heads:
        width = hidden // heads
    if not (isinstance(layers, int) and isinstance(shared, int) and isinstance(width, int)):
        return None
    return 2 * layers * shared * width * 2
