"""What is decided in one module is not spelled in a second one."""

import ast
from pathlib import Path

from qtool.store import layout

PACKAGE = Path(__file__).resolve().parent.parent / "qtool"
HOME = PACKAGE / "store" / "layout.py"
FILE_NAMES = {value for name, value in vars(layout).items() if name.isupper()}
PARTS = {"variants", "evaluations", "latency", "ladders", "calibration", "bundle"}


def test_the_names_of_a_run_folder_are_spelled_in_one_module() -> None:
    assert "variant.json" in FILE_NAMES
    assert spelled(HOME) == FILE_NAMES | PARTS
    assert {str(path.relative_to(PACKAGE)): names for path in others() if (names := spelled(path))} == {}


def test_one_loop_steps_an_engine() -> None:
    """A server has its own: its requests come while it runs."""
    callers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("engine.step")
    }
    assert callers == {"engine/drive.py", "serve/supervision/engine_loop.py"}


def others() -> list[Path]:
    """Every module but the home; what trains the reference models writes folders of its own."""
    return [path for path in PACKAGE.rglob("*.py") if path != HOME and path.parent != PACKAGE / "reference"]


def spelled(path: Path) -> set[str]:
    """The file names that a module spells, and the parts of a run folder that it joins to a path itself."""
    strings: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value in FILE_NAMES:
            strings.add(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            strings |= {node.right.value} & PARTS
    return strings
