"""KL divergence, expected acceptance and top-1 agreement against the baseline, from sampled continuations and answers.

The baseline writes some continuations at temperature 1 and keeps its log-probability p of each token; the variant gives
the same tokens its own, q. q/p - 1 - ln(q/p), averaged over tokens that the baseline drew, has KL(baseline || variant)
as its mean, is never negative, and varies far less than ln(p/q) does. Every engine that can score can be measured so,
without ever handing out whole distributions.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qtool.engine.contract import Engine, GenerationRequest, Sampling, ScoreRequest
from qtool.errors import PlanError, StoreError
from qtool.evaluate.asking.in_flight import fly
from qtool.evaluate.contract import Context, Question
from qtool.evaluate.scorers import load_scorer
from qtool.evaluate.verdicts.statistics import mean_interval
from qtool.records.evaluation import Agreement, ItemResult
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record

SAMPLES = 64
_FEWEST_SAMPLES = 8
_ITEMS_A_SAMPLE = 6  # drawing and scoring a sample costs about an answer: a few of a few items, not as many again
_FEWEST_BEYOND = 10
SAMPLE_TOKENS = 24
_DIGITS = re.compile(r"[\d+\-*/=^%×÷−<>]+|\.\d+")

Place = tuple[int, bool, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """A continuation that the baseline drew after `prompt`, with its own log-probability of each token (nats)."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Samples:
    """What the baseline's run left for its variants."""

    run_digest: str
    samples: tuple[Sample, ...]


def samples_path(folder: Path, task: str) -> Path:
    """Where the baseline's sampled continuations lie."""
    return folder / f"{task}.samples.json"


def read_samples(folder: Path, task: str, run_digest: str) -> tuple[Sample, ...]:
    """The samples of this very run of the baseline; none where there are none."""
    path = samples_path(folder, task)
    if not path.is_file():
        return ()
    try:
        found = read_json(Samples, path)
    except (PlanError, StoreError):
        return ()  # written by another version of qtool
    return found.samples if found.run_digest == run_digest else ()


def write_samples(folder: Path, task: str, samples: Samples) -> None:
    """Keeps the samples beside the baseline's evaluation."""
    write_record(samples_path(folder, task), samples)


