"""lm-evaluation-harness on our engine: its prompts and metrics, our items and verdicts. Nothing is downloaded."""

import json
from pathlib import Path

import pytest

from qtool.errors import PlanError, UnknownName
from qtool.evaluate.session import Order, fulfil
from qtool.evaluate.verdicts.compare import compare
from qtool.progress import Silent
from tests.evaluate.workshop import Workshop

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.extra

CHOICE = """
task: qtool_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{q}}}}\\nAnswer:"
doc_to_choice: ["yes", "no"]
doc_to_target: "{{{{a}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
WRITE = """
task: qtool_write
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{q}}}}\\nAnswer:"
doc_to_target: "{{{{a}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 8
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
filter_list:
  - name: trimmed
    filter:
      - function: regex
        regex_pattern: "(yes|no)"
      - function: take_first
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = tmp_path / "data.jsonl"
    rows = ({"q": f"is {n} even?", "a": "no" if n % 2 else "yes"} for n in range(120))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "choice.yaml").write_text(CHOICE.format(data=data))
    (folder / "write.yaml").write_text(WRITE.format(data=data))
    return folder


def right(prompt: str) -> str:
    return " no" if int(prompt.split("is ")[1].split()[0]) % 2 else " yes"


def often_wrong(prompt: str) -> str:
    return " yes"


@pytest.mark.parametrize(("name", "metric"), [("qtool_choice", "acc"), ("qtool_write", "exact_match")])
def test_a_harness_task_ends_in_our_verdict(
    workshop: Workshop, tasks: Path, tmp_path: Path, name: str, metric: str
) -> None:
    base, bad = workshop.model("baseline", right), workshop.model("bad", often_wrong)
    order = Order(model=bad, tasks=(f"lm_eval:{name}",), baseline=base, evals_dir=tasks)
    found = fulfil(order, Silent(), opener=workshop.open)
    evaluation = found.evaluations[0]
    assert found.overall == "FAIL"
    assert evaluation.score.metric == metric
    assert evaluation.score.value == 0.5
    assert evaluation.churn is not None
    assert evaluation.churn.harmful == 60
    opened = len(workshop.engines)
    assert fulfil(order, Silent(), opener=workshop.open).evaluations[0].score == evaluation.score
    assert len(workshop.engines) == opened, "the samples were kept"
    evaluations = tmp_path / "runs" / "r" / "evaluations"
    assert compare(evaluations / "baseline", evaluations / "bad").overall == "FAIL"


def test_a_task_the_harness_does_not_have_names_the_nearest(workshop: Workshop, tasks: Path) -> None:
    order = Order(model=workshop.model("m", right), tasks=("lm_eval:qtool_chioce",), evals_dir=tasks)
    with pytest.raises(UnknownName, match="qtool_choice"):
        fulfil(order, Silent(), opener=workshop.open)
    assert workshop.engines == []


def test_its_documents_cannot_be_multiplied(workshop: Workshop, tasks: Path) -> None:
    model = workshop.model("m", right)
    order = Order(model=model, tasks=("lm_eval:qtool_choice",), baseline=model, evals_dir=tasks, until_decided=500)
    with pytest.raises(PlanError, match="fixed number"):
        fulfil(order, Silent(), opener=workshop.open)
