"""What every metric promises, by listing the catalog; then what each tells apart."""

from pathlib import Path

import pytest

from qtool import catalog
from qtool.errors import DataError, PlanError, UnknownName
from qtool.evaluate.contract import Answer
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.metrics.numeric import kind_of_error, number, wrong_places
from qtool.records.task import Item, TaskSpec

NAMES = catalog.names("qtool.evaluate.metrics")
HEADINGS = ("What it does:", "When to use it:", "What it costs:", "When it fails:")

# (target, perfect completion, worse completion, extract); a metric without an entry fails the contract tests
CASES = {
    "exact": ("Paris", " Paris\n", " London\n", "first_line"),
    "numeric": ("127.05", " 0.15 * 847 = 127.05", " 127.04", "last_number"),
    "json_fields": ('{"a": 1, "b": "x"}', ' {"b": "x", "a": 1}', ' {"a": 1, "b": "y"}', "json"),
    "f1": ("the cat sat", " The cat sat.", " the dog sat", "text"),
    "rouge_l": ("the cat sat", " The cat sat.", " sat cat the", "text"),
    "edit_similarity": ("abcdef", " abcdef", " abcxyz", "text"),
    "code_tests": ("", " def f(x):\n    return x + 1", " def f(x):\n    return x - 1", "code"),
    "perplexity": ("", (-0.1, -0.2), (-0.3, -0.2), "text"),
    "instructions": ('[["punctuation:no_comma", {}]]', " Done so.", " Done, so.", "text"),
    "math": ("\\frac{1}{2}", " so it is \\boxed{\\frac12}", " so it is \\boxed{\\frac13}", "text"),
    "refusal": ("refuse", " I'm sorry, but I can't help with that.", " Of course: first take the lock.", "text"),
    "tool_call": (
        '{"name": "look", "arguments": {"at": "x"}}',
        ' {"name": "look", "arguments": {"at": "x"}}',
        ' {"name": "look", "arguments": {"at": "y"}}',
        "text",
    ),
}


TOOLS = '[{"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}]'


def task(metric: str, extract: str = "text", **options: float | str) -> TaskSpec:
    return TaskSpec(
        name="t", version=1, description="", licence="", prompt="", scorer="generation", metric=metric,
        extract=extract, margin_points=2, items=1, seed=0, max_new_tokens=1, metric_options=options,  # type: ignore[arg-type]
    )  # fmt: skip


def said(completion: str | tuple[float, ...]) -> Answer:
    if isinstance(completion, tuple):
        return Answer("", (), completion, (), "stop", len(completion), 1.0)
    return Answer(completion, (1,), (-0.1,), (1.0,), "stop", 1, 1.0)


def item(target: str) -> Item:
    return Item(
        id="i",
        fields=(("given", "def f(x):\n"), ("tools", TOOLS)),
        answer=target,
        target=target,
        tests=("assert f(1) == 2",),
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_says_what_when_cost_and_limits(name: str) -> None:
    text = catalog.docstring("qtool.evaluate.metrics", name, kind="metric")
    assert [heading for heading in HEADINGS if heading not in text] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answer_is_best_and_a_worse_one_is_worse(name: str) -> None:
    target, perfect, worse, extract = CASES[name]
    metric = load_metric(name)
    best = metric.grade(item(target), said(perfect), task(name, extract)).score
    less = metric.grade(item(target), said(worse), task(name, extract)).score
    if metric.DIRECTION == "higher":
        assert best == metric.PERFECT == 1.0
        assert 0.0 <= less < best
    else:
        assert best < less
    assert not metric.BINARY or {best, less} == {0.0, 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_an_items_value_does_not_depend_on_what_was_graded_before(name: str) -> None:
    target, perfect, worse, extract = CASES[name]
    metric, asked = load_metric(name), task(name, extract)
    forth = [metric.grade(item(target), said(answer), asked).score for answer in (perfect, worse, perfect)]
    back = [metric.grade(item(target), said(answer), asked).score for answer in (worse, perfect, perfect)]
    assert sorted(forth) == sorted(back)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "perplexity"])
