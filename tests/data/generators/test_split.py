"""The split: test items are nobody else's, draws repeat, spaces end with a clear error."""

import itertools
import random
from collections import Counter

import pytest

from qtool import catalog
from qtool.data import generators
from qtool.errors import DataError, UnknownName
from qtool.evaluate.items.tasks import load_task

NAMES = catalog.names("qtool.data.generators")


@pytest.mark.parametrize("name", NAMES)
def test_every_item_has_exactly_one_split_and_the_shares_are_as_promised(name: str) -> None:
    counts = Counter(generators.split_of(item) for item in itertools.islice(_fresh(name), 2000))
    assert set(counts) == {"test", "calibration", "train"}
    assert 0.06 < counts["test"] / 2000 < 0.14  # 4,000 draws of one in ten, some ids drawn more than once
    assert counts["train"] > 0.72 * 2000


@pytest.mark.parametrize("name", NAMES)
def test_test_items_never_occur_in_a_long_training_stream(name: str) -> None:
    tested = {item.id for item in generators.draw(name, "test", load_task(name).seed, 300)}
    trained = {item.id for item in itertools.islice(generators.stream(name, "train", 0), 2500)}
    watched = {item.id for item in generators.draw(name, "calibration", 0, 200)}
    assert not tested & trained
    assert not tested & watched
    assert not trained & watched


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_items_and_a_larger_count_begins_alike(name: str) -> None:
    few, many = generators.draw(name, "test", 5, 40), generators.draw(name, "test", 5, 90)
    assert few == generators.draw(name, "test", 5, 40)
    assert few == many[:40]
    assert len({item.id for item in many}) == 90
    assert many != generators.draw(name, "test", 6, 90)


@pytest.mark.parametrize("name", NAMES)
def test_the_task_has_as_many_items_as_its_file_asks_for(name: str) -> None:
    task = load_task(name)
    items = generators.draw(name, "test", task.seed, task.items)
    assert {generators.split_of(item) for item in items} == {"test"}
    assert set(task.slices) <= {key for key, _ in items[0].slices} | {"carries"}


def test_the_hash_covers_what_is_asked_not_how() -> None:
    swapped = Counter(
        item.id for item in itertools.islice(_fresh("arithmetic"), 3000) if ("operation", "addition") in item.slices
    )
    assert all(int(left) <= int(right) for left, _, right in (key.split(" ") for key in swapped))


def test_the_split_does_not_change_between_versions() -> None:
    items = generators.draw("arithmetic", "test", 20261123, 3)
    assert [item.id for item in items] == ["5 * 439", "5% * 636", "5 + 8"]


def test_more_items_than_exist_are_refused_with_the_number_there_is() -> None:
    with pytest.raises(DataError, match=r"'facts' has about 5[0-9][0-9] distinct test items, not 100000"):
        generators.draw("facts", "test", 0, 100_000)


def test_an_unknown_generator_is_named_with_its_neighbours() -> None:
    with pytest.raises(UnknownName, match="arithmetic"):
        generators.load("arithmetics")


def _fresh(name: str) -> itertools.chain:
    rng = random.Random(11)
    return itertools.chain.from_iterable(generators.load(name).candidates(rng) for _ in itertools.count())
