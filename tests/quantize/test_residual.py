"""What the residual stream lacks is known where branches are plainly added, and nowhere else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qtool.models.architecture import LinearLayer
from qtool.models.block_form import BlockCall
from qtool.quantize.blocks.hidden_states import BlockActivations, Samples
from qtool.quantize.blocks.layerwise import propagated
from qtool.quantize.blocks.residual import Branch
from qtool.quantize.contract import Grid, LayerWork
from qtool.quantize.rounding.moments import second_moments
from qtool.records.variant import Recipe, Variant

WIDTH, ROWS, TOKENS = 8, 3, 16


class Block(nn.Module):
    """Two branches, as a Llama has them; with `gate` the second is scaled before it is added."""

    def __init__(self, gate: float = 1.0) -> None:
        super().__init__()
        self.q_proj, self.o_proj, self.down_proj = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.post_attention_layernorm = nn.Identity()
        self.gate = gate

    def forward(self, hidden: Tensor) -> Tensor:
        middle = hidden + self.o_proj(torch.tanh(self.q_proj(hidden)))
        leaving: Tensor = middle + self.gate * self.down_proj(torch.relu(self.post_attention_layernorm(middle)))
        return leaving


def activations(block: Block, drift: float) -> tuple[BlockActivations, list[LayerWork]]:
    generator = torch.Generator().manual_seed(0)
    base = [torch.randn(ROWS, TOKENS, WIDTH, generator=generator) for _ in range(2)]
    now = [state + drift for state in base]
    real = [torch.ones(ROWS, TOKENS, dtype=torch.bool) for _ in base]
    real[1][0, TOKENS // 2 :] = False
    calls = {(ROWS, TOKENS): [BlockCall((), {})]}
    grid = Grid("int", 4, -1, True, torch.float32)
    works = [
        LayerWork(LinearLayer(f"blocks.0.{name}", WIDTH, WIDTH, 0), getattr(block, name), grid, "w4a16")
        for name in ("q_proj", "o_proj", "down_proj")
    ]
    return BlockActivations(block, 0, Samples(now, real, calls, 2, base)), works


@torch.no_grad()
def test_what_a_stream_lacks_is_measured_after_each_branch() -> None:
    block = Block()
    found, (query, attention, last) = activations(block, drift=0.25)
    before = [state.clone() for state in found.samples.base or ()]
    inputs = found.base_inputs([query, attention, last])
    assert inputs is not None
    assert [len(inputs[work.name]) for work in (query, attention, last)] == [2, 0, 0]
    wanted: dict[str, list[Tensor]] = {attention.name: [], last.name: []}
    for batch, real in enumerate(found.samples.real):
        middles = [x + block.o_proj(torch.tanh(block.q_proj(x))) for x in (before[batch], found.samples.hidden[batch])]
        wanted[attention.name].append((middles[0] - middles[1])[real])
        leaving = [block(x) for x in (before[batch], found.samples.hidden[batch])]
        wanted[last.name].append((leaving[0] - leaving[1])[real])
    for work in (attention, last):
        seen: list[Tensor] = []
        assert found.closes_branch(work)
        found.visit_missing(work, lambda _, missing, seen=seen: seen.append(missing))  # type: ignore[misc]
        torch.testing.assert_close(torch.cat(seen), torch.cat(wanted[work.name]))
        moments = second_moments(found, work, inputs[work.name])
        assert moments.drift is None
        assert moments.missing is not None
        assert moments.tokens == sum(int(real.sum()) for real in found.samples.real)
    assert not found.closes_branch(query)
    assert second_moments(found, query, inputs[query.name]).drift is not None


@pytest.mark.parametrize("change", ["gated", "no norm", "experts"])
def test_a_block_built_otherwise_falls_back_to_the_drift_of_inputs(change: str) -> None:
    block = Block(gate=0.5 if change == "gated" else 1.0)
    if change == "no norm":
        query, attention, last = block.q_proj, block.o_proj, block.down_proj
        del block.post_attention_layernorm
        block.forward = lambda hidden: hidden + attention(query(hidden)) + last(hidden)  # type: ignore[method-assign]
    found, works = activations(block, drift=0.25)
    leaders: list[Any] = works + works[2:] if change == "experts" else works
    inputs = found.base_inputs(leaders)
    assert inputs is not None
    assert not any(found.closes_branch(work) for work in works)
    assert len(inputs[works[2].name]) >= 2
    if change != "experts":
        assert second_moments(found, works[2], inputs[works[2].name]).drift is not None


def test_drift_is_made_up_for_where_enough_tokens_tell_of_it() -> None:
    recipe = Recipe("w4a16", "gptq", 32)
    assert propagated(recipe, tokens=32 * 64 - 1, columns=64) == 0
    assert propagated(recipe, tokens=32 * 64, columns=64) == 0.5
    assert propagated(replace(recipe, options=(("propagate", "0.25"),)), tokens=1, columns=64) == 0.25


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("w4a16", "gptq", 32, options=(("propagate", "0.5"),)),
        Recipe("w8a8", "gptq", activations="dynamic", options=(("propagate", "0.5"),)),
    ],
)
def test_what_is_known_of_a_block_changes_nothing_but_the_time(
    recipe: Recipe, make: Callable[..., Variant], calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    standing_in = Branch.standing_in

    def counting(branch: Branch, batch: int) -> Any:
        used.append(batch)
        return standing_in(branch, batch)

    monkeypatch.setattr(Branch, "standing_in", counting)
    short = make(recipe, calibration=calibration, name="short")
    assert used
    monkeypatch.setattr(Branch, "can_stand_in", lambda branch: False)
    whole = make(recipe, calibration=calibration, name="whole")
    assert short.weights_digest == whole.weights_digest


def test_a_branch_whose_weight_was_replaced_is_run_again() -> None:
    block = Block()
    found, (query, attention, last) = activations(block, drift=0.25)
    assert found.base_inputs([query, attention, last]) is not None
    found.visit_missing(attention, lambda _, missing: None)
    branch = found._stream.attention()  # type: ignore[union-attr]
    assert branch.holds()
    block.q_proj.weight = torch.nn.Parameter(block.q_proj.weight.clone())
    assert not branch.holds()
