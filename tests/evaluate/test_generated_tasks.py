"""The generated tasks beyond sums: a perfect answerer scores 1, a wrong one 0, and a loss of 5 points is found."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest

from qtool.data import generators
from qtool.data.generators._languages import LANGUAGES
from qtool.errors import PlanError
from qtool.evaluate.contract import Answer
from qtool.evaluate.items import prompts
from qtool.evaluate.items.extract import extract
from qtool.evaluate.items.tasks import all_tasks, load_task
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.verdicts import verdict
from qtool.records.task import Item
from tests.evaluate.workshop import LetterLanguage

TASKS = ("dialogue", "instructions", "long_context", "multilingual", "refusal", "tools")


def answered(text: str) -> Answer:
    return Answer(text, (), (), (), finish="stop", prompt_tokens=1, latency_ms=1.0)


@functools.cache
def drawn(name: str) -> tuple[Item, ...]:
    return generators.draw(name, "test", load_task(name).seed, 200)


def wrong(item: Item, items: tuple[Item, ...]) -> str:
    """What a model answers that takes this item for another; to instructions, a text that keeps none of them."""
    if item.target.startswith("[["):
        return " Very nice, Always, Never, Beautiful, Really important thing"
    return next(other.answer for other in items if other.target != item.target)


@pytest.mark.parametrize("name", TASKS)
def test_a_perfect_answerer_scores_one_and_a_wrong_one_nothing(name: str) -> None:
    task, metric, items = load_task(name), load_metric(load_task(name).metric), drawn(name)
    for item in items:
        assert metric.grade(item, answered(item.answer), task).score == 1.0, item
        assert metric.grade(item, answered(wrong(item, items)), task).score == 0.0, item


@pytest.mark.parametrize("name", TASKS)
def test_a_planted_loss_of_five_points_is_found_at_a_thousand_items(name: str) -> None:
    # a base that is right in 80 %, a variant that loses 7 % of the items and wins 2 % by luck
    task, metric, items = load_task(name), load_metric(load_task(name).metric), drawn(name)
    graded = [
        [metric.grade(item, answered(text), task).score for text in (wrong(item, items), item.answer)] for item in items
    ]
    values = np.array(graded)
    rng = np.random.default_rng(3)
    found = []
    for _ in range(50):
        before = (rng.random(1000) < 0.8).astype(int)
        after = np.where(rng.random(1000) < np.where(before, 0.07 / 0.8, 0.02 / 0.2), 1 - before, before)
        asked = rng.integers(0, len(items), 1000)
        gains = values[asked, after] - values[asked, before]
        found.append(verdict.decide(verdict.bounds(gains), task.margin_points / 100))
    assert found.count("FAIL") >= 40, "power 80 %"
    assert "PASS" not in found


def test_all_stands_for_what_fits_a_short_context() -> None:
    named = {task.name for task in all_tasks()}
    assert set(TASKS) - named == {"long_context"}


def test_a_dialogue_is_put_into_the_chat_template_turn_by_turn() -> None:
    task, item = load_task("dialogue"), drawn("dialogue")[0]
    prompt = prompts.questions(task, [item], chat=LetterLanguage())[0].prompt
    assert prompt.count("<user>") == 5
    assert prompt.count("<assistant>") == 5
    assert prompt.endswith(f"<user>{item.field('user5')}<assistant>")


def test_turns_that_end_with_the_assistant_are_refused() -> None:
    task = load_task("dialogue")
    assert prompts.template_problems(task) == []
    assert "odd number" in prompts.template_problems(replace(task, chat_turns=task.chat_turns[:-1]))[0]
    with pytest.raises(PlanError, match=r"\{user6\}"):
        prompts.check_fields(replace(task, chat_turns=("{user6}",)), drawn("dialogue"))


@pytest.mark.parametrize(
    ("language", "says", "capital"),
    [
        ("German", "Die Hauptstadt von Frankreich ist Paris.", "Paris"),
        ("French", "La capitale de l'Égypte est **Le Caire**.", "Le Caire"),
        ("Spanish", "La capital es Moscú.", "Moscú"),
        ("Russian", "Столица Франции — Париж.", "Париж"),
        ("Chinese", "法国的首都是巴黎。", "巴黎"),
        ("Japanese", "フランスの首都はパリです。", "パリ"),
        ("Arabic", "عاصمة مصر هي القاهرة.", "القاهرة"),
        ("Hindi", "फ़्रांस की राजधानी पेरिस है।", "पेरिस"),
    ],
)
def test_a_capital_is_read_out_of_a_sentence_of_its_language(language: str, says: str, capital: str) -> None:
    task = load_task("multilingual")
    choices = tuple(sorted(each for _, each in LANGUAGES[language].pairs()))
    item = Item("i", (("question", "?"),), f" {capital}", capital, choices=choices)
    assert extract(task, item, answered(says)) == capital


@pytest.mark.parametrize(
    "says", ["那是85个苹果。", "八十五の85個です。", "٨٥", "उसके पास ८५ सेब हैं।", "85 Äpfel", "Ответ: 85"]
)
def test_a_number_is_read_in_every_script(says: str) -> None:
    task, item = load_task("multilingual"), Item("i", (("question", "40, 45?"),), " 85", "85")
    assert extract(task, item, answered(says)) == "85"


def test_every_language_names_as_many_countries_and_no_capital_twice() -> None:
    for language in LANGUAGES.values():
        pairs = language.pairs()
        assert len(pairs) == len({country for country, _ in pairs}) == len({capital for _, capital in pairs}) == 22


def test_a_needle_lies_in_a_text_of_the_length_that_its_slice_says() -> None:
    for item in drawn("long_context"):
        tokens = int(dict(item.slices)["tokens"])
        assert 0.8 * tokens < len(item.field("text")) / 4 < tokens
        assert item.target in item.field("text")
        assert item.target in item.choices


def test_tools_that_are_offered_hold_the_one_to_call_or_none_that_fits() -> None:
    for item in drawn("tools"):
        call, names = json.loads(item.target), [tool["name"] for tool in json.loads(item.field("tools"))]
        assert len(names) == len(set(names))
        assert (call["name"] in names) == (dict(item.slices)["kind"] != "none fits")
