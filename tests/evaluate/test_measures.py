"""What is measured beside the score: agreement, noise floor, forecast, faults, ledger, extraction, choices, text."""

import math
from dataclasses import replace

import numpy as np
import pytest

from qtool import catalog
from qtool.evaluate.asking import agreement, forecast
from qtool.evaluate.contract import Answer, Context, Question
from qtool.evaluate.items import extract
from qtool.evaluate.items.tasks import load_task
from qtool.evaluate.scorers import choice, generation, rolling
from qtool.evaluate.verdicts import faults, flips
from qtool.records.evaluation import ItemResult
from qtool.records.rounding_noise import RoundingNoise
from qtool.records.task import Item
from tests.evaluate.workshop import FakeEngine, LetterLanguage

HEADINGS = ("What it does:", "When to use it:", "What it costs:", "When it fails:")


def row(name: str, score: float, ids: tuple[int, ...], margins: tuple[float, ...], **changes: object) -> ItemResult:
    made = ItemResult(
        id=name, prompt="p", output="".join(map(chr, ids)), extracted=str(ids), target="t", score=score, finish="stop",
        prompt_tokens=1, output_tokens=len(ids), latency_ms=1.0, output_ids=ids, margins=margins,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", catalog.names("qtool.evaluate.scorers"))
def test_every_scorer_says_what_when_cost_and_limits(name: str) -> None:
    text = catalog.docstring("qtool.evaluate.scorers", name, kind="scorer")
    assert [heading for heading in HEADINGS if heading not in text] == []


def test_the_divergence_from_samples_is_the_divergence() -> None:
    rng = np.random.default_rng(0)
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.3, 0.2])
    drawn = rng.choice(3, size=(400, 50), p=p)
    samples = [agreement.Sample((1,), tuple(map(int, ids)), tuple(map(float, np.log(p[ids])))) for ids in drawn]
    found = agreement.agree(samples, [tuple(map(float, np.log(q[ids]))) for ids in drawn], [], [])
    assert found.kl_nats == pytest.approx(float((p * np.log(p / q)).sum()), abs=0.003)
    assert found.kl_interval is not None
    assert found.kl_interval.low < found.kl_nats < found.kl_interval.high
    assert found.kl_tokens == 20_000
    assert found.expected_acceptance == pytest.approx(float(np.minimum(p, q).sum()), abs=0.005)
    assert found.acceptance_interval is not None
    assert found.acceptance_interval.low < found.expected_acceptance < found.acceptance_interval.high
    assert found.kl_p999_nats == pytest.approx(max(q / p - 1 - np.log(q / p)))  # of three terms, the rarest is the last


def test_a_percentile_of_too_few_tokens_is_not_told() -> None:
    few = [agreement.Sample((1,), (2,) * 24, (-0.5,) * 24) for _ in range(20)]
    many = [agreement.Sample((1,), (2,) * 24, (-0.5,) * 24) for _ in range(64)]
    for samples, told in ((few, False), (many, True)):
        found = agreement.agree(samples, [(-0.6,) * 24 for _ in samples], [], [])
        assert (found.kl_p99_nats is not None) is told
        assert found.kl_p999_nats is None
        assert found.expected_acceptance == pytest.approx(np.exp(-0.1))


def test_a_model_does_not_diverge_from_itself() -> None:
    samples = [agreement.Sample((1,), (2, 3), (-0.5, -1.0))]
    found = agreement.agree(samples, [(-0.5, -1.0)], [row("a", 1, (2, 3), (1, 1))], [row("a", 1, (2, 3), (1, 1))])
    assert (found.kl_nats, found.top1_share) == (0.0, 1.0)


def test_top_one_agreement_ends_where_two_answers_part() -> None:
    before, after = [row("a", 1, (1, 2, 3, 4), (1,) * 4)], [row("a", 0, (1, 2, 9, 4), (1,) * 4)]
    found = agreement.agree([], [], before, after)
    assert (found.top1_share, found.top1_tokens, found.kl_nats) == (2 / 3, 3, None)


def noise(deviation: float, *, tokens: int = 2000, slope: float = 0.0) -> RoundingNoise:
    """Normal noise of standard deviation `deviation` + `slope` x margin on margins between 0 and 10 nats."""
    rng = np.random.default_rng(0)
    before = rng.uniform(0, 10, tokens)
    after = before + rng.normal(0, 1, tokens) * np.hypot(deviation, slope * before)
    pairs = list(zip(before.tolist(), after.tolist(), strict=True))
    return RoundingNoise("d", 0.1, tuple(tuple(pairs[start : start + 20]) for start in range(0, tokens, 20)))


