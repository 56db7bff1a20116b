"""Parts of benchmarks/verdicts.py beyond one look at right-or-wrong items: each simulates variants of known truth."""

import functools
import math

import numpy as np
from numpy.typing import NDArray

from qtool.evaluate import advice
from qtool.evaluate.verdicts import metric_scale, sequential, statistics, verdict
from qtool.records.evaluation import Look

Shares = dict[str, float]
Counts = NDArray[np.int64]

_TEXT_MARGIN = math.log1p(0.02)


@functools.lru_cache(maxsize=200_000)
def bounds(items: int, harmful: int, beneficial: int, level: float) -> verdict.Bounds:
    """qtool's own bounds for so many flips; they depend on nothing else."""
    gains = np.zeros(items)
    gains[:harmful] = -1.0
    gains[harmful : harmful + beneficial] = 1.0
    return verdict.bounds(gains, level=level)


@functools.lru_cache(maxsize=200_000)
def _advised(items: int, harmful: int, beneficial: int, history: tuple[Look, ...], margin: float) -> int | None:
    return advice.items_to_decide(
        bounds(items, harmful, beneficial, history[-1].level), margin, history=history, level=verdict.LEVEL
    )


@functools.lru_cache(maxsize=10_000)
def _looked(history: tuple[Look, ...], items: int, limit: int | None) -> tuple[Look, ...]:
    return sequential.look(history, items, sequential.Plan(limit=limit))


@functools.lru_cache(maxsize=200_000)
def _decided(ordered: bytes, pseudo: float, margin: float) -> str:
    """qtool's own verdict on gains; they come in order, since the order means nothing and samples repeat."""
    return verdict.decide(verdict.bounds(np.frombuffer(ordered), pseudo=pseudo), margin)


def followed(
    rng: np.random.Generator, *, churn: float, drop: float, margin: float, first: int, simulations: int
) -> Shares:
    """A user who looks at `first` items and, where they do not decide, does what the line says until it decides or says
    no more; with the share of first advices that decided at the number they named."""
    chances = [(churn + drop) / 2, (churn - drop) / 2, 1 - churn]
    found: Shares = dict.fromkeys(("PASS", "FAIL", "UNDECIDED", "decided as advised"), 0.0)
    advised = kept = 0
    for _ in range(simulations):
        harmful = beneficial = items = 0
        history: tuple[Look, ...] = ()
        name, limit = "UNDECIDED", None
        ahead = [first]
        while ahead and name == "UNDECIDED":
            size = ahead.pop(0)
            drawn = rng.multinomial(size - items, chances)
            harmful, beneficial, items = harmful + int(drawn[0]), beneficial + int(drawn[1]), size
            history = _looked(history, items, limit)
            if history[-1].level < 1e-7:
                break
            name = verdict.decide(bounds(items, harmful, beneficial, history[-1].level), margin)
            if name == "UNDECIDED" and not ahead and len(history) < 6:
                wanted = _advised(items, harmful, beneficial, history, margin)
                advised += wanted is not None and len(history) == 1
                limit = _rounded(wanted) if wanted is not None else None
                ahead = [size for size in sequential.look_sizes(first, limit) if size > items] if limit else []
                promised = limit if len(history) == 1 else None
        kept += len(history) > 1 and name != "UNDECIDED" and promised is not None and items <= promised
        found[name] += 1 / simulations
    found["decided as advised"] = kept / advised if advised else float("nan")
    return found


def _rounded(items: int) -> int:
    """Up to two figures, which lets the simulation use its levels again."""
    unit = 10 ** max(0, len(str(items)) - 2)
    return math.ceil(items / unit) * unit


