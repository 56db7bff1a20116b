"""A task in words: where its items come from, how they are asked and scored, and what its first prompt looks like."""

from qtool.evaluate.items import prompts, tasks
from qtool.records.task import TaskSpec


def describe(task: TaskSpec) -> str:
    """Everything a user must know of `task` before trusting its verdict, as text for a terminal."""
    lines = [
        f"{task.name}, version {task.version}: {task.description}",
        f"items:    {task.items:,} {_source(task)}; licence {task.licence}",
        f"prompt:   {task.prompt!r}",
        f"chat:     {(task.chat_prompt or task.prompt)!r}",
        f"examples: {_shots(task)}",
        f"scored:   {task.scorer}, {task.extract}, {task.metric} {task.metric_options or ''}".rstrip(),
        f"slices:   {', '.join(task.slices) or 'none'}; clusters: {task.cluster or 'none'}",
        f"margin:   {task.margin_points:g} points; {task.weight}",
    ]
    if task.generator is not None or task.data is not None:
        first = prompts.first_prompt(task, tasks.load_items(task, count=1), tasks.load_shots(task))
        lines += ["first prompt:", *(f"  {line}" for line in first.splitlines())]
    return "\n".join(lines)


def _source(task: TaskSpec) -> str:
    if task.generator is not None:
        return f"made by the generator {task.generator} (seed {task.seed}), more on demand"
    if task.data is not None:
        return f"from {task.data}"
    if task.hub is not None:
        return f"from {task.hub.repository} at {task.hub.revision[:12]}, or a local file (--data)"
    return "from a local file (--data)"


def _shots(task: TaskSpec) -> str:
    if not task.few_shot:
        return "none (few_shot = 0)"
    source = "the generator's calibration split" if task.generator is not None else task.few_shot_data
    return f"{task.few_shot} from {source}, never test items"


def table() -> str:
    """The shipped tasks as a Markdown table, for docs/evaluation.md."""
    lines = ["| task | items | scored by | slices | margin | licence |", "|---|---|---|---|---|---|"]
    for task in (tasks.load_task(name) for name in tasks.task_names()):
        source = "generated" if task.generator else "hub, or `--data`" if task.hub else "`--data`"
        slices = ", ".join(task.slices) or "none"
        lines.append(
            f"| {task.name} | {task.items:,} {source} | {task.scorer}, {task.metric} | {slices} "
            f"| {task.margin_points:g} | {task.licence} |"
        )
    return "\n".join(lines)
