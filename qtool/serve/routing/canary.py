"""A second variant on a share of the traffic: who gets it, how it compares, and when it is promoted or withdrawn."""

import hashlib
import logging
from typing import Literal

from qtool.serve.routing.e_process import Comparison

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
        self.comparison = Comparison(margin=margin, alpha=alpha)
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
        if not self.automatic or self.state == "held":
            return
        verdict = self.comparison.verdict
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
        }
