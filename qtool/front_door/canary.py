"""`qtool.canary_status` and `qtool.canary_decide`: the comparison that a running server makes, asked over HTTP."""

import os
from dataclasses import dataclass

from qtool.errors import CapacityError, UsageError

_KEY_VARIABLE = "QTOOL_ADMIN_KEY"
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """How the second variant of a server compares with the first; scores are means of pairs in order of arrival."""

    incumbent: str
    candidate: str
    state: str
    verdict: str
    share: float
    pairs: int
    incumbent_mean: float | None
    candidate_mean: float | None
    margin: float
    alpha: float
    evidence_worse: float
    evidence_not_worse: float

    def text(self) -> str:
        """The status for people."""
        means = ""
        if self.incumbent_mean is not None and self.candidate_mean is not None:
            means = f": {self.incumbent_mean:.4f} for {self.incumbent}, {self.candidate_mean:.4f} for {self.candidate}"
        needed = 1 / self.alpha
        return "\n".join(
            (
                f"{self.candidate} on {self.share:.0%} of the users of {self.incumbent}: {self.state}",
                f"mean score of {self.pairs} pairs{means}",
                f"verdict: {self.verdict} (margin {self.margin:g}; evidence that it is worse "
                f"{self.evidence_worse:.3g}, that it is not {self.evidence_not_worse:.3g}; {needed:.3g} decides)",
            )
        )


def canary_status(url: str) -> CanaryStatus:
    """What the server at `url` (its admin port) knows of its canary. A key is read from QTOOL_ADMIN_KEY."""
    return _asked(url, None)


def canary_decide(url: str, action: str) -> CanaryStatus:
    """Tells the server to promote, withdraw, hold or resume its canary."""
    return _asked(url, action)


def _asked(url: str, action: str | None) -> CanaryStatus:
    import httpx

    key = os.environ.get(_KEY_VARIABLE)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = f"{url.rstrip('/')}/admin/canary"
    try:
        if action is None:
            answer = httpx.get(address, headers=headers, timeout=_TIMEOUT_SECONDS)
        else:
            answer = httpx.post(address, headers=headers, timeout=_TIMEOUT_SECONDS, json={"action": action})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CapacityError(f"{url}: does not answer: {error}") from error
    try:
        document = answer.json()
        if answer.status_code != 200:
            raise UsageError(f"{url}: {document['error']['message']}")
        return CanaryStatus(**{name: document[name] for name in CanaryStatus.__slots__})
    except (ValueError, KeyError, TypeError) as error:
        raise CapacityError(f"{url}: does not answer as qtool serve does (status {answer.status_code})") from error
