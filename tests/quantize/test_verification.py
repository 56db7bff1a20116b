"""What verification calls a difference and what it does not, and what becomes of a variant that differs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from tiny_model import make_tiny_llama

from qtool.data.probe_text import probe_rows
from qtool.errors import UnverifiedVariant
from qtool.evaluate.asking.model import identify
from qtool.evaluate.asking.subject import Settings
from qtool.quantize.output import engine_trial, readings, verify
from qtool.quantize.output.agreement import compare, partings_of, rounding_of, worst
from qtool.quantize.output.engine_trial import Trial, run_in_engine
from qtool.quantize.output.readings import computed_another_way
from qtool.quantize.output.verify import prompts_of
from qtool.records.variant import Recipe, Variant
from qtool.report.texts.variant_text import variant_text
from qtool.store.codec import read_json

Make = Callable[..., Variant]
RECIPE = Recipe("w4a16", "rtn", group_size=32)


def test_a_tie_is_no_difference() -> None:
    """bfloat16 has the best two logits of a large vocabulary equal to the last bit: either may be chosen."""
    tied = torch.tensor([[1.0, 3.0, 3.0], [0.0, 2.0, 1.0]])
    assert partings_of(0, tied, torch.tensor([2, 1])) == []
    (parting,) = partings_of(0, tied, torch.tensor([0, 1]))
    assert (parting.place, parting.reference, parting.other, parting.lead) == (0, 1, 0, 2.0)


def test_a_lead_within_what_the_reference_differs_by_itself_is_no_difference() -> None:
    fused = [torch.tensor([[4.0, 3.5, 0.0]])]
    eager = [torch.tensor([[3.6, 3.9, 0.0]])]  # it prefers another token itself, which is 0.5 behind
    allowed = rounding_of(lambda _: eager, fused, torch.float32, enough=lambda _: True)
    assert 2 * 0.5 < allowed.lead < 2 * 0.5 + 1e-3
    assert worst(partings_of(0, fused[0], torch.tensor([1])), allowed) is None
    found = worst(partings_of(0, fused[0], torch.tensor([2])), allowed)
    assert found is not None
    assert found.lead == 4.0


def test_a_model_with_one_attention_tells_its_rounding_by_inputs_a_last_bit_off() -> None:
    """Two attentions that are the same one say nothing; 8-bit inputs still turn a last bit into a step."""
    fused = [torch.tensor([[4.0, 3.5, 0.0]])]
    ways = {"eager": fused, "nudged": [torch.tensor([[3.9, 3.6, 0.0]])]}
    asked: list[str] = []

    def passes(way: str) -> list[torch.Tensor]:
        asked.append(way)
        return ways[way]

    parting = partings_of(0, fused[0], torch.tensor([1]))
    nothing = rounding_of(passes, fused, torch.float32, enough=lambda _: True)
    assert worst(parting, nothing) is not None
    assert asked == ["eager"]
    assert rounding_of(passes, fused, torch.float32, enough=lambda found: found.lead >= 0.1).lead < 0.5
    assert rounding_of(passes, fused, torch.float32, enough=lambda _: False).rms > nothing.rms


def test_a_nudge_moves_some_embeddings_by_one_rounding_and_is_gone_after() -> None:
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    )
    ids = torch.arange(32)[None]
    embedding = model.get_input_embeddings()
    plain = embedding(ids)
    with computed_another_way(model, "nudged"):
        moved = embedding(ids)
    share = (moved != plain).float().mean()
    assert 0.05 < share < 0.25
    assert ((moved - plain).abs() <= 2.0**-16 * plain.abs()).all()
    assert torch.equal(embedding(ids), plain)


def test_equal_logits_need_no_allowance_and_have_none() -> None:
    logits = [torch.randn(5, 7, generator=torch.Generator().manual_seed(0))]
    difference = compare(logits, [logits[0].clone()])
    assert (difference.largest, difference.rms, difference.partings) == (0.0, 0.0, ())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        Recipe("w8a16", "rtn"),
        Recipe("w8a8", "rtn", activations="dynamic"),
        Recipe("fp8", "rtn", activations="dynamic"),
        Recipe("w4a16", "rtn", group_size=32, format="gptq"),
    ],
    ids=lambda recipe: f"{recipe.scheme}-{recipe.format}",
)
def test_right_variants_are_verified_and_run(make: Make, tmp_path: Path, recipe: Recipe, dtype: torch.dtype) -> None:
    model = make_tiny_llama(tmp_path / "base", dtype=dtype)
    check = make(recipe, model=model, whole_check=None).verification
    assert check is not None
    assert (check.problem, check.engine_tokens) == ("", engine_trial.NEW_TOKENS)
    assert check.logits_prompts == (8 if recipe.format == "compressed-tensors" else 0)


def test_prompts_are_text_of_the_models_own_tokenizer(llama: Path) -> None:
    from qtool.models.tokenizer import load_tokenizer

    prompts = prompts_of(llama, ())
    assert len(prompts) == 8
    assert "The harbour was quiet" in load_tokenizer(llama).decode(list(prompts[0]))
    assert probe_rows(llama, 200, tokens=24) != probe_rows(llama, 259, tokens=24)  # not for a smaller vocabulary


def test_no_logits_are_claimed_where_none_were_compared(make: Make) -> None:
    variant = make(RECIPE, whole_check=False)
    assert variant.verification is not None
    assert variant.verification.logits_prompts == 0
    text = variant_text(variant)
    assert "logits" not in text
    assert "run by the engine for 200 tokens" in text


@pytest.fixture
def wrong_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that writes, from its fourth token on, what nothing prefers."""

    def wrong(folder: Path, prompts: list[tuple[int, ...]]) -> Trial:
        trial = run_in_engine(folder, prompts)
        for written in trial.written:
            written[3:] = [7] * len(written[3:])
        return trial

    monkeypatch.setattr(verify, "run_in_engine", wrong)


