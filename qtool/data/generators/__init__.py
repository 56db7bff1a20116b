"""Seeded sources of task items, one module a task, and the split that keeps test items out of every other use.

A generator module has one public function, `candidates(rng)`: an endless stream of items, or one shuffled pass where
only so many exist. Its items carry as `id` the *canonical question*: what is asked, without the wording, names or
order that do not change it (`a + b` and `b + a` share one id). The split hashes that id, so every wording of a
question falls on the same side.
"""

import hashlib
import random
from collections.abc import Iterator
from typing import Literal, Protocol, cast

from qtool import catalog
from qtool.errors import DataError
from qtool.records.task import Item

Split = Literal["test", "calibration", "train"]

PATIENCE = 3_000  # candidates in a row without a new item, after which a space counts as used up


class Generator(Protocol):
    """What a module of this package provides."""

    def candidates(self, rng: random.Random) -> Iterator[Item]:
        """Items in an order that depends on `rng` alone."""
        ...


def split_of(item: Item) -> Split:
    """The one split that may use this item: test 10 %, calibration 10 %, train 80 %, by SHA-256 of its id."""
    return _split(item.id)


def resembles_test(name: str, item: Item) -> bool:
    """Whether a test item of the generator `name` asks the same but for an ending, where it knows of such.

    Calibration rows leave those out: the row would hold the whole test question.
    """
    alike = getattr(load(name), "alike", None)
    return alike is not None and any(_split(other) == "test" for other in alike(item.id))


def load(name: str) -> Generator:
    """The generator module called `name`. Raises UnknownName with the nearest names."""
    return cast(Generator, catalog.load(__name__, name, kind="generator"))


def stream(name: str, split: Split, seed: int) -> Iterator[Item]:
    """Items of one split, endlessly, repeats included; the same arguments give the same stream."""
    rng = random.Random(f"{name} {split} {seed}")
    generator = load(name)
    while True:
        yield from (item for item in generator.candidates(rng) if split_of(item) == split)


def draw(name: str, split: Split, seed: int, count: int) -> tuple[Item, ...]:
    """`count` distinct items of one split; a larger count begins with the same items.

    Raises DataError where fewer distinct items exist.
    """
    found: dict[str, Item] = {}
    misses = 0
    items = stream(name, split, seed)
    while len(found) < count:
        item = next(items)
        misses = misses + 1 if item.id in found else 0
        if misses > PATIENCE:
            raise DataError(
                f"generator {name!r} has about {len(found)} distinct {split} items, not {count}; ask for fewer"
            )
        found.setdefault(item.id, item)
    return tuple(found.values())


def _split(identity: str) -> Split:
    bucket = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") % 10
    if bucket == 0:
        return "test"
    return "calibration" if bucket == 1 else "train"
