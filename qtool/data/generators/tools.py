"""A request, a few tools with JSON schemas, and the call that answers it; in a fifth of the items no tool fits.

The id covers the request's tool and arguments, and which tools are offered. Half of the items with a fitting tool offer
one beside it that is like it (another direction, another unit), which only reading the descriptions tells apart.
"""

import functools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from qtool.records.task import Item

NAMES = ("Anna", "Omar", "Lucy", "Peter", "Nora", "Hugo", "Clara", "Ivan", "Rosa", "Felix", "Emma", "Oscar")
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
ROOMS = ("kitchen", "bedroom", "hall", "office", "garage", "cellar", "attic", "garden")
MONEY = ("USD", "EUR", "GBP", "JPY", "CHF", "SEK", "CAD")
GOODS = ("milk", "bread", "apples", "rice", "eggs", "soap", "candles", "cheese", "paper", "tea")
TONGUES = ("French", "German", "Spanish", "Polish", "Greek", "Turkish")
PHRASES = ("good morning", "where is the station", "thank you for your help", "see you tomorrow", "a table for two")


@dataclass(frozen=True)
class Tool:
    """A tool: what it does, its parameters by name, and requests that it answers, as templates over them."""

    does: str
    parameters: dict[str, str]
    requests: tuple[str, ...]
    like: str = ""


TOOLS = {
    "get_weather": Tool(
        "Weather forecast for a city on a day of this week.", {"city": "city", "day": "day"},
        ("What will the weather be like in {city} on {day}?", "Do I need an umbrella in {city} on {day}?"),
        like="get_air_quality",
    ),
    "get_air_quality": Tool(
        "Air quality index of a city on a day of this week.", {"city": "city", "day": "day"},
        ("How clean will the air be in {city} on {day}?", "Give me the air quality of {city} for {day}."),
        like="get_weather",
    ),
    "convert_currency": Tool(
        "Converts an amount of money from one currency into another.",
        {"amount": "amount", "source": "money", "target": "money"},
        ("How much is {amount} {source} in {target}?", "Convert {amount} {source} to {target}."),
    ),
    "set_alarm": Tool(
        "Sets an alarm that rings once.", {"hour": "hour", "minute": "minute"},
        ("Wake me at {hour}:{minute:02d}.", "Set an alarm for {hour}:{minute:02d}."), like="set_timer",
    ),
    "set_timer": Tool(
        "Starts a countdown of so many minutes.", {"minutes": "minutes"},
        ("Tell me when {minutes} minutes are over.", "Start a timer of {minutes} minutes."), like="set_alarm",
    ),
    "send_message": Tool(
        "Sends a text message to a person.", {"to": "name", "text": "phrase"},
        ('Send {to} the message "{text}".', 'Write "{text}" to {to}.'), like="call_person",
    ),
    "call_person": Tool(
        "Calls a person on the telephone.", {"name": "name"},
        ("Call {name}, please.", "I want to talk to {name} on the phone."), like="send_message",
    ),
    "set_light": Tool(
        "Switches the light of a room on or off.", {"room": "room", "on": "on"},
        ("Turn the light in the {room} {on}.", "Switch {on} the light in the {room}."), like="set_heating",
    ),
    "set_heating": Tool(
        "Sets the heating of a room, in degrees Celsius.", {"room": "room", "degrees": "degrees"},
        ("Heat the {room} to {degrees} degrees.", "Set the heating in the {room} to {degrees} degrees."),
        like="set_light",
    ),
    "add_to_list": Tool(
        "Adds things to the shopping list.", {"item": "goods", "count": "count"},
        ("Put {count} {item} on the shopping list.", "We need {count} {item}, note that down for shopping."),
        like="remove_from_list",
    ),
    "remove_from_list": Tool(
        "Takes a thing off the shopping list.", {"item": "goods"},
        ("Take {item} off the shopping list.", "We have enough {item}, strike it from the shopping list."),
        like="add_to_list",
    ),
    "translate": Tool(
        "Translates a phrase into another language.", {"phrase": "phrase", "language": "tongue"},
        ('How do you say "{phrase}" in {language}?', 'Translate "{phrase}" into {language}.'),
    ),
    "book_table": Tool(
        "Books a table in a restaurant of a city.", {"city": "city", "people": "count", "day": "day"},
        ("Book a table for {people} in {city} on {day}.", "On {day} {people} of us want to eat out in {city}."),
        like="book_room",
    ),
    "book_room": Tool(
        "Books a hotel room in a city for one night.", {"city": "city", "people": "count", "day": "day"},
        ("Book a hotel room for {people} in {city} on {day}.", "On {day} {people} of us need to sleep in {city}."),
        like="book_table",
    ),
}  # fmt: skip
SCHEMAS: dict[str, dict[str, object]] = {
    "city": {"type": "string"}, "name": {"type": "string"}, "phrase": {"type": "string"}, "goods": {"type": "string"},
    "room": {"type": "string"}, "day": {"type": "string", "enum": list(DAYS)},
    "money": {"type": "string", "enum": list(MONEY)}, "tongue": {"type": "string"}, "amount": {"type": "number"},
    "hour": {"type": "integer"}, "minute": {"type": "integer"}, "minutes": {"type": "integer"},
    "count": {"type": "integer"}, "degrees": {"type": "number"}, "on": {"type": "boolean"},
}  # fmt: skip


