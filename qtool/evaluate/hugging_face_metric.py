"""Any Hugging Face `evaluate` metric as a metric of ours, from a local path or its cache; nothing is downloaded."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from qtool import catalog
from qtool.errors import DataError
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec


class ForeignMetric:
    """`metric = "evaluate:<path or name>"`.

    The module's `compute(predictions=[answer], references=[target])` is called for each item; the value is the entry
    named by `metric_options.key`, or the only number in the result. `metric_options.direction` is "higher" unless said.
    """

    BINARY = False
    PERFECT = 1.0
    UNIT: Unit = "fraction"
    DIRECTION: Direction = "higher"

    def __init__(self, name: str) -> None:
        self._name = name

    def grade(self, item: Item, answer: Answer, task: TaskSpec) -> Grade:
        """The module's value for this one item."""
        extracted = extract(task, item, answer)
        if extracted is None:
            return Grade(score=0.0, extracted="", parsed=False)
        return Grade(score=self._value(extracted, item, task), extracted=extracted)

    def _value(self, extracted: str, item: Item, task: TaskSpec) -> float:
        try:
            computed = self._module.compute(predictions=[extracted], references=[item.target])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"evaluate:{self._name}: item {item.id!r}: {str(error).strip().splitlines()[0]}") from error
        numbers = {key: value for key, value in (computed or {}).items() if isinstance(value, int | float)}
        key = task.metric_options.get("key", next(iter(numbers), "")) if numbers else ""
        if key not in numbers or (len(numbers) > 1 and "key" not in task.metric_options):
            raise DataError(
                f"evaluate:{self._name}: name the number to use with metric_options.key; "
                f"it gives {', '.join(sorted(numbers)) or 'none'}"
            )
        return float(numbers[str(key)])

    @cached_property
    def _module(self) -> Any:
        os.environ.setdefault("HF_EVALUATE_OFFLINE", "1")  # read when the package is imported
        evaluate = catalog.require("evaluate", needed_by=f"the metric evaluate:{self._name}", extra="evaluate")
        path = Path(self._name).expanduser()
        known = str(path) if path.exists() else self._name
        try:
            return evaluate.load(known)
        except (OSError, ImportError, ValueError, TypeError) as error:
            raise DataError(
                f"evaluate:{self._name}: cannot be loaded: {str(error).strip().splitlines()[0]}; "
                "give the path of the metric's folder or file"
            ) from error
