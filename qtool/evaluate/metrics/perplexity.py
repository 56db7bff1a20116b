"""How surprised the model is by a text.

What it does: each item's value is its mean negative log-likelihood in nats a token; the task's score is the exponential
of the token-weighted mean. Differences and margins are ratios of perplexities: a margin of 2 points allows 2 % more.
When to use it: with the rolling scorer, on text like your own.
What it costs: two forward passes over the text.
When it fails: a perplexity that did not move does not show that sums or code still work.
"""

import math

from qtool.errors import PlanError
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "lower"
BINARY = False
PERFECT = 0.0
UNIT: Unit = "perplexity"


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """Mean negative log-likelihood of the item's tokens, in nats."""
    if not answer.logprobs:
        raise PlanError([f"task {task.name}: the metric perplexity needs the scorer rolling, not {task.scorer}"])
    return Grade(score=-math.fsum(answer.logprobs) / len(answer.logprobs), extracted="")
