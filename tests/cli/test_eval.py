"""`qtool eval` and `qtool compare` as typed: exit codes for pipelines, one JSON object, nothing else on stdout."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from qtool.cli import compare, evaluate
from qtool.evaluate import session
from tests.evaluate.test_order import TASK, right, wrong
from tests.evaluate.workshop import Workshop

app = typer.Typer()
app.command("eval")(evaluate.command)
app.command("compare")(compare.command)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop(tmp_path)
    monkeypatch.setattr(session, "open_place", made.open)
    rows = (f'{{"id": "{n}", "question": "{n}+1?", "answer": " {n + 1}"}}\n' for n in range(800))
    (tmp_path / "sums.jsonl").write_text("".join(rows))
    (tmp_path / "sums.toml").write_text(TASK.format(name="sums", items=800, critical="true"))
    return made


def call(workshop: Workshop, command: str, *arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, [command, *map(str, arguments)], catch_exceptions=False)
    return found.exit_code, found.stdout


def test_exit_codes_are_0_pass_1_fail_2_undecided(workshop: Workshop, tmp_path: Path) -> None:
    base = workshop.model("baseline", right)
    task = ("--task", tmp_path / "sums.toml", "--baseline", base, "-q")
    assert call(workshop, "eval", workshop.model("same", right), *task)[0] == 0
    assert call(workshop, "eval", workshop.model("bad", wrong), *task)[0] == 1
    assert call(workshop, "eval", workshop.model("few", right), *task, "--limit", 30)[0] == 2
    assert call(workshop, "eval", workshop.model("alone", right), "--task", tmp_path / "sums.toml", "-q")[0] == 0


def test_json_is_one_object_with_every_number(workshop: Workshop, tmp_path: Path) -> None:
    folder = workshop.model("baseline", right)
    code, text = call(workshop, "eval", folder, "--task", tmp_path / "sums.toml", "--limit", 50, "--json", "-q")
    found = json.loads(text)
    assert code == 0
    assert found["evaluations"][0]["score"]["items"] == 50
    assert found["overall"] is None


def test_compare_reads_what_eval_wrote(workshop: Workshop, tmp_path: Path) -> None:
    base, bad = workshop.model("baseline", right), workshop.model("bad", wrong)
    call(workshop, "eval", bad, "--task", tmp_path / "sums.toml", "--baseline", base, "-q")
    evaluations = tmp_path / "runs" / "r" / "evaluations"
    code, text = call(workshop, "compare", evaluations / "baseline", evaluations / "bad")
    assert code == 1
    assert "FAIL" in text
    code, text = call(workshop, "compare", evaluations / "baseline", evaluations / "baseline", "--json")
    assert code == 0
    assert json.loads(text)["overall"] == "PASS"


def test_generate_all_leaves_no_answer_to_be_decided(workshop: Workshop, tmp_path: Path) -> None:
    folder, decided = workshop.model("baseline", right), {}
    for output, flags in (("a", ()), ("b", ("--generate-all",))):
        _, text = call(
            workshop, "eval", folder, "--task", tmp_path / "sums.toml", "--limit", 200, "--json", "-q",
            "-o", tmp_path / output, *flags,
        )  # fmt: skip
        decided[output] = json.loads(text)["evaluations"][0]["decided"]
    assert decided["a"] > 100
    assert decided["b"] == 0
