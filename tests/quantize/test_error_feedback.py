"""GPTQ's mathematics: one factorization gives the textbook result, dead columns are rounded, errors shrink."""

import pytest
import torch
from torch import Tensor

from qtool.formats.stored_weights import dequantize
from qtool.quantize.contract import Grid
from qtool.quantize.rounding.error_feedback import feedback_of, round_with_feedback, times_inverse
from qtool.quantize.rounding.grid import round_to_grid, scales_of, stored

GRID = Grid("int", 4, 32, True, torch.float32)


def correlated(columns: int, tokens: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    return torch.randn(tokens, columns, generator=generator) @ mixing


def textbook(weight: Tensor, moments: Tensor, scales: Tensor, damping: float) -> Tensor:
    """Algorithm 1 of the GPTQ paper, column by column, with the Cholesky factor of the inverse."""
    columns = weight.shape[1]
    damped = moments.double() + damping * moments.double().diagonal().mean() * torch.eye(columns)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    weight, codes = weight.double().clone(), torch.empty_like(weight)
    for column in range(columns):
        step = scales[:, column // 32].double()
        codes[:, column] = (weight[:, column] / step).round().clamp(-8, 7)
        error = (weight[:, column] - codes[:, column] * step) / upper[column, column]
        weight[:, column:] -= error[:, None] * upper[column, column:]
    return codes


def test_result_is_that_of_the_paper() -> None:
    inputs = correlated(160, 400)
    moments = inputs.t() @ inputs / len(inputs)
    weight = torch.randn(24, 160, generator=torch.Generator().manual_seed(1))
    scales, _ = scales_of(weight, GRID)
    feedback = feedback_of(moments, damping=0.01, by_size=False)
    assert feedback is not None
    found = round_with_feedback(weight, scales, None, GRID, feedback)
    expected = textbook(weight, moments, scales, 0.01)
    assert (found == expected).double().mean() > 0.995  # float32 against float64: a tie here and there


@pytest.mark.parametrize("by_size", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_output_error_is_well_below_that_of_rounding(by_size: bool, symmetric: bool) -> None:
    grid = Grid("int", 4, 32, symmetric, torch.float32)
    inputs = correlated(128, 2000)
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(2))
    feedback = feedback_of(inputs.t() @ inputs / len(inputs), damping=0.01, by_size=by_size)
    assert feedback is not None
    scales, zeros = scales_of(weight, grid)
    codes = round_with_feedback(weight, scales, zeros, grid, feedback)
    errors = [
        (inputs @ (dequantize(kept) - weight).t()).norm()
        for kept in (stored(codes, scales, zeros, grid), round_to_grid(weight, grid))
    ]
    assert errors[0] < 0.75 * errors[1]


def test_dead_columns_are_rounded_and_never_zeroed() -> None:
    inputs = correlated(64, 300)
    inputs[:, [3, 40]] = 0
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(3))
    feedback = feedback_of(inputs.t() @ inputs / len(inputs), damping=0.01, by_size=True)
    assert feedback is not None
    assert feedback.dead_columns == 2
    scales, _ = scales_of(weight, GRID)
    codes = round_with_feedback(weight, scales, None, GRID, feedback)
    plain = round_to_grid(weight, GRID).codes
    assert torch.equal(codes[:, [3, 40]], plain[:, [3, 40]])
    assert codes[:, [3, 40]].abs().sum() > 0


def test_damping_is_raised_only_as_needed_and_recorded() -> None:
    inputs = correlated(64, 5)  # rank 5 of 64
    rich = correlated(64, 500)
    for values in (inputs, rich):
        feedback = feedback_of(values.t() @ values / len(values), damping=0.01, by_size=True)
        assert feedback is not None
        assert feedback.damping == 0.01
    indefinite = torch.eye(64)
    indefinite[0, 1] = indefinite[1, 0] = 1.5
    raised = feedback_of(indefinite, damping=0.01, by_size=True)
    assert raised is not None
    assert raised.damping == 1.0


def test_no_signal_is_an_answer() -> None:
    assert feedback_of(torch.zeros(8, 8), damping=0.01, by_size=True) is None


@pytest.mark.parametrize("by_size", [True, False])
def test_times_inverse_is_the_inverse_of_the_damped_moments(by_size: bool) -> None:
    inputs = correlated(48, 300)
    moments = inputs.t() @ inputs / len(inputs)
    feedback = feedback_of(moments, damping=0.01, by_size=by_size)
    assert feedback is not None
    damped = moments + 0.01 * moments.diagonal().mean() * torch.eye(48)
    rows = torch.randn(7, 48, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(times_inverse(rows, feedback) @ damped, rows, atol=1e-3)


def test_making_up_for_drift_brings_outputs_back_to_those_of_the_base() -> None:
    base = correlated(48, 2000)
    drifted = base + 0.3 * correlated(48, 2000, seed=9) + 0.2 * base.roll(1, dims=1)
    weight = torch.randn(16, 48, generator=torch.Generator().manual_seed(5))
    feedback = feedback_of(drifted.t() @ drifted / len(base), damping=1e-4, by_size=True)
    assert feedback is not None
    drift = (base - drifted).t() @ drifted / len(base)
    errors = [
        float((drifted @ (weight + share * times_inverse(weight @ drift, feedback)).t() - base @ weight.t()).norm())
        for share in (0.0, 0.5, 1.0)
    ]
    exact = torch.linalg.lstsq(drifted, base @ weight.t()).solution
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] == pytest.approx(float((drifted @ exact - base @ weight.t()).norm()), rel=1e-3)
