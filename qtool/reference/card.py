"""Measures bundled models on the test items and writes their model cards: `python -m qtool.reference.card`.

Every number of a card comes from `training.json` or from the evaluation that is run here; none is typed by hand.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from qtool import reference
from qtool.evaluate.asking.subject import Settings
from qtool.evaluate.stage import ask_for, evaluate_asked
from qtool.progress import RichProgress
from qtool.records.evaluation import Evaluation, Score
from qtool.reference.corpus import MIXTURE, task_spec

FULL_SIZE_SLICES = ("4-digit addition", "4-digit subtraction")
MEASURED = "measured.json"


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line; measures each named model, all of them if none is named."""
    parser = argparse.ArgumentParser(prog="python -m qtool.reference.card", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="bundled models; all if none is given")
    parser.add_argument("--items", type=int, help="items a task; each task's own number if not given")
    given = parser.parse_args(arguments)
    for name in given.names or reference.names():
        folder = reference.folder(name)
        measured = measure(folder, items=given.items)
        (folder / MEASURED).write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(card(folder), encoding="utf-8")


def measure(folder: Path, *, items: int | None) -> dict[str, dict[str, float]]:
    """Accuracy, items and Wilson interval of each task, and of the sums of full size, on test items."""
    asked = []
    for task in MIXTURE:
        spec = task_spec(task)
        asked.append(ask_for(spec, count=None if items is None else min(items, spec.items)))
    with tempfile.TemporaryDirectory() as output:
        found = evaluate_asked(
            folder, asked, Path(output), baseline=None, progress=RichProgress(), settings=Settings(floor_share=0.0)
        )
    return {name: _row(score) for evaluation in found for name, score in _scores(evaluation)}


def card(folder: Path) -> str:
    """The model card of one bundled model as markdown, from the JSON files beside its weights."""
    config, training, measured = (
        json.loads((folder / file).read_text(encoding="utf-8")) for file in ("config.json", "training.json", MEASURED)
    )
    return "\n".join(
        (
            *_introduction(folder.name, config, training),
            *_accuracy(measured),
            *_training(training),
            *_limits(),
        )
    )


def _scores(evaluation: Evaluation) -> list[tuple[str, Score]]:
    inside = [(part.value, part.score) for part in evaluation.slices if part.value in FULL_SIZE_SLICES]
    return [(evaluation.task, evaluation.score), *sorted(inside)]


def _row(score: Score) -> dict[str, float]:
    return {
        "accuracy": score.value,
        "low": score.interval.low,
        "high": score.interval.high,
        "items": score.items,
    }


def _introduction(name: str, config: dict[str, Any], training: dict[str, Any]) -> list[str]:
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    inner, vocabulary = config["intermediate_size"], config["vocab_size"]
    matrices = layers * (4 * width * width + 3 * width * inner)
    return [
        "---",
        "license: apache-2.0",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "language: en",
        "---",
        f"# {name}",
        "",
        f"A small Llama-architecture model bundled with qtool: width {width}, {layers} layers, "
        f"{config['num_attention_heads']} heads of {config['head_dim']}, MLP {inner}, vocabulary {vocabulary}, context "
        f"{config['max_position_embeddings']}; {matrices:,} weights in the layers and "
        f"{2 * vocabulary * width:,} in embedding and head, stored in bfloat16. It answers the task files that qtool "
        "ships, so that calibrating, quantizing, evaluating and serving can be tried without a download.",
        "",
    ]


def _accuracy(measured: dict[str, dict[str, float]]) -> list[str]:
    lines = [
        "## Accuracy",
        "",
        "On test items, which training never sees: the split hashes every question. Greedy decoding, scored with the "
        "task's own metric; Wilson intervals at 95 %, Student's where an answer can be partly right (extraction).",
        "",
        "| Task | Accuracy | 95 % interval | Items |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in measured.items():
        shown = f"of these, {name}" if name in FULL_SIZE_SLICES else name
        low, high = 100 * row["low"], 100 * row["high"]
        lines.append(f"| {shown} | {100 * row['accuracy']:.1f} % | {low:.1f} to {high:.1f} % | {row['items']} |")
    return [*lines, ""]


def _training(training: dict[str, Any]) -> list[str]:
    recipe = training["recipe"]
    shown = [entry for entry in training["curve"] if len(entry) > 2]
    step = max(1, len(shown) // 8)
    lines = [
        "## Training",
        "",
        f"    {training['command']} --output FOLDER",
        "",
        f"{recipe['steps']:,} steps of {recipe['examples_per_step']} fresh examples in {training['seconds'] / 60:.0f} "
        f"minutes on {training['threads']} CPU thread of a shared machine, in float32. Loss on answer tokens only; "
        "Muon for the matrices of the layers, AdamW for the rest; cosine to zero. The corpus is generated "
        "(`qtool/data/generators`), nothing else was seen. The same command gives the same weights on the same kind of "
        f"processor with the same versions (torch {training['versions']['torch']}, transformers "
        f"{training['versions']['transformers']}).",
        "",
    ]
    if recipe.get("grow_from"):
        lines += [
            f"It did not start at random but from `{recipe['grow_from']}`, widened so that it computes the same "
            "function (Net2Net); the command above covers only the steps after that.",
            "",
        ]
    lines += [
        "Loss, and the share of calibration answers reproduced token by token, scratchpad included:",
        "",
        "| Step | Loss | " + " | ".join(MIXTURE) + " |",
        "| --- " * (2 + len(MIXTURE)) + "|",
    ]
    for entry in [*shown[step - 1 : -1 : step], shown[-1]]:
        shares = " | ".join(f"{entry[task]:.2f}" for task in MIXTURE)
        lines.append(f"| {entry['step']} | {entry['loss']:.4f} | {shares} |")
    return [*lines, ""]


def _limits() -> list[str]:
    return [
        "## Use and limits",
        "",
        "Made to exercise qtool and to show what its reports look like. What 8 or 4 bits do to this model is no "
        "evidence about large models. It knows the question templates it was trained on and nothing else; other input "
        "gets fluent nonsense. Longer numbers, other currencies or facts outside the generators are outside of what it "
        "can do.",
        "",
    ]


if __name__ == "__main__":
    main()
