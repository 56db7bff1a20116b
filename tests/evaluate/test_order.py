"""What `qtool eval` does with names: where results go, the baseline's answers, several looks, the overall verdict."""

from dataclasses import replace
from pathlib import Path

import pytest

from qtool.errors import MismatchError, PlanError
from qtool.evaluate import session as order_module
from qtool.evaluate.asking.subject import Settings
from qtool.evaluate.session import Order, default_output, fulfil
from qtool.evaluate.terminal_text import render
from qtool.progress import Silent
from tests.evaluate.workshop import Workshop

TASK = """
name = "{name}"
version = 1
description = "sums"
licence = "CC0-1.0"
data = "{name}.jsonl"
prompt = "Question: {{question}}\\nAnswer:"
scorer = "generation"
metric = "numeric"
extract = "last_number"
margin_points = 2.0
items = {items}
seed = 1
max_new_tokens = 12
critical = {critical}
"""


def number_of(prompt: str) -> int:
    return int(prompt.split("Question: ")[1].split("+")[0])


def right(prompt: str) -> str:
    return f" {number_of(prompt) + 1}"


def sometimes_wrong(prompt: str) -> str:
    number = number_of(prompt)
    return f" {number + (2 if number % 50 == 7 else 1)}"


def wrong(prompt: str) -> str:
    return f" {number_of(prompt) + 2}"


@pytest.fixture
def evals(tmp_path: Path) -> Path:
    folder = tmp_path / "evals"
    folder.mkdir()
    for name, items, critical in (("sums", 100, "true"), ("extra", 100, "false")):
        rows = (f'{{"id": "{n}", "question": "{n}+1?", "answer": " {n + 1}"}}\n' for n in range(1600))
        (folder / f"{name}.jsonl").write_text("".join(rows))
        (folder / f"{name}.toml").write_text(TASK.format(name=name, items=items, critical=critical))
    return folder


def test_results_of_a_run_lie_in_the_run(tmp_path: Path) -> None:
    assert default_output(tmp_path / "runs/r/variants/w4") == (tmp_path / "runs/r/evaluations/w4").resolve()
    assert default_output(Path("elsewhere/model")) == Path("evaluations/model")


def test_the_baselines_answers_are_made_where_they_are_missing_and_looked_up_afterwards(
    workshop: Workshop, evals: Path, tmp_path: Path
) -> None:
    base, variant = workshop.model("baseline", right), workshop.model("v", right, scheme="w8a16")
    order = Order(model=variant, tasks=("sums",), baseline=base, evals_dir=evals, limit=1600)
    first = fulfil(order, Silent(), opener=workshop.open)
    assert first.overall == "PASS"
    assert (tmp_path / "runs/r/evaluations/baseline/sums.json").is_file()
    assert (tmp_path / "runs/r/evaluations/v/sums.json").is_file()
    opened = len(workshop.engines)
    again = fulfil(order, Silent(), opener=workshop.open)
    assert again == first
    assert len(workshop.engines) == opened, "everything was answered already"
    assert "overall: PASS" in render(first)


def test_without_a_baseline_there_is_no_verdict(workshop: Workshop, evals: Path) -> None:
    order = Order(model=workshop.model("baseline", right), tasks=("sums",), evals_dir=evals)
    found = fulfil(order, Silent(), opener=workshop.open)
    assert found.overall is None
    assert found.evaluations[0].comparison is None


def test_only_critical_tasks_decide_over_all(workshop: Workshop, evals: Path) -> None:
    base = workshop.model("baseline", right)
    task = evals / "extra.jsonl"
    task.write_text(task.read_text().replace("1?", "1!"))

    def bad_at_extra(prompt: str) -> str:
        return wrong(prompt) if "!" in prompt else right(prompt)

    variant = workshop.model("v", bad_at_extra)
    order = Order(model=variant, tasks=("sums", "extra"), baseline=base, evals_dir=evals, limit=1000)
    found = fulfil(order, Silent(), opener=workshop.open)
    verdicts = [each.comparison.verdict for each in found.evaluations if each.comparison]
    assert verdicts == ["PASS", "FAIL"]
    assert found.overall == "PASS"
    assert [worse.task for worse in found.worse] == ["extra"]


