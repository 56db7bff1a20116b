"""The paired comparison of two sets of answers to the same items: difference, verdict, churn, slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtool.evaluate.advice import MOST_TO_DECIDE, assumption, items_to_decide
from qtool.evaluate.asking.noise_floor import NoiseFloor
from qtool.evaluate.contract import Metric
from qtool.evaluate.verdicts import metric_scale, verdict
from qtool.evaluate.verdicts.statistics import Values, bca, mcnemar_worse, permutation_worse, wilson
from qtool.records.evaluation import Churn, Comparison, Interval, ItemResult, Look, SliceScore

Rows = Sequence[ItemResult]

_LEAST_LEVEL = 1e-7  # of a look after all others have spent what there was


@dataclass(frozen=True, slots=True)
class Terms:
    """What a comparison is made under: metric, margin in points, which slice clusters items, one-sided level.

    `history` are the looks of this test so far, this one last; `whole_level` is what all of them may spend.
    """

    metric_name: str
    metric: Metric
    margin_points: float
    cluster: str | None = None
    level: float = verdict.LEVEL
    history: tuple[Look, ...] = ()
    whole_level: float = verdict.LEVEL
    margin_percent: float | None = None
    repeats: int = 1

    def margin(self, before: Rows) -> float:
        """The margin in the unit of the gains over the baseline's `before`."""
        return metric_scale.margin_of(self.metric, self.margin_points, self.margin_percent, before)


