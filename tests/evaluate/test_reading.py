"""Answers of every kind as models write them, read as a careful person would read them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction

import pytest

from qtool.errors import DataError
from qtool.evaluate.answers import number as numbers
from qtool.evaluate.contract import Answer
from qtool.evaluate.items import extract
from qtool.evaluate.items.rows import to_items
from qtool.evaluate.items.tasks import load_task
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.verdicts import faults
from qtool.records.task import Item, TaskSpec
from tests.evaluate.read_code import BODIES, NO_PROGRAM, OBJECTS, PROGRAMS
from tests.evaluate.read_numbers import NUMBERS, QUESTIONS
from tests.evaluate.read_words import LABELS, LETTERS, WORDS

SHARE_RIGHT = 0.98


def said(text: str, *, finish: str = "stop", thinking_open: bool = False) -> Answer:
    return Answer(text, (1,), (), (), finish, 1, 1.0, thinking_open=thinking_open)  # type: ignore[arg-type]


def task(how: str) -> TaskSpec:
    return replace(load_task("arithmetic"), extract=how)  # type: ignore[arg-type]


def check(cases: Iterable[tuple[object, str, object]], read: Callable[[object, str], object]) -> None:
    """At least 98 % are read as by a person, and of the rest none is taken for another answer than the person's."""
    results = [(given, text, wanted, read(given, text)) for given, text, wanted in cases]
    wrong = [result for result in results if result[2] != result[3]]
    assert len(wrong) <= (1 - SHARE_RIGHT) * len(results), wrong
    assert [result for result in wrong if result[3] is not None] == [], "read as another answer"


def test_there_are_as_many_as_are_promised() -> None:
    every = (NUMBERS, QUESTIONS, LETTERS, WORDS, LABELS, PROGRAMS, NO_PROGRAM, BODIES, OBJECTS)
    assert sum(map(len, every)) >= 600
    assert len({text for text, _ in NUMBERS}) >= 370


def test_numbers() -> None:
    cases = [*(("", text, wanted) for text, wanted in NUMBERS), *QUESTIONS]

    def read(question: object, text: str) -> object:
        found = extract.extract(task("number"), Item("i", (("question", str(question)),), "", ""), said(text))
        if found is None:
            return None
        numeral = numbers.number(found)
        assert numeral is not None, f"{found!r} was extracted and cannot be read back"
        wanted = next(wanted for asked, output, wanted in cases if (asked, output) == (question, text))
        return wanted if wanted is not None and Fraction(wanted) in numeral.readings else found

    check(cases, read)


def test_letters() -> None:
    def read(choices: object, text: str) -> object:
        assert isinstance(choices, tuple)
        fields = tuple((name.lower(), choice or f"choice {name}") for name, choice in choices)
        return extract.extract(task("letter"), Item("i", fields, "", ""), said(text))

    check([(choices, text, wanted) for text, wanted, choices in LETTERS], read)


def test_words() -> None:
    def read(question: object, text: str) -> object:
        found = extract.extract(task("words"), Item("i", (("question", str(question)),), "", "x"), said(text))
        return None if found is None else found.casefold()

    check([(question, text, wanted and wanted.casefold()) for question, text, wanted in WORDS], read)


def test_labels() -> None:
    def read(labels: object, text: str) -> object:
        assert isinstance(labels, tuple)
        return extract.extract(task("words"), Item("i", (), "", "", choices=labels), said(text))

    check(LABELS, read)


def runs(source: str | None) -> bool:
    """Whether `source` defines f so that f(1) is 2."""
    names: dict[str, object] = {}
    if source is None:
        return False
    try:
        exec(source, names)  # the cases of this folder alone, never what a model wrote
    except (SyntaxError, NameError):
        return False
    function = names.get("f")
    return callable(function) and function(1) == 2


@pytest.mark.parametrize("text", PROGRAMS)
def test_code_is_found_in_fences_of_every_kind_and_in_prose(text: str) -> None:
    item = Item("i", (), "", "f", tests=("assert f(1) == 2",))
    assert runs(extract.extract(task("code"), item, said(text)))


@pytest.mark.parametrize("text", NO_PROGRAM)
def test_where_there_is_no_code_none_is_made_up(text: str) -> None:
    item = Item("i", (), "", "f", tests=("assert f(1) == 2",))
    assert not runs(extract.extract(task("code"), item, said(text)))


@pytest.mark.parametrize("text", BODIES)
def test_a_beginning_is_completed_by_a_body_or_written_anew(text: str) -> None:
    from qtool.evaluate.metrics import code_tests

    item = Item("i", (("prompt", 'def f(x):\n    """Adds one."""\n'),), "", "f", tests=("assert f(1) == 2",))
    asked = replace(task("code"), metric_options={"prefix_field": "prompt"})
    found = extract.extract(asked, item, said(text))
    assert found is not None
    assert runs(code_tests._program(item, found, asked))


def test_json_is_found_by_the_keys_that_are_wanted() -> None:
    item = Item("i", (), "", json.dumps({"name": "Ana", "age": 31}))
    check([(None, *case) for case in OBJECTS], lambda _, text: extract.extract(task("json"), item, said(text)))


