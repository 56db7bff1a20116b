"""Conversations of five turns: something is planned, changed and asked for at the end.

The last question is about what was said first, about what was changed, or about a sum over several turns. The id covers
what was said, not the words around it.
"""

import random
from collections.abc import Iterator

from qtool.records.task import Item

NAMES = (
    "Anna", "Omar", "Lucy", "Peter", "Nora", "Hugo", "Clara", "Ivan", "Rosa", "Felix", "Emma", "Oscar", "Julia",
    "Simon", "Laura", "David", "Maria", "Jonas", "Alice", "Victor",
)  # fmt: skip
CITIES = (
    "Oslo",
    "Rome",
    "Paris",
    "Berlin",
    "Madrid",
    "Vienna",
    "Lisbon",
    "Dublin",
    "Prague",
    "Athens",
    "Cairo",
    "Lima",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
EVENTS = ("dinner", "workshop", "concert", "meeting", "party", "lecture")
GOODS = ("chairs", "plates", "lamps", "tables", "glasses", "blankets")
KINDS = ("said first", "unchanged", "changed", "sum")


def candidates(rng: random.Random) -> Iterator[Item]:
    """Endless conversations, the four kinds in equal parts."""
    while True:
        yield _item(rng, rng.choice(KINDS))


def _item(rng: random.Random, kind: str) -> Item:
    event, goods = rng.choice(EVENTS), rng.choice(GOODS)
    name, helper, other = rng.sample(NAMES, 3)
    days, cities = rng.sample(DAYS, 2), rng.sample(CITIES, 2)
    counts = rng.sample(range(11, 60), 2)
    lost = rng.randint(2, 9)
    moved = rng.choice(("day", "city"))
    change = {
        "day": f"A change of plan: the {event} moves from {days[0]} to {days[1]}.",
        "city": f"A change of plan: the {event} is no longer in {cities[0]} but in {cities[1]}.",
    }[moved]
    fourth = f"Bad news: {lost} of the {goods} are broken." if kind == "sum" else change
    asked, target, choices = {
        "said first": (f"Who will open the {event}?", name, tuple(sorted((name, helper, other)))),
        "unchanged": (f"In which city is the {event}?", cities[0], CITIES)
        if moved == "day"
        else (f"On which day is the {event}?", days[0], DAYS),
        "changed": (f"On which day is the {event} now?", days[1], DAYS)
        if moved == "day"
        else (f"In which city is the {event} now?", cities[1], CITIES),
        "sum": (f"How many {goods} that are not broken do we have?", str(sum(counts) - lost), ()),
    }[kind]
    turns = {
        "user1": f"I am planning a {event}. {name} will open it, not {other}. Please keep that in mind.",
        "assistant1": f"I will keep in mind who opens the {event}.",
        "user2": f"It will be on {days[0]} in {cities[0]}.",
        "assistant2": "I have noted day and place.",
        "user3": f"We have {counts[0]} {goods}, and {helper} brings {counts[1]} more.",
        "assistant3": f"Good, the {goods} are on my list.",
        "user4": fourth,
        "assistant4": "Thank you, I have noted that.",
        "user5": f"{asked} Give only the answer.",
    }
    return Item(
        id=" ".join((event, goods, name, helper, *days, *cities, *map(str, counts), str(lost), moved, kind)),
        fields=tuple(turns.items()),
        answer=f" {target}",
        target=target,
        slices=(("kind", kind),),
        choices=choices,
    )
