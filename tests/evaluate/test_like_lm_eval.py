"""Prompts and choices of tasks that bear lm-evaluation-harness's names, byte for byte as its version 0.4.13 asks.

The templates are those of its task files (MIT licence), the rows have each set's own form.
"""

import re

import jinja2
import pytest

from qtool.evaluate.items import prompts
from qtool.evaluate.items.rows import to_items
from qtool.evaluate.items.tasks import load_task

_TRUTHFUL = (
    "Q: What is human life expectancy in the United States?\nA: Human life expectancy in the United States is 78 years."
    "\n\nQ: Who was president of the United States in 1955?\nA: Dwight D. Eisenhower was president of the United "
    "States in 1955.\n\nQ: Which party did he belong to?\nA: He belonged to the Republican Party.\n\nQ: What is the "
    "square root of banana?\nA: I have no comment.\n\nQ: How does a telescope work?\nA: Telescopes "
    "use lenses or mirrors to focus "
    "light and make objects appear closer.\n\nQ: Where were the 1992 Olympics held?\nA: The 1992 Olympics were held in "
    "Barcelona, Spain."
)
_ARC = "Question: {{question}}\nAnswer:"
_MMLU = (
    "The following are multiple choice questions (with answers) about {{subject | replace('_', ' ')}}.\n\n"
    "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
)
_MBPP = (
    "You are an expert Python programmer, and here is your task: {{text}} Your code should pass these tests:\n\n"
    "{{test_list[0]}}\n{{test_list[1]}}\n{{test_list[2]}}\n[BEGIN]\n"
)
_SCENE = {
    "ind": 4, "activity_label": "Removing ice from car", "ctx_a": "Then, the man writes over the snow.",
    "ctx_b": "then the Man", "ctx": "Then, the man writes over the snow. then the Man",
    "endings": [", continues [substeps] on.", " is [title] gone.", "sees  two.", "[step] goes."], "label": "3",
}  # fmt: skip

CASES = {
    "arc_easy": (
        _ARC,
        {
            "id": "x",
            "question": "Which  is ice? ",
            "choices": {"text": ["a", " b"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        ["a", " b"],
    ),
    "arc_challenge": (
        _ARC,
        {"id": "x", "question": "Ice?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "1"},
        ["a", "b"],
    ),
    "mmlu": (
        _MMLU,
        {"question": " 2+2?\n", "subject": "high_school_law", "choices": ["1", "2", "3", "4"], "answer": 3},
        ["A", "B", "C", "D"],
    ),
    "truthfulqa": (
        _TRUTHFUL + "\n\nQ: {{question}}\nA:",
        {"question": "Flat?", "mc1_targets": {"choices": ["No.", "Yes."], "labels": [1, 0]}},
        ["No.", "Yes."],
    ),
    "gsm8k": ("Question: {{question}}\nAnswer:", {"question": " How  many? ", "answer": "1\n#### 2"}, []),
    "humaneval": (
        "{{prompt}}",
        {"task_id": "H/0", "prompt": "\ndef f():\n", "canonical_solution": " 1", "test": "t", "entry_point": "f"},
        [],
    ),
    "mbpp": (
        _MBPP,
        {"task_id": 1, "text": "Add {x} two.", "code": "c", "test_list": ["assert f(1)", "assert f(2)", "assert f(3)"]},
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_prompts_and_choices_are_those_of_lm_eval(name: str) -> None:
    template, row, choices = CASES[name]
    task = load_task(name)
    items = to_items([(1, row)], task, source="rows")
    rendered = jinja2.Environment(keep_trailing_newline=True).from_string(template).render(**row)
    assert prompts.first_prompt(task, items) == rendered
    assert list(items[0].choices) == choices


def test_hellaswag_is_that_of_lm_eval() -> None:
    def preprocess(text: str) -> str:  # of its utils.py
        text = re.sub("\\[.*?\\]", "", text.strip().replace(" [title]", ". "))
        return text.replace("  ", " ")

    task = load_task("hellaswag")
    items = to_items([(1, _SCENE)], task, source="rows")
    context = str(_SCENE["ctx_a"]) + " " + str(_SCENE["ctx_b"]).capitalize()
    assert prompts.first_prompt(task, items) == preprocess(f"{_SCENE['activity_label']}: {context}")
    endings = _SCENE["endings"]
    assert isinstance(endings, list)
    assert list(items[0].choices) == [preprocess(ending) for ending in endings]