def test_a_task_of_the_harness_counts_like_any_other(
    workshop: Workshop, evals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness itself is an extra: what it returns is put in its place here."""
    base, variant = workshop.model("baseline", right), workshop.model("v", right)
    own = fulfil(
        Order(model=variant, tasks=("sums",), baseline=base, evals_dir=evals, limit=1000),
        Silent(), opener=workshop.open,
    )  # fmt: skip
    (passed,) = own.evaluations
    assert own.overall == "PASS"
    assert passed.comparison is not None
    failed = replace(passed, task="lm_eval-X", comparison=replace(passed.comparison, verdict="FAIL"))
    monkeypatch.setattr(order_module, "check", lambda harness: None)
    monkeypatch.setattr(order_module, "evaluate_harness", lambda *_, **__: (failed,))
    both = Order(model=variant, tasks=("sums", "lm_eval:X"), baseline=base, evals_dir=evals, limit=1000)
    assert fulfil(both, Silent(), opener=workshop.open).overall == "FAIL"


def test_where_no_task_is_critical_all_of_them_count(workshop: Workshop, evals: Path) -> None:
    base, variant = workshop.model("baseline", right), workshop.model("v", wrong)
    order = Order(model=variant, tasks=("extra",), baseline=base, evals_dir=evals, limit=1000)
    assert fulfil(order, Silent(), opener=workshop.open).overall == "FAIL"


def test_a_quantile_of_too_few_items_is_not_told(workshop: Workshop, evals: Path) -> None:
    model, settings = workshop.model("baseline", right), Settings(forcing=False)
    for count, shown in ((3, (False, False)), (19, (True, False)), (20, (True, True))):
        order = Order(model=model, tasks=("sums",), evals_dir=evals, limit=count, settings=settings)
        found = fulfil(order, Silent(), opener=workshop.open)
        timing = found.evaluations[0].timing
        assert (timing.item_ms_p50 is not None, timing.item_ms_p95 is not None) == shown
        assert ("needs n 20" in render(found)) is not shown[1]


def test_until_decided_asks_for_more_items_only_while_it_must(workshop: Workshop, evals: Path) -> None:
    base, variant = workshop.model("baseline", right), workshop.model("v", sometimes_wrong)
    order = Order(
        model=variant, tasks=("sums",), baseline=base, evals_dir=evals, margin_points=5.0, until_decided=1600,
        settings=Settings(forcing=False),
    )  # fmt: skip
    found = fulfil(order, Silent(), opener=workshop.open).evaluations[0]
    assert found.comparison is not None
    assert found.comparison.verdict == "PASS"
    assert found.comparison.looks > 1
    assert 100 < found.score.items < 1600
    asked = [len(engine.asked) for engine in workshop.engines]
    assert len(asked) == 2, "each model is opened once however many looks there are"
    variant_asked = workshop.engines[1].asked
    assert len(set(variant_asked)) == len(variant_asked) == found.score.items, "no item is asked twice"


def test_a_hopeless_variant_is_told_at_the_first_look(workshop: Workshop, evals: Path) -> None:
    base, variant = workshop.model("baseline", right), workshop.model("v", wrong)
    order = Order(model=variant, tasks=("sums",), baseline=base, evals_dir=evals, until_decided=1600)
    found = fulfil(order, Silent(), opener=workshop.open)
    assert found.overall == "FAIL"
    assert found.evaluations[0].score.items == 100


def test_orders_that_cannot_be_meant_are_refused_before_a_model_is_opened(workshop: Workshop, evals: Path) -> None:
    base, variant = workshop.model("baseline", right), workshop.model("v", right)
    other = workshop.model("other", right, tokenizer="syllables")
    cases = [
        (Order(model=variant, tasks=(), evals_dir=evals), PlanError, "no task"),
        (Order(model=variant, tasks=("sums",), evals_dir=evals, until_decided=500), PlanError, "--baseline"),
        (
            Order(model=variant, tasks=("sums",), evals_dir=evals, baseline=base, until_decided=50),
            PlanError,
            "begins with 100",
        ),
        (Order(model=variant, tasks=("sums", "extra"), evals_dir=evals, data="x.jsonl"), PlanError, "one task"),
        (Order(model=variant, tasks=("sums",), evals_dir=evals, margin_points=0), PlanError, "margin"),
        (Order(model=variant, tasks=("sums",), evals_dir=evals, baseline=variant), PlanError, "both write"),
        (Order(model=other, tasks=("sums",), evals_dir=evals, baseline=base), MismatchError, "another tokenizer"),
    ]
    for order, error, said in cases:
        with pytest.raises(error, match=said):
            fulfil(order, Silent(), opener=workshop.open)
    assert workshop.engines == []


@pytest.mark.parametrize("finished", [False, True])
def test_a_variant_of_another_base_is_refused_before_a_model_is_opened(
    workshop: Workshop, evals: Path, tmp_path: Path, finished: bool
) -> None:
    base = workshop.model("baseline", right)
    variant = workshop.model("v", right, scheme="w8a16", base_weights="other")
    order = Order(model=variant, tasks=("sums",), baseline=base, evals_dir=evals, limit=20)
    if finished:  # the baseline's evaluations instead of its model
        fulfil(Order(model=base, tasks=("sums",), evals_dir=evals, limit=20), Silent(), opener=workshop.open)
        order = replace(order, baseline=tmp_path / "runs/r/evaluations/baseline")
    opened = len(workshop.engines)
    with pytest.raises(MismatchError, match=r"baseline.* and v are of different base models"):
        fulfil(order, Silent(), opener=workshop.open)
    assert len(workshop.engines) == opened
