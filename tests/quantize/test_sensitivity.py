"""Sensitivity finds the layer that matters; a budget is kept to the byte; more bytes never make it worse."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_calibration import make_calibration
from tiny_model import make_tiny_llama

from qtool.errors import PlanError, QuantizationError
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import open_checkpoint
from qtool.progress import Silent
from qtool.quantize.request.layer_policy import ladder
from qtool.quantize.request.mixed import choose_overrides, eight_bit_sizes
from qtool.quantize.request.prepare import measuring_rows
from qtool.quantize.request.recipe import parse_budget
from qtool.quantize.request.sensitivity import _Bench, measure, sensitivity_text
from qtool.records.sensitivity import Sensitivity
from qtool.records.variant import Recipe, Variant
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record

Make = Callable[..., Variant]
RECIPE = Recipe("w4a16", "rtn", 32)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one layer that rounding hurts: weights that meet no input stretch the grid of all the others."""
    folder = make_tiny_llama(tmp_path_factory.mktemp("fragile") / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.self_attn.v_proj.weight"][[0, 16]] = 0
    tensors["model.layers.1.self_attn.o_proj.weight"][:, [0, 32]] *= 40
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def found(fragile: Path) -> Sensitivity:
    calibration = make_calibration(fragile.parent / "calibration", fragile)
    return measure(fragile, RECIPE, measuring_rows(fragile, calibration), progress=Silent())


def test_the_layer_that_matters_is_found(found: Sensitivity, tmp_path: Path) -> None:
    worst = max(found.units, key=lambda unit: unit.kl_alone)
    assert worst.layers == ("model.layers.1.self_attn.o_proj",)
    assert worst.kl_without < 0.8 * found.kl_all
    assert {len(unit.layers) for unit in found.units} == {1, 2, 3}
    assert sensitivity_text(found).splitlines()[2].startswith(worst.layers[0])
    write_record(tmp_path / "s.json", found)
    assert read_json(Sensitivity, tmp_path / "s.json") == found


def test_budget_is_kept_and_spent_where_it_matters(found: Sensitivity, fragile: Path, make: Make) -> None:
    lifted = choose_overrides(fragile, found, "0.45 x base")
    assert "model.layers.1.self_attn.o_proj" in dict(lifted)
    variant = make(Recipe("w4a16", "rtn", 32, overrides=lifted), model=fragile)
    assert variant.bytes <= 0.45 * open_checkpoint(fragile).bytes
    plain = make(RECIPE, model=fragile, name="plain")
    assert plain.bytes < variant.bytes


def test_budget_may_be_an_option_of_any_method(fragile: Path, make: Make) -> None:
    recipe = Recipe("w4a16", "gptq", 32, options=(("budget", "0.5 x base"),))
    variant = make(recipe, model=fragile, calibration=fragile.parent / "calibration", whole_check=True)
    assert variant.bytes <= 0.5 * open_checkpoint(fragile).bytes
    assert variant.recipe.options == ()
    assert {row.scheme_used for row in variant.layers} >= {"w4a16", "w8a16"}


def test_budget_below_the_smallest_variant_is_refused(found: Sensitivity, fragile: Path) -> None:
    with pytest.raises(QuantizationError, match="the smallest variant by this recipe takes"):
        choose_overrides(fragile, found, "0.05 x base")


def test_ladder_climbs_from_one_unit_to_all(found: Sensitivity, fragile: Path) -> None:
    rungs = list(ladder(found, eight_bits=eight_bit_sizes(fragile, RECIPE)))
    assert len(dict(rungs[0])) in (1, 2, 3)
    assert len(dict(rungs[-1])) == 14
    assert all(set(dict(low)) <= set(dict(high)) for low, high in pairwise(rungs))


@pytest.mark.parametrize(
    ("text", "expected"), [("0.35 x base", 350), ("0.35x base", 350), ("1.5 kB", 1500), ("70", 70)]
)
def test_budgets_are_read(text: str, expected: int) -> None:
    assert parse_budget(text, 1000) == expected


def test_budget_that_means_nothing_is_refused() -> None:
    with pytest.raises(PlanError, match="write it as"):
        parse_budget("small", 1000)


def test_no_tokens_no_sensitivity(llama: Path) -> None:
    with pytest.raises(PlanError, match="no token sequences"):
        measure(llama, RECIPE, (), progress=Silent())


def test_budget_without_data_is_refused(make: Make) -> None:
    with pytest.raises(PlanError, match="a budget is kept by measuring layers"):
        make(Recipe("w4a16", "rtn", 32, options=(("budget", "0.5 x base"),)))


def test_weights_are_put_back(llama: Path, calibration: Path) -> None:
    """Measuring twice gives the same: no trial leaves a trace in the next."""
    rows = measuring_rows(llama, calibration)
    first, second = (measure(llama, RECIPE, rows, progress=Silent()) for _ in range(2))
    assert first == second
    assert torch.is_grad_enabled()


def test_a_killed_measurement_goes_on_layer_by_layer(
    llama: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found before the kill is not measured again, and the end is the same to the last digit."""
    rows, kept = measuring_rows(llama, calibration), tmp_path / "trials.jsonl"
    expected = measure(llama, RECIPE, rows, progress=Silent())
    trials, done = _Bench.kl, 0

    def killed_at_the_fifth(bench: _Bench, layers: list[LinearLayer]) -> float:
        nonlocal done
        done += 1
        if done == 5:
            raise KeyboardInterrupt
        return trials(bench, layers)

    monkeypatch.setattr(_Bench, "kl", killed_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        measure(llama, RECIPE, rows, progress=Silent(), kept=kept)
    assert measure(llama, RECIPE, rows, progress=Silent(), kept=kept) == expected
    assert done == 5 + (2 * len(expected.units) + 1 - 4)