def test_small_margins_foretell_more_flips_and_less_weight_error_fewer() -> None:
    sure = [row(str(n), 1, (1, 2), (8.0, 8.0)) for n in range(20)]
    unsure = [row(str(n), 1, (1, 2), (0.2, 8.0)) for n in range(20)]
    fragile, steady = forecast.foretell(unsure, noise(1.0)), forecast.foretell(sure, noise(1.0))
    assert fragile is not None
    assert steady is not None
    assert fragile.predicted > 0.3 > 1e-6 > steady.predicted
    eight = forecast.foretell(unsure, noise(1.0), weight_error=0.1 / 16)
    assert eight is not None
    assert eight.predicted < 0.01 < fragile.predicted
    assert forecast.foretell(sure[:5], noise(1.0)) is None
    assert forecast.foretell(sure, None) is None


def test_a_tokens_chance_is_that_of_the_measured_noise() -> None:
    rows = [row(str(n), 1, (1,), (1.0,)) for n in range(10)]
    found = forecast.foretell(rows, noise(1.0))
    assert found is not None
    normal = 0.5 * math.erfc(1 / math.sqrt(2))
    assert found.predicted == pytest.approx(normal, abs=4 * math.sqrt(normal * (1 - normal) / 2000))
    assert found.interval is not None
    assert found.interval.low <= found.predicted <= found.interval.high


def test_noise_that_grows_with_the_margin_is_told_from_noise_that_does_not() -> None:
    rows = [row(str(n), 1, (1,), (6.0,)) for n in range(10)]
    flat, growing = forecast.foretell(rows, noise(2.0)), forecast.foretell(rows, noise(0.01, slope=0.5))
    assert flat is not None
    assert growing is not None
    # a tail of 0.13 % (3 deviations) and one of 2.3 % (2 deviations), each from 2,000 tokens
    assert flat.predicted == pytest.approx(0.0013, abs=0.004)
    assert growing.predicted == pytest.approx(0.0228, abs=0.014)


@pytest.mark.parametrize(
    ("text", "looping"), [("ab " * 10, True), ("7" * 40, True), ("100000", False), ("a b c d", False)]
)
def test_a_loop_is_a_short_passage_again_and_again(text: str, looping: bool) -> None:
    assert faults.loops(text) == looping


def test_the_ledger_tells_kinds_places_and_first_wrong_steps() -> None:
    before = [row("a", 1, (5, 6), (2.0, 3.0)), row("b", 0, (5,), (1.0,)), row("c", 0, (5,), (1.0,))]
    after = [row("a", 0, (5, 7), (2.0, 0.5)), row("b", 1, (6,), (1.0,)), row("c", 0, (8,), (0.4,))]
    found = flips.flips(before, after, perfect=1.0)
    assert [flip.kind for flip in found] == ["harmful", "beneficial", "wrong to other wrong"]
    assert (found[0].token, found[0].baseline_margin, found[0].variant_margin) == (1, 3.0, 0.5)
    item = Item(id="a", fields=(), answer=" 1 + 1 = 2\n2 + 2 = 4\n4", target="4")
    wrong = row("a", 0, (1,), (1.0,), output=" 1 + 1 = 2\n2 + 2 = 5\n5", notes=(("error", "digits"),))
    counted = {each.name: dict(each.counts) for each in flips.breakdowns([item], [wrong], found)}
    assert counted["answers by first wrong step"] == {"2": 1}
    assert counted["answers by error"] == {"digits": 1}


def test_an_answer_that_only_stops_earlier_differs_where_it_stops() -> None:
    found = flips.flips([row("a", 1, (5, 6), (1.0, 1.0))], [row("a", 0, (5,), (1.0,))], perfect=1.0)
    assert (found[0].token, found[0].baseline_margin, found[0].variant_margin) == (1, 1.0, None)


