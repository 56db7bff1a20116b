"""Rooms that a reader can find his way in: no folder too large, no chain of imports too long."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "qtool"
MOST_MODULES = 12
LONGEST_CHAIN = 20
PLUGINS = {"methods", "observers", "metrics", "scorers", "readers", "backends", "generators"}
OF_ONE_KIND = {"cli", "records", "front_door"}  # a file for each command, record, function: `ls` is their index


def test_no_folder_is_too_large() -> None:
    counts = {
        folder.relative_to(PACKAGE).as_posix(): sum(path.stem != "__init__" for path in folder.glob("*.py"))
        for folder in PACKAGE.rglob("*")
        if folder.is_dir() and folder.name not in PLUGINS | OF_ONE_KIND
    }
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_no_two_modules_import_each_other() -> None:
    graph = imports()
    reached = {name: reach(graph, name) for name in graph}
    assert [(name, other) for name in graph for other in reached[name] if name < other and name in reached[other]] == []


def test_no_chain_of_imports_is_too_long() -> None:
    """Longest way through the imports, those inside of functions too."""
    chain = longest(imports())
    assert len(chain) <= LONGEST_CHAIN, " -> ".join(chain)


def imports() -> dict[str, set[str]]:
    """What each module imports, itself left out."""
    known = modules()
    return {name: imported(path, set(known)) - {name} for name, path in known.items()}


def modules() -> dict[str, Path]:
    """Every module of the package but its `__init__`, which only opens the front door."""
    found = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in found.items() if name != "qtool.__init__"}


def imported(path: Path, known: set[str]) -> set[str]:
    """The modules that a file imports, what only a type checker reads apart."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                whole if (whole := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
            } & known
        waiting += ast.iter_child_nodes(node)
    return found


def reach(graph: dict[str, set[str]], start: str) -> set[str]:
    """`start` and all that it imports, directly or not."""
    seen, waiting = {start}, [start]
    while waiting:
        waiting += (fresh := graph[waiting.pop()] - seen)
        seen |= fresh
    return seen


def longest(graph: dict[str, set[str]]) -> list[str]:
    """The longest path of a graph without circles."""
    known: dict[str, list[str]] = {}

    def chain(name: str) -> list[str]:
        if name not in known:
            known[name] = [name, *max(map(chain, graph[name]), key=len, default=[])]
        return known[name]

    return max(map(chain, graph), key=len)