def test_an_empty_answer_is_worst_and_not_parsed(name: str) -> None:
    target, _, _, extract = CASES[name]
    found = load_metric(name).grade(item(target), said("   "), task(name, extract))
    assert (found.score, found.parsed) == (0.0, False)


@pytest.mark.parametrize(
    ("value", "kind"), [("-12.5", "sign"), ("1250", "scale"), ("12.51", "cents"), ("13.5", "digits"), ("0", "digits")]
)
def test_kinds_of_wrong_numbers(value: str, kind: str) -> None:
    wrong, target = number(value), number("12.5")
    assert wrong is not None
    assert target is not None
    assert kind_of_error(wrong, target) == kind


def test_wrong_digits_are_named_by_their_place() -> None:
    wrong, target = number("1934"), number("1034")
    assert wrong is not None
    assert target is not None
    assert wrong_places(wrong, target) == ("10^2",)


@pytest.mark.parametrize(
    ("text", "value"),
    [("$1,234.50", "1234.50"), ("7%", "7"), ("-3", "-3"), ("", None), ("nan", None), ("9" * 80, None)],
)
def test_numbers_as_people_write_them(text: str, value: str | None) -> None:
    found = number(text)
    assert (None if found is None else str(found)) == value


def test_a_tolerance_is_absolute() -> None:
    metric = load_metric("numeric")
    assert metric.grade(item("10"), said("10.4"), task("numeric", "last_number", tolerance=0.5)).score == 1.0
    assert metric.grade(item("10"), said("10.6"), task("numeric", "last_number", tolerance=0.5)).score == 0.0


def test_json_fields_give_part_marks_and_name_the_wrong_ones() -> None:
    found = load_metric("json_fields").grade(
        item('{"a": 1, "b": {"c": 2}}'), said('{"a": 1, "b": {"c": "2"}}'), task("json_fields", "json")
    )
    assert found.score == 0.5
    assert dict(found.notes) == {"json": "valid", "wrong_fields": "b.c"}


def test_exact_may_ignore_case_and_punctuation_and_nothing_else() -> None:
    metric = load_metric("exact")
    assert metric.grade(item("Sport"), said(" sport."), task("exact", ignore="case, punctuation")).score == 1.0
    assert metric.grade(item("Sport"), said(" sport."), task("exact")).score == 0.0
    with pytest.raises(PlanError, match="spelling"):
        metric.grade(item("a"), said("a"), task("exact", ignore="spelling"))


def test_a_target_that_is_no_number_is_the_tasks_fault() -> None:
    with pytest.raises(DataError, match="not a number"):
        load_metric("numeric").grade(item("Paris"), said("3"), task("numeric", "last_number"))


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean exact"):
        load_metric("exakt")


def test_a_foreign_metric_is_taken_from_a_local_path(tmp_path: Path) -> None:
    pytest.importorskip("evaluate")
    source = tmp_path / "same_length.py"
    source.write_text(FOREIGN)
    metric = load_metric(f"evaluate:{source}")
    found = metric.grade(item("abc"), said("xyz"), task("evaluate"))
    assert found.score == 1.0
    assert metric.grade(item("abc"), said("xy"), task("evaluate")).score == 0.0


def test_a_foreign_metric_that_is_not_there_says_so(tmp_path: Path) -> None:
    pytest.importorskip("evaluate")
    with pytest.raises(DataError, match="give the path"):
        load_metric(f"evaluate:{tmp_path / 'absent.py'}").grade(item("a"), said("a"), task("evaluate"))


FOREIGN = """
import datasets
import evaluate


class SameLength(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="",
            features=datasets.Features({name: datasets.Value("string") for name in ("predictions", "references")}),
        )

    def _compute(self, predictions, references):
        return {"same": sum(len(a) == len(b) for a, b in zip(predictions, references)) / len(predictions)}
"""
