"""What an engine shows of one teacher-forced pass: whole distributions, and the inputs of named layers."""

import numpy as np
import pytest
import torch

from qtool.engine.contract import ScoreRequest
from qtool.errors import RequestError
from qtool.kernels.log2_histogram import count_bins
from tests.engine.small_models import make_engine, make_model

REQUEST = ScoreRequest(tuple(range(3, 20)), (40, 41, 7, 8))


def test_distributions_are_those_that_score_the_tokens() -> None:
    engine = make_engine(make_model())
    reading = engine.read(REQUEST, (0, 2, 3), ())
    scored = engine.score([REQUEST])[0]
    assert reading.inputs == ()
    assert reading.logprobs.shape == (3, engine.status().vocabulary)
    np.testing.assert_allclose(np.exp(reading.logprobs).sum(axis=1), 1.0, rtol=1e-5)
    for row, place in enumerate((0, 2, 3)):
        token = REQUEST.continuation[place]
        # float32 logits of a model this small round by 1e-6; other shapes of a product may add in another order
        assert reading.logprobs[row, token] == pytest.approx(scored.logprobs[place], abs=2e-5)
        assert (reading.logprobs[row].argmax() == token) == scored.greedy[place]


def test_inputs_of_layers_are_counted_value_by_value() -> None:
    model = make_model()
    engine = make_engine(model)
    name = next(name for name, _ in model.named_modules() if name.endswith("down_proj"))
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    reading = engine.read(REQUEST, (), (name, "no.such.layer"))
    handle.remove()
    ((found, counts),) = reading.inputs
    assert found == name
    assert counts.sum() == 20 * seen[0].shape[-1]  # every fed token once: the last one of the continuation is not fed
    assert (counts == count_bins(seen[0]).numpy()).all()
    assert not model.get_submodule(name)._forward_pre_hooks


def test_reading_is_refused_where_scoring_is() -> None:
    with pytest.raises(RequestError):
        make_engine(make_model()).read(ScoreRequest((1,), (10**6,)), (0,), ())
