"""A second variant on a share of the traffic: who gets it, how it compares, and when it is promoted or withdrawn."""

import hashlib
import logging
from typing import Literal

from qtool.serve.routing.e_process import Comparison, Verdict

_log = logging.getLogger("qtool.serve")
_BUCKETS = 10_000
State = Literal["running", "promoted", "withdrawn", "held"]
ACTIONS = ("promote", "withdraw", "hold", "resume")


class Canary:
    """Assigns requests by a hash of their user, so that one user always sees one variant."""

    def __init__(self, *, share: float, margin: float, alpha: float, automatic: bool) -> None:
        self.share = share
        self.automatic = automatic
        self.state: State = "running"
        # two tests of half the risk each: together they are wrong as rarely as asked
        self.comparison = Comparison(margin=margin, alpha=alpha / 2)
        self.shadow = Comparison(margin=margin, alpha=alpha / 2)
        self.served = {"incumbent": 0, "candidate": 0}

    def chooses_candidate(self, identity: str) -> bool:
        """Whether the request of `identity` (user, key, address or request id) goes to the candidate first."""
        if self.state == "promoted":
            return True
        if self.state == "withdrawn":
            return False
        digest = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % _BUCKETS < self.share * _BUCKETS

    def observe(self, score: float, *, candidate: bool) -> None:
        """One score of a request; decides where that was asked for."""
        if self.state not in ("running", "held"):
            return
        self.served["candidate" if candidate else "incumbent"] += 1
        self.comparison.add(score, candidate=candidate)
        self._decide()

    def observe_shadow(self, score: float, *, candidate: bool) -> None:
        """What a reference says of an answer. Scores of this kind are compared with each other alone: in one test with
        the others, a pair could be of two kinds."""
        if self.state in ("running", "held"):
            self.shadow.add(score, candidate=candidate)
            self._decide()

    @property
    def verdict(self) -> Verdict:
        """Worse as soon as one of the two tests says so; not worse when each that has scores says so."""
        verdicts = [self.comparison.verdict] + ([self.shadow.verdict] if self.shadow.pairs else [])
        if "worse" in verdicts:
            return "worse"
        return "not worse" if set(verdicts) == {"not worse"} else "undecided"

    def _decide(self) -> None:
        if not self.automatic or self.state == "held":
            return
        verdict = self.verdict
        if verdict != "undecided":
            self.state = "withdrawn" if verdict == "worse" else "promoted"
            _log.warning("canary %s after %d pairs", self.state, self.comparison.pairs)

    def act(self, action: str) -> None:
        """A person's decision: promote, withdraw, hold (split on, decide nothing) or resume."""
        states: dict[str, State] = {
            "promote": "promoted",
            "withdraw": "withdrawn",
            "hold": "held",
            "resume": "running",
        }
        self.state = states[action]
        _log.warning("canary %s by hand", self.state)

    def body(self) -> dict[str, object]:
        """What `qtool canary status` prints."""
        return {
            "state": self.state,
            "share": self.share,
            "automatic": self.automatic,
            "served": dict(self.served),
            **self.comparison.body(),
            "verdict": self.verdict,
            **({"shadow": self.shadow.body()} if self.shadow.pairs else {}),
        }