def candidates(rng: random.Random) -> Iterator[Item]:
    """Endless requests."""
    while True:
        yield _item(rng)


def _item(rng: random.Random) -> Item:
    name = rng.choice(tuple(TOOLS))
    tool, fits = TOOLS[name], rng.random() >= 0.2
    arguments = _arguments(rng, tool)
    alike = tool.like if tool.like and rng.random() < 0.5 else ""
    others = [other for other in TOOLS if other not in (name, tool.like)]
    offered = [name] * fits + [alike] * bool(alike and fits)
    offered += rng.sample(others, rng.randint(3, 4) - len(offered))
    rng.shuffle(offered)
    call: dict[str, object] = {"name": name, "arguments": arguments} if fits else {"name": "none", "arguments": {}}
    said = {key: ("on" if value else "off") if isinstance(value, bool) else value for key, value in arguments.items()}
    target = json.dumps(call)
    return Item(
        id=f"{name} {json.dumps(arguments)} of {' '.join(sorted(offered))}",
        fields=(
            ("question", rng.choice(tool.requests).format(**said)),
            ("tools", f"[{', '.join(map(_described, offered))}]"),
        ),
        answer=f" {target}",
        target=target,
        slices=(
            ("kind", "none fits" if not fits else "one like it" if alike else "one fits"),
            ("arguments", str(len(arguments)) if fits else "0"),
        ),
    )


def _arguments(rng: random.Random, tool: Tool) -> dict[str, str | int | float | bool]:
    """A value for each parameter, two currencies never alike."""
    values = {name: _value(rng, kind) for name, kind in tool.parameters.items()}
    if "source" in values:
        values["source"], values["target"] = rng.sample(MONEY, 2)
    return values


def _value(rng: random.Random, kind: str) -> str | int | float | bool:
    lists = {"city": CITIES, "name": NAMES, "day": DAYS, "room": ROOMS, "money": MONEY, "goods": GOODS,
             "tongue": TONGUES, "phrase": PHRASES}  # fmt: skip
    if kind in lists:
        return rng.choice(lists[kind])
    if kind == "on":
        return rng.random() < 0.5
    if kind == "amount":
        return rng.choice((rng.randint(2, 999), rng.randint(100, 99_999) / 100))
    ends = {"hour": (5, 23), "minute": (0, 59), "minutes": (2, 180), "count": (2, 12), "degrees": (15, 25)}
    return rng.randint(*ends[kind])


@functools.cache
def _described(name: str) -> str:
    properties = {key: SCHEMAS[kind] for key, kind in TOOLS[name].parameters.items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return json.dumps({"name": name, "description": TOOLS[name].does, "parameters": parameters})