@pytest.mark.parametrize(
    ("how", "completion", "expected"),
    [
        ("last_number", "12 + 5 = 17.", "17"),
        ("last_number", "so $1,234.50", "1234.50"),
        ("last_number", "3-4", None),
        ("last_number", "= -4", "-4"),
        ("last_number", "it is \u22124", "-4"),
        ("last_number", "none", None),
        ("first_line", "\n\n sport \nbecause", "sport"),
        ("json", 'Here: {"a": [1, 2]} done', '{"a": [1, 2]}'),
        ("json", '{"a": }', None),
        ("code", "```python\nx = 1\n```\ntext", "x = 1"),
        ("code", " def f():\n    return 1\n", "def f():\n    return 1"),
        ("code", "    return 1\n", "    return 1"),
        ("letter", " (B) because A", "B"),
        ("letter", "Because", None),
        ("text", "  a b \n", "a b"),
        ("text", " \n", None),
    ],
)
def test_extraction(how: str, completion: str, expected: str | None) -> None:
    task, said = replace(load_task("arithmetic"), extract=how), Answer(completion, (1,), (), (), "stop", 1, 1.0)  # type: ignore[arg-type]
    assert extract.extract(task, Item("i", (), "", ""), said) == expected


def context(task: str, engine: FakeEngine, **changes: object) -> Context:
    return Context(engine, LetterLanguage(), replace(load_task(task), **changes), in_flight=4)  # type: ignore[arg-type]


def question(prompt: str, **changes: object) -> Question:
    item = Item(id=prompt, fields=(("text", prompt),), answer=prompt, target="b")
    return Question(replace(item, **changes), prompt, "digest")  # type: ignore[arg-type]


def only(scorer: object, asked: Question, where: Context) -> Answer:
    answers = list(scorer.ask([asked], where))  # type: ignore[attr-defined]
    assert [index for index, _ in answers] == [0]
    return answers[0][1]  # type: ignore[no-any-return]


def test_the_most_likely_choice_is_the_answer_with_its_margin() -> None:
    engine = FakeEngine(lambda prompt: " b")
    found = only(choice, question("Which?", choices=("a", "b", "c")), context("arc_easy", engine, metric_options={}))
    assert found.text == "b"
    assert found.margins[0] == pytest.approx(2 * (3.0 - 0.1))


def test_a_choice_is_never_scored_without_its_tokens() -> None:
    where = context("arc_easy", FakeEngine(lambda prompt: ""))
    prompt, continuation = choice.split(where, "Q:", "yes")
    assert where.language.decode(continuation) == " yes"
    assert prompt == where.language.encode("Q:")


def test_every_token_of_a_text_is_scored_once_whatever_the_window() -> None:
    text = "abcdefghij" * 7
    for room in (8, 16, 33, 200):
        engine = FakeEngine(lambda prompt: "", context_tokens=room)
        where = context("perplexity", engine)
        ids = where.language.encode(text)
        requests = rolling.windows(ids, where)
        assert tuple(token for request in requests for token in request.continuation) == ids[1:]
        assert all(len(request.ids) + len(request.continuation) <= room for request in requests)
        assert all(len(request.ids) >= room // 2 for request in requests[1:])
        assert len(only(rolling, question(text), where).logprobs) == len(text)


def test_a_completion_ends_at_the_first_stop_text() -> None:
    engine = FakeEngine(lambda prompt: " 4\nQuestion: what?")
    found = only(generation, question("2+2"), context("arithmetic", engine))
    assert (found.text, found.finish) == (" 4", "stop")
    assert len(found.margins) == len(found.ids) == len(found.logprobs)


def test_the_noise_of_margins_is_taken_where_both_models_read_the_same() -> None:
    before = [row("a", 1, (1, 2, 3), (4.0, 3.0, 9.0))]
    after = [row("a", 0, (1, 5, 6), (3.0, 1.0, 0.0))]  # 1 nat down, then 4 nats to the other side, then nothing counts
    assert forecast.margin_noise(before, after) == pytest.approx(math.sqrt((1 + 16) / 2))
    assert forecast.margin_noise(before, []) is None


@pytest.mark.parametrize(("items", "drawn"), [(5, 5), (40, 8), (100, 16), (2000, 64)])
def test_a_few_items_are_not_followed_by_as_many_samples(items: int, drawn: int) -> None:
    """Drawing them is no part of what was asked: it must stay small beside it."""
    where = context("arithmetic", FakeEngine(lambda prompt: "abc"))
    assert len(agreement.draw([question("Say abc:")] * items, where, seed=0)) == drawn
