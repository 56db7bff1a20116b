"""Our engine behind lm-evaluation-harness's `LM` interface."""

import importlib
from collections.abc import Sequence
from typing import Any

from qtool.engine.contract import Engine, GenerationRequest, Scored, ScoreRequest
from qtool.evaluate.asking.in_flight import fly
from qtool.evaluate.contract import Context, Language, groups
from qtool.evaluate.items.tasks import load_task
from qtool.evaluate.scorers.generation import cut
from qtool.evaluate.scorers.rolling import windows

_DEFAULT_NEW_TOKENS = 256


def make_model(engine: Engine, language: Language, *, in_flight: int) -> Any:
    """An `LM` that answers with `engine`. The class is made here because its parent is an optional package's."""
    parent: Any = importlib.import_module("lm_eval.api.model").TemplateLM

    class EngineModel(parent):  # type: ignore[misc]
        """Log-likelihoods and greedy continuations, many at once."""

        tokenizer_name = "qtool"

        @property
        def eot_token_id(self) -> int:
            return language.stop_ids[0]

        @property
        def prefix_token_id(self) -> int:
            return (language.encode("") or language.stop_ids)[0]

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **ignored: object) -> list[int]:
            return list(language.encode(string, bos=add_special_tokens is not False))

        def _loglikelihood_tokens(self, requests: Sequence[Any], **ignored: object) -> list[tuple[float, bool]]:
            return _likelihoods([(list(context), list(answer)) for _, context, answer in requests], engine, in_flight)

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            return [_rolling(request.args[0], engine, language, in_flight) for request in requests]

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            return _continuations([request.args for request in requests], engine, language, in_flight)

        def apply_chat_template(self, history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return language.chat("\n\n".join(turn["content"] for turn in history))

    return EngineModel()


def _likelihoods(pairs: list[tuple[list[int], list[int]]], engine: Engine, in_flight: int) -> list[tuple[float, bool]]:
    """(sum of log-probabilities, whether every token is the greedy one); contexts lose their beginning to fit."""
    room = engine.status().context_tokens
    requests = []
    for context, answer in pairs:
        kept = answer[-(room - 1) :]
        requests.append(ScoreRequest(ids=tuple(context[-(room - len(kept)) :]), continuation=tuple(kept)))
    scored: list[Scored] = []
    for group in groups(len(requests), in_flight):
        scored += engine.score([requests[index] for index in group])
    return [(float(sum(each.logprobs)), all(each.greedy)) for each in scored]


def _rolling(text: str, engine: Engine, language: Language, in_flight: int) -> float:
    context = Context(engine, language, load_task("perplexity"), in_flight)
    ids = language.encode(text)
    scored = engine.score(windows(ids, context)) if len(ids) > 1 else []
    return float(sum(value for each in scored for value in each.logprobs))


def _continuations(
    arguments: Sequence[tuple[str, dict[str, Any]]], engine: Engine, language: Language, in_flight: int
) -> list[str]:
    """Greedy continuations up to the first of each request's stop texts, in order."""
    room = engine.status().context_tokens
    requests, stops = [], []
    for prompt, options in arguments:
        until = options.get("until") or []
        stops.append([until] if isinstance(until, str) else list(until))
        tokens = min(int(options.get("max_gen_toks", _DEFAULT_NEW_TOKENS)), room // 2)
        requests.append(
            GenerationRequest(
                ids=language.encode(prompt)[-(room - tokens) :],
                max_new_tokens=tokens,
                stop_ids=language.stop_ids,
                stop=tuple(stops[-1]),
            )
        )
    found = [""] * len(requests)
    for flight in fly(engine, requests, in_flight=in_flight):
        found[flight.index] = cut(language.decode(flight.ids), stops[flight.index])
    return found
