"""Choices by held-out rows: what few tokens teach is kept only where rows that taught nothing agree."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qtool.quantize.rounding.held_out import HeldOut, importance_of
from qtool.quantize.rounding.static_inputs import spoilt_by
from qtool.records.variant import Recipe, Variant
from qtool.report.texts.variant_text import variant_text

Make = Callable[..., Variant]
ROW = Recipe("w4a16")


def test_a_move_is_taken_as_far_as_held_out_rows_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, lacks = (torch.randn(200, 16, generator=generator) for _ in range(2))
    weight, noise = (torch.randn(8, 16, generator=generator) for _ in range(2))
    turned = torch.linalg.lstsq(inputs, lacks).solution.t()  # the move that would undo all that can be undone
    held_out = HeldOut(inputs, lacks=lacks)
    right = weight @ turned
    assert held_out.best_share(weight, right, 1.0) == pytest.approx(1.0, abs=0.1)
    assert held_out.best_share(weight, 4 * right, 1.0) == pytest.approx(0.25, abs=0.03)
    assert held_out.best_share(weight, right, 0.5) == 0.5
    assert held_out.best_share(weight, -right, 1.0) == 0.0
    assert held_out.best_share(weight, 100 * noise, 1.0) < 0.02
    assert HeldOut(inputs).best_share(weight, right, 1.0) == 0.0


def test_one_massive_token_does_not_decide_for_all() -> None:
    outputs = torch.ones(100, 4)
    outputs[0] = 1e4
    counts = importance_of(outputs)
    assert float((outputs.square() * counts).sum(1).max()) == pytest.approx(1.0)


def test_massive_activations_spoil_a_static_scale_and_even_ones_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(256, 32, generator=generator), torch.randn(16, 32, generator=generator)
    scale = inputs.abs().max().reshape(1) / 127.5
    assert spoilt_by(inputs, [weight], scale, float8=False) is None
    inputs[0, 3] = 3000.0
    scale = inputs.abs().max().reshape(1) / 127.5
    times = spoilt_by(inputs, [weight], scale, float8=False)
    assert times is not None
    assert times > 100
    small = 1e-3 * torch.randn(4, 32, generator=generator)  # one that suffers is enough, be its outputs ever so small
    outlier = torch.zeros(64, 32)
    outlier[:, 3] = 10.0
    assert spoilt_by(inputs, [outlier, small], scale, float8=False) is not None
    assert spoilt_by(inputs[:0], [weight], scale, float8=False) is None


def test_the_ledger_says_what_was_done_to_held_out_text(make: Make, calibration: Path) -> None:
    fine, coarse = (make(recipe, name=recipe.scheme, calibration=calibration) for recipe in (Recipe("w8a16"), ROW))
    assert fine.held_out is not None
    assert coarse.held_out is not None
    assert fine.held_out.tokens == coarse.held_out.tokens > 0
    assert 0 <= fine.held_out.kl_divergence < coarse.held_out.kl_divergence
    assert fine.held_out.same_token_share >= coarse.held_out.same_token_share
    text = variant_text(coarse, layers=False)
    assert f"held-out KL divergence: {coarse.held_out.kl_divergence:.4f} +- " in text
    unmeasured = make(Recipe("w8a16"), name="unmeasured")
    assert unmeasured.held_out is None
    assert "not measured; give --calibration DIR" in variant_text(unmeasured, layers=False)


def test_the_measured_divergence_is_that_of_the_written_variant(
    make: Make, llama: Path, tmp_path: Path, calibration: Path
) -> None:
    """What the parts gave on their way is what the folder gives when it is read again."""
    from qtool.quantize.blocks.streaming import StreamedModel
    from qtool.store.ranges_file import read_sequences

    variant = make(ROW, calibration=calibration)
    assert variant.held_out is not None
    rows = read_sequences(calibration, held_out=True)[:8]
    divergences = []
    for row in rows:
        ids = torch.tensor([list(row)])
        before = StreamedModel(llama).logits([ids])[0][0].log_softmax(-1)
        after = StreamedModel(tmp_path / "variant").logits([ids])[0][0].log_softmax(-1)
        divergences += (before.exp() * (before - after)).sum(-1).tolist()
    assert variant.held_out.tokens == len(divergences)
    assert variant.held_out.kl_divergence == pytest.approx(sum(divergences) / len(divergences), rel=1e-3, abs=1e-6)
