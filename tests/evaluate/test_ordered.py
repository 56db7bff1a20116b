"""Tiers, margins in percent, what is known of the base, repeats, and how long answers are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtool.errors import PlanError, UsageError
from qtool.evaluate import answer_length, session
from qtool.evaluate.asking import agreement
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.session import Findings, Order, fulfil
from qtool.evaluate.terminal_text import render
from qtool.evaluate.verdicts import paired
from qtool.evaluate.verdicts.compare import compare
from qtool.front_door.margins import margins, pairs, share
from qtool.progress import Silent
from qtool.records.evaluation import ItemResult
from tests.evaluate.test_order import TASK, number_of, right, wrong
from tests.evaluate.workshop import Workshop


@pytest.fixture
def evals(tmp_path: Path) -> Path:
    folder = tmp_path / "evals"
    folder.mkdir()
    for name, mark in (("sums", "?"), ("extra", "!")):
        rows = (f'{{"id": "{n}", "question": "{n}+1{mark}", "answer": " {n + 1}"}}\n' for n in range(300))
        (folder / f"{name}.jsonl").write_text("".join(rows))
        (folder / f"{name}.toml").write_text(TASK.format(name=name, items=300, critical="true"))
    return folder


def bad_at_extra(prompt: str) -> str:
    return wrong(prompt) if "!" in prompt else right(prompt)


def wrong_every(step: int, *, offset: int = 0) -> "session.Callable[[str], str]":
    return lambda prompt: wrong(prompt) if number_of(prompt) % step == offset else right(prompt)


def found(workshop: Workshop, evals: Path, reply: "session.Callable[[str], str]", **said: object) -> Findings:
    base = workshop.model("baseline", said.pop("base", right))  # type: ignore[arg-type]
    said.setdefault("tasks", ("sums",))
    order = Order(model=workshop.model("v", reply, scheme="w4a16"), baseline=base, evals_dir=evals, **said)  # type: ignore[arg-type]
    return fulfil(order, Silent(), opener=workshop.open)


@pytest.mark.parametrize(("tier", "overall"), [("critical", "FAIL"), ("supporting", "FAIL"), ("advisory", "PASS")])
def test_a_tier_says_what_a_failing_task_does_to_the_whole(
    workshop: Workshop, evals: Path, tier: str, overall: str
) -> None:
    result = found(workshop, evals, bad_at_extra, tasks=("sums", "extra"), tiers={"extra": tier})
    assert [each.comparison.verdict for each in result.evaluations if each.comparison] == ["PASS", "FAIL"]
    assert (result.overall, result.evaluations[1].tier) == (overall, tier)
    assert ("FAIL (advisory)" in render(result)) == (tier == "advisory")


def test_a_tier_that_is_none_or_of_no_task_is_refused(workshop: Workshop, evals: Path) -> None:
    with pytest.raises(PlanError, match="critical, supporting or advisory"):
        found(workshop, evals, right, tiers={"sums": "vital"})
    with pytest.raises(PlanError, match="no such task is asked"):
        found(workshop, evals, right, tiers={"extra": "advisory"})
    with pytest.raises(PlanError, match="base_score"):
        found(workshop, evals, right, base_scores={"sums": 62.0})


def test_a_margin_in_percent_is_a_share_of_the_bases_score(workshop: Workshop, evals: Path, tmp_path: Path) -> None:
    half = wrong_every(2)
    result = found(workshop, evals, half, base=half, margin_percent=10.0)
    evaluation = result.evaluations[0]
    assert evaluation.comparison is not None
    assert evaluation.comparison.margin == pytest.approx(0.05)
    assert (evaluation.margin_percent, evaluation.comparison.verdict) == (10.0, "PASS")
    folders = [tmp_path / "runs/r/evaluations" / name for name in ("baseline", "v")]
    assert compare(*folders).tasks[0].comparison.margin == pytest.approx(0.05), "compare judges by the same margin"
    assert compare(*folders, margin_points=2.0).tasks[0].comparison.margin == pytest.approx(0.02)
    in_points = found(workshop, evals, half, base=half, margin_points=2.0).evaluations[0].comparison
    assert in_points is not None
    assert in_points.margin == pytest.approx(0.02)


def test_a_margin_in_percent_stays_the_same_test_when_items_are_added(workshop: Workshop, evals: Path) -> None:
    reply = wrong_every(40)
    looks = [
        found(workshop, evals, reply, base=wrong_every(3, offset=1), margin_percent=4.0, limit=count).evaluations[0]
        for count in (100, 300)
    ]
    assert [each.comparison.looks for each in looks if each.comparison] in ([1, 2], [1, 1])
    assert looks[0].comparison is not None
    assert looks[1].comparison is not None
    if looks[0].comparison.verdict == "UNDECIDED":
        assert looks[1].comparison.looks == 2


@pytest.mark.parametrize(("expected", "far"), [(0.5, False), (0.53, False), (0.8, True), (0.2, True)])
def test_a_base_that_scores_far_from_what_is_known_of_it_gets_no_verdict(
    workshop: Workshop, evals: Path, expected: float, far: bool
) -> None:
    half = wrong_every(2)
    comparison = found(workshop, evals, half, base=half, base_scores={"sums": expected}, margin_points=5.0)
    judged = comparison.evaluations[0].comparison
    assert judged is not None
    assert judged.base_fails is far
    assert judged.verdict == ("UNDECIDED" if far else "PASS")
    assert ("the base scores 50.0 %" in judged.reason) is far


def test_repeated_answers_are_one_item_however_many_there_are(workshop: Workshop, evals: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="greedy answers to one item are all alike"):
        found(workshop, evals, right, repeats=4)
    result = found(workshop, evals, wrong_every(10), repeats=4, temperature=0.7, limit=200)
    evaluation = result.evaluations[0]
    assert evaluation.comparison is not None
    assert (evaluation.score.items, evaluation.repeats, evaluation.comparison.clusters) == (800, 4, 200)
    passed = {score.metric: score for score in evaluation.also}["pass@4"]
    assert (passed.value, passed.items) == (evaluation.score.value, 200), "each item is always right, or never"
    alone = found(workshop, evals, wrong_every(10), temperature=0.7, limit=200).evaluations[0]
    assert alone.comparison is not None
    assert evaluation.comparison.interval.low <= alone.comparison.interval.low + 1e-6, (
        "800 answers say no more than 200"
    )
    text = render(result)
    assert "200 items, 4 answers to each" in text
    folders = [tmp_path / "runs/r/evaluations" / name for name in ("baseline", "v")]
    found(workshop, evals, wrong_every(10), repeats=4, temperature=0.7, limit=200)
    assert compare(*folders).tasks[0].comparison.interval == evaluation.comparison.interval


def test_items_are_counted_and_not_answers_where_more_are_advised() -> None:
    rows = [
        ItemResult(f"{n}#{k}", "", "", "", "", float(n % 20 > 0), "stop", 1, 1, 1.0, slices=(("item", str(n)),))
        for n in range(120)
        for k in range(4)
    ]
    changed = [replace(row, score=1.0 - row.score) if row.id in ("7#1", "9#2") else row for row in rows]
    terms = paired.Terms("exact", load_metric("exact"), 2.0, cluster="item", repeats=4)
    once = replace(terms, repeats=1)
    advised = paired.compare("b", rows, changed, terms, seconds_per_item=0.0).items_to_decide
    answers = paired.compare("b", rows, changed, once, seconds_per_item=0.0).items_to_decide
    assert advised is not None
    assert answers is not None
    assert advised == -(-answers // 4)


def written(tokens: list[int], finish: str = "stop") -> list[ItemResult]:
    return [
        ItemResult(str(n), "", "x", "x", "x", 1.0, finish, 1, count, 1.0, output_ids=(5,) * count)
        for n, count in enumerate(tokens)
    ]


def test_longer_answers_show_as_a_paired_ratio() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(20, 200, 300).tolist()
    same = answer_length.length(written(base), written(base))
    assert same is not None
    assert (same.ratio, same.interval.low, same.interval.high) == (1.0, 1.0, 1.0)
    longer = answer_length.length(written(base), written([round(1.3 * count) for count in base], "length"))
    assert longer is not None
    assert 1.29 < longer.interval.low <= longer.ratio <= longer.interval.high < 1.31, "paired: no spread between items"
    assert (longer.at_limit, longer.baseline_at_limit) == (300, 0)
    assert answer_length.length(written([0, 0]), written([0, 0])) is None


def test_the_interval_of_the_ratio_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        base = rng.geometric(0.02, 150)
        ratio = answer_length.length(written(base.tolist()), written(rng.poisson(1.1 * base + 1).tolist()))
        assert ratio is not None
        held += ratio.interval.low <= (1.1 * 50 + 1) / 50 <= ratio.interval.high
    assert 0.95 - 3 * np.sqrt(0.05 * 0.95 / 300) <= held / 300


def test_digits_that_are_lost_weigh_by_the_lead_of_the_base() -> None:
    def row(ids: tuple[int, ...], leads: tuple[float, ...]) -> ItemResult:
        return ItemResult("i", "", "", "", "", 1.0, "stop", 1, len(ids), 1.0, output_ids=ids, margins=leads)

    before = [row(tuple(map(ord, "a1+2")), (4.0, 3.0, 2.0, 1.0))]
    after = [row(tuple(map(ord, "a1+9")), (4.0, 3.0, 2.0, 1.0))]
    measured = agreement.agree([], [], before, after, decode=lambda ids: "".join(map(chr, ids)))
    assert (measured.digit_tokens, measured.digit_top1_share) == (3, pytest.approx(2 / 3))
    assert measured.lead_lost_share == pytest.approx(1 / 10)
    assert measured.digit_lead_lost_share == pytest.approx(1 / 6)


def test_words_of_the_command_line() -> None:
    assert margins(None) == (None, None)
    assert (margins("2"), margins(2.5), margins("2 %")) == ((2.0, None), (2.5, None), (None, 2.0))
    assert pairs("--tier", ["a=b", "c=d"]) == {"a": "b", "c": "d"}
    assert (share("--base-score", "a", "0.62"), share("--base-score", "a", "62%")) == (0.62, 0.62)
    for wrong_words in (
        lambda: margins("two"),
        lambda: pairs("--tier", ["a"]),
        lambda: share("--base-score", "a", "62"),
    ):
        with pytest.raises(UsageError):
            wrong_words()
