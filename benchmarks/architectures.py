"""Every causal architecture of transformers, built small, through the whole of qtool: which work, which are refused.

    python benchmarks/architectures.py [--only TYPE ...] [--work DIR]

For each type: calibrate; w4a16 by rtn and by gptq, w8a16 and w8a8; base and variants opened by qtool's engine and by
transformers, their log-probabilities compared; an answer generated. Each type runs in a process of its own. What is
done is kept in DIR/rows.jsonl and not done again. The page is written to benchmarks/results/architectures.md.
"""

import argparse
import dataclasses
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "results" / "architectures.md"
_PACKAGES = ("torch", "transformers", "compressed-tensors")
SECONDS = 240
TOKENS = 24
NEW_TOKENS = 8
LARGEST = {"base": 1e-3, "w8a16": 0.05, "w4a16": 0.05, "gptq": 0.05, "w8a8": 0.25}  # nats, engine beside transformers
SCHEMES = {"w4a16": ("w4a16", "rtn", 32), "gptq": ("w4a16", "gptq", 32), "w8a16": ("w8a16", "rtn", -1),
           "w8a8": ("w8a8", "rtn", -1)}  # fmt: skip


@dataclasses.dataclass(slots=True)
class Row:
    """What became of one type: `result` is ok, refused, traceback, wrong, hung or not built."""

    type: str
    result: str = "ok"
    reason: str = ""
    differences: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0


def examine(model_type: str, work: Path) -> Row:
    """All steps of one type, in `work`."""
    from benchmarks.tiny_architectures import make
    from qtool.errors import QtoolError
    from qtool.models.foreign import FOREIGN

    row = Row(model_type)
    base = work / model_type
    try:
        make(model_type, base)
    except FOREIGN as error:  # transformers' own limits: said in the table, and not counted
        return dataclasses.replace(row, result="not built", reason=_line(error))
    step = "base"
    try:
        row.differences["base"] = _compared(base, row, "base")
        step = "calibrate"
        calibration = _calibrated(base, work)
        for name in SCHEMES:
            step = name
            _quantized(base, work / name, name, calibration)
            row.differences[name] = _compared(work / name, row, name)
    except QtoolError as error:
        row.result, row.reason = "refused", f"{step}: {_line(error).replace(str(work), '')}"
    except FOREIGN as error:  # the fault this page is about
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        row.result, row.reason = "traceback", f"{step}: {type(error).__name__}: {_line(error)} ({place})"
        if os.environ.get("QTOOL_TRACEBACK"):
            traceback.print_exc()
    wrong = {name: value for name, value in row.differences.items() if not value <= LARGEST[name]}
    if row.result == "ok" and wrong:
        row.result = "wrong"
        row.reason = ", ".join(f"{name} {value:.2g} nats" for name, value in wrong.items())
    return row


def _compared(folder: Path, row: Row, name: str) -> float:
    """Largest difference of a token's log-probability between qtool's engine and transformers; NaN where the latter
    does not read the folder, which is noted."""
    import torch

    from qtool.engine.contract import GenerationRequest, ScoreRequest
    from qtool.engine.drive import generate
    from qtool.engine.load import open_engine

    ids = tuple(range(3, 3 + TOKENS))
    engine = open_engine(folder, dtype="float32", slots=2)
    try:
        (scored,) = engine.score([ScoreRequest(ids[:1], ids[1:])])
        (answer,) = generate(engine, [GenerationRequest(ids, NEW_TOKENS)])
        if answer.finish == "error" or len(answer.ids) != NEW_TOKENS:
            raise AssertionError(f"generated {len(answer.ids)} of {NEW_TOKENS} tokens: {answer.error}")
        for note in getattr(engine, "notes", ()):
            row.notes.append(f"{name}: {note}")
    finally:
        engine.close()
    theirs = _of_transformers(folder, row, name)
    if theirs is None:
        return 0.0
    with torch.inference_mode():
        logits = theirs(torch.tensor([ids]), use_cache=False).logits[0].float()
    expected = torch.log_softmax(logits, -1)[torch.arange(TOKENS - 1), torch.tensor(ids[1:])]
    return float((torch.tensor(scored.logprobs) - expected).abs().max())


def _of_transformers(folder: Path, row: Row, name: str) -> Any:
    from qtool.errors import QtoolError
    from qtool.models.completeness import load_base
    from qtool.quantize.output.readings import load_with_transformers

    if name == "base":
        return load_base(folder)
    try:
        return load_with_transformers(folder)
    except (QtoolError, AttributeError) as error:
        row.notes.append(f"{name}: {_line(error).replace(str(folder.parent), '')}")
        return None


