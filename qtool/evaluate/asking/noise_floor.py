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

FEWEST_ITEMS = 50  # of an evaluation; a floor over fewer is measured again once there are as many
MOST_ITEMS = 200
_BATCHES = 12  # no batch may be so large that it alone takes all the time there is
_SAME_NATS = 1e-3

Differs = Callable[[Answer, ItemResult], bool]


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """`changed` of `items` answers differed from the main run in score or, where wrong, in the answer compared: when
    asked in another order, where the task samples with another seed (None where it does not), or, `items_alone` of
    them, one at a time.

    There were `available` questions to choose from.
    """

    items: int
    changed: int
    changed_alone: int
    changed_reordered: int
    run_digest: str
    changed_other_seed: int | None = None
    available: int = 0
    items_alone: int = 0

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
    differs: Differs, seconds: float, advance: Callable[[int], None] = lambda count: None,
) -> NoiseFloor:  # fmt: skip
    """Asks the first questions again, in reverse order and smaller batches (where the task samples, with another seed
    too), then as many of them as time allows one at a time; about `seconds` in all, and at most 200 items.
    """
    how = replace(context, forcing=False, in_flight=max(1, context.in_flight // 2))
    batch = min(how.in_flight, max(1, len(questions) // _BATCHES))
    most = min(MOST_ITEMS, len(questions))
    reordered: dict[int, bool] = {}
    reseeded: dict[int, bool] = {}
    alone: dict[int, bool] = {}
    started_s = time.monotonic()

    def again(chosen: Sequence[int], context: Context) -> dict[int, bool]:
        asked = scorer.ask([questions[index] for index in chosen], context)
        return {chosen[place]: differs(answer, answered[chosen[place]]) for place, answer in asked}

    for start in range(0, most, batch):
        chosen = range(start, min(start + batch, most))[::-1]
        reordered |= again(chosen, how)
        if context.task.temperature:
            reseeded |= again(chosen, replace(how, seed=context.seed + 1))
        advance(len(chosen))
        if time.monotonic() - started_s > seconds / 2:
            break
    for index in sorted(reordered):
        alone |= again([index], replace(how, in_flight=1))
        if time.monotonic() - started_s > seconds:
            break
    ways = (reordered, reseeded, alone)
    return NoiseFloor(
        items=len(reordered),
        changed=sum(any(way.get(index, False) for way in ways) for index in reordered),
        changed_alone=sum(alone.values()),
        changed_reordered=sum(reordered.values()),
        run_digest=answered[0].run_digest if answered else "",
        changed_other_seed=sum(reseeded.values()) if reseeded else None,
        available=len(questions),
        items_alone=len(alone),
    )


def write_floor(folder: Path, task: str, floor: NoiseFloor) -> None:
    """Keeps the floor beside the evaluation it belongs to."""
    write_record(floor_path(folder, task), floor)


def likelihood_moved(answer: Answer, before: ItemResult) -> bool:
    """For running text: whether its likelihood moved by a thousandth of a nat a token."""
    return abs(-sum(answer.logprobs) / len(answer.logprobs) - before.score) > _SAME_NATS
