"""MMLU-Pro, GPQA, IFEval, MATH-500 and BIG-Bench Hard: small files in the public form, asked, read and scored."""

import csv
import json
from pathlib import Path

import pytest

from qtool.errors import DataError
from qtool.evaluate.answers.latex import last_box, parts
from qtool.evaluate.contract import Answer
from qtool.evaluate.items import prompts, tasks
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.metrics.math import same
from qtool.records.task import Item

GPQA = [
    "Record ID", "Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3",
    "High-level domain",
]  # fmt: skip
FILES: dict[str, tuple[str, str]] = {
    "mmlu_pro": (
        "test.jsonl",
        "".join(
            json.dumps({"question_id": n, "question": f"Which is {n}?", "options": [str(k) for k in range(10)],
                        "answer": "ABCDEFGHIJ"[n], "answer_index": n, "cot_content": "", "category": "math", "src": ""})
            + "\n"
            for n in range(10)
        ),
    ),
    "ifeval": (
        "input_data.jsonl",
        json.dumps({"key": 1, "prompt": "Write of bees. Use no commas.", "instruction_id_list":
                    ["punctuation:no_comma", "length_constraints:number_words"],
                    "kwargs": [{"num_words": None}, {"num_words": 3, "relation": "at least"}]}) + "\n",
    ),
    "math500": (
        "test.jsonl",
        json.dumps({"problem": "What is $1/2$ of $3$?", "solution": "It is $\\boxed{\\frac{3}{2}}$.",
                    "answer": "\\frac{3}{2}", "subject": "Prealgebra", "level": 2, "unique_id": "a/1.json"}) + "\n",
    ),
    "bbh": (
        "navigate.json",
        json.dumps({"canary": "text", "examples": [
            {"input": "Is it so?\nOptions:\n- Yes\n- No", "target": "No"},
            {"input": "Pick.\nOptions:\n(A) one\n(B) two", "target": "(B)"},
            {"input": "1 + 2 * 3 =", "target": "7"},
            {"input": "not ( True ) is", "target": "False"},
            {"input": "Sort: pear apple", "target": "apple pear"},
        ]}),
    ),
}  # fmt: skip


def answered(text: str) -> Answer:
    return Answer(text, (), (), (), finish="stop", prompt_tokens=1, latency_ms=1.0)


def items_of(name: str, folder: Path) -> tuple[Item, ...]:
    if name == "gpqa":
        path = folder / "gpqa_main.csv"
        with path.open("w", newline="") as stream:
            rows = csv.DictWriter(stream, GPQA)
            rows.writeheader()
            for n in range(8):
                values = (f"rec{n}", f"Why {n}?", "right", "wrong, first", "second", "third", "Physics")
                rows.writerow(dict(zip(GPQA, values, strict=True)))
    else:
        path = folder / FILES[name][0]
        path.write_text(FILES[name][1])
    return tasks.load_items(tasks.load_task(name), data=path)


@pytest.mark.parametrize("name", ["mmlu_pro", "gpqa", "ifeval", "math500", "bbh"])
def test_a_file_in_the_public_form_is_asked_and_scored(name: str, tmp_path: Path) -> None:
    task, items = tasks.load_task(name), items_of(name, tmp_path)
    metric = load_metric(task.metric)
    for item in items:
        right = "Bees fly and hum" if name == "ifeval" else item.answer
        assert metric.grade(item, answered(right), task).score == 1.0, item
        assert metric.grade(item, answered(" I do not know."), task).score == 0.0 or name == "ifeval"
        metric_check = getattr(metric, "check", None)
        if metric_check is not None:
            metric_check(item, task)
    assert metric.grade(items[0], answered(""), task).score == 0.0
    assert len({item.id for item in items}) == len(items)


def test_prompts_of_mmlu_pro_are_those_of_lm_eval(tmp_path: Path) -> None:
    item = next(item for item in items_of("mmlu_pro", tmp_path) if item.id == "mmlu_pro/3")
    listed = "".join(f"{letter}. {n}\n" for n, letter in enumerate("ABCDEFGHIJ"))
    assert prompts.fill(tasks.load_task("mmlu_pro").prompt, item) == (
        "The following are multiple choice questions (with answers) about math. Think step by step and then finish "
        'your answer with "the answer is (X)" where X is the correct letter choice.\nQuestion:\nWhich is 3?\nOptions:\n'
        f"{listed}Answer: Let's think step by step."
    )
    assert (item.target, item.choices) == ("D", tuple("ABCDEFGHIJ"))


