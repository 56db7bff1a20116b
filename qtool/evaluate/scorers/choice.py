"""The most likely of given answers is the answer.

What it does: gives the model each choice as continuation of the prompt and takes the one with the highest
log-likelihood: by token (`metric_options.normalize = "tokens"`), by character ("characters") or in all ("none", the
default); keeps by how much the best beat the second.
When to use it: multiple choice (ARC, HellaSwag, MMLU, TruthfulQA), labels, small models that do not follow a format.
What it costs: one forward pass for each choice, no generation.
When it fails: under "none" short choices are favoured over long ones; a likelihood is not what a user reads.
"""

import time
from collections.abc import Iterator, Sequence

from qtool.engine.contract import Scored, ScoreRequest
from qtool.errors import DataError, PlanError
from qtool.evaluate.contract import Answer, AnswerKind, Context, Question, groups
from qtool.evaluate.items.wording import between

NORMALIZATIONS = ("none", "characters", "tokens")


ANSWERS: AnswerKind = "choice"


def ask(questions: Sequence[Question], context: Context) -> Iterator[tuple[int, Answer]]:
    """(index, answer), some at a time; a group's time is shared out equally among its items."""
    for group in groups(len(questions), context.in_flight):
        started_s = time.monotonic()
        requests = [_requests(questions[index], context) for index in group]
        scored = iter(context.engine.score([request for several in requests for request in several]))
        results = [[next(scored) for _ in several] for several in requests]
        shared_ms = 1000.0 * (time.monotonic() - started_s) / len(group)
        for index, several, result in zip(group, requests, results, strict=True):
            yield index, _answer(questions[index], several, result, context, shared_ms)


def _requests(question: Question, context: Context) -> list[ScoreRequest]:
    if len(question.item.choices) < 2:
        raise DataError(f"item {question.item.id!r}: the choice scorer needs at least two choices")
    room = context.engine.status().context_tokens
    made = []
    for choice in question.item.choices:
        prompt, continuation = split(context, question.prompt, choice)
        kept = max(1, room - len(continuation))
        made.append(ScoreRequest(ids=prompt if len(prompt) <= kept else prompt[-kept:], continuation=continuation))
    return made


def split(context: Context, prompt: str, choice: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Prompt ids and continuation ids, cut where their common encoding leaves the prompt's own.

    A token that spans the border belongs to the continuation, so that every choice is scored in its usual spelling.
    """
    separator = between(prompt, choice, context.language if context.chat else None)
    alone = context.language.encode(prompt)
    joined = context.language.encode(prompt + separator + choice)
    border = next((i for i, pair in enumerate(zip(alone, joined, strict=False)) if pair[0] != pair[1]), len(alone))
    border = max(1, min(border, len(joined) - 1))
    return joined[:border], joined[border:]


def _answer(
    question: Question, requests: list[ScoreRequest], scored: list[Scored], context: Context, shared_ms: float
) -> Answer:
    normalize = context.task.metric_options.get("normalize", "none")
    if normalize not in NORMALIZATIONS:
        raise PlanError([f"metric_options.normalize: {normalize!r} is not one of {', '.join(NORMALIZATIONS)}"])
    choices = question.item.choices
    weighed = {name: [_value(name, *pair) for pair in zip(choices, scored, strict=True)] for name in NORMALIZATIONS}
    values = weighed[str(normalize)]
    best, second = sorted(range(len(values)), key=lambda index: -values[index])[:2]
    return Answer(
        text=question.item.choices[best],
        ids=requests[best].continuation,
        logprobs=scored[best].logprobs,
        margins=(values[best] - values[second],),
        finish="stop",
        prompt_tokens=len(requests[best].ids),
        latency_ms=shared_ms,
        chosen=tuple(
            (name, choices[_best(weighed[how])]) for name, how in (("acc", "none"), ("acc_norm", "characters"))
        ),
    )


def _value(normalize: str, choice: str, result: Scored) -> float:
    length = {"none": 1, "characters": max(1, len(choice)), "tokens": max(1, len(result.logprobs))}[normalize]
    return sum(result.logprobs) / length


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
