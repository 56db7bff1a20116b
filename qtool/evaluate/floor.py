"""The noise floor: how many answers the baseline itself changes when only batch size, order and seed differ."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qtool.errors import PlanError, StoreError
from qtool.evaluate.contract import Answer, Context, Question, Scorer
from qtool.records.evaluation import ItemResult
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record

FEWEST_ITEMS = 50  # no change among them still allows 6 % of changes; fewer say next to nothing
MOST_ITEMS = 200
USUAL_SECONDS = 120.0
_SAME_NATS = 1e-3

Differs = Callable[[Answer, ItemResult], bool]


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """`changed` of `items` answers differed from the main run in score or, where wrong, in the answer compared: when
    asked one at a time, in another order, or, where the task samples, with another seed (None where it does not).

    There were `available` questions to choose from.
    """

    items: int
    changed: int
    changed_alone: int
    changed_reordered: int
    run_digest: str
    changed_other_seed: int | None = None
    available: int = 0

    def is_enough_for(self, available: int) -> bool:
        """Whether more items would not have been asked had there been `available` of them."""
        return self.available >= min(FEWEST_ITEMS, available)


def floor_path(folder: Path, task: str) -> Path:
    """Where the noise floor of `task` lies."""
    return folder / f"{task}.floor.json"


def read_floor(folder: Path, task: str, run_digest: str) -> NoiseFloor | None:
    """The floor measured in `folder` for this very run, or None."""
    path = floor_path(folder, task)
    if not path.is_file():
        return None
    try:
        found = read_json(NoiseFloor, path)
    except (PlanError, StoreError):
        return None  # written by another version of qtool: measured anew
    return found if found.run_digest == run_digest else None


def measure_floor(
    questions: Sequence[Question], answered: Sequence[ItemResult], scorer: Scorer, context: Context, *,
    differs: Differs, seconds: float,
) -> NoiseFloor:  # fmt: skip
    """Asks the first questions again, one at a time, then the same ones in batches in reverse order and, where the task
    samples, with another seed.

    200 are asked, or 50 if those have taken `seconds` or two minutes, and fewer only if 50 would take longer than both:
    a large model on a slow machine must not spend hours on this.
    """
    generated = replace(context, forcing=False)
    alone: dict[int, bool] = {}
    started_s = time.monotonic()
    for index, answer in scorer.ask(questions[:MOST_ITEMS], replace(generated, in_flight=1)):
        alone[index] = differs(answer, answered[index])
        taken_s = time.monotonic() - started_s
        if taken_s > (min if len(alone) >= FEWEST_ITEMS else max)(seconds, USUAL_SECONDS):
            break
    chosen = sorted(alone, reverse=True)

    def again(how: Context) -> dict[int, bool]:
        asked = scorer.ask([questions[index] for index in chosen], how)
        return {chosen[place]: differs(answer, answered[chosen[place]]) for place, answer in asked}

    reordered = again(generated)
    reseeded = again(replace(generated, seed=context.seed + 1)) if context.task.temperature else {}
    return NoiseFloor(
        items=len(chosen),
        changed=sum(alone[index] or reordered[index] or reseeded.get(index, False) for index in chosen),
        changed_alone=sum(alone.values()),
        changed_reordered=sum(reordered.values()),
        run_digest=answered[0].run_digest if answered else "",
        changed_other_seed=sum(reseeded.values()) if reseeded else None,
        available=len(questions),
    )


def write_floor(folder: Path, task: str, floor: NoiseFloor) -> None:
    """Keeps the floor beside the evaluation it belongs to."""
    write_record(floor_path(folder, task), floor)


def likelihood_moved(answer: Answer, before: ItemResult) -> bool:
    """For running text: whether its likelihood moved by a thousandth of a nat a token."""
    return abs(-sum(answer.logprobs) / len(answer.logprobs) - before.score) > _SAME_NATS
