"""Items whose expected answer greedy decoding would write, decided in one pass over prompt and answer.

While every token of the expected answer is the most likely one, writing and reading see the same prefixes, so the
answer is the one that would have been written, token by token, with the same log-probabilities and margins. Anything
else is left to be generated: wrong answers, since what stands there instead matters; and near ties, since the kernels
of one long pass and of many short steps round differently.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qtool.engine.contract import GenerationRequest, Scored, ScoreRequest
from qtool.evaluate.contract import Answer, Context, Question

FORCED = "teacher forcing"
NEAR_TIE_NATS = 0.1  # in float32 the two ways differ by less than 1e-3 nats, with 8-bit activations by a few hundredths
WORTH_IT = 0.25  # share decided below which a pass costs more than it saves


@dataclass(slots=True)
class Decider:
    """Decides what it can of group after group, and gives up where too little can be; `stop` is the id that ends."""

    context: Context
    worth_it: bool = True
    stop: int | None = None
    left: list[int] = field(default_factory=list)

    def decide(
        self, group: Sequence[int], questions: Sequence[Question], requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[int, Answer]]:
        """(index, answer) of those of `group` that are decided; the others are added to `left`."""
        expected = {index: self._expected(questions[index], requests[index]) for index in group}
        tried = [index for index in group if expected[index]]
        scored = self._scored([(requests[index].ids, expected[index]) for index in tried])
        written = {index: each for index, each in zip(tried, scored, strict=True) if _would_be_written(each)}
        self.worth_it = len(written) >= WORTH_IT * len(group)
        self.left += [index for index in group if index not in written]
        for index, each in written.items():
            yield index, self._answer(requests[index], expected[index], each)

    def _expected(self, question: Question, request: GenerationRequest) -> tuple[int, ...]:
        """Ids of the expected answer, none where writing it would not end at a stop id."""
        language, prompt = self.context.language, request.ids
        whole = language.encode(question.prompt + question.item.answer)
        ids = whole[len(prompt) :]
        fits = 0 < len(ids) < request.max_new_tokens and not set(ids) & set(request.stop_ids)
        if whole[: len(prompt)] != prompt or not fits or not request.stop_ids:
            return ()
        text = language.decode(ids)
        return () if any(stop in text for stop in request.stop) else ids

    def _scored(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Scored]:
        """Each answer with the id that ends it; with several such ids, the one that this model uses is found first."""
        if not pairs:
            return []
        if self.stop is None:
            ends = self.context.language.stop_ids
            prompt, ids = pairs[0]
            found = self.context.engine.score([ScoreRequest(prompt, (*ids, stop)) for stop in ends])
            self.stop = max(zip(ends, found, strict=True), key=lambda pair: pair[1].logprobs[-1])[0]
        return self.context.engine.score([ScoreRequest(prompt, (*ids, self.stop)) for prompt, ids in pairs])

    def _answer(self, request: GenerationRequest, ids: tuple[int, ...], scored: Scored) -> Answer:
        return Answer(
            text=self.context.language.decode(ids),
            ids=ids,
            logprobs=scored.logprobs[:-1],
            margins=scored.margins[:-1],
            finish="stop",
            prompt_tokens=len(request.ids),
            latency_ms=0.0,
            decided_by=FORCED,
        )


def _would_be_written(scored: Scored) -> bool:
    return all(scored.greedy) and min(scored.margins) >= NEAR_TIE_NATS
