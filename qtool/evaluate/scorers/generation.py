"""The model writes, greedily, and its text is the answer.

What it does: continues the prompt token by token, always the most likely one, until the model stops, a stop text
appears or `max_new_tokens` are reached; keeps log-probability and margin of every token.
When to use it: for anything a user would read: sums, code, JSON, labels.
What it costs: one step of the model for each token, many items at once; one pass for all tokens of an item whose
expected answer the model is found to write.
When it fails: a prompt longer than the model's context is cut at its beginning, and counted as such.
"""

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from qtool.engine.contract import GenerationRequest, Sampling
from qtool.evaluate.answers.spoken import opens_thinking
from qtool.evaluate.asking.in_flight import Flight, fly
from qtool.evaluate.asking.teacher_forcing import Decider
from qtool.evaluate.contract import Answer, AnswerKind, Context, Question, groups

_GROUP = 64  # items decided in one call: enough to fill the engine's batches, few enough to show progress


ANSWERS: AnswerKind = "text"


def ask(questions: Sequence[Question], context: Context) -> Iterator[tuple[int, Answer]]:
    """(index, answer) as the items finish. The first items are always generated, so that some show real latencies."""
    room = context.engine.status().context_tokens
    prompts = [context.language.encode(question.prompt) for question in questions]
    requests = [
        _request(ids, _seed(question, context), room, context) for ids, question in zip(prompts, questions, strict=True)
    ]
    whole = [len(request.ids) == len(ids) for request, ids in zip(requests, prompts, strict=True)]
    thinking = [context.chat and opens_thinking(question.prompt) for question in questions]
    first = min(len(questions), max(context.in_flight, _GROUP)) if context.forcing else len(questions)
    decider = Decider(context)
    written = []
    for index, answer in _generated(range(first), requests, whole, thinking, context):
        written.append((requests[index], answer))
        yield index, answer
    if first < len(questions):
        decider.measure(written)
    for group in groups(len(questions) - first, _GROUP):
        indices = [first + place for place in group]
        if decider.worth_it:
            yield from _decided(decider, indices, questions, requests)
        else:
            decider.left += indices
    yield from _generated(decider.left, requests, whole, thinking, context)


def cut(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first stop text in it."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def _seed(question: Question, context: Context) -> int:
    """Of the item, not of its place among those asked: a resumed run draws what the whole one would have drawn."""
    return context.seed + zlib.crc32(question.item.id.encode())


def _decided(
    decider: Decider, indices: Sequence[int], questions: Sequence[Question], requests: Sequence[GenerationRequest]
) -> Iterator[tuple[int, Answer]]:
    """What can be decided without generating; the time of the pass is shared out equally among the group."""
    started_s = time.monotonic()
    found = list(decider.decide(indices, questions, requests))
    shared_ms = 1000.0 * (time.monotonic() - started_s) / len(indices)
    for index, answer in found:
        yield index, replace(answer, latency_ms=shared_ms)


def _generated(
    indices: Sequence[int],
    requests: Sequence[GenerationRequest],
    whole: Sequence[bool],
    thinking: Sequence[bool],
    context: Context,
) -> Iterator[tuple[int, Answer]]:
    for flight in fly(context.engine, [requests[index] for index in indices], in_flight=context.in_flight):
        index = indices[flight.index]
        yield (
            index,
            _answer(flight, requests[index], context, cut_prompt=not whole[index], opens_thinking=thinking[index]),
        )


def _request(ids: tuple[int, ...], seed: int, room: int, context: Context) -> GenerationRequest:
    # an eighth of the context stays for the answer whatever the prompt is; the rest of a long prompt is its end
    answer_tokens = min(context.task.max_new_tokens, max(room // 8, room - len(ids)))
    kept = room - answer_tokens
    return GenerationRequest(
        ids=ids if len(ids) <= kept else ids[:1] + ids[len(ids) - kept + 1 :],
        max_new_tokens=answer_tokens,
        sampling=Sampling(temperature=context.task.temperature, seed=seed),
        stop_ids=context.language.stop_ids,
        stop=context.task.stop,
        logprobs=2,
    )


def _answer(
    flight: Flight, request: GenerationRequest, context: Context, *, cut_prompt: bool, opens_thinking: bool
) -> Answer:
    return Answer(
        text=cut(context.language.decode(flight.ids), context.task.stop),
        ids=tuple(flight.ids),
        logprobs=tuple(flight.logprobs),
        margins=tuple(flight.margins),
        finish=flight.finish,
        prompt_tokens=len(request.ids),
        latency_ms=flight.latency_ms,
        prompt_cut=cut_prompt,
        thinking_open=opens_thinking,
    )
