"""A test that may be looked at after every request: is the candidate worse than the incumbent by more than a margin?

Both answers come from betting. Against "the candidate is not worse than the margin" a gambler bets on every pair of
scores; if that is true, the expected capital never grows, and it reaches 1 / alpha with a probability of at most alpha,
however often one looks (Ville's inequality). Against "the candidate is worse than the margin" another gambler bets the
other way. The mean of gamblers with different stakes is such a gambler too, so no stake has to be chosen beforehand.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

_STAKES = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)  # shares of the largest stake that cannot lose everything
Verdict = Literal["undecided", "worse", "not worse"]


@dataclass(slots=True, eq=False)
class Gambler:
    """Log capitals of bets that a difference is above (`sign` 1) or below (-1) `boundary`; differences in [-1, 1]."""

    boundary: float
    sign: int
    logs: list[float] = field(default_factory=lambda: [0.0] * len(_STAKES))

    def bet(self, difference: float) -> None:
        """One difference more."""
        gain = self.sign * (difference - self.boundary)
        worst = 1.0 + self.sign * self.boundary  # the largest loss: difference = -1 for sign 1, 1 for sign -1
        for place, share in enumerate(_STAKES):
            self.logs[place] += math.log1p(share / worst * gain)

    @property
    def evidence(self) -> float:
        """The capital that a stake of 1 has become: an e-value at any time."""
        highest = max(self.logs)
        return math.exp(min(highest, 600.0)) * sum(math.exp(log - highest) for log in self.logs) / len(self.logs)


class Comparison:
    """Scores in [0, 1] of two arms, paired in order of arrival; scores of the arm that is ahead wait for a partner."""

    def __init__(self, *, margin: float, alpha: float) -> None:
        if not 0 < margin < 1 or not 0 < alpha < 1:
            raise ValueError("margin and alpha lie between 0 and 1")
        self.margin = margin
        self.alpha = alpha
        self.pairs = 0
        self._sums = [0.0, 0.0]
        self._waiting: tuple[list[float], list[float]] = ([], [])
        self._worse = Gambler(-margin, -1)
        self._not_worse = Gambler(-margin, 1)

    def add(self, score: float, *, candidate: bool) -> None:
        """One score of an arm. A partner is taken at once: the longer list never grows past a thousand."""
        own, other = self._waiting[candidate], self._waiting[not candidate]
        own.append(min(max(score, 0.0), 1.0))
        if len(own) > 1000:
            own.pop(0)
        while own and other:
            incumbent, new = self._waiting[0].pop(0), self._waiting[1].pop(0)
            self.pairs += 1
            self._sums[0] += incumbent
            self._sums[1] += new
            self._worse.bet(new - incumbent)
            self._not_worse.bet(new - incumbent)

    @property
    def verdict(self) -> Verdict:
        """What may be said now; each of the two answers is wrong with a probability of at most alpha, at any time."""
        if self._worse.evidence >= 1 / self.alpha:
            return "worse"
        if self._not_worse.evidence >= 1 / self.alpha:
            return "not worse"
        return "undecided"

    def body(self) -> dict[str, object]:
        """The state of the comparison in numbers."""
        means = [total / self.pairs if self.pairs else None for total in self._sums]
        return {
            "verdict": self.verdict,
            "pairs": self.pairs,
            "incumbent_mean": means[0],
            "candidate_mean": means[1],
            "margin": self.margin,
            "alpha": self.alpha,
            "evidence_worse": self._worse.evidence,
            "evidence_not_worse": self._not_worse.evidence,
        }
