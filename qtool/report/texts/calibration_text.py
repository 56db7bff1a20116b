"""A calibration in plain text: what it was made of, whether it was enough, and the inputs that decide that."""

from collections.abc import Sequence

from qtool.records.calibration import Calibration, LayerRange, SourceCount
from qtool.records.certificate import Certificate, LayerCertificate
from qtool.report.drawing.certificate import SHOWN, WORDS, headline, markdown_rows, worst_first
from qtool.report.texts.numbers import count_text
from qtool.report.texts.text_table import aligned

_SOURCE = ("source", "read", "used", "empty", "short", "duplicate", "cut")


def calibration_text(found: Calibration) -> str:
    """The verdict and why first, then rows by source, traffic by tag, and the inputs that matter most."""
    layers = {entry.layer for entry in found.ranges}
    how = "one block at a time" if found.streamed else "whole model in memory"
    lines = [
        f"calibration of {found.model.name} ({found.model.architecture}, weights {found.model.weights_digest[:12]}) on "
        f"set {found.set_name} (seed {found.seed}, set {found.set_digest[:12]})",
        f"  {count_text(found.sequences, 'sequence')} of up to {found.sequence_tokens} tokens, {found.tokens:,} tokens"
        f"{', packed' if found.packed else ''}{', questions as chat turns' if found.chat else ''}; "
        f"{count_text(found.held_out_sequences, 'sequence')} more only checked",
        f"  {count_text(len(layers), 'layer')}, observers {', '.join(found.observers)}; {found.dtype}, {how}, "
        f"{found.seconds:.1f} s, qtool {found.qtool_version}",
        f"  enough? {WORDS[found.verdict]}{': ' if headline(found) else ''}{headline(found)}",
    ]
    parts = ["\n".join(lines), aligned(_SOURCE, [_counts(source) for source in found.sources])]
    if found.certificate is not None:
        parts += _certified(found.certificate)
    parts.append(_ranges(found))
    return "\n\n".join(part for part in parts if part)


def _counts(source: SourceCount) -> list[str]:
    dropped = (source.dropped_empty, source.dropped_short, source.dropped_duplicate, source.cut_to_length)
    return [source.tag, *(f"{count:,}" for count in (source.read, source.used, *dropped))]


def _certified(certificate: Certificate) -> list[str]:
    parts = [aligned(*markdown_rows(certificate))] if certificate.tags else []
    order = worst_first(certificate)
    head = ["input that matters most", "verdict", "rows needed", "range known to", "last doubling", "outlier channels"]
    rows = [
        [
            layer.input,
            WORDS[layer.verdict],
            f"{layer.needed_sequences:,}" if layer.needed_sequences else "",
            _known_to(layer),
            _last_doubling(layer),
            f"{len(layer.outlier_channels)} of {layer.columns}",
        ]
        for layer in order[:SHOWN]
    ]
    if rows:
        parts.append(aligned(head, rows) + _more(len(order) - SHOWN, "input"))
    starved = [f"{entry.module}, expert {entry.expert}: {entry.tokens:,}" for entry in certificate.starved_experts]
    if starved:
        parts.append(
            "experts with too few tokens: " + "; ".join(starved[:SHOWN]) + _more(len(starved) - SHOWN, "expert")
        )
    return parts


def _known_to(layer: LayerCertificate) -> str:
    """Half the widest interval of a range, of that range."""
    widths = [(entry.interval_high - entry.interval_low) / (2 * entry.high) for entry in layer.ranges if entry.high > 0]
    return f"±{100 * max(widths):.1f} %" if widths else "-"


def _last_doubling(layer: LayerCertificate) -> str:
    changes = [abs(entry.last_doubling_change) for entry in layer.ranges]
    return f"{100 * max(changes):.1f} %" if changes else "-"


def _ranges(found: Calibration) -> str:
    """A line a layer with a column an observer: those of the inputs shown above, or the first layers."""
    order = dict.fromkeys(entry.layer for entry in found.ranges)
    if found.certificate is not None:
        order = dict.fromkeys(name for layer in worst_first(found.certificate)[:SHOWN] for name in layer.layers[:1])
    by_layer: dict[str, dict[str, LayerRange]] = {}
    for entry in found.ranges:
        by_layer.setdefault(entry.layer, {})[entry.observer] = entry
    shown = [name for name in order if name in by_layer][:SHOWN]
    rows = [[name, *_cells(found.observers, by_layer[name])] for name in shown]
    layers = count_text(len(by_layer) - len(rows), "more layer")
    rest = f"\n({layers} in --json)" if len(by_layer) > len(rows) else ""
    return aligned(["layer: range, clipped", *found.observers], rows) + rest if rows else ""


def _cells(observers: Sequence[str], ranges: dict[str, LayerRange]) -> list[str]:
    cells = []
    for observer in observers:
        entry = ranges.get(observer)
        if entry is None:
            cells.append("-")
            continue
        clipped = f", {100 * entry.clipped_share:.2g} %" if entry.clipped_share else ""
        cells.append(f"{entry.low:.3g} to {entry.high:.3g}{clipped}")
    return cells


def _more(count: int, what: str) -> str:
    return f"\n({count_text(count, f'more {what}')} in --json)" if count > 0 else ""
