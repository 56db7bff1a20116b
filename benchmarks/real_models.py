"""Does the main job work on real models? Every step of it with the program, as a user would type it, measured.

    python benchmarks/real_models.py MODEL_DIR [MODEL_DIR ...] --work DIR [--large MODEL_DIR] [--output FILE.md]
                                     [--gsm8k FILE --humaneval FILE --wikitext2 FILE] [--items 100] [--only NAME ...]

Each step is a process of its own: its return code, wall and processor seconds, peak memory with its children, the
time to its first word and the end of what it printed become one row of `DIR/rows.jsonl`, written as soon as the step
ends. A row that is there already is not measured again (`--again NAME` does), so an interrupted drive goes on where it
was. The page is made from all rows; what breaks a bound is marked there.
`--environment QTOOL_NATIVE=0` drives the same steps another way; its rows stand beside the others.
"""

import argparse
import os
import sys
from pathlib import Path

from real_models_page import evaluation_seconds, page, weights_of
from real_models_process import Measured, measure
from real_models_rows import Rows, StepRow
from real_models_steps import Amounts, Data, Drive, Step, large_steps, steps

from qtool.machine.device import hardware


def main() -> None:
    arguments = parse()
    rows = Rows(arguments.work / "rows.jsonl")
    amounts = Amounts(arguments.items, arguments.benchmark_items, arguments.sequences, arguments.tokens)
    data = Data(arguments.gsm8k, arguments.humaneval, arguments.wikitext2)
    environment = arguments.environment or []
    for folder in arguments.models:
        drive(steps(drive_of(folder, arguments, amounts, data)), folder, environment, rows, arguments)
    for folder in arguments.large or ():
        drive(large_steps(drive_of(folder, arguments, amounts, data)), folder, environment, rows, arguments)
    text = page(rows.all(), f"{hardware()}; {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


def drive_of(folder: Path, arguments: argparse.Namespace, amounts: Amounts, data: Data) -> Drive:
    """What the steps of the model in `folder` are made from."""
    label = "-".join([folder.name, *(arguments.environment or [])]).replace("=", "")
    return Drive(folder.resolve(), arguments.work.resolve() / label, amounts, data, arguments.kill_after)


def drive(wanted: list[Step], folder: Path, environment: list[str], rows: Rows, arguments: argparse.Namespace) -> None:
    """Measures each step that has no row yet, in order; one whose needs failed becomes a row that says so."""
    setting = " ".join(environment)
    for step in wanted:
        if arguments.only and step.name not in arguments.only:
            continue
        if rows.has(folder.name, setting, step.name) and step.name not in (arguments.again or ()):
            continue
        missing = [str(path) for path in step.needs if not path.exists()]
        if missing:
            row = StepRow(folder.name, setting, step.name, " ".join(step.command), note=f"not run: no {missing[0]}")
        else:
            sys.stderr.write(f"{folder.name} {setting}: {step.name}\n")
            row = row_of(folder, setting, step, measured(step, environment, arguments.limit_minutes))
        rows.add(row)
        sys.stderr.write(f"    {row.verdict}; {row.wall_s:.0f} s wall, {row.peak_bytes / 1e9:.2f} GB\n")


def measured(step: Step, environment: list[str], limit_minutes: float) -> Measured:
    """The step as it ran; what it writes goes where an earlier, failed try of it wrote."""
    step.prepare()
    settings = dict(pair.split("=", 1) for pair in environment)
    return measure(step.command, environment=settings, kill_after=step.kill_after, limit_s=60 * limit_minutes)


def row_of(folder: Path, setting: str, step: Step, found: Measured) -> StepRow:
    """What is kept of a step."""
    right = found.killed if step.kill_after is not None else found.code in step.codes
    return StepRow(
        model=folder.name,
        setting=setting,
        step=step.name,
        command=" ".join(step.command),
        code=found.code,
        right=right,
        wall_s=found.wall_s,
        cpu_s=found.cpu_s,
        peak_bytes=found.peak_bytes,
        first_word_s=found.first_word_s,
        flags=found.flags(),
        segments=found.segments,
        tail=found.tail,
        numbers=numbers_of(folder, step, found),
    )


def numbers_of(folder: Path, step: Step, found: Measured) -> dict[str, float]:
    """What the bounds need: the memory that is allowed, the model's size, and what a probe found."""
    count, size = weights_of(folder)
    numbers = {**step.numbers(found), "most_bytes": 1.5 * size + 1e9, "parameters": float(count)}
    if step.name.startswith("engine alone") and found.code == 0:
        seconds = evaluation_seconds(Path(step.needs[0]).parent, "arithmetic")
        numbers |= {} if seconds is None else {"arithmetic_s": seconds}
    return numbers


def parse() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="folders of real models")
    parser.add_argument("--large", action="append", type=Path, help="a folder that gets the shorter list of steps")
    parser.add_argument("--work", type=Path, required=True, help="where rows and everything the steps write go")
    parser.add_argument("--output", type=Path, help="the page to write")
    parser.add_argument("--gsm8k", type=Path, help="GSM8K's test set")
    parser.add_argument("--humaneval", type=Path, help="HumanEval's problems")
    parser.add_argument("--wikitext2", type=Path, help="WikiText-2's test text")
    parser.add_argument("--items", type=int, default=100, help="items of each own task")
    parser.add_argument("--benchmark-items", type=int, default=50, help="items of GSM8K and HumanEval")
    parser.add_argument("--sequences", type=int, default=64, help="sequences of calibration")
    parser.add_argument("--tokens", type=int, default=512, help="tokens of each sequence")
    parser.add_argument("--kill-after", type=float, default=90.0, help="seconds after which `qtool run` is killed once")
    parser.add_argument("--limit-minutes", type=float, default=180.0, help="a step that takes longer is ended")
    parser.add_argument("--environment", action="append", metavar="NAME=VALUE", help="for every step; repeats")
    parser.add_argument("--only", action="append", metavar="NAME", help="just this step; repeats")
    parser.add_argument("--again", action="append", metavar="NAME", help="measure this step again; repeats")
    found = parser.parse_args()
    for folder in (*found.models, *(found.large or ())):
        if not (folder / "config.json").is_file():
            parser.error(f"{folder}: holds no config.json; give the folder of a model")
    found.work.mkdir(parents=True, exist_ok=True)
    return found


if __name__ == "__main__":
    main()
