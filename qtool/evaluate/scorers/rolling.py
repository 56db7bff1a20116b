"""Nothing is asked: the text's own tokens are given their probability.

What it does: scores every token of the item's text given those before it, in windows of the model's context, each
window beginning in the middle of the one before so that no token stands without context.
When to use it: perplexity of any text; the most sensitive and the least telling measure of damage.
What it costs: about two forward passes over the text.
When it fails: perplexities of models with other tokenizers cannot be compared.
"""

import time
from collections.abc import Iterator, Sequence

from qtool.engine.contract import Scored, ScoreRequest
from qtool.errors import DataError
from qtool.evaluate.contract import Answer, AnswerKind, Context, Question, groups

ANSWERS: AnswerKind = "likelihood"


def ask(questions: Sequence[Question], context: Context) -> Iterator[tuple[int, Answer]]:
    """(index, answer), some at a time; an answer carries the text's log-probabilities and no ids."""
    for group in groups(len(questions), context.in_flight):
        started_s = time.monotonic()
        requests = [windows(_ids(questions[index], context), context) for index in group]
        scored = iter(context.engine.score([request for several in requests for request in several]))
        results = [[next(scored) for _ in several] for several in requests]
        shared_ms = 1000.0 * (time.monotonic() - started_s) / len(group)
        for index, result in zip(group, results, strict=True):
            yield index, _answer(questions[index], result, shared_ms)


def windows(ids: tuple[int, ...], context: Context) -> list[ScoreRequest]:
    """Requests that together score ids[1:] once each, every one after at least half a window of context."""
    room = context.engine.status().context_tokens
    if len(ids) <= room:
        return [ScoreRequest(ids=ids[:1], continuation=ids[1:])]
    made = [ScoreRequest(ids=ids[:1], continuation=ids[1:room])]
    for start in range(room, len(ids), room // 2):
        end = min(start + room // 2, len(ids))
        made.append(ScoreRequest(ids=ids[end - room : start], continuation=ids[start:end]))
    return made


def _ids(question: Question, context: Context) -> tuple[int, ...]:
    ids = context.language.encode(question.prompt)
    if len(ids) < 2:
        raise DataError(f"item {question.item.id!r}: {len(ids)} tokens; the rolling scorer needs at least 2")
    return ids


def _answer(question: Question, scored: list[Scored], shared_ms: float) -> Answer:
    logprobs = tuple(value for result in scored for value in result.logprobs)
    return Answer(
        text="",
        ids=(),
        logprobs=logprobs,
        margins=(),
        finish="stop",
        prompt_tokens=len(logprobs),
        latency_ms=shared_ms,
    )