def clustered(
    rng: np.random.Generator, *, clusters: int, size: int, alike: float, churn: float, drop: float, margin: float,
    simulations: int,
) -> Shares:  # fmt: skip
    """Items in clusters with intra-cluster correlation `alike` (Dirichlet-multinomial flips; 1: all or none of one)."""
    chances = np.array([(churn + drop) / 2, (churn - drop) / 2, 1 - churn])
    names = [f"c{index // size}" for index in range(clusters * size)]
    found: Shares = dict.fromkeys(("PASS", "FAIL", "UNDECIDED"), 0.0)
    for _ in range(simulations):
        if alike == 0:
            shares = np.tile(chances, (clusters, 1))
        elif alike == 1:
            shares = rng.multinomial(1, chances, size=clusters).astype(float)
        else:
            shares = rng.dirichlet(np.maximum(chances, 1e-9) * (1 - alike) / alike, size=clusters)
        counts = np.array([rng.multinomial(size, share / share.sum()) for share in shares])
        gains = np.concatenate([np.repeat([-1.0, 1.0, 0.0], row) for row in counts])
        found[verdict.decide(verdict.bounds(gains, clusters=names), margin)] += 1 / simulations
    return found


def scored(rng: np.random.Generator, *, kind: str, items: int, drop: float, margin: float, simulations: int) -> Shares:
    """Scores between 0 and 1 that are no yes or no."""
    found: Shares = dict.fromkeys(("PASS", "FAIL", "UNDECIDED"), 0.0)
    for _ in range(simulations):
        gains = _gains(rng, kind, items, drop)
        found[_decided(np.sort(gains).tobytes(), 1.0, margin)] += 1 / simulations
    return found


def texts(rng: np.random.Generator, *, kind: str, items: int, drop: float, simulations: int) -> Shares:
    """Perplexity of `items` texts; `drop` in nats a token on average, accepted 2 %."""
    found: Shares = dict.fromkeys(("PASS", "FAIL", "UNDECIDED"), 0.0)
    for _ in range(simulations):
        gains = _text_gains(rng, kind, items, drop)
        reach = max(metric_scale.WORST_NATS, 2 * float(np.abs(gains).max()))
        few = items < verdict.FEWEST_TEXTS
        decided = "UNDECIDED" if few else _decided(np.sort(gains).tobytes(), reach, _TEXT_MARGIN)
        found[decided] += 1 / simulations
    return found


def pooled(rng: np.random.Generator, *, tasks: int, items: int, churn: float, drop: float, simulations: int) -> float:
    """Share of samples in which all tasks together got worse at 5 %."""
    chances = [(churn + drop) / 2, (churn - drop) / 2, 1 - churn]
    counts = rng.multinomial(items, chances, size=(simulations, tasks)).sum(axis=1)
    return float(np.mean([_worse(int(harmful), int(beneficial)) for harmful, beneficial, _ in counts]))


@functools.lru_cache(maxsize=100_000)
def _worse(harmful: int, beneficial: int) -> bool:
    return statistics.mcnemar_worse(harmful, beneficial) < 0.05


def _gains(rng: np.random.Generator, kind: str, items: int, drop: float) -> NDArray[np.float64]:
    if kind == "losses of 0.95":
        return -0.95 * (rng.random(items) < drop / 0.95)
    if kind == "losses of 0.5":
        return -0.5 * (rng.random(items) < drop / 0.5)
    if kind == "one fraction among right or wrong":
        gains = -1.0 * (rng.random(items) < drop)
        gains[0] = -1e-4
        return gains
    if kind == "fields of five":
        return rng.choice([-0.4, -0.2, 0.0, 0.2], size=items, p=_fields(drop))
    return np.clip(rng.normal(-drop, 0.15, items), -1, 1)  # "like ROUGE"


def _fields(drop: float) -> list[float]:
    up = 0.03
    down = (drop + 0.2 * up) / (0.2 + 0.4) / 1
    return [down / 1, down, 1 - 2 * down - up, up]


def _text_gains(rng: np.random.Generator, kind: str, items: int, drop: float) -> NDArray[np.float64]:
    if kind == "all alike":
        return np.full(items, -drop) + rng.normal(0, 1e-4, items)
    if kind == "exponential":
        return -rng.exponential(drop, items) if drop else rng.normal(0, 0.01, items)
    share = {"one text in 20 carries it": 0.05, "one in 50": 0.02, "one in 100": 0.01}[kind]
    return -(drop / share) * (rng.random(items) < share)
