"""A first plan for a model: tasks, items and margins from the time there is and from what that many items can show."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qtool.evaluate.items.tasks import all_tasks
from qtool.evaluate.verdicts.power import ENOUGH, Question, chance_to_pass_all
from qtool.machine.device import choose_device
from qtool.machine.state import measured_bandwidth
from qtool.models.architecture import describe
from qtool.models.identity import identify
from qtool.models.locate import locate
from qtool.quantize.request.recipe import widest_group
from qtool.records.model import ModelIdentity
from qtool.records.task import TaskSpec

_TOGETHER = 16  # answers in one step of the engine: each step reads all weights once
_WRITTEN = 0.5  # of the tokens that a task allows, an answer takes about half
_FEWEST, _MOST = 50, 2000
_MARGINS = (1.0, 1.5, 2.0, 3.0, 5.0)
_VARIANTS = 3
_SHORTEST_STEP = 0.002  # seconds: what a step costs beside reading weights, however few they are
_SHARE = 0.7  # of the time, for answers: the rest calibrates, quantizes and times


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was proposed and from what: `chance` is that a variant without loss passes all `tasks`; `seconds_per_item`
    is the mean over them, estimated from how fast this machine reads memory."""

    model: str
    name: str
    minutes: float
    identity: ModelIdentity
    tasks: tuple[str, ...]
    items: int
    margin_points: float
    chance: float
    seconds_per_item: float
    group_size: int


def propose(model: str, *, minutes: float, name: str) -> Proposal:
    """A plan for `model` that takes about `minutes` on this machine. Raises what an unusable model raises."""
    folder = locate(model)
    identity = identify(folder, source=model)
    specs = proposed_tasks()
    seconds = _seconds_per_item(specs, identity)
    affordable = int(60 * minutes * _SHARE / ((_VARIANTS + 1) * sum(seconds)))
    items = _round(min(max(affordable, _FEWEST), _MOST))
    margin, chance = _margin(items, len(specs))
    return Proposal(
        model=model,
        name=name,
        minutes=minutes,
        identity=identity,
        tasks=tuple(task.name for task in specs),
        items=items,
        margin_points=margin,
        chance=chance,
        seconds_per_item=sum(seconds) / len(seconds),
        group_size=_group(folder),
    )


def proposed_tasks() -> tuple[TaskSpec, ...]:
    """The critical tasks that need no file and no hub, and whose answers are written."""
    return tuple(task for task in all_tasks() if task.critical and task.scorer == "generation")


def _seconds_per_item(specs: Sequence[TaskSpec], identity: ModelIdentity) -> list[float]:
    """For each task, from how fast this machine reads memory: an answer's step reads every weight."""
    step = max(identity.bytes / measured_bandwidth(str(choose_device())), _SHORTEST_STEP)
    return [_WRITTEN * task.max_new_tokens * step / _TOGETHER for task in specs]


def _margin(items: int, tasks: int) -> tuple[float, float]:
    """The smallest margin with which a variant that loses nothing passes all tasks with a chance of 90 %, else the
    largest; and that chance."""
    chance = 0.0
    for points in _MARGINS:
        chance = chance_to_pass_all([Question(items, points / 100)] * tasks)
        if chance >= ENOUGH:
            return points, chance
    return _MARGINS[-1], chance


def _group(folder: Path) -> int:
    linears = describe(folder).linears
    return widest_group([layer.columns for layer in linears if layer.block is not None])


def _round(items: int) -> int:
    return items if items < 100 else items // 50 * 50


def plan_text(found: Proposal) -> str:
    """The plan as TOML, each choice with its reason."""
    tasks = "\n".join(
        f"[tasks.{task.name}]  # {_line(task.description).rstrip('.')}\n"
        f"items = {min(found.items, task.items)}\nmargin_points = {found.margin_points}\n"
        for task in proposed_tasks()
    )
    identity = found.identity
    about = f"{identity.parameters:,} parameters, {identity.bytes / 1e9:.3g} GB, {identity.dtype}"
    chance = "over 99 %" if found.chance > 0.995 else f"{100 * found.chance:.0f} %"
    minutes = found.seconds_per_item * found.items * len(found.tasks) / 60
    return f"""\
# A first plan for {_line(identity.name)}: {about}.
# Written by `qtool init`; change it, then: qtool run {found.name}.toml
base = {json.dumps(found.model)}
name = {json.dumps(found.name)}

# Text that activations are measured on. "mixed" is general; better is text of your own: a file of your requests.
[calibration]
set = "mixed"
sequences = 128
sequence_tokens = 256

# The safe ones first. `qtool list methods` and `qtool explain gptq` tell more.
[variants.w8a16]             # half the memory, next to no loss
scheme = "w8a16"

[variants.w8a8]              # as small, and faster where many requests run at once
scheme = "w8a8"

[variants.w4a16]             # a quarter of the memory; gptq learns from the calibration text
scheme = "w4a16"
method = "gptq"
group_size = {found.group_size}

# A variant must pass every task. margin_points is the drop you accept: decide it before you see a result.
# Up to {found.items} items a task take {minutes:.2g} minutes a variant, or more: so fast does this machine read memory.
# {found.minutes:g} minutes were given for the whole run. With this margin a variant that loses nothing passes all
# {len(found.tasks)} tasks with a chance of {chance}.
# Leave out what your users do not ask; add tasks of your own. A task that the base cannot do shows nothing, and the
# report says so.
{tasks}
# Time as you will serve: requests in flight, tokens in and out. p99 needs 1,000 requests.
[latency]
concurrency = [1, 8]
requests = 24
prompt_tokens = 64
output_tokens = 32

# [budget]                   # what a recommended variant must keep
# memory_bytes = 8_000_000_000
# e2e_ms_p95 = 2000.0

# [cost]                     # prices of your own instead of the shipped table's
# dollars_per_hour = 0.80
"""


def _line(text: str) -> str:
    return " ".join(text.split())
