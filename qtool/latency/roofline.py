"""What decoding must read, and what share of the machine's bandwidth that is."""

from collections.abc import Mapping
from typing import Any

from qtool.records.latency import LoadLevel
from qtool.records.place import Place, Server

_EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def step_bytes(place: Place, weight_bytes: int) -> int:
    """Bytes that decoding one token reads of a model that holds `weight_bytes`: all weights but an embedding table of
    its own, of which it reads one row, and the experts it is not routed to."""
    if isinstance(place, Server) or not weight_bytes:
        return 0
    from qtool.models.architecture import describe
    from qtool.models.checkpoint import open_checkpoint

    architecture, checkpoint = describe(place), open_checkpoint(place)
    table = f"{architecture.embedding}.weight"
    shared = architecture.tied or table not in checkpoint.names
    unread = 0 if shared else checkpoint.tensor_bytes(table)
    experts = sum(checkpoint.tensor_bytes(name) for name in checkpoint.names if ".experts." in name)
    return weight_bytes - unread - round(experts * unrouted(checkpoint.config))


def unrouted(config: Mapping[str, Any]) -> float:
    """The share of a mixture's experts that a token is not routed to; 0 for other models."""
    experts = next((config[key] for key in _EXPERT_COUNTS if config.get(key)), 0)
    chosen = config.get("num_experts_per_tok") or experts
    return 1.0 - chosen / experts if experts else 0.0


def bandwidth_share(levels: tuple[LoadLevel, ...], step: int, bandwidth: float) -> float | None:
    """Share of `bandwidth` (bytes a second) that decoding one request at a time moves, `step` bytes a token; None where
    that was not timed."""
    single = next((level for level in levels if level.concurrency == 1 and level.arrivals == "closed"), None)
    if single is None or not step or single.tpot[0].value_ms is None:
        return None
    return step / (single.tpot[0].value_ms / 1e3) / bandwidth
