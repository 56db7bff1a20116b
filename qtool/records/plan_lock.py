"""What a plan resolved to: `plan.lock.json` of a run folder, and of the bundle made from it."""

from dataclasses import dataclass

from qtool.records.model import ModelIdentity
from qtool.records.plan import Plan
from qtool.records.task import TaskSpec


@dataclass(frozen=True, slots=True)
class PlanLock:
    """`plan.lock.json`: what the plan resolved to, so that the run can be repeated or the moved input named.

    `command` and `started` (UTC, to the second) are those of the first start; a run that is resumed keeps them.
    """

    plan: Plan
    model: ModelIdentity
    tasks: tuple[TaskSpec, ...]
    versions: tuple[tuple[str, str], ...]
    hardware: str
    command: str
    started: str = ""
