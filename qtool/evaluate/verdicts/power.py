"""What a comparison can show, told before it is run: how likely a variant as good as the base is to pass every task."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from qtool.evaluate.verdicts.sequential import FIRST_SHARE
from qtool.evaluate.verdicts.verdict import LEVEL, score

EQUAL_CHURN = 0.01  # share of answers that a variant without any loss changes, half of them for the better
ENOUGH = 0.90
_FIRST_LEVEL = FIRST_SHARE * LEVEL
_SIZES = (50, 100, 150, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 4000, 5000, 7500, 10_000, 20_000)


@dataclass(frozen=True, slots=True)
class Question:
    """One task of a comparison: its items, and the drop that is accepted as a share."""

    items: int
    margin: float


@lru_cache(maxsize=1000)
def chance_to_pass(
    items: int, margin: float, *, churn: float = EQUAL_CHURN, level: float = FIRST_SHARE * LEVEL
) -> float:
    """Chance that a variant that loses nothing and changes a share `churn` of its answers passes at the first look."""
    from scipy import stats

    reach = float(stats.norm.isf(level))
    most = int(stats.binom.isf(1e-9, items, churn)) if churn > 0 else 0
    total = 0.0
    for changed in range(most + 1):
        harmful = _most_harmful(items, changed, margin, reach)
        if harmful >= 0:
            total += float(stats.binom.pmf(changed, items, churn) * stats.binom.cdf(harmful, changed, 0.5))
    return min(1.0, total)


def chance_to_pass_all(questions: Sequence[Question], *, churn: float = EQUAL_CHURN) -> float:
    """Chance that it passes every one of independent tasks."""
    return math.prod(chance_to_pass(each.items, each.margin, churn=churn) for each in questions)


def items_enough(questions: Sequence[Question]) -> int | None:
    """Items for each task, rounded up, with which it passes all with a chance of 90 %; None beyond 20,000."""
    for size in _SIZES:
        if chance_to_pass_all([Question(max(size, each.items), each.margin) for each in questions]) >= ENOUGH:
            return size
    return None


def told(questions: Sequence[Question]) -> str:
    """One line: what the run that is about to begin can show, and, where that is little, how many items would do."""
    if not questions:
        return ""
    chance = chance_to_pass_all(questions)
    which = "the task" if len(questions) == 1 else f"all {len(questions)} tasks"
    text = (
        f"a variant that loses nothing and changes {100 * EQUAL_CHURN:g} % of its answers passes {which} "
        f"with a chance of {_percent(chance)}"
    )
    needed = items_enough(questions)
    if chance >= ENOUGH or needed is None:
        return text
    better = chance_to_pass_all([Question(max(needed, each.items), each.margin) for each in questions])
    return f"{text}; with {needed:,} items each: {_percent(better)}"


def _most_harmful(items: int, changed: int, margin: float, reach: float) -> int:
    """The most harmful flips among `changed` that still pass, -1 where none do."""
    low, high = -1, changed
    while low < high:
        middle = (low + high + 1) // 2
        passes = score(items + 2, middle + 1, changed - middle + 1, -margin) > reach
        low, high = (middle, high) if passes else (low, middle - 1)
    return low


def _percent(share: float) -> str:
    return "over 99 %" if share > 0.995 else "under 1 %" if share < 0.005 else f"{100 * share:.0f} %"
