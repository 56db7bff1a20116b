"""Every command has a Python function with the same options and the same defaults; `import qtool` loads nothing."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperArgument, TyperGroup

import qtool
from qtool.cli.app import app

# the commands whose function has another name: a word of Python, or two verbs where the program has a flag
FUNCTIONS = {
    "eval": "evaluate",
    "bench": "time",
    "import": "import_variant",
    "list": "names",
    "calibrate run": "calibrate",
    "calibrate merge": "merge",
    "calibrate sweep": "sweep",
    "data lint": "data_lint",
    "report write": "report",
    "report diff": "report_diff",
    "canary status": "canary_status",
    "canary decide": "canary_decide",
}
PYTHON_NAMES = {
    "set_name": "set",
    "verify_streamed": "verify_whole",
    "with": "backend",  # a word of Python
    "compile": "compile_all",  # a function of Python
}
OF_THE_PROGRAM_ALONE = {"json", "help"}
OTHER_FUNCTIONS = {("quantize", "plan-only"): "estimate", ("calibrate run", "shard"): "calibrate_shard"}
SEVERAL = {"task": "tasks", "observer": "observers", "override": "overrides", "rate": "rates", "option": "options",
           "tier": "tiers", "base_score": "base_scores"}  # fmt: skip


def commands() -> Iterator[tuple[str, Any]]:
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)
    for name, command in program.commands.items():
        if isinstance(command, TyperGroup):
            yield from ((f"{name} {part}", inner) for part, inner in command.commands.items())
        else:
            yield name, command


def name_of(parameter: Any) -> str:
    """`--sequence-tokens` is sequence_tokens; an argument has its own name."""
    long = [text for text in parameter.opts if text.startswith("--")]
    return (long[0].removeprefix("--") if long else str(parameter.name)).replace("-", "_")


def plain(value: object) -> object:
    """A default as far as both sides mean the same: nothing given is None, () or []; a path is its text."""
    return None if value in (None, (), [], inspect.Parameter.empty, "") else str(value)


@pytest.mark.parametrize(("name", "command"), [pytest.param(*entry, id=entry[0]) for entry in commands()])
def test_every_command_has_a_function_with_its_options_and_defaults(name: str, command: Any) -> None:
    function = getattr(qtool, FUNCTIONS.get(name, name))
    wanted = inspect.signature(function).parameters
    if name == "explain":
        assert [parameter.kind for parameter in wanted.values()] == [inspect.Parameter.VAR_POSITIONAL]
        return
    offered = {}
    for parameter in command.params:
        option = name_of(parameter)
        if option in OF_THE_PROGRAM_ALONE or getattr(parameter, "hidden", False):
            continue
        if (name, option.replace("_", "-")) in OTHER_FUNCTIONS:
            assert callable(getattr(qtool, OTHER_FUNCTIONS[name, option.replace("_", "-")]))
            continue
        several = parameter.multiple and option in SEVERAL
        positional = isinstance(parameter, TyperArgument)
        default = None if parameter.required or positional else parameter.default
        spelled = str(parameter.name) if positional and str(parameter.name) in wanted else option
        offered[SEVERAL[option] if several else spelled] = plain(default() if callable(default) else default)
    offered = {PYTHON_NAMES.get(key, key): value for key, value in offered.items()}
    assert {key: plain(parameter.default) for key, parameter in wanted.items()} == offered


def test_a_loaded_room_does_not_hide_the_function_of_its_name() -> None:
    code = (
        "import qtool, qtool.quantize.request.recipe, qtool.evaluate.items.tasks\n"
        "import qtool.report.stage\n"
        "assert all(callable(f) for f in (qtool.quantize, qtool.evaluate, qtool.report))\n"
        "assert sorted(qtool.__all__) == dir(qtool)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, qtool\n"
        "[getattr(qtool, name) for name in dir(qtool)]\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy', 'scipy', 'typer')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        qtool.quantise  # noqa: B018
