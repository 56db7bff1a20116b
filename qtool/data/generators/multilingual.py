"""Small sums in words and capitals of countries in eight languages and six scripts.

Three quarters are sums, since there are only so many capitals. The id is the question itself, without the request for a
short answer, so a fact in one wording falls on one side of the split. Numbers are those after which Arabic and Russian
need no other form of the noun.
"""

import random
from collections.abc import Iterator

from qtool.data.generators._languages import LANGUAGES, Language
from qtool.records.task import Item

OPERATIONS = ("addition", "subtraction", "multiplication")


def candidates(rng: random.Random) -> Iterator[Item]:
    """Endless questions, every language in equal parts."""
    while True:
        name = rng.choice(tuple(LANGUAGES))
        yield (_sum if rng.random() < 0.75 else _fact)(rng, name, LANGUAGES[name])


def _sum(rng: random.Random, name: str, language: Language) -> Item:
    operation = rng.choice(OPERATIONS)
    if operation == "multiplication":
        a, b = rng.randint(11, 19), rng.randint(11, 30)
        value = a * b
    else:
        b, a = sorted(rng.sample(range(11, 100), 2))
        value = a + b if operation == "addition" else a - b
    question = language.sums[OPERATIONS.index(operation)].format(a=a, b=b)
    return _item(rng, language, question, str(value), (), (("language", name), ("kind", operation)))


def _fact(rng: random.Random, name: str, language: Language) -> Item:
    pairs = language.pairs()
    country, capital = rng.choice(pairs)
    kind = rng.choice(("capital", "country"))
    wording = rng.choice(language.capital if kind == "capital" else language.country)
    key, answer = (country, capital) if kind == "capital" else (capital, country)
    choices = tuple(sorted(pair[kind == "capital"] for pair in pairs))
    return _item(rng, language, wording.format(key=key), answer, choices, (("language", name), ("kind", kind)))


def _item(
    rng: random.Random, language: Language, question: str, answer: str, choices: tuple[str, ...],
    slices: tuple[tuple[str, str], ...],
) -> Item:  # fmt: skip
    brief = rng.choice(language.brief)
    return Item(
        id=f"{question} {brief}" if choices else question,
        fields=(("question", f"{question} {brief}"),),
        answer=f" {answer}",
        target=answer,
        slices=slices,
        choices=choices,
    )
