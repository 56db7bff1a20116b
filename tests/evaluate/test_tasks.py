"""Task files and the items behind them: what is accepted, what is refused and in which words."""

import gzip
import importlib
import json
from pathlib import Path

import pytest

from qtool import catalog
from qtool.errors import DataError, PlanError, UnknownName
from qtool.evaluate.contract import Answer
from qtool.evaluate.items import prompts, tasks
from qtool.evaluate.items.describe import describe
from qtool.evaluate.items.rows import to_items
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.scorers.generation import cut
from qtool.evaluate.stage import ask_for
from qtool.records.task import TaskSpec

OWN = """
name = "own"
version = 1
description = "mine"
licence = "mine"
data = "own.jsonl"
prompt = "Q: {question}\\nA:"
scorer = "generation"
metric = "exact"
extract = "first_line"
margin_points = 2.0
items = 10
seed = 1
max_new_tokens = 8
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    rows = [{"id": f"r{n}", "question": f"q{n}", "answer": f" a{n}", "slices": {"half": n % 2}} for n in range(12)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.toml").write_text(OWN)
    return tmp_path / "own.toml"


def rewrite(own: Path, old: str, new: str) -> None:
    text = own.read_text()
    assert old in text
    own.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", tasks.task_names())
def test_every_shipped_task_decodes_and_is_complete(name: str) -> None:
    task = tasks.load_task(name)
    assert task.name == name
    assert task.description
    assert task.licence
    assert tasks.task_digest(task) == tasks.task_digest(tasks.load_task(name))


def test_a_users_task_is_one_toml_and_one_jsonl(own: Path) -> None:
    task = tasks.load_task(str(own))
    items = tasks.load_items(task)
    assert len(items) == 10
    assert items[0].target == items[0].answer.strip()
    assert items[:4] == tasks.load_items(task, count=4), "a larger count begins alike"
    by_name = tasks.load_task("own", evals_dir=own.parent)
    assert by_name == task
    assert "own" in tasks.task_names(own.parent)


def test_a_task_of_the_users_folder_replaces_a_shipped_one_of_that_name(own: Path) -> None:
    (own.parent / "arithmetic.toml").write_text(OWN)
    assert tasks.load_task("arithmetic", evals_dir=own.parent).name == "own"


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean arithmetic"):
        tasks.load_task("arithmetics")


def test_a_missing_folder_of_tasks_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no such folder"):
        tasks.load_task("arithmetic", evals_dir=tmp_path / "absent")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("margin_points = 2.0", "margin_points = 0", "margin_points"),
        ("margin_points = 2.0", "margin_points = 101", "margin_points"),
        ('metric = "exact"', 'metric = "exakt"', "did you mean exact"),
        ('scorer = "generation"', 'scorer = "generator"', "did you mean generation"),
        ('data = "own.jsonl"', 'generator = "arithmetik"', "did you mean arithmetic"),
        ("items = 10", "items = 0", "items"),
        ("seed = 1", "sead = 1", "unknown key"),
        ("{question}", "{question.upper}", "plain name"),
        ("{question}", "{question", "prompt"),
        ("seed = 1", 'seed = 1\ngenerator = "arithmetic"', "one source"),
        ("seed = 1", 'seed = 1\nreader = "gsm9k"', "did you mean gsm8k"),
    ],
)
def test_a_wrong_task_file_is_refused_by_file_and_key(own: Path, old: str, new: str, said: str) -> None:
    rewrite(own, old, new)
    with pytest.raises(PlanError) as caught:
        tasks.load_task(str(own))
    assert said in str(caught.value)
    assert str(own) in str(caught.value)


def test_all_problems_are_told_at_once(own: Path) -> None:
    rewrite(own, "margin_points = 2.0", "margin_points = -1")
    rewrite(own, 'metric = "exact"', 'metric = "nothing"')
    with pytest.raises(PlanError) as caught:
        tasks.load_task(str(own))
    assert len(caught.value.problems) == 2


def test_a_prompt_that_names_a_missing_field_is_refused(own: Path) -> None:
    rewrite(own, "{question}", "{frage}")
    with pytest.raises(PlanError, match=r"\{frage\}.*question"):
        tasks.load_items(tasks.load_task(str(own)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "r99", "question": "q"}', "own.jsonl:13: no 'answer'"),
        ('{"id": "r3", "question": "q", "answer": "a"}', "own.jsonl:13: id 'r3' was already used in line 4"),
        ('{"question": ', "own.jsonl:13: not valid JSON"),
        ("[1]", "own.jsonl:13: expected a JSON object"),
        ('{"question": "q", "answer": "a", "choices": "a"}', "own.jsonl:13: 'choices' must be a list"),
        ('{"question": ["q"], "answer": "a"}', "own.jsonl:13: no 'question'"),
    ],
)
def test_a_wrong_row_is_refused_by_line(own: Path, line: str, said: str) -> None:
    with (own.parent / "own.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(DataError) as caught:
        tasks.load_items(tasks.load_task(str(own)))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["absent.jsonl", "own.parquet", "own.json", "own.xlsx"])
def test_a_file_that_cannot_be_read_is_said(own: Path, name: str) -> None:
    if name != "absent.jsonl":
        (own.parent / name).write_text("x")
    with pytest.raises(DataError, match=name):
        tasks.load_items(tasks.load_task(str(own)), data=own.parent / name)


def test_an_empty_file_is_said(own: Path) -> None:
    (own.parent / "own.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="no items"):
        tasks.load_items(tasks.load_task(str(own)))


def test_gzip_csv_and_text_are_read(own: Path) -> None:
    task = tasks.load_task(str(own))
    packed = own.parent / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress((own.parent / "own.jsonl").read_bytes()))
    assert tasks.load_items(task, data=packed) == tasks.load_items(task)
    table = own.parent / "table.csv"
    table.write_text("id,question,answer\n1,2+2?,4\n")
    assert tasks.load_items(task, data=table)[0].target == "4"
    listed = own.parent / "table.json"
    listed.write_text('[{"id": "1", "question": "2+2?", "answer": "4"}]')
    assert tasks.load_items(task, data=listed) == tasks.load_items(task, data=table)
    columns = own.parent / "table.parquet"
    pyarrow = pytest.importorskip("pyarrow")
    importlib.import_module("pyarrow.parquet").write_table(
        pyarrow.Table.from_pylist(json.loads(listed.read_text())), columns
    )
    assert tasks.load_items(task, data=columns) == tasks.load_items(task, data=table)
    text = own.parent / "text.txt"
    text.write_text("One line.\n" * 500)
    pieces = tasks.load_items(tasks.load_task("perplexity"), data=text)
    assert sum(piece.weight for piece in pieces) == 3  # two of them are the same text
    assert len(pieces) == 2
    assert sum(piece.weight * len(piece.field("text")) for piece in pieces) == 5000


def test_a_damaged_gzip_is_said(own: Path) -> None:
    packed = own.parent / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress((own.parent / "own.jsonl").read_bytes())[:-20])
    with pytest.raises(DataError, match="damaged gzip"):
        tasks.load_items(tasks.load_task(str(own)), data=packed)


def test_a_task_without_items_of_its_own_asks_for_a_file() -> None:
    with pytest.raises(DataError, match="--data"):
        tasks.load_items(tasks.load_task("perplexity"))


def test_a_generator_asked_for_more_than_exist_says_how_many() -> None:
    task = tasks.load_task("facts")
    with pytest.raises(DataError, match="distinct"):
        tasks.load_items(task, count=10_000_000)


@pytest.mark.parametrize("margin", [0.0, -1.0, 100.5])
def test_a_margin_that_is_no_drop_is_refused(own: Path, margin: float) -> None:
    with pytest.raises(PlanError, match="margin"):
        ask_for(tasks.load_task(str(own)), margin=margin)


def test_a_golden_prompt_that_moved_is_refused(own: Path) -> None:
    first = prompts.first_prompt(tasks.load_task(str(own)), tasks.load_items(tasks.load_task(str(own))))
    own.write_text(OWN + f"golden_first_prompt = {json.dumps(first)}\n")
    assert ask_for(tasks.load_task(str(own))).items
    rewrite(own, '"Q: {question}', '"Ask: {question}')
    with pytest.raises(PlanError, match="golden"):
        ask_for(tasks.load_task(str(own)))


def test_worked_examples_stand_before_the_prompt_and_are_never_test_items(own: Path) -> None:
    (own.parent / "shots.jsonl").write_text(
        '{"question": "1", "answer": " one"}\n{"question": "2", "answer": " two"}\n'
    )
    own.write_text(OWN + 'few_shot = 2\nfew_shot_data = "shots.jsonl"\n')
    task = tasks.load_task(str(own))
    shots = tasks.load_shots(task)
    text = prompts.first_prompt(task, tasks.load_items(task), shots)
    assert text.startswith("Q: 1\nA: one\n\nQ: 2\nA: two\n\nQ: q")
    rewrite(own, 'few_shot_data = "shots.jsonl"\n', "")
    with pytest.raises(PlanError, match="few_shot_data"):
        tasks.load_shots(tasks.load_task(str(own)))


def test_what_does_not_change_an_answer_does_not_change_the_digest(own: Path) -> None:
    before = tasks.task_digest(tasks.load_task(str(own)))
    rewrite(own, 'description = "mine"', 'description = "still mine"')
    rewrite(own, "items = 10", "items = 11")
    assert tasks.task_digest(tasks.load_task(str(own))) == before
    rewrite(own, "max_new_tokens = 8", "max_new_tokens = 9")
    assert tasks.task_digest(tasks.load_task(str(own))) != before


def test_braces_in_an_items_text_stay_as_they_are(own: Path) -> None:
    (own.parent / "own.jsonl").write_text('{"question": "{x} and {{y}}", "answer": "a"}\n')
    task = tasks.load_task(str(own))
    assert prompts.first_prompt(task, tasks.load_items(task)) == "Q: {x} and {{y}}\nA:"


def _task(name: str) -> TaskSpec:
    return tasks.load_task(name)


@pytest.mark.parametrize(
    ("name", "row", "target"),
    [
        ("gsm8k", {"question": "q", "answer": "1+1=<<1+1=2>>2\n#### 1,234"}, "1234"),
        (
            "arc_easy",
            {"id": "A1", "question": "q", "choices": {"text": ["w", "r"], "label": ["1", "2"]}, "answerKey": "2"},
            "r",
        ),
        ("mmlu", {"question": "q", "subject": "law", "choices": ["w", "r"], "answer": 1}, "B"),
        ("hellaswag", {"activity_label": "Sport", "ctx": "He", "endings": ["w", "r"], "label": "1"}, "r"),
        ("truthfulqa", {"question": "q", "mc1_targets": {"choices": ["r", "w"], "labels": [1, 0]}}, "r"),
        ("gpt3_arithmetic", {"context": "Question: What is 3 plus 4?\nAnswer:", "completion": " 7"}, "7"),
        (
            "mbpp",
            {"task_id": 11, "text": "t", "code": "c", "test_list": ["assert f(1)"], "test_setup_code": ""},
            "c",
        ),
        (
            "humaneval",
            {
                "task_id": "H/0",
                "prompt": "def f():\n",
                "canonical_solution": " return",
                "test": "t",
                "entry_point": "f",
            },
            "f",
        ),
    ],
)
def test_rows_of_public_sets_become_items(name: str, row: dict[str, object], target: str) -> None:
    task = _task(name)
    items = to_items([(1, row)], task, source="rows")
    assert items[0].target == target
    prompts.check_fields(task, items)


GOLDEN = {
    "mbpp": (
        {"task_id": 601, "text": "Add.", "code": "def f(): 1", "test_list": ["assert f() == 1", "assert f()"]},
        "You are an expert Python programmer, and here is your task: Add. Your code should pass these tests:\n\n"
        "assert f() == 1\nassert f()\n[BEGIN]\n",
    ),
    "arc_challenge": (
        {"id": "q", "question": "Ice?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"},
        "Question: Ice?\nAnswer:",
    ),
    "hellaswag": (
        {"activity_label": "Cooking", "ctx": "A man [title] takes a pan.", "endings": ["x", "y"], "label": "1"},
        "Cooking: A man. takes a pan.",
    ),
    "mmlu": (
        {"question": "2+2?", "subject": "math", "choices": ["3", "4"], "answer": 1},
        "The following are multiple choice questions (with answers) about math.\n\n2+2?\nA. 3\nB. 4\nAnswer:",
    ),
    "gpt3_arithmetic": ({"context": "Q: What is 3 plus 4?\n\nA:", "completion": " 7"}, "Q: What is 3 plus 4?\n\nA:"),
    "gsm8k": ({"question": "How many?", "answer": "1+1=2\n#### 2"}, "Question: How many?\nAnswer:"),
    "humaneval": (
        {"task_id": "H/0", "prompt": "def f():\n", "canonical_solution": " 1", "test": "t", "entry_point": "f"},
        "def f():\n",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_prompt_of_each_public_set_is_pinned_on_a_row_of_its_own_format(name: str, tmp_path: Path) -> None:
    row, prompt = GOLDEN[name]
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    task = _task(name)
    assert prompts.first_prompt(task, tasks.load_items(task, data=tmp_path / "rows.jsonl")) == prompt


def test_choices_past_the_alphabet_keep_their_names() -> None:
    row = {"question": "q", "choices": [f"c{n}" for n in range(30)], "answer": 27}
    item = to_items([(1, row)], _task("mmlu"), source="rows")[0]
    listed = item.field("listed").splitlines()
    assert len(listed) == len(item.choices) == 30
    assert (listed[25], listed[26], listed[29]) == ("Z. c25", "AA. c26", "AD. c29")


@pytest.mark.parametrize("name", tasks.task_names())
def test_every_task_can_be_explained_before_it_is_run(name: str) -> None:
    task = _task(name)
    text = describe(task)
    assert task.licence in text
    assert f"{task.margin_points:g} points" in text
    assert ("first prompt:" in text) == (task.generator is not None)


@pytest.mark.parametrize("name", ["gsm8k", "arc_easy", "humaneval", "mbpp", "gpt3_arithmetic"])
def test_a_row_of_another_shape_is_refused_by_line(name: str) -> None:
    with pytest.raises(DataError, match="rows:7: "):
        to_items([(7, {"question": "q", "answer": "no hash"})], _task(name), source="rows")


SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="public sets are not here")
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [("gsm8k", "gsm8k/test.jsonl", 1319), ("humaneval", "humaneval/HumanEval.jsonl.gz", 164)],
)
def test_real_public_files_are_read_whole(name: str, file: str, count: int) -> None:
    assert len(tasks.load_items(_task(name), data=SHARED / file)) == count


def test_a_perfect_summary_says_who_what_where_and_when() -> None:
    from qtool.data.generators import draw, summary

    for item in draw("summary", "test", 3, 50):
        text = item.field("text").lower()
        for options in (summary.WHO, summary.DID, summary.WHERE, summary.WHEN):
            named = [option for option in options if option.lower() in item.target.lower()]
            assert named
            assert any(option.lower() in text for option in named)


def test_a_hub_that_cannot_be_reached_says_how_to_give_a_file() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="--data FILE"):  # tests run with HF_HUB_OFFLINE=1
        tasks.load_items(tasks.load_task("gsm8k"))


@pytest.mark.parametrize("task", tasks.all_tasks(), ids=lambda task: task.name)
def test_a_perfect_answerer_scores_one(task: TaskSpec) -> None:
    metric = load_metric(task.metric)
    for item in tasks.load_items(task, count=3 if task.metric == "code_tests" else 50):
        said = Answer(cut(item.answer, task.stop), (1,), (-0.1,), (1.0,), "stop", 1, 1.0)
        grade = metric.grade(item, said, task)
        assert grade.score == metric.PERFECT, (item.id, grade)


@pytest.mark.skipif(not SHARED.is_dir(), reason="public sets are not here")
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [("gsm8k", "gsm8k/test.jsonl", 1319), ("humaneval", "humaneval/HumanEval.jsonl.gz", 6)],
)
def test_the_reference_answers_of_public_sets_score_one(name: str, file: str, count: int) -> None:
    task = tasks.load_task(name)
    metric = load_metric(task.metric)
    for item in tasks.load_items(task, count=count, data=SHARED / file):
        said = Answer(cut(item.answer, task.stop), (1,), (-0.1,), (1.0,), "stop", 1, 1.0)
        assert metric.grade(item, said, task).score == 1.0, item.id


@pytest.mark.parametrize("name", catalog.names("qtool.evaluate.readers"))
def test_every_reader_says_what_when_cost_and_limits(name: str) -> None:
    text = catalog.docstring("qtool.evaluate.readers", name, kind="reader")
    headings = ("What it does:", "When to use it:", "What it costs:", "When it fails:")
    assert [heading for heading in headings if heading not in text] == []
