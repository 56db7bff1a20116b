"""How far rounding the model's own weights to 4 bits moves its margins, measured on a few items before any variant is.

Each linear layer inside the blocks is rounded to the nearest of 16 steps a row, the crudest scheme there is, in a copy
of the model (rounded_copy); the copy reads a few prompts with the answers the model gave, one pass each. No answer is
generated and no variant is needed.
"""

import inspect
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from qtool.engine.contract import Engine, EngineStatus, Scored, ScoreRequest
from qtool.evaluate.asking.questions import Work, context_of
from qtool.evaluate.contract import AnswerKind, Context, Question
from qtool.evaluate.scorers import choice, load_scorer
from qtool.records.evaluation import ItemResult
from qtool.records.rounding_noise import RoundingNoise

ITEMS = 64
_ROWS = 64
FEWEST_ITEMS = 16  # read whatever the time: fewer say nothing
_NATS = 4  # decimals kept


def measure_noise(
    questions: Sequence[Question], rows: Sequence[ItemResult], work: Work, *, seconds: float
) -> RoundingNoise:
    """The noise on the first items that carry margins, for about `seconds`; a reason where this model cannot be rounded
    here."""
    answers = load_scorer(work.asked.task.scorer).ANSWERS
    pairs = zip(questions, rows, strict=True)
    chosen = [(question, row) for question, row in pairs if _usable(question, row, answers)][:ITEMS]
    if not chosen:
        return RoundingNoise(work.digest, why_not="its answers carry no margins")
    started_s = time.monotonic()
    model, error, why_not = work.rounded.get()
    if model is None:
        return RoundingNoise(work.digest, why_not=why_not)
    context = context_of(work)
    reader = _Reader(model, context.engine.status())
    margins = []
    for question, row in chosen:
        after = _margins_after(question, row, reader, context)
        margins.append(tuple((old, round(new, _NATS)) for old, new in zip(row.margins, after, strict=True)))
        if len(margins) >= FEWEST_ITEMS and time.monotonic() - started_s > seconds:
            break
    return RoundingNoise(work.digest, weight_error=error, margins=tuple(margins))


def _usable(question: Question, row: ItemResult, answers: AnswerKind) -> bool:
    """Choices, and answers written token by token, after a prompt that was not cut."""
    by_token = len(row.margins) == len(row.output_ids) and answers == "text"
    by_choice = answers == "choice" and len(question.item.choices) > 1
    return bool(row.margins) and (by_token or by_choice) and not dict(row.notes).get("prompt")


class _Reader:
    """The rounded model as far as a scorer needs an engine: it scores, one request at a time."""

    def __init__(self, model: Any, status: EngineStatus) -> None:
        self._model, self._device, self._status = model, model.device, status
        self._keeps_some = "logits_to_keep" in inspect.signature(model.forward).parameters

    def status(self) -> EngineStatus:
        """That of the engine which gave the answers, so that prompts are cut alike."""
        return self._status

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Log-probabilities and margins of each continuation."""
        return [self._score(request) for request in requests]

    def _score(self, request: ScoreRequest) -> Scored:
        import torch

        ids = torch.tensor([[*request.ids, *request.continuation]], device=self._device)
        wanted = len(request.continuation) + 1
        kept = {"logits_to_keep": wanted} if self._keeps_some else {}
        with torch.inference_mode():
            logits = self._model(input_ids=ids, use_cache=False, **kept).logits[0, -wanted:-1]
        own = torch.tensor(request.continuation, device=self._device)[:, None]
        logprobs: list[float] = []
        margins: list[float] = []
        for rows, right in zip(
            torch.split(logits, _ROWS), torch.split(own, _ROWS), strict=True
        ):  # copies of some rows at a time
            numbers = rows.float()
            chosen = numbers.gather(1, right)[:, 0]
            logprobs += (chosen - torch.logsumexp(numbers, dim=1)).tolist()
            margins += (chosen - numbers.scatter(1, right, float("-inf")).amax(dim=1)).tolist()
        return Scored(tuple(logprobs), tuple(margin > 0 for margin in margins), tuple(margins))


def _margins_after(question: Question, row: ItemResult, reader: _Reader, context: Context) -> list[float]:
    """The margins of the baseline's own answer in the rounded model; a negative one is a token, or a choice, lost."""
    if load_scorer(context.task.scorer).ANSWERS == "choice":
        _, answer = next(choice.ask([question], replace(context, engine=cast(Engine, reader), in_flight=1)))
        return [answer.margins[0] if answer.text == row.output else -answer.margins[0]]
    prompt = context.language.encode(question.prompt)
    return list(reader.score([ScoreRequest(prompt, row.output_ids)])[0].margins)
