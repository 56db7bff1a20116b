"""What a request may ask: everything is checked here, before it can reach the batch of others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qtool.engine.contract import GenerationRequest, Sampling, ScoreRequest
from qtool.errors import RequestError

MOST_LOGPROBS = 20
MOST_STOPS = 16
LONGEST_STOP_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine can serve: ids below `vocabulary`, prompt and output together within `context_tokens`."""

    vocabulary: int
    context_tokens: int
    grammars: bool = False


def check_generation(request: GenerationRequest, limits: Limits) -> None:
    """Raises RequestError saying what is wrong with `request` and what would be right."""
    _check_ids(request.ids, "prompt", limits)
    tokens = request.max_new_tokens
    if not _is_whole(tokens) or tokens < 1:
        raise RequestError(f"max_new_tokens is {tokens!r}; it must be a whole number of at least 1")
    if len(request.ids) + tokens > limits.context_tokens:
        raise RequestError(
            f"prompt of {len(request.ids)} tokens and max_new_tokens={tokens} exceed the context of "
            f"{limits.context_tokens} tokens; shorten one of them"
        )
    _check_sampling(request.sampling)
    if request.grammar is not None and not limits.grammars:
        raise RequestError("this engine cannot hold its output to a grammar")
    _check_stops(request, limits)
    wanted = request.logprobs
    if wanted is not None and (not _is_whole(wanted) or not 0 <= wanted <= min(MOST_LOGPROBS, limits.vocabulary)):
        raise RequestError(f"logprobs is {wanted!r}; it must be a whole number from 0 to {MOST_LOGPROBS}")


def check_score(request: ScoreRequest, limits: Limits) -> None:
    """Raises RequestError when a prompt and continuation cannot be scored."""
    _check_ids(request.ids, "prompt", limits)
    _check_ids(request.continuation, "continuation", limits)
    total = len(request.ids) + len(request.continuation)
    if total > limits.context_tokens:
        raise RequestError(f"prompt and continuation have {total} tokens; the context holds {limits.context_tokens}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_ids(ids: Sequence[int], what: str, limits: Limits) -> None:
    if not ids:
        raise RequestError(f"the {what} is empty; it needs at least one token")
    if len(ids) > limits.context_tokens:
        raise RequestError(f"the {what} has {len(ids)} tokens; the context holds {limits.context_tokens}")
    for token in ids:
        if type(token) is not int or not 0 <= token < limits.vocabulary:
            raise RequestError(
                f"the {what} holds {token!r}, which is no token id; ids go from 0 to {limits.vocabulary - 1}"
            )


def _check_sampling(sampling: Sampling) -> None:
    ranges = (
        ("temperature", sampling.temperature, 0.0, 100.0),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("repetition_penalty", sampling.repetition_penalty, 0.0, 100.0),
        ("presence_penalty", sampling.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0),
    )
    for name, value, low, high in ranges:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not low <= value <= high:
            raise RequestError(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}")
    if sampling.top_p == 0.0 or sampling.repetition_penalty == 0.0:
        raise RequestError("top_p and repetition_penalty must be greater than 0; 1 switches them off")
    if 0.0 < sampling.temperature < 1e-3:
        raise RequestError(f"temperature {sampling.temperature!r} is too small; use 0 for greedy decoding")
    if not _is_whole(sampling.top_k) or sampling.top_k < 0:
        raise RequestError(f"top_k is {sampling.top_k!r}; it must be a whole number, 0 switches it off")
    if not _is_whole(sampling.seed):
        raise RequestError(f"seed is {sampling.seed!r}; it must be a whole number")


def _check_stops(request: GenerationRequest, limits: Limits) -> None:
    if len(request.stop) > MOST_STOPS:
        raise RequestError(f"{len(request.stop)} stop strings; at most {MOST_STOPS} are allowed")
    for text in request.stop:
        if not isinstance(text, str) or not text:
            raise RequestError("a stop string must be non-empty text")
        if len(text.encode("utf-8", "surrogatepass")) > LONGEST_STOP_BYTES:
            raise RequestError(f"a stop string is longer than {LONGEST_STOP_BYTES} bytes")
    for token in request.stop_ids:
        if type(token) is not int or not 0 <= token < limits.vocabulary:
            raise RequestError(f"stop id {token!r} is no token id; ids go from 0 to {limits.vocabulary - 1}")
