"""The one rule that folds verdicts: every command that ends in one asks it, and no other module decides it again."""

import ast
from pathlib import Path

import pytest

import qtool
from qtool.records.evaluation import VerdictName
from qtool.records.ship_rule import TaskVerdict, counting_tasks, exit_code, overall

PACKAGE = Path(qtool.__file__).parent


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["PASS", "PASS"], "PASS"),
        (["PASS", "UNDECIDED"], "UNDECIDED"),
        (["PASS", "UNDECIDED", "FAIL"], "FAIL"),
        (["PASS", None], "UNDECIDED"),
        ([None, "FAIL"], "FAIL"),
        ([], "UNDECIDED"),
    ],
)
def test_all_that_counts_must_pass_and_what_was_not_compared_did_not(
    verdicts: list[VerdictName | None], expected: VerdictName
) -> None:
    assert overall(TaskVerdict(str(index), verdict) for index, verdict in enumerate(verdicts)) == expected


def test_a_task_that_is_not_critical_does_not_decide() -> None:
    assert overall([TaskVerdict("a", "PASS"), TaskVerdict("b", "FAIL", tier="advisory")]) == "PASS"
    assert overall([TaskVerdict("a", None), TaskVerdict("b", "PASS", tier="advisory")]) == "UNDECIDED"


def test_a_supporting_task_stops_by_failing_and_not_by_being_undecided() -> None:
    for verdict, expected in (("FAIL", "FAIL"), ("UNDECIDED", "PASS"), (None, "PASS"), ("PASS", "PASS")):
        assert overall([TaskVerdict("a", "PASS"), TaskVerdict("b", verdict, "supporting")]) == expected
    assert overall([TaskVerdict("a", "UNDECIDED"), TaskVerdict("b", "FAIL", "supporting")]) == "FAIL"
    assert overall([TaskVerdict("a", "PASS", "supporting"), TaskVerdict("b", "FAIL", "advisory")]) == "PASS"
    assert overall([TaskVerdict("a", "UNDECIDED", "supporting"), TaskVerdict("b", "PASS", "advisory")]) == "UNDECIDED"


def test_where_none_is_critical_all_count() -> None:
    assert counting_tasks({"a": "advisory", "b": "advisory"}) == ("a", "b")
    assert overall([TaskVerdict("a", "PASS", tier="advisory"), TaskVerdict("b", "FAIL", tier="advisory")]) == "FAIL"
    assert overall([TaskVerdict("a", "PASS", tier="advisory")]) == "PASS"


def test_exit_codes_of_verdicts() -> None:
    assert [exit_code(verdict) for verdict in ("PASS", "FAIL", "UNDECIDED", None)] == [0, 1, 2, 0]


def test_no_other_module_gives_verdicts_exit_codes() -> None:
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict) and path.name != "ship_rule.py":
                keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
                codes = [value for value in node.values if isinstance(value, ast.Constant) and type(value.value) is int]
                if keys & {"PASS", "FAIL", "UNDECIDED"} and codes:
                    wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert wrong == []