def _calibrated(base: Path, work: Path) -> Path:
    from qtool.calibrate.stage import calibrate
    from qtool.progress import Silent
    from qtool.records.plan import CalibrationSettings

    text = work / "text.txt"
    text.write_text("\n\n".join(f"{n} plus {n + 7} is {2 * n + 7}; half of {2 * n} is {n}." * 3 for n in range(24)))
    settings = CalibrationSettings(set=str(text), sequences=16, sequence_tokens=64)
    calibrate(base, settings, work / "calibration", progress=Silent())
    return work / "calibration"


def _quantized(base: Path, output: Path, name: str, calibration: Path) -> None:
    from qtool.progress import Silent
    from qtool.quantize.stage import quantize
    from qtool.records.variant import Recipe

    scheme, method, group = SCHEMES[name]
    recipe = Recipe(scheme=scheme, method=method, group_size=group)  # type: ignore[arg-type]
    used = calibration if method == "gptq" else None
    quantize(base, recipe, output, name=name, calibration=used, progress=Silent())


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def isolated(model_type: str, run: Callable[[str, Path], Row], work: Path) -> Row:
    """The row of one type, made in a child process that may hang, crash, or use up its memory."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"{model_type}-", dir=work))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing: a busy machine makes no model slow
        signal.alarm(10 * SECONDS)
        os.close(reader)
        row = run(model_type, folder)
        with os.fdopen(writer, "w") as stream:
            json.dump(dataclasses.asdict(row), stream)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        told = stream.read()
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    row = Row(**json.loads(told)) if told else Row(model_type, "hung", f"ended by status {status}")
    row.seconds = round(time.monotonic() - started, 1)
    return row


def page(rows: list[Row], command: str) -> str:
    """The table with its summary."""
    from qtool.machine.device import hardware

    counts = Counter(row.result for row in rows)
    built = len(rows) - counts["not built"]
    share = 100 / max(built, 1)
    good = counts["ok"] + counts["refused"]
    lines = [
        "# Architectures",
        "",
        f"`{command}`: {len(rows)} types of transformers' causal mapping; {built} could be built small.",
        f"{counts['ok']} ok ({counts['ok'] * share:.1f} %), {counts['refused']} refused in one line, together "
        f"{good * share:.1f} %; {counts['wrong']} give other numbers than transformers, {counts['traceback']} end in "
        f"a traceback, {counts['hung']} hang or crash.",
        "",
        "ok: calibrated; w4a16 by rtn and gptq, w8a16 and w8a8 made and verified; base and variants opened by qtool's",
        "engine and by transformers; the largest difference of a token's log-probability in nats between the two is",
        f"within {LARGEST['base']:g} (base), {LARGEST['w4a16']:g} (4 and 8 bits), {LARGEST['w8a8']:g} (w8a8).",
        "",
        f"Machine: {hardware()}; {', '.join(f'{name} {version(name)}' for name in _PACKAGES)}.",
        "A variant that is written, kept and named unverified counts as refused: `eval` and `bundle` do not take it.",
        "",
        "| type | result | base | largest of the variants | reason or note |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda one: one.type):
        variants = [value for name, value in row.differences.items() if name != "base"]
        said = row.reason or "; ".join(dict.fromkeys(row.notes))
        cells = (
            row.type,
            row.result,
            f"{row.differences['base']:.1e}" if "base" in row.differences else "",
            f"{max(variants):.1e}" if variants else "",
            said.replace("|", "\\|")[:240],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Examines what was not examined yet and writes the page."""
    sys.path.insert(0, str(ROOT))
    from benchmarks.tiny_architectures import model_types

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="These types; nothing is read from, or written to, the rows.")
    parser.add_argument("--work", type=Path, default=Path("architectures"), help="Folder of the rows.")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    arguments.work.mkdir(parents=True, exist_ok=True)
    kept = arguments.work / "rows.jsonl"
    rows = {} if arguments.only or not kept.exists() else {r.type: r for r in map(_read, kept.read_text().splitlines())}
    _warm_up()
    for model_type in arguments.only or model_types():
        if model_type in rows:
            continue
        row = isolated(model_type, examine, arguments.work)
        print(f"{row.type}: {row.result} {row.reason} {row.differences} {row.seconds} s", flush=True)
        rows[model_type] = row
        if not arguments.only:
            with kept.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(dataclasses.asdict(row)) + "\n")
    if not arguments.only:
        PAGE.write_text(page(list(rows.values()), "python benchmarks/architectures.py"), encoding="utf-8")


def _read(line: str) -> Row:
    return Row(**json.loads(line))


def _warm_up() -> None:
    """Imports once what every child needs."""
    import warnings

    import compressed_tensors  # noqa: F401
    import transformers

    import qtool.calibrate.stage
    import qtool.engine.backends.qtool
    import qtool.quantize.stage  # noqa: F401

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()


if __name__ == "__main__":
    main()
