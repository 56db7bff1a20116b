"""The steps of the main job on one model, as commands: what a user types, and three probes to hold it against."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from real_models_process import Measured

QTOOL = (sys.executable, "-m", "qtool")
PROBE = (sys.executable, str(Path(__file__).with_name("real_models_probe.py")))
_VERDICTS = (0, 1, 2)  # of a comparison: any of them is an answer
_KEPT = ("w8a16", "w4a16-gptq")  # what later steps bench and evaluate


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of everything."""

    items: int
    benchmark_items: int
    sequences: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Data:
    """Local files of public tasks; a task without its file is left out."""

    gsm8k: Path | None
    humaneval: Path | None
    wikitext2: Path | None


@dataclass(frozen=True, slots=True)
class Drive:
    """One model's steps: where it lies, where they write, how much they do."""

    model: Path
    work: Path
    amounts: Amounts
    data: Data
    kill_after: float

    def at(self, *parts: str) -> str:
        """A path in the work folder."""
        return str(self.work.joinpath(*parts))


@dataclass(frozen=True, slots=True)
class Step:
    """One command. `codes` are right return codes, `needs` must exist, `fresh` is removed before it runs."""

    name: str
    command: tuple[str, ...]
    codes: tuple[int, ...] = (0,)
    needs: tuple[Path, ...] = ()
    fresh: tuple[Path, ...] = ()
    kill_after: float | None = None
    plan: tuple[Path, str] | None = None
    reads: Callable[[Measured], dict[str, float]] | None = field(default=None)

    def prepare(self) -> None:
        """Removes what an earlier try left, and writes the plan."""
        for path in self.fresh:
            shutil.rmtree(path, ignore_errors=True)
        if self.plan is not None:
            self.plan[0].parent.mkdir(parents=True, exist_ok=True)
            self.plan[0].write_text(self.plan[1], encoding="utf-8")

    def numbers(self, found: Measured) -> dict[str, float]:
        """What the bounds need to know besides time and memory."""
        return self.reads(found) if self.reads is not None else {}


def steps(drive: Drive) -> list[Step]:
    """All steps of a small model, in the order a user takes."""
    model, at = str(drive.model), drive.at
    return [
        Step("lint", (*QTOOL, "data", "lint", "mixed", "--model", model)),
        *_calibration(drive),
        *(_quantize(drive, name, arguments) for name, arguments in _recipes().items()),
        *_evaluations(drive),
        _bench(drive, _KEPT),
        *_run(drive, _plan(drive, _SIX, ("arithmetic", "facts", "code"))),
        Step("report", (*QTOOL, "report", at("run")), needs=(drive.work / "run" / "report.json",)),
        *_deployment(drive, "w8a16"),
    ]


def large_steps(drive: Drive) -> list[Step]:
    """The shorter list, for a model that fills the machine."""
    model, at, items = str(drive.model), drive.at, str(drive.amounts.benchmark_items)
    found = [
        *_calibration(drive),
        _quantize(drive, "w4a16-gptq", _recipes()["w4a16-gptq"]),
        _quantize(drive, "w8a8", _recipes()["w8a8"]),
        *_run(drive, _plan(drive, {name: _SIX[name] for name in ("w4-gptq", "w8a8")}, ("arithmetic", "code"))),
        _bench(drive, ("w8a8", "w4a16-gptq")),
        *_deployment(drive, "w8a8"),
    ]
    if drive.data.humaneval:
        data = ("--data", str(drive.data.humaneval), "--limit", items)
        command = (*QTOOL, "eval", model, "--task", "humaneval", *data, "-o", at("eval", "humaneval"))
        found.append(Step("eval humaneval", command))
    return found


def _calibration(drive: Drive) -> list[Step]:
    folder, amounts = drive.work / "calibration", drive.amounts
    size = ("--sequences", str(amounts.sequences), "--sequence-tokens", str(amounts.tokens))
    command = (*QTOOL, "calibrate", str(drive.model), "--set", "mixed", *size, "-o", str(folder))
    bare = (*PROBE, "forward", str(drive.model), str(folder))
    return [
        Step("calibrate", command, fresh=(folder,)),
        Step("bare forward pass", bare, needs=(folder,), reads=_last_line),
    ]


def _recipes() -> dict[str, tuple[str, ...]]:
    """The ten variants of the issue; every method that learns is given the calibration."""
    return {
        "w4a16-rtn": ("--scheme", "w4a16", "--method", "rtn"),
        "w4a16-gptq": ("--scheme", "w4a16", "--method", "gptq"),
        "w4a16-awq": ("--scheme", "w4a16", "--method", "awq"),
        "w4a16-gptq_awq": ("--scheme", "w4a16", "--method", "gptq_awq"),
        "w8a16": (
            "--scheme",
            "w8a16",
        ),
        "w8a8": (
            "--scheme",
            "w8a8",
        ),
        "w8a8-static": ("--scheme", "w8a8", "--activations", "static"),
        "fp8": (
            "--scheme",
            "fp8",
        ),
        "nf4": ("--scheme", "nf4", "--method", "bitsandbytes", "--format", "bitsandbytes"),
        "gptq-format": ("--scheme", "w4a16", "--method", "gptq", "--format", "gptq"),
    }


