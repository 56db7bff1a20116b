"""qtool: may I ship this 8-bit or 4-bit variant of my model, for my task, on my machine?

    import qtool

    found = qtool.evaluate("variants/w4", baseline="my-model", tasks=["arithmetic"])
    print(found.overall, found.table())

Every command has a function of the same name and with the same defaults. Nothing heavy is loaded before it is needed.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qtool.front_door.calibration import calibrate, calibrate_shard, merge, sweep
    from qtool.front_door.canary import canary_decide, canary_status
    from qtool.front_door.choosing import choose
    from qtool.front_door.evaluation import compare, evaluate
    from qtool.front_door.layer_costs import sensitivity
    from qtool.front_door.looking import data_lint, doctor, explain, lint, names, show, version
    from qtool.front_door.proposing import init
    from qtool.front_door.publishing import push, reproduce
    from qtool.front_door.quantization import convert, estimate, import_variant, quantize
    from qtool.front_door.reporting import plot, report, report_diff, schema
    from qtool.front_door.shipping import bundle, demo, run, serve, verify
    from qtool.front_door.timing import time
    from qtool.pipeline.plan import read_plan
    from qtool.records.plan import Plan
    from qtool.records.task import TaskSpec as Task
    from qtool.records.variant import Recipe, Variant

__all__ = [
    "__version__",
    "bundle",
    "calibrate",
    "calibrate_shard",
    "canary_decide",
    "canary_status",
    "choose",
    "compare",
    "convert",
    "data_lint",
    "demo",
    "doctor",
    "estimate",
    "evaluate",
    "explain",
    "import_variant",
    "init",
    "lint",
    "merge",
    "names",
    "Plan",
    "plot",
    "push",
    "quantize",
    "read_plan",
    "Recipe",
    "report",
    "report_diff",
    "reproduce",
    "run",
    "schema",
    "sensitivity",
    "serve",
    "show",
    "sweep",
    "Task",
    "time",
    "Variant",
    "verify",
    "version",
]

_ROOMS = {
    "qtool.front_door.calibration": ("calibrate", "calibrate_shard", "merge", "sweep"),
    "qtool.front_door.canary": ("canary_decide", "canary_status"),
    "qtool.front_door.choosing": ("choose",),
    "qtool.front_door.evaluation": ("compare", "evaluate"),
    "qtool.front_door.layer_costs": ("sensitivity",),
    "qtool.front_door.looking": ("data_lint", "doctor", "explain", "lint", "names", "show", "version"),
    "qtool.front_door.proposing": ("init",),
    "qtool.front_door.publishing": ("push", "reproduce"),
    "qtool.front_door.quantization": ("convert", "estimate", "import_variant", "quantize"),
    "qtool.front_door.reporting": ("plot", "report", "report_diff", "schema"),
    "qtool.front_door.shipping": ("bundle", "demo", "run", "serve", "verify"),
    "qtool.front_door.timing": ("time",),
    "qtool.pipeline.plan": ("read_plan",),
    "qtool.records.plan": ("Plan",),
    "qtool.records.task": ("TaskSpec as Task",),
    "qtool.records.variant": ("Recipe", "Variant"),
}
_HOMES = {name.rpartition(" ")[2]: (room, name.partition(" ")[0]) for room, names in _ROOMS.items() for name in names}


class _FrontDoor(ModuleType):
    """`qtool.quantize` is the function, whether or not the package of that name was imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Python puts an imported package into its parent: here it must not hide the function that callers use."""
        if not (isinstance(value, ModuleType) and name in _HOMES):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qtool' has no attribute {name!r}")
    import_module("qtool.front_door")  # tells the records how their tables are written
    room, called = _HOMES[name]
    value = getattr(import_module(room), called)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


sys.modules[__name__].__class__ = _FrontDoor
