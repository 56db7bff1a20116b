"""The churn ledger: every item that flipped, side by side, with the token at which the two answers part."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qtool.records.evaluation import Breakdown, ItemResult, Parting
from qtool.records.task import Item
from qtool.store.codec import encode
from qtool.store.run_directory import write_text

_SHOWN = 30  # characters from where two answers part

Kind = Literal["harmful", "beneficial", "wrong to other wrong"]


@dataclass(frozen=True, slots=True)
class Flip:
    """One item whose answer changed.

    `token` counts from 0 where the two outputs first differ; the margins (nats) are those by which each model preferred
    its own token there, None where it had already stopped.
    """

    id: str
    kind: Kind
    prompt: str
    target: str
    baseline_output: str
    variant_output: str
    token: int | None
    baseline_margin: float | None
    variant_margin: float | None
    slices: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]


def flips(before: Sequence[ItemResult], after: Sequence[ItemResult], *, perfect: float) -> tuple[Flip, ...]:
    """Items of which the score changed, or the wrong answer."""
    found = []
    for old, new in zip(before, after, strict=True):
        if old.score == new.score and (old.score == perfect or old.extracted == new.extracted):
            continue
        better = abs(new.score - perfect) < abs(old.score - perfect)
        kind: Kind = "wrong to other wrong" if old.score == new.score else "beneficial" if better else "harmful"
        found.append(_flip(kind, old, new))
    return tuple(found)


def parting(before: Sequence[ItemResult], after: Sequence[ItemResult]) -> Parting | None:
    """Where answers that were generated token by token part from the baseline's; None where there are none."""
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old.output_ids and new.output_ids]
    if not pairs:
        return None
    other = [(old, new) for old, new in pairs if old.output_ids != new.output_ids]
    if not other:
        return Parting(items=len(pairs), same=len(pairs))
    old, new = other[0]
    shared = next((i for i, both in enumerate(zip(old.output, new.output, strict=False)) if both[0] != both[1]), None)
    start = min(len(old.output), len(new.output)) if shared is None else shared
    return Parting(
        items=len(pairs),
        same=len(pairs) - len(other),
        item=old.id,
        token=_first_difference(old.output_ids, new.output_ids),
        baseline_text=old.output[start : start + _SHOWN],
        variant_text=new.output[start : start + _SHOWN],
    )


def breakdowns(items: Sequence[Item], rows: Sequence[ItemResult], flipped: Iterable[Flip]) -> tuple[Breakdown, ...]:
    """Wrong answers by kind of error, wrong digit, wrong field and first wrong step; harmful flips by slice."""
    notes: dict[str, Counter[str]] = {}
    for item, row in zip(items, rows, strict=True):
        for name, value in (*row.notes, *_first_wrong_step(item, row)):
            for part in value.split(","):
                notes.setdefault(name, Counter())[part] += 1
    harmful: dict[str, Counter[str]] = {}
    for flip in flipped:
        if flip.kind == "harmful":
            for name, value in flip.slices:
                harmful.setdefault(f"harmful flips by {name}", Counter())[value] += 1
    counted = {f"answers by {name.replace('_', ' ')}": counts for name, counts in sorted(notes.items())} | harmful
    return tuple(Breakdown(name, tuple(counts.most_common())) for name, counts in counted.items())


def write_flips(folder: Path, task: str, flipped: Sequence[Flip]) -> None:
    """Writes `<task>.churn.jsonl`, one flipped item a line."""
    lines = (json.dumps(encode(flip), ensure_ascii=False, allow_nan=False) + "\n" for flip in flipped)
    write_text(folder / f"{task}.churn.jsonl", "".join(lines))


def _flip(kind: Kind, old: ItemResult, new: ItemResult) -> Flip:
    token = _first_difference(old.output_ids, new.output_ids)
    return Flip(
        id=old.id,
        kind=kind,
        prompt=old.prompt,
        target=old.target,
        baseline_output=old.output,
        variant_output=new.output,
        token=token,
        baseline_margin=_at(old.margins, token),
        variant_margin=_at(new.margins, token),
        slices=new.slices,
        notes=new.notes,
    )


def _first_difference(left: Sequence[int], right: Sequence[int]) -> int | None:
    if not left or not right:
        return None
    shared = next((i for i, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), None)
    return shared if shared is not None else min(len(left), len(right)) if len(left) != len(right) else None


def _at(margins: Sequence[float], token: int | None) -> float | None:
    return margins[token] if token is not None and token < len(margins) else None


def _first_wrong_step(item: Item, row: ItemResult) -> tuple[tuple[str, str], ...]:
    """The first line, from 1, in which a wrong answer leaves the reference's worked lines, if it has several."""
    wanted = [line.strip() for line in item.answer.strip().splitlines()]
    if row.score >= 1.0 or len(wanted) < 3 or not row.output.strip():
        return ()
    got = [line.strip() for line in row.output.strip().splitlines()]
    step = next((i for i, pair in enumerate(zip(wanted, got, strict=False)) if pair[0] != pair[1]), len(got))
    return (("first_wrong_step", str(step + 1)),)
