"""Scores of many requests in one call are those of each alone, whatever their prompts share."""

import pytest
import torch

from qtool.engine.contract import ScoreRequest
from qtool.engine.scheduling import scoring
from qtool.engine.scheduling.ragged import Row, plan_step
from qtool.engine.scheduling.slots import KeyValueSlots
from tests.engine.small_models import CONFIGS, make_engine, make_model

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


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_logits_a_part_at_a_time_are_the_logits(architecture: str) -> None:
    """Caps and factors behind the head included; afterwards the model computes as ever."""
    network = make_engine(make_model(architecture))._network
    ids, keep = torch.arange(3, 20), torch.tensor([1, 4, 5, 9, 10, 16])
    step = plan_step([Row(0, 0, len(ids))], network.device)

    def memory() -> KeyValueSlots:
        return KeyValueSlots(network.shapes, slots=1, context=32, dtype=torch.float32, device=network.device)

    whole = network.forward(ids, step, memory(), keep)
    parts = list(network.forward_in_parts(ids, step, memory(), keep, most_rows=4))
    assert [len(part) for part in parts] == [4, 2]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=2e-5)
    torch.testing.assert_close(network.forward(ids, step, memory(), keep), whole, rtol=0, atol=0)
