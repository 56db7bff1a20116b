"""The page of the drive over real models: every step, and the bounds that the project holds itself to."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from real_models_rows import StepRow

_GB = 1e9
_MOST_FIRST_WORD_S = 2.0
_MOST_GPTQ_S = 600.0
_MOST_CALIBRATION_RATIO = 3.0
_MOST_EVALUATION_RATIO = 2.0
_MOST_FLOOR_SHARE = 0.2
_SMALL_MODEL = 200e6  # parameters up to which the ten minutes of gptq hold
_FLOOR_WORDS = ("noise floor", "rounding noise", "forecast")
_PROBES = ("bare forward pass", "engine alone")


def page(rows: Sequence[StepRow], about: str) -> str:
    """The whole page in Markdown."""
    lines = [
        "# The main job on real models",
        "",
        f"{about}. Made by `python benchmarks/real_models.py`; what breaks a bound is in bold.",
        "",
    ]
    for model, setting in dict.fromkeys((row.model, row.setting) for row in rows):
        of_model = {row.step: row for row in rows if (row.model, row.setting) == (model, setting)}
        lines += [f"## {model}{f', {setting}' if setting else ''}", ""]
        lines += [*_table(of_model), "", "Bounds:", "", *_bounds(of_model), ""]
        lines += _failures(of_model)
    return "\n".join(lines)


def weights_of(model: Path) -> tuple[int, int]:
    """How many weights the model stores, and their bytes as the engine computes with them on this machine."""
    import torch

    from qtool.machine.device import choose_dtype
    from qtool.models.checkpoint import open_checkpoint, read_config

    checkpoint = open_checkpoint(model)
    count = sum(checkpoint.tensor_bytes(name) for name in checkpoint.names) // checkpoint.main_dtype().itemsize
    return count, count * choose_dtype("auto", read_config(model), torch.device("cpu")).itemsize


def _table(rows: dict[str, StepRow]) -> Iterator[str]:
    yield "| step | result | wall, s | processor, s | peak, GB | first word, s | odd words |"
    yield "|---|---|--:|--:|--:|--:|---|"
    for row in rows.values():
        if row.note:
            yield f"| {row.step} | **{row.note}** | | | | | |"
            continue
        result = f"{row.code}" if row.right else f"**{row.code}**"
        word = "" if row.first_word_s is None else f"{row.first_word_s:.1f}"
        if row.first_word_s is None or row.first_word_s > _MOST_FIRST_WORD_S:
            word = word if row.step.startswith(_PROBES) else f"**{word or 'none'}**"
        limit = row.numbers.get("most_bytes")
        peak = f"{row.peak_bytes / _GB:.2f}"
        if limit is not None and row.peak_bytes > limit:
            peak = f"**{peak}**"
        flags = ", ".join(row.flags)
        yield f"| {row.step} | {result} | {row.wall_s:.0f} | {row.cpu_s:.0f} | {peak} | {word} | {flags} |"


def _bounds(rows: dict[str, StepRow]) -> Iterator[str]:
    measured = [row for row in rows.values() if not row.note]
    wrong = [row.step for row in rows.values() if not row.right]
    yield _line("every step ends as it should", not wrong, ", ".join(wrong) or f"{len(rows)} steps")
    limits = [row for row in measured if "most_bytes" in row.numbers and not row.step.startswith(_PROBES)]
    if limits:
        most = max(limits, key=lambda row: row.peak_bytes)
        text = f"{most.peak_bytes / _GB:.2f} GB of {most.numbers['most_bytes'] / _GB:.2f} GB in `{most.step}`"
        holds = all(row.peak_bytes <= row.numbers["most_bytes"] for row in limits)
        yield _line("peak memory of every step at most 1.5 x the weights as computed + 1 GB", holds, text)
    words = [row for row in measured if row.first_word_s is not None and not row.step.startswith(_PROBES)]
    if words:
        late = max(words, key=lambda row: row.first_word_s or 0.0)
        said = late.first_word_s or 0.0
        yield _line("first word within 2 s", said <= _MOST_FIRST_WORD_S, f"{said:.1f} s in `{late.step}`")
    yield from _ratios(rows)
    shares = [(share, row.step) for row in measured if (share := _floor_share(row)) is not None]
    if shares:
        share, step = max(shares)
        text = f"{share:.0%} in `{step}`"
        yield _line("noise floor and forecast at most a fifth of an evaluation", share <= _MOST_FLOOR_SHARE, text)


def _ratios(rows: dict[str, StepRow]) -> Iterator[str]:
    calibrate, bare = rows.get("calibrate"), rows.get("bare forward pass")
    if calibrate and bare and calibrate.right and bare.right:
        ratio = calibrate.cpu_s / max(bare.cpu_s, 1e-9)
        text = f"{calibrate.cpu_s:.0f} s of {bare.cpu_s:.0f} s, processes as a whole"
        yield _line("calibration at most 3 x a bare pass", ratio <= _MOST_CALIBRATION_RATIO, f"{ratio:.1f} x: {text}")
    gptq = rows.get("quantize w4a16-gptq")
    if gptq and gptq.right and gptq.numbers.get("parameters", 0.0) <= _SMALL_MODEL:
        yield _line("gptq at most 10 minutes", gptq.wall_s <= _MOST_GPTQ_S, f"{gptq.wall_s:.0f} s")
    alone, base = rows.get("engine alone on arithmetic"), rows.get("eval base")
    if alone and base and alone.right and "arithmetic_s" in alone.numbers:
        ratio = alone.numbers["arithmetic_s"] / max(alone.numbers["seconds"], 1e-9)
        text = f"{alone.numbers['arithmetic_s']:.0f} s of {alone.numbers['seconds']:.0f} s"
        holds = ratio <= _MOST_EVALUATION_RATIO
        yield _line("arithmetic at most 2 x the engine alone", holds, f"{ratio:.1f} x: {text}")


def _floor_share(row: StepRow) -> float | None:
    """Share of an evaluation that went to its noise floor and forecast, from when it said what it was doing."""
    if not row.step.startswith("eval "):
        return None
    ends = [*(when for when, _ in row.segments[1:]), row.wall_s]
    spans = [(end - when, line) for (when, line), end in zip(row.segments, ends, strict=True)]
    floor = sum(seconds for seconds, line in spans if any(word in line for word in _FLOOR_WORDS))
    return floor / row.wall_s if row.wall_s else None


def _line(what: str, holds: bool, found: str) -> str:
    return f"- {'holds' if holds else '**broken**'}: {what} ({found})"


def _failures(rows: dict[str, StepRow]) -> Iterator[str]:
    for row in rows.values():
        if not row.right and not row.note:
            tail = row.tail.replace("```", "'''")[-1500:]
            yield from (f"### {row.step}: code {row.code}", "", f"    {row.command}", "", "```", tail, "```", "")


def evaluation_seconds(folder: Path, task: str) -> float | None:
    """Seconds that asking `task` took, from its evaluation; None where there is none."""
    path = folder / f"{task}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8")).get("timing", {}).get("seconds")
    return None if found is None else float(found)
