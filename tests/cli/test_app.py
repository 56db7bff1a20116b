"""The program itself: help, version, lists, and one clear line for every error."""

import json
import subprocess
import sys

import pytest

COMMANDS = (
    *("demo", "run", "calibrate", "quantize", "eval", "report", "bundle", "serve", "bench"),
    *("compare", "import", "sensitivity", "list", "explain", "show", "doctor", "data"),
)


def _qtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "qtool", *arguments], capture_output=True, text=True, check=False)


def test_help_names_every_command() -> None:
    result = _qtool("--help")
    assert result.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = _qtool(command, "--help")
    assert result.returncode == 0
    assert "Usage:" in result.stdout


def test_version_is_printed() -> None:
    from qtool import __version__

    assert _qtool("--version").stdout == f"qtool {__version__}\n"


def test_list_shows_everything_that_can_be_named() -> None:
    found = json.loads(_qtool("list", "--json").stdout)
    assert set(found) >= {"models", "schemes", "methods", "observers", "tasks", "sets", "metrics"}
    for kind, entries in found.items():
        assert entries, kind
        assert all(entries.values()), kind


def test_an_unknown_kind_is_answered_with_near_ones() -> None:
    result = _qtool("list", "taks")
    assert result.returncode == 10
    assert result.stderr == "qtool: unknown kind 'taks'; did you mean task?\n"
    assert result.stdout == ""


def test_every_plugin_can_be_explained_in_its_four_headings() -> None:
    found = json.loads(_qtool("list", "--json").stdout)
    from qtool import catalog
    from qtool.front_door.naming import PLUGINS

    for kind, package in PLUGINS.items():
        for name in found[kind + "s"]:
            text = catalog.docstring(package, name, kind=kind)
            for heading in ("What it does", "When to use it", "What it costs", "When it fails"):
                assert heading in text, f"{kind} {name} lacks {heading!r}"


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("gptq", ["method", "format"]),
        ("w4a16", ["scheme"]),
        ("mixed", ["set"]),
        ("reference-64", ["model"]),
        ("exact", ["metric"]),
        ("perplexity", ["metric", "task"]),
    ],
)
def test_explain_finds_the_kind_of_a_name_itself(name: str, kinds: list[str]) -> None:
    found = json.loads(_qtool("explain", name, "--json").stdout)
    entries = found.get("explained", [found])
    assert [entry["kind"] for entry in entries] == kinds
    assert all(len(entry["documentation"].splitlines()) > 3 for entry in entries)


def test_explain_names_the_nearest_of_all_kinds() -> None:
    result = _qtool("explain", "gtpq")
    assert result.returncode != 0
    assert "did you mean gptq" in result.stderr


def test_explain_prints_a_plugins_documentation() -> None:
    result = _qtool("explain", "observer", "absmax")
    assert result.returncode == 0
    assert "What it does" in result.stdout


@pytest.mark.parametrize("arguments", [["list", "--no-such-option"], ["eval"], ["nothing"]])
def test_wrong_usage_has_a_code_that_is_no_verdict(arguments: list[str]) -> None:
    assert _qtool(*arguments).returncode == 10


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("| head -c 1 > /dev/null; exit ${PIPESTATUS[0]}", (0, 141), ""),
        ("> /dev/full", (8,), "qtool: standard output: the result cannot be written: No space left on device\n"),
        (">&-", (8,), "qtool: standard output is closed; the result cannot be printed\n"),
    ],
)
def test_an_output_that_takes_nothing_is_no_verdict_and_no_traceback(
    redirection: str, code: tuple[int, ...], said: str
) -> None:
    command = f"{sys.executable} -m qtool list tasks {redirection}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.stderr, result.returncode in code) == (said, True), result.returncode


def test_an_interrupted_command_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from qtool.cli import app

    def interrupted() -> None:
        raise SystemExit(app.INTERRUPTED)  # what typer makes of a KeyboardInterrupt

    monkeypatch.setattr(app, "app", interrupted)
    monkeypatch.setattr(sys, "argv", ["qtool", "quantize", "m", "-o", "v"])
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 130
    said = "qtool: interrupted; finished blocks are kept, and the same command goes on from there\n"
    assert capsys.readouterr().err == said


def test_a_fault_of_the_program_is_no_verdict() -> None:
    code = (
        "import sys, qtool.cli.output as o, qtool.cli.list_ as l, qtool.cli.app as a;"
        "sys.argv = ['qtool', 'list', 'tasks']; l.show = None; a.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 70, result.stderr
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("qtool: this is a fault of qtool itself; please report it with the lines above\n")