def test_an_endless_number_in_json_is_an_unparsable_answer() -> None:
    item = Item("i", (), "", json.dumps({"name": "Ana", "age": 31}))
    found = load_metric("json_fields").grade(item, said(f'{{"name": "Ana", "age": {"3" * 5000}}}'), task("json"))
    assert (found.score, found.parsed) == (0.0, False)


def test_json_numbers_are_what_they_are_worth() -> None:
    item = Item("i", (), "", json.dumps({"name": "Ana", "age": 3}))
    assert load_metric("json_fields").grade(item, said('{"name": "Ana", "age": 3.0}'), task("json")).score == 1.0
    assert load_metric("json_fields").grade(item, said('{"name": "Ana", "age": "3"}'), task("json")).score == 0.5


def test_values_may_be_compared_as_a_reader_would() -> None:
    item = Item("i", (), "", json.dumps({"job": "teacher", "age": 3}))
    read = replace(task("json"), metric_options={"values": "read"})
    answer = said('{"job": "Teacher", "age": "3"}')
    assert load_metric("json_fields").grade(item, answer, read).score == 1.0
    assert load_metric("json_fields").grade(item, answer, task("json")).score == 0.0


def test_an_object_inside_of_one_that_was_meant_is_not_the_answer() -> None:
    item = Item("i", (), "", json.dumps({"name": "Ana", "age": 31}))
    outer = '{"name": {"name": "Ana", "age": 31}}'
    assert extract.extract(task("json"), item, said(outer)) == outer
    assert extract.extract(task("json"), item, said(f'{{"result": {OBJECTS[0][0]}}}')) == OBJECTS[0][0]


def test_thinking_that_never_ends_is_no_answer_and_counted_apart() -> None:
    for answer in (said("<think>so 42"), said("so 42, or 43", thinking_open=True)):
        assert extract.extract(task("number"), Item("i", (), "", "42"), answer) is None
        grade = load_metric("numeric").grade(Item("i", (), "", "42"), answer, task("number"))
        assert faults.fault_of(answer, grade, generated=True) == "unanswered"


def test_an_answer_that_was_cut_off_counts_only_where_it_was_marked() -> None:
    item = Item("i", (), "", "5")
    assert extract.extract(task("number"), item, said("First, 2 + 3 = 5. Then 5 times", finish="length")) is None
    assert extract.extract(task("number"), item, said("The answer is 5. To check, 2 +", finish="length")) == "5"


@pytest.mark.parametrize(
    ("target", "right"),
    [("1/2", "0.5"), ("½", "\\frac{1}{2}"), ("−5", "minus 5"), ("three", "3"), ("1,234", "1234"), ("50%", "0.5")],
)
def test_targets_and_answers_go_through_one_reader(target: str, right: str) -> None:
    assert load_metric("numeric").grade(Item("i", (), "", target), said(right), task("number")).score == 1.0


@pytest.mark.parametrize(
    ("metric", "how", "target", "reason"),
    [
        ("numeric", "number", "Paris", "not a number"),
        ("numeric", "number", "4 2", "not a number"),
        ("numeric", "number", "", "not a number"),
        ("exact", "letter", "Paris", "not a letter"),
        ("exact", "first_line", " ", "empty"),
        ("json_fields", "json", "{a: 1}", "not valid JSON"),
        ("code_tests", "code", "f", "no tests"),
    ],
)
def test_a_target_that_nothing_can_match_is_refused_by_line(metric: str, how: str, target: str, reason: str) -> None:
    asked = replace(task(how), metric=metric, reader="rows", generator=None)
    rows = [
        (1, {"question": "q", "answer": " x", "target": "5" if metric == "numeric" else target}),
        (7, {"question": "r", "answer": " x", "target": target}),
    ]
    with pytest.raises(DataError, match=rf"own\.jsonl:[17]: .*{reason}"):
        to_items(rows, asked, source="own.jsonl")


def test_rows_that_say_the_same_are_one_item_with_a_weight() -> None:
    asked = replace(task("number"), reader="rows", generator=None)
    rows = [(line, {"question": "2+2?", "answer": " 4"}) for line in (1, 2, 3)] + [
        (4, {"question": "3+2?", "answer": " 5"})
    ]
    items = to_items(rows, asked, source="own.jsonl")
    assert [(item.id, item.weight) for item in items] == [("1", 3), ("4", 1)]


def test_no_output_ends_an_evaluation() -> None:
    """Scraps of all cases thrown together: whatever a model writes, every reader answers or says that it cannot."""
    import random

    rng = random.Random(1)
    scraps = (
        [text[:60] for text, *_ in NUMBERS] + [text[:60] for text, *_ in LETTERS] + [text[:80] for text in PROGRAMS]
    )
    scraps += ["\\boxed{", "**", "<think>", "```", "= ", "i.e. ", "a total of ", " or ", "$", "\ud83d", "½", "{", "["]
    item = Item("i", (("question", "What is 2 of 3?"),), "", '{"a": 1}', tests=("assert f(1) == 2",))
    for _ in range(120):
        answer = said(rng.choice(["", "\n", " "]).join(rng.choices(scraps, k=rng.randint(1, 5))))
        for how in ("number", "letter", "words", "json", "code", "text", "first_line"):
            found = extract.extract(task(how), item, answer)
            assert found is None or isinstance(found, str)
