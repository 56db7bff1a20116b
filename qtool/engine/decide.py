"""Whether greedy decoding would give an expected answer, in one pass instead of one a token."""

from collections.abc import Sequence

from qtool.engine.contract import Engine, ScoreRequest


def greedy_gives(
    engine: Engine, prompts: Sequence[tuple[int, ...]], answers: Sequence[tuple[int, ...]], stop_ids: Sequence[int]
) -> list[bool]:
    """For each prompt: would greedy decoding write exactly its answer and then one of `stop_ids`.

    Equivalent to generating: while every answer token is the argmax, both see the same prefixes, and the first that
    is not decides. Most items are decided by the first of `stop_ids`; only an answer that is right so far is asked
    about the next. An answer may be empty: would the end come at once. What was written instead of a wrong answer is
    not known; generate where that matters.
    """
    verdicts: list[bool | None] = [
        False if set(answer) & set(stop_ids) else None  # generating would have ended inside it
        for answer in answers
    ]
    for stop in stop_ids:
        open_items = [index for index, verdict in enumerate(verdicts) if verdict is None]
        scored = engine.score([ScoreRequest(prompts[index], (*answers[index], stop)) for index in open_items])
        for index, found in zip(open_items, scored, strict=True):
            if all(found.greedy):
                verdicts[index] = True
            elif not all(found.greedy[:-1]):
                verdicts[index] = False  # the answer itself is not what would be written, whatever ends it
    return [verdict is True for verdict in verdicts]
