"""The stage on qtool's own engine and a tiny random model: what is reported is what the model computes."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from qtool.engine.contract import GenerationRequest, Scored, ScoreRequest
from qtool.engine.rounded_copy import round_weights
from qtool.evaluate import results
from qtool.evaluate.asking.questions import Asked
from qtool.evaluate.asking.rounding_noise import FEWEST_ITEMS
from qtool.evaluate.asking.subject import Settings
from qtool.evaluate.asking.teacher_forcing import NEAR_TIE_NATS, Decider
from qtool.evaluate.contract import Answer, Context
from qtool.evaluate.items.tasks import load_items, load_task
from qtool.evaluate.results import read_noise
from qtool.evaluate.stage import evaluate_asked
from qtool.models.locate import locate
from qtool.progress import Silent
from qtool.records.evaluation import ItemResult
from qtool.records.task import Item, TaskSpec
from tests.tiny_model import make_tiny_llama

TEXTS = tuple("the cat sat on the mat and looked at " + word for word in ("me", "you", "a long grey wall", "it", "us"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "model")


def rows(model: Path, task: TaskSpec, items: tuple[Item, ...], output: Path, *, in_flight: int) -> list[ItemResult]:
    settings = Settings(in_flight=in_flight, dtype="float32", device="cpu", floor_share=0.0)
    evaluate_asked(model, (Asked(task, items, 2.0),), output, baseline=None, progress=Silent(), settings=settings)
    return results.read_items(results.items_path(output, task.name))


def items_of(texts: tuple[str, ...]) -> tuple[Item, ...]:
    return tuple(
        Item(
            id=str(index),
            fields=(("text", text), ("question", text)),
            answer=" a",
            target="a",
            choices=("a", "the cat"),
        )
        for index, text in enumerate(texts)
    )


def test_the_number_in_flight_and_the_order_change_no_answer(model: Path, tmp_path: Path) -> None:
    task = replace(load_task("classification"), max_new_tokens=12)
    items = items_of(TEXTS)
    alone = rows(model, task, items, tmp_path / "alone", in_flight=1)
    together = rows(model, task, items, tmp_path / "together", in_flight=5)
    reversed_order = rows(model, task, items[::-1], tmp_path / "reversed", in_flight=3)
    assert [row.output_ids for row in alone] == [row.output_ids for row in together]
    assert [row.output_ids for row in alone] == [row.output_ids for row in reversed_order[::-1]]
    for left, right in zip(alone, together, strict=True):
        assert left.margins == pytest.approx(right.margins, abs=1e-3)  # float32 sums in another order
        assert all(margin >= 0 for margin in left.margins), "greedy takes the best token"


def test_perplexity_is_what_transformers_computes(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = rows(model, load_task("perplexity"), items_of(TEXTS), tmp_path / "e", in_flight=4)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    for row, text in zip(found, TEXTS, strict=True):
        from qtool.models.tokenizer import encode

        ids = torch.tensor([encode(tokenizer, text)])
        with torch.inference_mode():
            expected = network(ids, labels=ids).loss.item()
        assert row.score == pytest.approx(expected, rel=1e-4)  # mean of float32 log-probabilities
        assert row.prompt_tokens == ids.shape[1] - 1


def test_the_chosen_choice_is_the_likelier_one(model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    task = replace(load_task("arc_easy"), metric_options={"normalize": "none"})
    found = rows(model, task, items_of(TEXTS), tmp_path / "e", in_flight=4)
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    from qtool.models.tokenizer import encode

    for row in found:
        likelihoods = {}
        for choice in ("a", "the cat"):
            prompt, whole = (encode(tokenizer, text) for text in (row.prompt, f"{row.prompt}{choice}"))
            border = next((i for i, p in enumerate(zip(prompt, whole, strict=False)) if p[0] != p[1]), len(prompt))
            with torch.inference_mode():
                logprobs = network(torch.tensor([whole])).logits[0].log_softmax(-1)
            likelihoods[choice] = sum(float(logprobs[i - 1, whole[i]]) for i in range(border, len(whole)))
        assert row.output == max(likelihoods, key=lambda choice: likelihoods[choice])
        gap = abs(likelihoods["a"] - likelihoods["the cat"])
        assert math.isclose(row.margins[0], gap, rel_tol=1e-3, abs_tol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["classification", "extraction"])
def test_what_is_decided_is_what_would_have_been_generated(name: str, dtype: str, tmp_path: Path) -> None:
    task = load_task(name)
    asked = Asked(task, load_items(task, count=144), 2.0)
    found = {}
    for forcing in (True, False):
        output = tmp_path / str(forcing)
        settings = Settings(device="cpu", dtype=dtype, floor_share=0.0, forcing=forcing)
        evaluate_asked(
            locate("reference-64"), (asked,), output, baseline=None, progress=Silent(), settings=settings
        )  # fmt: skip
        found[forcing] = results.read_items(results.items_path(output, name))
    assert sum(bool(row.decided_by) for row in found[True]) > 60
    for told, generated in zip(found[True], found[False], strict=True):
        assert (told.output, told.output_ids, told.finish) == (generated.output, generated.output_ids, generated.finish)
        assert (told.score, told.prompt_tokens) == (generated.score, generated.prompt_tokens)
        # bfloat16 has logits of 8 to 16 in steps of 1/16, and a lead is made of two that are a few steps off
        assert told.margins == pytest.approx(generated.margins, abs=1e-2 if dtype == "float32" else 8 / 16)


def test_near_ties_are_as_wide_as_the_two_ways_were_seen_to_differ() -> None:
    class Apart:
        """Reads every lead as 1.5 nats less than it was when the answer was generated."""

        def score(self, requests: list[ScoreRequest]) -> list[Scored]:
            return [Scored((-0.1, -0.1), (True, True), (3.0 - 1.5, 6.0 - 1.5)) for _ in requests]

    task = load_task("classification")
    context = Context(engine=Apart(), language=None, task=task, in_flight=4)  # type: ignore[arg-type]
    decider = Decider(context)
    assert not decider.near_tie_nats > NEAR_TIE_NATS
    answer = Answer("ab", (5, 6), (-0.1, -0.1), (3.0, 6.0), "stop", 3, 0.0)
    decider.measure([(GenerationRequest((1, 2, 3), 4), answer)] * 3)
    assert decider.near_tie_nats == 4 * 1.5


def test_rounding_noise_is_measured_and_foretells_churn(tmp_path: Path) -> None:
    task = load_task("classification")
    asked = Asked(task, load_items(task, count=20), 2.0)
    found = evaluate_asked(
        locate("reference-64"), (asked,), tmp_path, baseline=None, progress=Silent(), settings=Settings(device="cpu")
    )[0]
    noise = read_noise(tmp_path, task.name, found.run_digest)
    assert noise is not None
    assert FEWEST_ITEMS <= len(noise.margins) <= 20  # all of them unless the machine is busy
    # steps of 2 max / 15 leave an error of step / sqrt(12); the largest of a row is 2.5 to 5 times its deviation
    assert 2.5 * 2 / 15 / math.sqrt(12) * 0.8 < noise.weight_error < 5 * 2 / 15 / math.sqrt(12) * 1.2
    assert found.forecast is not None
    assert found.forecast.interval is not None
    assert 0 <= found.forecast.interval.low <= found.forecast.predicted + 0.05


def test_rounding_moves_no_weight_by_more_than_half_a_step() -> None:
    import torch
    from torch import nn

    from qtool.models import architecture

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2, bias=False)

    model = Tiny()
    steps = torch.tensor([[-8.0, 7.0, 0.0, 1.0], [-16.0, 14.0, 2.0, -2.0]]) * (15 / 16)  # 2 x 8 / 15 is not 1
    with torch.no_grad():
        model.layer.weight.copy_(steps)
    described = architecture.Architecture(
        blocks=("",), linears=(architecture.LinearLayer("layer", 2, 4, 0),), head="", embedding="", tied=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architecture, "describe_model", lambda model: described)
        error = round_weights(model)
    half_a_step = steps.abs().amax(dim=1, keepdim=True) / 15
    assert bool(((model.layer.weight - steps).abs() <= half_a_step + 1e-6).all())
    assert 0 < error < 0.1