def draw(questions: Sequence[Question], context: Context, *, seed: int) -> tuple[Sample, ...]:
    """Continuations of the first questions at temperature 1, scored by the model that wrote them: one for every six
    questions, at least 8 and at most 64."""
    room = context.engine.status().context_tokens
    count = min(SAMPLES, max(_FEWEST_SAMPLES, len(questions) // _ITEMS_A_SAMPLE))
    requests = [_request(question, context, room, seed + index) for index, question in enumerate(questions[:count])]
    drawn = [
        (requests[flight.index].ids, tuple(flight.ids))
        for flight in sorted(fly(context.engine, requests, in_flight=context.in_flight), key=lambda each: each.index)
        if flight.ids
    ]
    logprobs = _logprobs(context.engine, drawn)
    return tuple(Sample(prompt, ids, values) for (prompt, ids), values in zip(drawn, logprobs, strict=True))


def measure(samples: Sequence[Sample], engine: Engine) -> list[tuple[float, ...]]:
    """The variant's log-probabilities of the baseline's samples."""
    return _logprobs(engine, [(sample.prompt, sample.ids) for sample in samples])


def agree(
    samples: Sequence[Sample],
    logprobs: Sequence[Sequence[float]],
    before: Sequence[ItemResult],
    after: Sequence[ItemResult],
    *,
    decode: Callable[[Sequence[int]], str] | None = None,
) -> Agreement:
    """All measures; the interval of the divergence takes each sample as one observation, since its tokens hang
    together. Digits and operators are told by `decode`, which makes a token's text."""
    pairs = list(zip((sample.logprobs for sample in samples), logprobs, strict=True))
    terms = [_divergence(baseline, values) for baseline, values in pairs]
    # a token drawn from p is accepted with min(1, q/p), whose mean over p is the sum of min(p, q)
    accepted = np.array([np.exp(np.minimum(0.0, np.subtract(values, baseline))).sum() for baseline, values in pairs])
    counts = np.array([len(each) for each in terms], dtype=float)
    sums = np.array([each.sum() for each in terms])
    tokens = int(counts.sum())
    several = len(terms) > 1
    kept = list(_places(before, after))
    same, places = sum(equal for _, equal, _ in kept), len(kept)
    digits = _of_digits(kept, decode)
    return Agreement(
        kl_nats=float(sums.sum() / tokens) if tokens else None,
        kl_interval=mean_interval(sums / counts.mean()) if several else None,
        kl_tokens=tokens,
        top1_share=same / places if places else None,
        top1_tokens=places,
        kl_p99_nats=_percentile(terms, 0.99),
        kl_p999_nats=_percentile(terms, 0.999),
        expected_acceptance=float(accepted.sum() / tokens) if tokens else None,
        acceptance_interval=mean_interval(accepted / counts.mean()) if several else None,
        lead_lost_share=_lost(kept),
        digit_top1_share=sum(equal for _, equal, _ in digits) / len(digits) if digits else None,
        digit_lead_lost_share=_lost(digits),
        digit_tokens=len(digits),
    )


def _percentile(terms: Sequence["np.ndarray[tuple[int], np.dtype[np.float64]]"], share: float) -> float | None:
    """None where fewer than ten terms lie beyond: the next sample would have others."""
    together = np.concatenate(terms) if terms else np.zeros(0)
    return float(np.quantile(together, share)) if round(len(together) * (1 - share)) >= _FEWEST_BEYOND else None


def _request(question: Question, context: Context, room: int, seed: int) -> GenerationRequest:
    kept = max(1, room - SAMPLE_TOKENS)
    ids = context.language.encode(question.prompt)
    # running text is all prompt: its first half is what is continued
    ids = ids[: max(1, len(ids) // 2)] if load_scorer(context.task.scorer).ANSWERS == "likelihood" else ids
    return GenerationRequest(
        ids=ids if len(ids) <= kept else ids[:1] + ids[len(ids) - kept + 1 :],
        max_new_tokens=min(SAMPLE_TOKENS, max(1, room - kept)),
        sampling=Sampling(temperature=1.0, seed=seed),
        stop_ids=context.language.stop_ids,
    )


def _logprobs(engine: Engine, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[tuple[float, ...]]:
    scored = engine.score([ScoreRequest(ids=prompt, continuation=ids) for prompt, ids in pairs]) if pairs else []
    return [each.logprobs for each in scored]


def _divergence(baseline: Sequence[float], variant: Sequence[float]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    ratio = np.asarray(variant, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    return np.expm1(ratio) - ratio


def _places(before: Sequence[ItemResult], after: Sequence[ItemResult]) -> Iterator[Place]:
    """Each place up to where the two answers part: the baseline's token, whether both chose it, the baseline's lead."""
    for old, new in zip(before, after, strict=True):
        if not old.margins or not new.margins:
            continue  # not generated token by token
        for left, right, lead in zip(old.output_ids, new.output_ids, old.margins, strict=False):
            yield left, left == right, lead
            if left != right:
                break


def _of_digits(places: Sequence[Place], decode: Callable[[Sequence[int]], str] | None) -> list[Place]:
    """Those of the places whose token is made of digits or operators."""
    if decode is None:
        return []
    texts = {token: decode([token]) for token in {token for token, _, _ in places}}
    return [place for place in places if _DIGITS.fullmatch(texts[place[0]].strip(" \u2581"))]


def _lost(places: Sequence[Place]) -> float | None:
    """Share of the baseline's leads, over all places, that lies where the variant chose another token."""
    whole = sum(lead for _, _, lead in places)
    return sum(lead for _, equal, lead in places if not equal) / whole if whole > 0 else None
