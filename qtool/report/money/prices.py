"""The price table: what a machine costs an hour, and what an API asks for a million tokens."""

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from qtool.errors import PlanError, UnknownName
from qtool.records.latency import MachineState
from qtool.store.codec import read_toml


@dataclass(frozen=True, slots=True)
class MachinePrice:
    """One card, or one core of a processor."""

    dollars_per_hour: float
    memory_gb: float
    matches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApiPrice:
    """What a hosted model asks, in dollars per million tokens."""

    input_dollars: float
    output_dollars: float


@dataclass(frozen=True, slots=True)
class Prices:
    """The whole table."""

    machines: dict[str, MachinePrice]
    api: ApiPrice

    def machine(self, name: str) -> MachinePrice:
        """The row called `name`. Raises UnknownName with those that there are."""
        if name not in self.machines:
            raise UnknownName("machine of the price table", name, self.machines)
        return self.machines[name]

    def like(self, machine: MachineState) -> str | None:
        """The row that the timed machine matches, by its name; a processor is `cpu-core`."""
        if machine.device == "cpu":
            return next((name for name, row in self.machines.items() if "cpu" in row.matches), None)
        named = ((name, word) for name, row in self.machines.items() for word in row.matches)
        return next((name for name, word in named if word.lower() in machine.hardware.lower()), None)


def read_prices(path: Path | None = None) -> Prices:
    """The table of `path`, or the shipped one. Raises PlanError naming what is wrong in it."""
    if path is None:
        return _shipped()
    found = read_toml(Prices, path)
    problems = [
        f"{path}: machines.{name}.{key}: {value} is not above 0"
        for name, row in found.machines.items()
        for key, value in (("dollars_per_hour", row.dollars_per_hour), ("memory_gb", row.memory_gb))
        if value <= 0
    ]
    if problems:
        raise PlanError(problems)
    return found


@lru_cache(maxsize=1)
def _shipped() -> Prices:
    from importlib.resources import as_file

    with as_file(files("qtool.report.money") / "prices.toml") as path:
        return read_toml(Prices, path)
