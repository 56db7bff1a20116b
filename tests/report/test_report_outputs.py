"""What a report is besides the page: Markdown for a comment, a table for any terminal, schemas, a difference."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import evaluation, write_run
from typer.testing import CliRunner

import qtool
from qtool.cli.app import app
from qtool.errors import MismatchError, UsageError
from qtool.pipeline.plan import PlanFile
from qtool.records.plan_lock import PlanLock
from qtool.records.report import Report
from qtool.records.variant import Variant
from qtool.report.commands import behind
from qtool.report.decision import decision
from qtool.report.difference import difference_text
from qtool.report.markdown import MOST_CHARACTERS, document
from qtool.report.stage import report
from qtool.report.texts.text_table import text_table
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "demo")


def test_markdown_fits_into_a_comment_and_says_what_it_left_out(run: Path) -> None:
    found = report(run, command="c")
    assert "left out" not in document(found)
    row = found.rows[1]
    tasks = [replace(evaluation(row.variant.name, f"task{i:03}", 0.97), task=f"task{i:03}") for i in range(400)]
    large = replace(found, rows=(found.rows[0], replace(row, evaluations=tuple(tasks))))
    text = document(large)
    assert len(text) <= MOST_CHARACTERS
    assert "left out here for its length" in text or "The rest is in report.html" in text
    assert text.index("SHIP") < 200, "the decision stands first"


def test_markdown_has_the_first_screen(run: Path) -> None:
    text = document(report(run, command="c")).replace("\\", "")
    first = text[: text.index("## Verdicts")]
    for words in ("SHIP: w8a16", "weights on disk", "47 % less", "--until-decided 4200", "qtool report demo"):
        assert words in first


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_of_the_terminal_is_wider_than_it(run: Path, width: int) -> None:
    text = text_table(report(run, command="c"), width=width)
    assert max(map(len, text.split("\n"))) <= width
    for words in ("w4a16-g64", "UNDECIDED", "cold start", "peak memory"):
        assert words in text, "nothing is left out: what does not fit stands below"


def test_colours_only_where_they_are_wanted(run: Path) -> None:
    found = report(run, command="c")
    assert "\x1b[" not in text_table(found)
    coloured = text_table(found, colour=True)
    assert "\x1b[32mPASS" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == text_table(found)


def test_the_command_that_made_a_run_is_kept(run: Path) -> None:
    found = report(run, command="qtool report demo")
    assert found.command == "qtool report demo", "nothing else is known of it"
    lock = PlanLock(qtool.Plan("b", "n", (), ()), found.rows[0].variant.base, (), (("qtool", "0.1.0"),), "2 cores",
                    "qtool run demo.toml", "2026-11-28T22:57:00+00:00")  # fmt: skip
    write_record(run / "plan.lock.json", lock)
    again = report(run, command="qtool report demo")
    assert again.command == "qtool run demo.toml"
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "run begun 2026-11-28 22:57 UTC" in text
    assert "qtool run demo.toml" in text


def test_every_command_in_the_report_is_one_that_the_program_takes(run: Path) -> None:
    import typer

    found = report(run, command="qtool report demo")
    commands = [entry.command for entry in behind(found)]
    commands += [question.command for question in decision(found).open if question.command]
    lines = [line for command in commands for line in command.splitlines()]
    assert len(lines) > 12
    program = typer.main.get_command(app)
    for line in lines:
        words = line.split()[1:]
        inner, context = program, typer.Context(program, info_name="qtool")
        while hasattr(inner, "commands"):
            name = words.pop(0) if words[0] in inner.commands else {"report": "write"}[line.split()[1]]
            inner = inner.commands[name]
        assert inner.make_context(name, words, parent=context).params, line


def test_json_is_the_report_without_layers_curves_and_answers(run: Path) -> None:
    printed = json.loads(CliRunner().invoke(app, ["report", str(run), "--json"]).stdout)
    whole = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert set(printed) == set(whole)
    assert printed["rows"][1]["variant"]["layers"] == []
    assert whole["rows"][1]["variant"]["layers"] != []
    assert printed["rows"][1]["evaluations"] == whole["rows"][1]["evaluations"]


@pytest.mark.parametrize("name", ["report", "plan"])
def test_the_published_schema_is_the_records(name: str) -> None:
    published = json.loads((DOCS / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert published == qtool.schema(name), f"write it again: qtool schema {name} > docs/schemas/{name}.schema.json"


def test_a_report_fits_its_schema_and_an_unknown_key_does_not(run: Path) -> None:
    report(run, command="c")
    text = (run / "report.json").read_text(encoding="utf-8")
    schema = qtool.schema("report")
    document = json.loads(text)
    assert set(document) <= set(schema["properties"])
    assert set(schema["required"]) <= set(document)
    assert schema["additionalProperties"] is False
    assert set(document["rows"][0]) == set(schema["$defs"]["ReportRow"]["properties"])
    assert read_json(Report, run / "report.json") is not None
    assert set(qtool.schema("plan")["properties"]) == set(PlanFile.__dataclass_fields__)


def test_a_plot_is_written_or_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    qtool.plot(run, output=tmp_path / "x.svg", kind="throughput")
    assert (tmp_path / "x.svg").read_text(encoding="utf-8").startswith("<svg")
    with pytest.raises(UsageError, match="did you mean tradeoff"):
        qtool.plot(run, output=tmp_path / "x.svg", kind="tradeof")
    with pytest.raises(UsageError, match=r"\.svg or \.png"):
        qtool.plot(run, output=tmp_path / "x.pdf")
    with pytest.raises(UsageError, match="has no numbers for a plot of calibration"):
        qtool.plot(run, output=tmp_path / "x.png", kind="calibration")


def test_two_runs_are_compared_by_verdict(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "later")
    write_record(other / "evaluations" / "w8a16" / "arithmetic.json", evaluation("w8a16", "arithmetic", 0.9))
    found = qtool.report_diff(run, other)
    assert (found.recommended_before, found.recommended_after) == ("w8a16", "w8a8")
    changed = {(change.variant, change.what): (change.before, change.after) for change in found.changes}
    assert changed["w8a16", "overall"] == ("PASS", "FAIL")
    assert changed["w8a16", "arithmetic"][1].startswith("FAIL −7.0")
    assert len(found.changes) == 2
    assert found.alike == 9
    assert "w8a16 before, w8a8 after" in difference_text(found)
    assert qtool.report_diff(run, run).changes == ()


def test_runs_of_two_bases_are_not_compared(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "later")
    for path in other.glob("variants/*/variant.json"):
        made = read_json(Variant, path)
        write_record(path, replace(made, base=replace(made.base, weights_digest="9" * 64)))
    with pytest.raises(MismatchError, match="compare runs of one base"):
        qtool.report_diff(run, other)


def test_the_baseline_leaves_the_front_where_a_passing_variant_is_better_in_all(run: Path) -> None:
    rows = {row.variant.name: row for row in report(run, command="c").rows}
    assert rows["w8a16"].on_front
    assert not rows["baseline"].on_front, "w8a16 passes, is smaller and faster"


def test_why_not_names_those_that_pass_too(run: Path) -> None:
    report(run, command="c")
    text = (run / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<strong>w8a8</strong>: (passes too|another variant)", text)