def compare(baseline: str, before: Rows, after: Rows, terms: Terms, *, seconds_per_item: float) -> Comparison:
    """Variant against baseline on the same items, in the same order, with the ship test's verdict and its reason."""
    gained = metric_scale.gains(terms.metric, before, after)
    clusters = clusters_of(after, terms.cluster)
    found = _bounds(gained, terms, clusters, after)
    margin = terms.margin(before)
    decision = verdict.decide(found, margin)
    needed, minutes = None, None
    if decision == "UNDECIDED":
        needed = items_to_decide(found, margin, history=terms.history, level=terms.whole_level)
    if needed is not None:
        minutes = (needed - found.items) * seconds_per_item / 60
        needed = -(-needed // terms.repeats)  # an item is asked several times
    return Comparison(
        baseline=baseline,
        difference=found.estimate,
        interval=_finite(found.interval()),
        margin=margin,
        verdict=decision,
        reason=reason(decision, found, margin, needed, minutes),
        p_worse=p_worse(gained, terms, clusters),
        items_to_decide=needed,
        bootstrap=bca(gained),
        clusters=None if clusters is None else len(set(clusters)),
        looks=max(1, len(terms.history)),
        minutes_to_decide=minutes,
        history=terms.history,
    )


def reason(decision: str, found: verdict.Bounds, margin: float, needed: int | None, minutes: float | None) -> str:
    """The verdict in one sentence with its numbers, in points."""
    drop, most, least = (round(-100 * value, 2) + 0.0 for value in (found.estimate, found.low, found.high))
    accepted, sure = f"{100 * margin:.3g} points accepted", f"{100 * (1 - found.level):.3g} %"
    measured = f"measured a gain of {-drop:.2f}" if drop < 0 else f"measured {drop:.2f}"
    if decision == "PASS" and most < 0:
        return f"with {sure} confidence at least {-most:.2f} points are gained ({accepted}); {measured}"
    if decision == "PASS":
        return f"with {sure} confidence at most {most:.2f} points are lost ({accepted}); {measured}"
    if decision == "FAIL":
        return f"with {sure} confidence at least {least:.2f} points are lost ({accepted}); {measured}"
    if found.blocked:
        return f"{found.blocked}; measured {drop:.2f} points lost ({accepted})"
    lost = f"between {least:.2f} and {most:.2f} points are lost"
    if least < 0:
        lost = f"between {-least:.2f} points gained and {most:.2f} lost"
    text = f"{lost} ({accepted}); {found.items} items do not decide it"
    fewest = verdict.fewest_clusters(margin, found.level)
    if found.clusters is not None and found.clusters < fewest:
        text += (
            f" (in {found.clusters} clusters, any of which may be lost as a whole; {fewest} are the fewest that pass)"
        )
    if needed is None:
        return f"{text}, nor would {MOST_TO_DECIDE:,}: as measured, the difference lies at the margin"
    more = "" if minutes is None else f", {_duration(minutes)} more"
    return f"{text}; --until-decided {needed} does with a chance of 80 % {assumption(found, margin)}{more}"


def p_worse(gained: Values, terms: Terms, clusters: Sequence[str] | None) -> float:
    """One-sided p-value that the variant is worse: exact McNemar for right or wrong, else random signs, of whole
    clusters where there are some."""
    if clusters is not None:
        _, membership = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
        return permutation_worse(np.bincount(membership, weights=gained).astype(np.float64))
    if terms.metric.BINARY:
        return mcnemar_worse(int((gained < 0).sum()), int((gained > 0).sum()))
    return permutation_worse(gained)


def churn(before: Rows, after: Rows, terms: Terms, floor: NoiseFloor | None) -> Churn:
    """How many items changed, and which way; the floor is the baseline's own."""
    gained = metric_scale.gains(terms.metric, before, after)
    other = sum(
        bool(gain == 0) and old.score != terms.metric.PERFECT and old.extracted != new.extracted
        for gain, old, new in zip(gained, before, after, strict=True)
    )
    return Churn(
        items=len(after),
        harmful=int((gained < 0).sum()),
        beneficial=int((gained > 0).sum()),
        wrong_to_other_wrong=other,
        floor_changed=None if floor is None else floor.changed,
        floor_items=None if floor is None else floor.items,
        floor_interval=None if floor is None else wilson(floor.changed, floor.items),
    )


def slices(names: Sequence[str], before: Rows | None, after: Rows, terms: Terms) -> tuple[SliceScore, ...]:
    """Each value of each named slice with its own score and, beside a baseline, its own bounds and verdict."""
    found = []
    for name in names:
        values = [dict(row.slices).get(name) for row in after]
        for value in sorted({value for value in values if value is not None}, key=_natural):
            chosen = [index for index, own in enumerate(values) if own == value]
            found.append(_slice(name, value, chosen, before, after, terms))
    return tuple(found)


def clusters_of(rows: Rows, cluster: str | None) -> list[str] | None:
    """The cluster of each row, or None where the task has none; an item without the slice is a cluster of its own."""
    return None if cluster is None else [dict(row.slices).get(cluster, f"item {row.id}") for row in rows]


def _slice(name: str, value: str, chosen: Sequence[int], before: Rows | None, after: Rows, terms: Terms) -> SliceScore:
    own = [after[index] for index in chosen]
    score = metric_scale.score_of(terms.metric_name, terms.metric, own)
    if before is None:
        return SliceScore(name, value, score, baseline=None, difference=None, verdict=None)
    theirs = [before[index] for index in chosen]
    gained = metric_scale.gains(terms.metric, theirs, own)
    clusters = None if name == terms.cluster else clusters_of(own, terms.cluster)  # one subject is no cluster of many
    found = _bounds(gained, terms, clusters, own)
    return SliceScore(
        slice=name,
        value=value,
        score=score,
        baseline=metric_scale.score_of(terms.metric_name, terms.metric, theirs),
        difference=_finite(found.interval()),
        verdict=verdict.decide(found, terms.margin(theirs)),
    )


def _bounds(gained: Values, terms: Terms, clusters: Sequence[str] | None, rows: Rows) -> verdict.Bounds:
    reach = metric_scale.reach_of(terms.metric, gained, rows)
    found = verdict.bounds(gained, pseudo=reach, clusters=clusters, level=max(terms.level, _LEAST_LEVEL))
    if terms.level < _LEAST_LEVEL:
        sizes = ", ".join(f"{look.items:,}" for look in terms.history[:-1])
        return verdict.without_verdict(
            found, f"earlier looks, at {sizes} items, spent all of the allowed error; ask other items"
        )
    if terms.metric.UNIT == "perplexity" and len(gained) < verdict.FEWEST_TEXTS:
        few = f"{len(gained)} texts; {verdict.FEWEST_TEXTS} are the fewest that can decide"
        return verdict.without_verdict(found, few)
    return found


def _finite(interval: Interval) -> Interval:
    """Bounds that a record can hold."""
    low, high = (float(np.nan_to_num(value, posinf=1.0, neginf=-1.0)) for value in (interval.low, interval.high))
    return Interval(low, high, interval.confidence)


def _natural(value: str) -> tuple[int, float, str]:
    """Numbers before words, 9 before 10."""
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)


def _duration(minutes: float) -> str:
    return f"{minutes * 60:.0f} seconds" if minutes < 2 else f"{minutes:.0f} minutes"
