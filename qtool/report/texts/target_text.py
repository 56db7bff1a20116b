"""What a target's rules say to a checkpoint, as a table of at most 80 columns."""

import re
import textwrap
from collections import Counter
from io import StringIO

from qtool.records.target_lint import TargetFinding, TargetLint

_WIDTH = 80
_PATTERNS_SHOWN = 8


def target_text(lint: TargetLint) -> str:
    """The findings, worst first, with the layers they name; then how many rules were checked, and read from what."""
    card = f" on {lint.gpu} (compute capability {lint.compute_capability})" if lint.gpu else ""
    head = f"{lint.checkpoint} for {lint.target}{card}: {lint.format}, {lint.quantized_layers} quantized layers"
    parts = [textwrap.fill(head, _WIDTH)]
    if lint.findings:
        parts.append(_table(lint.findings))
    parts.append(
        "\n".join(
            textwrap.fill(line, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in _closing(lint)
        )
    )
    return "\n\n".join(parts)


def _closing(lint: TargetLint) -> list[str]:
    objections = len(lint.findings)
    said = {0: "no rule objects", 1: "1 objects"}.get(objections, f"{objections} object")
    sources = f"; read from {'; '.join(lint.versions)}" if lint.versions else ""
    lines = [f"{lint.rules_checked} rules on {lint.format} checked, {said}{sources}"]
    if not lint.rules_checked + lint.rules_without_gpu:
        lines = [f"nothing was checked: no rule of {lint.target} speaks of {lint.format}"]
    if lint.rules_without_gpu:
        lines.append(f"{lint.rules_without_gpu} more rules need to know the GPU: --gpu NAME")
    lines.append("What no rule mentions is not known to work: load it once where it will serve.")
    return lines


def _table(findings: tuple[TargetFinding, ...]) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=_WIDTH)
    table.add_column("finding", width=15, overflow="fold")
    table.add_column("what happens, and to which layers", overflow="fold")
    for finding in findings:
        said = "\n".join((finding.explanation, layers_text(finding.layers), f"read from: {finding.version}"))
        table.add_row(Text(f"{finding.consequence}\n{finding.rule}"), Text(said), end_section=True)
    out = StringIO()
    Console(file=out, width=_WIDTH, color_system=None, legacy_windows=False, markup=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def layers_text(layers: tuple[str, ...]) -> str:
    """`layers` with the numbers of their blocks left out: a count, and the names that share it."""
    if not layers:
        return "layers: the whole checkpoint"
    if len(layers) == 1:
        return f"layer: {layers[0]}"
    counts = Counter(re.sub(r"\.\d+(?=\.)", ".*", name) for name in layers)
    shown = [f"  {pattern} ({count})" for pattern, count in list(counts.items())[:_PATTERNS_SHOWN]]
    more = [f"  and {len(counts) - _PATTERNS_SHOWN} more names"] if len(counts) > _PATTERNS_SHOWN else []
    return "\n".join([f"{len(layers)} layers:", *shown, *more])
