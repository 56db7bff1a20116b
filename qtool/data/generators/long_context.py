"""A fact, or a chain of two or three, far back in a long text: a needle among distractors that are like it.

Lengths are 1,024 to 32,768 tokens (a token taken as four letters), all alike often; a slice for each. The text between
is made of plain sentences that answer nothing. The id covers the facts, the question, the length and the place; the
text between is left out of it.
"""

import functools
import itertools
import random
from collections.abc import Iterator

from qtool.records.task import Item

LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)
LETTERS_PER_TOKEN = 4
NAMES = (
    "Anna", "Omar", "Lucy", "Peter", "Nora", "Hugo", "Clara", "Ivan", "Rosa", "Felix", "Emma", "Oscar", "Julia",
    "Simon", "Laura", "David", "Maria", "Jonas", "Alice", "Victor", "Greta", "Pablo", "Irene", "Marcus",
)  # fmt: skip
CITIES = (
    "Oslo", "Rome", "Paris", "Berlin", "Madrid", "Vienna", "Lisbon", "Dublin", "Prague", "Athens", "Warsaw", "Cairo",
    "Tokyo", "Lima", "Quito", "Riga",
)  # fmt: skip
_SUBJECTS = ("the bus", "a tall woman", "the old dog", "an engineer", "the choir", "a red kite", "the baker's son",
             "the river", "a young crow", "the mayor", "a heavy cart", "the postman")  # fmt: skip
_VERBS = ("waited by", "passed", "looked at", "moved slowly along", "stood before", "turned away from", "came back to")
_PLACES = ("the fountain", "a low wall", "the station", "the closed shop", "an open gate", "the bridge",
           "a pile of wood", "the market", "the school", "a row of trees")  # fmt: skip
_TIMES = ("in the morning", "before the rain", "at noon", "when it was dark", "for a while", "without a word", "again")
_HANDED_ON = {2: ".", 3: ", and the person who got it handed it on."}
_PARAGRAPHS = 400
_SENTENCES = 6


def candidates(rng: random.Random) -> Iterator[Item]:
    """Endless questions, every length and kind in equal parts."""
    while True:
        yield _item(rng, rng.choice(LENGTHS), rng.choice(("needle", "two facts", "three facts")))


def _item(rng: random.Random, length: int, kind: str) -> Item:
    facts, question, target, choices = _needle(rng) if kind == "needle" else _chain(rng, hops=2 + (kind[:3] == "thr"))
    depth = rng.choice((10, 30, 50, 70, 90))
    paragraphs = _between(rng, length, sum(map(len, facts)) + len(question))
    for fact in facts[1:]:
        paragraphs.insert(rng.randint(0, len(paragraphs)), fact)
    paragraphs.insert(len(paragraphs) * depth // 100, facts[0])
    return Item(
        id=f"{question} {' '.join(sorted(facts))} {length} {depth}",
        fields=(("text", "\n".join(paragraphs)), ("question", question)),
        answer=f" {target}",
        target=target,
        slices=(("tokens", str(length)), ("kind", kind), ("depth", f"{depth} %")),
        choices=choices,
    )


def _needle(rng: random.Random) -> tuple[list[str], str, str, tuple[str, ...]]:
    """Door codes of six people, one of which is asked for: facts (the asked one first), question, answer, choices."""
    names = rng.sample(NAMES, 6)
    codes = [str(code) for code in rng.sample(range(10_000, 100_000), 6)]
    facts = [f"The door code of {name} is {code}." for name, code in zip(names, codes, strict=True)]
    return facts, f"What is the door code of {names[0]}?", codes[0], tuple(sorted(codes))


def _chain(rng: random.Random, *, hops: int) -> tuple[list[str], str, str, tuple[str, ...]]:
    """Who gave a parcel to whom, and where the last one lives; two other chains of the same form beside it."""
    names = iter(rng.sample(NAMES, 3 * hops))
    cities = rng.sample(CITIES, 3)
    facts, first = [], ""
    for city in cities:
        chain = [next(names) for _ in range(hops)]
        first = first or chain[0]
        facts += [f"{giver} handed the parcel to {taker}." for giver, taker in itertools.pairwise(chain)]
        facts.append(f"{chain[-1]} lives in {city}.")
    question = f"{first} handed over a parcel{_HANDED_ON[hops]} In which city does the person live who has it now?"
    return facts, question, cities[0], tuple(sorted(cities))


def _between(rng: random.Random, tokens: int, used: int) -> list[str]:
    """Paragraphs that answer nothing, so many that all together come to nine tenths of the length."""
    pool = _paragraphs()
    mean = sum(map(len, pool)) / len(pool) + 1
    return rng.choices(pool, k=max(1, round((0.9 * tokens * LETTERS_PER_TOKEN - used) / mean)))


@functools.cache
def _paragraphs() -> tuple[str, ...]:
    rng = random.Random(0)

    def sentence() -> str:
        parts = (rng.choice(_SUBJECTS), rng.choice(_VERBS), rng.choice(_PLACES), rng.choice(_TIMES))
        return " ".join(parts).capitalize() + "."

    return tuple(" ".join(sentence() for _ in range(_SENTENCES)) for _ in range(_PARAGRAPHS))