@pytest.mark.usefixtures("wrong_engine")
@pytest.mark.parametrize("whole", [True, False])
def test_a_variant_that_differs_is_kept_named_and_refused(make: Make, tmp_path: Path, whole: bool) -> None:
    with pytest.raises(UnverifiedVariant, match=r"and the engine '.+' \(7\) after token \d+ of prompt \d, '.+', by a"):
        make(RECIPE, whole_check=whole)
    folder = tmp_path / "variant"
    kept = read_json(Variant, folder / "variant.json")
    assert kept.verification is not None
    assert "where rounding explains" in kept.verification.problem
    assert "UNVERIFIED: " in variant_text(kept)
    with pytest.raises(UnverifiedVariant, match="--allow-unverified"):
        identify(folder)
    assert identify(folder, Settings(allow_unverified=True)).name == "variant"


@pytest.mark.parametrize("recipe", [RECIPE, Recipe("w8a8", "rtn")], ids=["w4a16", "w8a8"])
def test_another_reading_of_the_weights_is_found(recipe: Recipe, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = readings.load_with_transformers

    def other(folder: Path):  # type: ignore[no-untyped-def]
        model = honest(folder)
        with torch.no_grad():
            model.model.norm.weight.mul_(torch.linspace(0.5, 1.5, model.config.hidden_size))
        return model

    monkeypatch.setattr(readings, "load_with_transformers", other)
    with pytest.raises(UnverifiedVariant, match=r"transformers prefers|transformers reads it differently"):
        make(recipe, whole_check=True)


def test_a_variant_without_finite_logits_is_no_verified_one(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = readings.load_with_transformers

    def broken(folder: Path):  # type: ignore[no-untyped-def]
        model = honest(folder)
        with torch.no_grad():
            model.model.norm.weight.fill_(float("nan"))
        return model

    monkeypatch.setattr(readings, "load_with_transformers", broken)
    with pytest.raises(UnverifiedVariant, match="NaN or infinite, as transformers reads it"):
        make(RECIPE, whole_check=True)


def test_a_slow_engine_is_stopped_and_says_so(make: Make, tmp_path: Path) -> None:
    make(RECIPE)
    trial = run_in_engine(tmp_path / "variant", prompts_of(tmp_path / "variant", ()), seconds=0.0)
    assert 0 < trial.tokens < engine_trial.NEW_TOKENS
    assert any("took too long" in note for note in trial.notes)
    assert trial.problem == ""
