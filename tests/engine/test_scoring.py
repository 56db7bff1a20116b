"""Scores of many requests in one call are those of each alone, whatever their prompts share."""

import pytest
import torch

from qtool.engine import scoring
from qtool.engine.contract import ScoreRequest
from tests.engine.small_models import make_engine, make_model

START = tuple(range(3, 27))
REQUESTS = [
    ScoreRequest((*START, 40, 41), (7, 8)),
    ScoreRequest((*START, 40, 41), (9,)),
    ScoreRequest((*START, 50), (7, 8, 9)),
    ScoreRequest((*START, 50, 51, 52, 53), (1,)),
    ScoreRequest((*START, 60), (60,)),
]


def _close(found: object, alone: object) -> None:
    # float32 logits of a model this small round by 1e-6; other shapes of a product may add in another order
    torch.testing.assert_close(torch.tensor(found), torch.tensor(alone), rtol=0, atol=2e-5)


@pytest.mark.parametrize("extra", [None, ScoreRequest(START, (5, 6)), ScoreRequest((5,), (6,))])
def test_what_prompts_share_changes_no_score(extra: ScoreRequest | None) -> None:
    """With a prompt that is only what is shared, and with one that shares nothing."""
    engine = make_engine(make_model())
    requests = REQUESTS if extra is None else [*REQUESTS, extra]
    for together, request in zip(engine.score(requests), requests, strict=True):
        alone = engine.score([request])[0]
        _close(together.logprobs, alone.logprobs)
        _close(together.margins, alone.margins)
        assert together.greedy == alone.greedy


def test_a_shared_start_is_fed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = []
    engine = make_engine(make_model())
    forward = engine._network.forward
    monkeypatch.setattr(engine._network, "forward", lambda ids, *rest: fed.append(len(ids)) or forward(ids, *rest))
    engine.score(REQUESTS)
    rest = {request.ids[len(START) : -1] for request in REQUESTS}
    assert fed == [len(START) + sum(map(len, rest)) + sum(len(request.continuation) for request in REQUESTS)]


def test_short_starts_are_not_worth_sharing() -> None:
    assert scoring.shared_tokens([(1, 2, 3, 4), (1, 2, 3, 5)]) == 0
    assert scoring.shared_tokens([START, (*START, 9)]) == len(START)
    assert scoring.shared_tokens([START]) == 0