def _quantize(drive: Drive, name: str, arguments: tuple[str, ...]) -> Step:
    folder, calibration = drive.work / "variants" / name, drive.work / "calibration"
    learns = any(word in arguments for word in ("gptq", "awq", "gptq_awq", "static"))
    given = ("--calibration", str(calibration)) if learns else ()
    command = (*QTOOL, "quantize", str(drive.model), *arguments, *given, "-o", str(folder))
    return Step(f"quantize {name}", command, needs=(calibration,) if learns else (), fresh=(folder,))


def _evaluations(drive: Drive) -> list[Step]:
    model, at, amounts = str(drive.model), drive.at, drive.amounts
    own = ("--task", "all", "--limit", str(amounts.items))
    base = drive.work / "eval" / "base"
    found = [Step("eval base", (*QTOOL, "eval", model, *own, "-o", str(base)))]
    for name in _KEPT:
        variant = drive.work / "variants" / name
        command = (*QTOOL, "eval", str(variant), *own, "--baseline", str(base), "-o", at("eval", name))
        found.append(Step(f"eval {name}", command, codes=_VERDICTS, needs=(variant, base)))
    alone = (*PROBE, "engine", model, str(base / "arithmetic.items.jsonl"))
    found.append(Step("engine alone on arithmetic", alone, needs=(base / "arithmetic.json",), reads=_last_line))
    for task in ("gsm8k", "humaneval", "wikitext2"):
        data = getattr(drive.data, task)
        if data is not None:
            limit = () if task == "wikitext2" else ("--limit", str(amounts.benchmark_items))
            command = (*QTOOL, "eval", model, "--task", task, "--data", str(data), *limit, "-o", at("eval", task))
            found.append(Step(f"eval {task}", command))
    return found


def _bench(drive: Drive, variants: tuple[str, ...]) -> Step:
    folders = tuple(drive.work / "variants" / name for name in variants)
    levels = ("-c", "1", "-c", "8", "-c", "32")
    command = (
        *QTOOL,
        "bench",
        str(drive.model),
        *(str(folder) for folder in folders),
        *levels,
        "-o",
        drive.at("bench"),
    )
    return Step("bench", command, needs=folders)


_SIX = {
    "w8a16": 'scheme = "w8a16"',
    "w8a8": 'scheme = "w8a8"',
    "w8a8-static": 'scheme = "w8a8"\nactivations = "static"',
    "w4-gptq": 'scheme = "w4a16"\nmethod = "gptq"\ngroup_size = 32',
    "w4-awq": 'scheme = "w4a16"\nmethod = "awq"\ngroup_size = 32',
    "fp8": 'scheme = "fp8"',
}


def _plan(drive: Drive, variants: dict[str, str], tasks: tuple[str, ...]) -> str:
    amounts = drive.amounts
    lines = [
        f'base = "{drive.model}"\nname = "{drive.model.name}"\n',
        f"[calibration]\nsequences = {amounts.sequences}\nsequence_tokens = {amounts.tokens}\n",
        *(f"[variants.{name}]\n{settings}\n" for name, settings in variants.items()),
        *(f"[tasks.{task}]\nitems = {amounts.items}\n" for task in tasks),
        "[latency]\nconcurrency = [1, 8, 32]\n",
    ]
    return "\n".join(lines)


def _run(drive: Drive, plan: str) -> list[Step]:
    path, folder = drive.work / "plan.toml", drive.work / "run"
    command = (*QTOOL, "run", str(path), "-o", str(folder))
    killed = Step("run, killed", command, fresh=(folder,), kill_after=drive.kill_after, plan=(path, plan))
    return [killed, Step("run, resumed", command, codes=_VERDICTS, needs=(path,))]


def _deployment(drive: Drive, variant: str) -> list[Step]:
    run, bundle = drive.work / "run", drive.work / "bundle"
    command = (*QTOOL, "bundle", str(run), "--variant", variant, "-o", str(bundle), "--replace")
    chat = (*PROBE, "chat", str(bundle))
    return [
        Step("bundle", command, needs=(run / "report.json",)),
        Step("serve, chat of three turns", chat, needs=(bundle / "bundle.json",), reads=_last_line),
    ]


def _last_line(found: Measured) -> dict[str, float]:
    """The numbers that a probe printed as its last line."""
    lines = found.output.strip().splitlines()
    if found.code or not lines:
        return {}
    document = json.loads(lines[-1])
    return {key: float(value) for key, value in document.items() if isinstance(value, int | float)}
