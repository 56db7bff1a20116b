"""All instructions kept.

What it does: 1 if the answer keeps every constraint of its item (IFEval's strict accuracy of a prompt), else 0. The
notes name the constraints that were broken, and whether the answer would count under IFEval's loose reading (first or
last line, or stars, left out). The target is a JSON list of [name, arguments] under IFEval's names.
When to use it: instructions that a program can check: lengths, keywords, formats, case.
What it costs: nothing.
When it fails: it does not read what the answer says; sentences and languages are told by simple rules.
"""

from qtool.evaluate.constraints import check as checks
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = True
PERFECT = 1.0
UNIT: Unit = "fraction"


def check(item: Item, task: TaskSpec) -> None:
    """Raises DataError where the target's constraints are unknown or lack an argument."""
    checks.broken("word", checks.constraints(item.target))


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """0 or 1."""
    text = extract(task, item, answer)
    if text is None:
        return Grade(score=0.0, extracted="", parsed=False)
    wanted = checks.constraints(item.target)
    broken = checks.broken(text, wanted)
    if not broken:
        return Grade(score=1.0, extracted="kept")
    left = min((checks.broken(each, wanted) for each in checks.loosened(text)), key=len)
    notes = (("broken", ",".join(broken)), ("loose", "broken" if left else "kept"))
    return Grade(score=0.0, extracted=f"broken: {', '.join(broken)}", notes=notes)
