"""A variant and its ledger, layer by layer, for human eyes: what `qtool quantize`, `import` and `show` print."""

from collections import Counter
from collections.abc import Sequence

from qtool.records.variant import LedgerRow, Variant
from qtool.report.texts.numbers import bytes_text, count_text
from qtool.report.texts.text_table import aligned
from qtool.report.texts.views import recipe_text

_HEAD = (
    "layer",
    "shape",
    "scheme",
    "method",
    "group",
    "weight error",
    "output error",
    "tokens",
    "damping",
    "dead",
    "clipped",
    "bytes",
    "reason",
)


def variant_text(variant: Variant, *, layers: bool = True) -> str:
    """What the variant is, how it was verified, its totals, and a line for each layer unless `layers` is off."""
    base = variant.base
    share = variant.bytes / max(base.bytes, 1)
    lines = [
        *(f"note: {note}" for note in variant.notes),
        f"variant {variant.name}: {recipe_text(variant.recipe)}",
        f"  of {base.name} ({base.architecture}, {base.parameters:,} parameters, weights {base.weights_digest[:12]})",
        f"  {bytes_text(variant.bytes)} ({variant.bytes:,} bytes, {share:.3f} of the base), made "
        f"in {variant.seconds:.1f} s by qtool {variant.qtool_version}, "
        f"peak memory {bytes_text(variant.peak_memory_bytes)}, weights {variant.weights_digest[:12]}",
        f"  calibration {variant.calibration_digest[:12] if variant.calibration_digest else 'none'}",
        *_verified(variant),
        *_totals(variant),
        *_held_out(variant),
    ]
    if layers and variant.layers:
        lines += ["", aligned(_HEAD, [_cells(row) for row in variant.layers])]
    return "\n".join(lines)


def _verified(variant: Variant) -> list[str]:
    check = variant.verification
    if check is None:
        return ["  not verified: made elsewhere"] if variant.recipe.method == "imported" else []
    compared = [f"{check.tensors_bit_identical} of {check.tensors_compared} tensors bit-identical"]
    if check.logits_prompts:
        prompts = count_text(check.logits_prompts, "prompt")
        compared.append(f"logits of {prompts} within {check.logits_max_difference:.3g} of transformers' own")
    if check.engine_tokens:
        compared.append(f"run by the engine for {count_text(check.engine_tokens, 'token')}")
    return [
        *([f"  UNVERIFIED: {check.problem}"] if check.problem else []),
        f"  reopened from disk: {', '.join(compared)}",
        *(f"  note: {note}" for note in check.lint),
    ]


def _totals(variant: Variant) -> list[str]:
    quantized = [row for row in variant.layers if row.method_used not in ("none", "kept")]
    if not quantized:
        return []
    kept = len(variant.layers) - len(quantized)
    worst = max(quantized, key=_error)
    kind = "output" if worst.output_error is not None else "weight"
    known = variant.recipe.method != "imported"  # of what was made elsewhere nobody measured the errors
    return [
        f"  {count_text(len(quantized), 'layer')} quantized, {kept} kept, {count_text(variant.fallbacks, 'fallback')}",
        *([f"  largest {kind} error: {_error(worst):.4f} in {worst.layer}"] if known else []),
        *(f"  {count_text(count, 'layer')}: {reason}" for reason, count in _reasons(variant.layers)),
    ]


def _held_out(variant: Variant) -> list[str]:
    """What quantizing did to held-out text, in the unit that foretells answers."""
    change = variant.held_out
    if change is None:
        known = variant.recipe.method in ("imported", "baseline") or not variant.layers
        return [] if known else ["  held-out KL divergence: not measured; give --calibration DIR"]
    return [
        f"  held-out KL divergence: {change.kl_divergence:.4f} +- {change.kl_error:.4f} nats a token over "
        f"{change.tokens:,} tokens; same most likely token in {100 * change.same_token_share:.1f} %"
    ]


def _reasons(rows: Sequence[LedgerRow]) -> list[tuple[str, int]]:
    return Counter(row.reason for row in rows if row.reason).most_common()


def _error(row: LedgerRow) -> float:
    return row.weight_error if row.output_error is None else row.output_error


def _cells(row: LedgerRow) -> list[str]:
    return [
        row.layer,
        f"{row.rows}x{row.columns}",
        _asked_and_used(row.scheme_asked, row.scheme_used),
        _asked_and_used(row.method_asked, row.method_used),
        "row" if row.group_size == -1 else str(row.group_size),
        f"{row.weight_error:.4f}",
        "-" if row.output_error is None else f"{row.output_error:.4f}",
        f"{row.tokens_seen:,}",
        "-" if row.damping is None else f"{row.damping:.3g}",
        str(row.dead_columns),
        f"{100 * row.clipped_share:.2f} %",
        f"{row.bytes:,}",
        row.reason,
    ]


def _asked_and_used(asked: str, used: str) -> str:
    return used if asked == used else f"{asked} -> {used}"
