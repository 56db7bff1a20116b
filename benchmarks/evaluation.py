"""How fast does qtool evaluate, and against lm-evaluation-harness's `hf` backend on the same items?

    python benchmarks/evaluation.py [--model reference-256] [--task arithmetic] [--items 2000] [--peer-items 200]
    python benchmarks/evaluation.py --model FOLDER --task gsm8k --data test.jsonl --items 1319 --peer-items 0

Both are given the same prompts, stop texts and token limits, greedy, in the number format the model says, on as many
threads as OMP_NUM_THREADS allows. lm-eval is slow enough that it gets a part of the items by default; rates are
compared, not totals. CPU seconds are printed too: on a busy machine they are the fairer number. Time to load the model
is left out on both sides; the noise floor is left out of ours, since lm-eval measures none. `--no-forcing` generates
every answer. Prints Markdown. lm-eval: pip install 'qtool[lm-eval]'.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from qtool.evaluate.asking.local import open_folder
from qtool.evaluate.asking.model import LazyModel
from qtool.evaluate.asking.questions import Asked
from qtool.evaluate.asking.subject import Settings
from qtool.evaluate.items import prompts
from qtool.evaluate.items.tasks import load_task
from qtool.evaluate.results import items_path, read_items
from qtool.evaluate.stage import ask_for, evaluate_asked
from qtool.models.locate import locate
from qtool.progress import RichProgress
from qtool.records.evaluation import Evaluation
from qtool.records.task import Item, TaskSpec

YAML = """
task: qtool_benchmark
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{target}}}}"
generation_kwargs:
  until: {until}
  max_gen_toks: {tokens}
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
filter_list:
  - name: last_number
    filter:
      - function: regex
        regex_pattern: "(-?[0-9.,]+)"
        group_select: -1
      - function: take_first
"""


def ours(folder: Path, asked: Asked, settings: Settings, output: Path) -> tuple[Evaluation, float, float]:
    """Our evaluation, its seconds and its CPU seconds, the model's loading apart."""
    opened = LazyModel(folder, settings, open_folder)
    opened.get()
    started, worked = time.monotonic(), time.process_time()
    found = evaluate_asked(
        folder, (asked,), output, baseline=None, progress=RichProgress(), settings=settings,
        opener=lambda path, wanted: opened.get(),
    )[0]  # fmt: skip
    return found, time.monotonic() - started, time.process_time() - worked


def theirs(
    folder: Path, task: TaskSpec, items: Sequence[Item], batch: int, scratch: Path
) -> tuple[float, float, float]:
    """(exact match, seconds, CPU seconds) of lm-eval's hf backend on the same prompts, the model's loading apart."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    data = scratch / "data.jsonl"
    rows = [{"prompt": question.prompt, "target": question.item.target} for question in prompts.questions(task, items)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder_of_tasks = scratch / "tasks"
    folder_of_tasks.mkdir()
    (folder_of_tasks / "task.yaml").write_text(
        YAML.format(data=data, until=json.dumps(list(task.stop)), tokens=task.max_new_tokens)
    )
    model = HFLM(pretrained=str(folder), batch_size=batch, device="cpu", dtype="auto")
    manager = TaskManager(include_path=str(folder_of_tasks), include_defaults=False)
    started, worked = time.monotonic(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        found = lm_eval.simple_evaluate(
            model=model, tasks=["qtool_benchmark"], task_manager=manager, bootstrap_iters=0, log_samples=False
        )
    seconds, worked = time.monotonic() - started, time.process_time() - worked
    score = next(v for k, v in found["results"]["qtool_benchmark"].items() if k.startswith("exact_match,"))
    return float(score), seconds, worked


def heading(options: argparse.Namespace) -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lm_eval") if installed(name))
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"Made by: `python benchmarks/evaluation.py {shlex.join(sys.argv[1:])}`\n")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, OMP_NUM_THREADS {threads}, load before {os.getloadavg()[0]:.1f}"
    )
    print(f"{versions}; batch {options.batch}\n")


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def describe(found: Evaluation, items_file: Path, seconds: float, worked: float, model: str) -> None:
    """What we did with all items, as a table."""
    rows = read_items(items_file)
    decided = sum(bool(row.decided_by) for row in rows)
    prompt_tokens = sum(row.prompt_tokens for row in rows)
    tokens = found.timing.output_tokens
    print(f"| {found.task}, {len(rows):,} items on {model} | |\n|---|---|")
    print(f"| seconds, loading apart | {seconds:.1f} ({worked:.1f} of CPU) |")
    print(f"| items a second | {len(rows) / seconds:.1f} |")
    print(f"| answer tokens | {tokens:,}, {tokens / seconds:.0f} a second |")
    print(f"| prompt tokens | {prompt_tokens:,} |")
    print(f"| decided by teacher forcing | {decided:,}; the other {len(rows) - decided:,} generated |")
    score = found.score
    print(f"| score | {100 * score.value:.2f} % [{100 * score.interval.low:.2f}, {100 * score.interval.high:.2f}] |")
    for name in ("empty", "truncated", "looping", "unparsable", "prompt_cut"):
        print(f"| answers {name.replace('_', ' ')} | {getattr(found.faults, name):,} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="reference-256")
    parser.add_argument("--task", default="arithmetic")
    parser.add_argument("--data", help="a local file to take the task's items from")
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--peer-items", type=int, default=200, help="items for lm-eval; 0 leaves it out")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--no-forcing", action="store_true", help="generate every answer")
    options = parser.parse_args()
    folder, task = locate(options.model), load_task(options.task)
    heading(options)
    settings = Settings(in_flight=options.batch, floor_share=0.0, forcing=not options.no_forcing)
    asked = ask_for(task, count=options.items, data=options.data)
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "ours"
        found, seconds, worked = ours(folder, asked, settings, output)
        describe(found, items_path(output, task.name), seconds, worked, folder.name)
        if options.peer_items:
            items = asked.items[: options.peer_items]
            score, peer_seconds, peer_worked = theirs(folder, task, items, options.batch, Path(scratch))
            rate, peer_rate = len(asked.items) / seconds, len(items) / peer_seconds
            print(f"lm-eval's hf backend on the first {len(items)} of them: {peer_seconds:.1f} s ({peer_worked:.1f} of "
                  f"CPU), {peer_rate:.1f} items/s, score {100 * score:.2f} %\n")  # fmt: skip
            by_cpu = (len(asked.items) / worked) / (len(items) / peer_worked)
            print(
                f"**qtool evaluates {rate / peer_rate:.1f} times as many items a second** ({by_cpu:.1f} times by CPU)"
            )


if __name__ == "__main__":
    main()