def test_the_right_answer_of_gpqa_is_not_always_in_one_place(tmp_path: Path) -> None:
    items = items_of("gpqa", tmp_path)
    assert len({item.target for item in items}) > 1
    assert all(f"{item.target}. right" in item.field("listed") for item in items)
    assert items == items_of("gpqa", tmp_path), "the order is the question's own"


@pytest.mark.parametrize(
    ("text", "score"),
    [("Let's see. So the answer is (B).", 1), ("**B**", 1), ("The answer is A.", 0), ("It is one of them.", 0)],
)
def test_a_letter_of_bbh_is_read_as_a_letter(text: str, score: int, tmp_path: Path) -> None:
    task = tasks.load_task("bbh")
    item = next(item for item in items_of("bbh", tmp_path) if item.target == "B")
    assert load_metric("exact").grade(item, answered(text), task).score == score


@pytest.mark.parametrize(
    ("text", "said"), [("[1, 2]", "no list of objects"), ("{", "not valid JSON"), ('{"a": [], "b": []}', "no list")]
)
def test_a_json_file_without_rows_is_said(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=said):
        tasks.load_items(tasks.load_task("bbh"), data=tmp_path / "x.json")


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("mmlu_pro", {"question": "q", "options": ["a", "b"], "answer": "J"}, "2 options"),
        ("ifeval", {"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "kwargs"),
        ("ifeval", {"prompt": "p", "instruction_id_list": ["punctuation:none"], "kwargs": [{}]}, "unknown constraint"),
        ("math500", {"problem": "p", "solution": "no box"}, "boxed"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused_by_line(
    name: str, row: dict[str, object], said: str, tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"x\.jsonl:1: .*{said}"):
        tasks.load_items(tasks.load_task(name), data=tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    ("value", "target", "equal"),
    [
        ("\\frac{1}{2}", "\\dfrac12", True),
        ("1/2", "\\frac{1}{2}", True),
        ("0.5", "\\frac{1}{2}", True),
        ("x = 5", "5", True),
        ("5 \\text{ cm}", "5", True),
        ("10\\%", "10", True),
        ("1,234", "1234", True),
        ("10,\\!000", "10000", True),
        ("\\sqrt3", "\\sqrt{3}", True),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})", True),
        ("3, 2", "2,3", True),
        ("(3, 2)", "(2,3)", False),
        ("(1,2)", "[1,2]", False),
        ("45^\\circ", "45", True),
        ("\\text{Evelyn}", "Evelyn", True),
        ("2\\sqrt{3}", "\\sqrt{3}", False),
        ("-\\frac{1}{2}", "\\frac{1}{2}", False),
        ("x^2+1", "x^2 + 1", True),
        ("x^2+2", "x^2 + 1", False),
        ("6", "7", False),
        ("2x", "2", False),
    ],
)
def test_values_are_the_same_where_a_reader_would_say_so(value: str, target: str, equal: bool) -> None:
    assert same(value, target) is equal


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("So it is $\\boxed{\\frac{3}{2}}$.", 1),
        ("First $\\boxed{1}$, no: \\boxed{1.5}", 1),
        ("The answer is $\\frac32$.", 1),
        ("The answer is 1.5.", 1),
        ("Half of three is 3/2.", 1),
        ("\\boxed{2}", 0),
        ("I cannot tell.", 0),
        ("<think>\\boxed{\\frac{3}{2}}", 0),
    ],
)
def test_an_answer_in_latex_is_found(text: str, score: int, tmp_path: Path) -> None:
    task, item = tasks.load_task("math500"), items_of("math500", tmp_path)[0]
    assert load_metric("math").grade(item, answered(text), task).score == score


def test_boxes_hold_braces_and_pairs_have_parts() -> None:
    assert last_box("a \\boxed{x} b \\boxed{\\frac{1}{{2}}} c \\boxed{open") == "\\frac{1}{{2}}"
    assert last_box("none") is None
    assert parts("(1, 2)") == ("()", ("1", "2"))
    assert parts("\\{2, 1\\}") == ("", ("1", "2"))
