"""The page of the quantization benchmark: a table for each model and case, and what it says about the goal."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from quantization_rows import Measured, Row, kl, lowest, ratio

OWN = "qtool "
_GRADIENT = "autoround"
_W8A8_PEER = "llmcompressor:smoothquant"
_SAME_SIZE = 1.03  # peers that store zero points or an index of groups beside the same codes count as no larger
_HOW = """\
KL is the divergence from the unquantized model in nats a token, with a 95 % interval by resampling sequences (4,000
draws). "of best peer" is the ratio to the peer that takes no gradient and has the lowest KL of its table, drawn from
the same sequences for both; that peer, and our row in the sentences below a table, were picked after seeing the
numbers, and no interval is corrected for the number of rows. Everything else is a point value. Seconds are those that
the processor spent, imports included."""


def page(rows: Sequence[Row], about: str) -> str:
    """All tables as Markdown."""
    lines = ["# Quantization methods beside other tools", "", f"`python {' '.join([_script(), *sys.argv[1:]])}`", ""]
    lines += [about, "", _HOW]
    for model in _distinct(row.model for row in rows):
        mine = [row for row in rows if row.model == model]
        lines += ["", f"## {model}"]
        for settings in _distinct(row.settings for row in mine):
            lines += ["", settings]
            for case in _distinct(row.case for row in mine if row.settings == settings):
                lines += ["", f"### {model}, {case}", ""]
                lines += table([row for row in mine if row.settings == settings and row.case == case])
    lines += ["", "Made with: " + ", ".join(sorted({row.made_with for row in rows if row.made_with})) + "."]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> Iterator[str]:
    """One table, the least divergence first; times and memory where nothing was scored."""
    base = next(row for row in rows if row.method == "base")
    rest = [row for row in rows if row is not base]
    if not base.scored:
        yield from _times(base, rest)
        return
    best = lowest([row for row in rest if _plain_peer(row)])
    yield "| method | KL | of best peer | top-1 | perplexity | accuracy | MB | seconds | note |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in [base, *sorted(rest, key=lambda row: (row.failed, sum(row.divergences)))]:
        compared = None if best is None or row in (best, base) else ratio(row, best)
        cells = (
            _interval(kl(row, base)) if row is not base else "0",
            "1" if row is best else _interval(compared),
            _number(row.top1, ".5f"),
            _number(row.perplexity, ".4f"),
            _number(row.accuracy, ".3f"),
            _millions(row.bytes, 2),
            _number(row.cpu_seconds, ".0f"),
        )
        yield f"| {row.method} | {' | '.join(cells)} | {_note(row)} |"
    yield from _goal(rest, best)


def _times(base: Row, rest: Sequence[Row]) -> Iterator[str]:
    yield "| method | MB | seconds | peak MB | note |"
    yield "|---|---|---|---|---|"
    for row in [base, *rest]:
        cells = (_millions(row.bytes, 2), _number(row.seconds, ".1f"), _millions(row.peak_bytes, 0))
        yield f"| {row.method} | {' | '.join(cells)} | {_note(row)} |"


def _goal(rows: Sequence[Row], best: Row | None) -> Iterator[str]:
    """The lowest of our rows beside the peers that the goal names, a sentence each."""
    own = lowest([row for row in rows if row.method.startswith(OWN)])
    if own is None or own.bytes is None:
        return
    no_larger = [
        row for row in rows if _plain_peer(row) and row.bytes is not None and row.bytes <= own.bytes * _SAME_SIZE
    ]
    others = {
        "": best,
        ", the best that is no larger": lowest(no_larger),
        ", which the goal at w8a8 names": next(
            (row for row in rows if row.method == _W8A8_PEER and row.divergences), None
        ),
        ", which follows gradients": lowest([row for row in rows if row.method.startswith(_GRADIENT)]),
    }
    lines, named = [], set[str]()
    for words, other in others.items():
        found = None if other is None or other.method in named else ratio(own, other)
        if other is not None and found is not None:
            named.add(other.method)
            judged = "lower" if found.high < 1 else "higher" if found.low > 1 else "not told apart"
            lines.append(f"{own.method} against {other.method}{words}: {_interval(found)}, {judged}.")
    if lines:
        yield ""
        yield " ".join(lines)


def _plain_peer(row: Row) -> bool:
    return row.method != "base" and not row.method.startswith((OWN, _GRADIENT))


def _interval(found: Measured | None) -> str:
    return "-" if found is None else f"{found.value:.3g} [{found.low:.2g}, {found.high:.2g}]"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _millions(value: int | None, digits: int) -> str:
    return "-" if value is None else f"{value / 1e6:.{digits}f}"


def _note(row: Row) -> str:
    return row.note.replace("|", "/")


def _script() -> str:
    return "benchmarks/" + Path(sys.argv[0]).name


def _distinct(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))
