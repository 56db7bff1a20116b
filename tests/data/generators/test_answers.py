"""Every answer, worked out again by other means from the words of the question alone."""

import json
import re
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal

import pytest

from qtool import catalog
from qtool.data import generators
from qtool.data.generators import _longhand, code, facts
from qtool.evaluate.items import prompts
from qtool.evaluate.items.tasks import load_task
from qtool.records.task import Item

CENT = Decimal("0.01")


@pytest.mark.parametrize("name", catalog.names("qtool.data.generators"))
def test_the_golden_first_prompt_is_what_a_model_is_asked_first(name: str) -> None:
    task = load_task(name)
    first = generators.draw(name, "test", task.seed, 1)[0]
    assert prompts.fill(task.prompt, first) == task.golden_first_prompt


@pytest.mark.parametrize("name", catalog.names("qtool.data.generators"))
def test_every_answer_starts_with_a_space_and_never_asks_the_next_question(name: str) -> None:
    for item in generators.draw(name, "test", 1, 100):
        assert item.answer.startswith(" ")
        assert item.answer == item.answer.rstrip()
        assert not any(stop in item.answer for stop in load_task(name).stop)


def test_sums_are_right() -> None:
    for item in _items("arithmetic"):
        text = re.sub(r"^(What is|Calculate|Work out) |[?.]$", "", item.field("question"))
        if "%" in text:
            rate, whole = text.split("% of ")
            expected = Decimal(rate) * Decimal(whole) / 100
        else:
            left, sign, right = text.split(" ")
            a, b = Decimal(left), Decimal(right)
            expected = {"+": a + b, "-": a - b, "*": a * b}[sign]
        assert Decimal(item.target) == expected, item
        assert item.answer.endswith(item.target)
        _check_lines(item)


def test_money_is_right_to_the_cent() -> None:
    for item in _items("finance"):
        assert Decimal(item.target) == _money(item.field("question")), item
        assert _numbers(item.answer)[-1] == Decimal(item.target)
        _check_lines(item)


def test_stories_are_right() -> None:
    for item in _items("reasoning"):
        sentences = item.field("question").split(". ")
        count = int(_numbers(sentences[0])[0])
        for sentence in sentences[1:-1]:
            if "doubles" in sentence:
                count *= 2
            else:
                gain = any(verb in sentence for verb in ("buys", "finds", "gets", "wins"))
                count += int(_numbers(sentence)[0]) * (1 if gain else -1)
            assert 0 <= count <= 99
        assert item.target == str(count)
        assert ("steps", str(len(sentences) - 2)) in item.slices
        _check_lines(item)


def test_facts_agree_with_each_other_in_both_directions() -> None:
    known = facts._facts()
    assert {(b, a) for a, b in known["capital"]} == set(known["country"])
    assert {(b, a) for a, b in known["symbol"]} == set(known["element"])
    assert dict(known["number"])["iron"] == "26"
    assert dict(known["number"])["xenon"] == "54"
    assert all(len({key for key, _ in pairs}) == len(pairs) for pairs in known.values())


def test_json_holds_the_keys_asked_for_and_values_from_the_sentence() -> None:
    for item in _items("extraction"):
        question = item.field("question")
        asked = re.split(r", | and ", re.match(r"Write the (.*) as JSON", question)[1])
        record = json.loads(item.answer)
        assert list(record) == asked
        assert all(re.search(rf"\b{value}\b", question) for value in record.values())
        assert item.target == json.dumps(record)


def test_reference_functions_pass_their_own_tests_and_their_neighbours_fail() -> None:
    for item in _items("code", 150):
        assert _passes(item.answer.strip(), item)
        assert not _passes(re.sub(r"\d+", lambda number: str(int(number[0]) + 1), item.answer.strip()), item), item
    assert {dict(item.slices)["kind"] for item in _items("code", 300)} == set(code.KINDS)


def test_labels_are_among_the_choices() -> None:
    for item in _items("classification"):
        assert item.target in item.choices
        assert all(label in item.field("question") for label in item.choices)


def test_exactly_one_passage_answers_and_letters_are_even() -> None:
    items = _items("retrieval", 600)
    for item in items:
        right = item.field(item.target.lower())
        assert re.search(r"(?:where|what|pet) ([A-Z]\w+)", item.field("question"))[1] in right
        assert len({item.field("a"), item.field("b"), item.field("c")}) == 3
    for letter in "ABC":
        assert 150 < sum(item.target == letter for item in items) < 250  # 200 expected, deviation 12


def test_long_multiplication_leaves_out_rows_of_zero() -> None:
    assert _longhand.multiplication(23, 40) == ["4 * 3 = 12", "4 * 2 + 1 = 9", "920"]
    assert _longhand.multiplication(7, 0) == ["0"]
    assert _longhand.places(5, 2) == "0.05"


def _items(name: str, count: int = 600) -> tuple[Item, ...]:
    return generators.draw(name, "test", 2, count)


def _numbers(text: str) -> list[Decimal]:
    return [Decimal(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def _check_lines(item: Item) -> None:
    """Every written step is true."""
    for line in item.answer.strip().split("\n"):
        if " = " in line:
            left, right = line.split(" = ")
            terms = re.split(r" ([-+*]) ", left)
            value = Decimal(terms[0])
            for sign, term in zip(terms[1::2], terms[2::2], strict=True):
                value = {"+": value + Decimal(term), "-": value - Decimal(term), "*": value * Decimal(term)}[sign]
            assert value == Decimal(right), (item.id, line)


def _money(question: str) -> Decimal:
    """The answer in dollars, from the numbers of the question in the order of its wording."""
    numbers = _numbers(question)
    if "nearest cent" in question:
        amount = numbers[0]
    elif "plus" in question:
        amount = numbers[0] * (1 + numbers[1] / 100)
    elif "interest" in question:
        amount = _product(numbers) / 100
    elif question.startswith("One "):
        amount = _product(numbers)
    elif "change" in question:
        amount = numbers[2] - numbers[0] * numbers[1]
    else:
        amount = _product(numbers) / 100
    return amount.quantize(CENT, rounding=ROUND_HALF_UP)


def _product(numbers: Iterable[Decimal]) -> Decimal:
    result = Decimal(1)
    for number in numbers:
        result *= number
    return result


def _passes(source: str, item: Item) -> bool:
    space: dict[str, object] = {}
    try:
        exec("\n".join((source, *item.tests)), space)
    except (AssertionError, TypeError, ValueError, IndexError):
        return False
    return True
