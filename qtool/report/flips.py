"""The answers that changed, as the report shows them side by side: the first of each variant and task."""

import json
from pathlib import Path

from qtool.errors import StoreError
from qtool.records.report import FlippedItem

MOST_SHOWN = 20  # of each variant and task; the churn file beside the evaluation holds all
_LONGEST = 600  # characters of a text: enough for a question and its worked answer
_KINDS = ("harmful", "beneficial", "wrong to other wrong")


def read_flips(folder: Path, variant: str, task: str) -> tuple[FlippedItem, ...]:
    """The first flips of `task` in the evaluations `folder` of `variant`, the harmful ones before the others."""
    path = folder / f"{task}.churn.jsonl"
    if not path.is_file():
        return ()
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows.sort(key=lambda row: _KINDS.index(row["kind"]))
        return tuple(_flip(row, variant, task) for row in rows[:MOST_SHOWN])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: a line is not a flipped item; evaluate {task} again") from error


def shared_start(left: str, right: str) -> int:
    """How many characters both texts begin with."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))


def _flip(row: dict[str, object], variant: str, task: str) -> FlippedItem:
    kind = str(row["kind"])
    texts = {name: str(row[name]) for name in ("prompt", "target", "baseline_output", "variant_output")}
    start = shared_start(texts["baseline_output"], texts["variant_output"])
    token, leads = row["token"], (row["baseline_margin"], row["variant_margin"])
    slices = row["slices"]
    if not isinstance(slices, list):
        raise TypeError("slices is no list")
    return FlippedItem(
        variant=variant,
        task=task,
        id=str(row["id"]),
        kind=_KINDS[_KINDS.index(kind)],  # type: ignore[arg-type]
        prompt=_end_of(texts["prompt"]),
        target=texts["target"][:_LONGEST],
        baseline_output=_around(texts["baseline_output"], start),
        variant_output=_around(texts["variant_output"], start),
        token=token if isinstance(token, int) else None,
        baseline_lead=_number(leads[0]),
        variant_lead=_number(leads[1]),
        slices=tuple((str(name), str(value)) for name, value in slices),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _end_of(text: str) -> str:
    """The end of a long prompt: that is where the question stands, behind instructions and examples."""
    return text if len(text) <= _LONGEST else f"…{text[-_LONGEST:]}"


def _around(text: str, place: int) -> str:
    """A long text around `place`, where the two answers part."""
    start = 0 if place < _LONGEST - 200 else place - 200
    shown = text[start : start + _LONGEST]
    return f"{'…' if start else ''}{shown}{'…' if start + _LONGEST < len(text) else ''}"
