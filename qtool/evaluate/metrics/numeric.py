"""Same number, within a tolerance.

What it does: 1 if the extracted number is the target within `metric_options.tolerance` (absolute, 0 unless given), else
0, in decimal arithmetic: "12.50" is 12.5, "0.1" is not 0.10000001. Tells how it was wrong: sign, scale (a power of ten:
units or a lost point), cents (the whole part is right), or digits, with the places of the wrong digits.
When to use it: sums, money, word problems.
What it costs: nothing.
When it fails: on numbers in words, fractions, or with a comma for the decimal point.
"""

from decimal import Decimal, InvalidOperation

from qtool.errors import DataError
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = True
PERFECT = 1.0
UNIT: Unit = "fraction"

_LONGEST = 60  # digits; a looping model writes thousands, and they are no number anybody asked for


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """0 or 1, with a note on the kind of error."""
    target = number(item.target)
    if target is None:
        raise DataError(f"item {item.id!r}: the target {item.target!r} is not a number; use the metric exact")
    extracted = extract(task, answer.text)
    value = None if extracted is None else number(extracted)
    if extracted is None or value is None:
        return Grade(score=0.0, extracted=extracted or "", parsed=False)
    tolerance = Decimal(str(task.metric_options.get("tolerance", 0)))
    if abs(value - target) <= tolerance:
        return Grade(score=1.0, extracted=extracted)
    notes = [("error", kind_of_error(value, target))]
    if places := wrong_places(value, target):
        notes.append(("wrong_digits", ",".join(places)))
    return Grade(score=0.0, extracted=extracted, notes=tuple(notes))


def number(text: str) -> Decimal | None:
    """`text` as a decimal number, thousands separators and currency signs left aside; None if it is none."""
    plain = text.strip().strip("$€£%").replace(",", "").strip()
    if not plain or len(plain) > _LONGEST:
        return None
    try:
        value = Decimal(plain)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def kind_of_error(value: Decimal, target: Decimal) -> str:
    """sign, scale, cents or digits: the first of these that explains the difference."""
    if value == -target:
        return "sign"
    if value and target and abs(value).normalize().as_tuple().digits == abs(target).normalize().as_tuple().digits:
        return "scale"
    if target != target.to_integral_value() and int(value) == int(target):
        return "cents"
    return "digits"


def wrong_places(value: Decimal, target: Decimal) -> tuple[str, ...]:
    """Powers of ten at which the digits differ, such as ("10^0", "10^2"); the longer number counts its extra digits."""
    places: set[int] = set()
    digits = [_digits(value), _digits(target)]
    for place in range(min(min(d, default=0) for d in digits), max(max(d, default=0) for d in digits) + 1):
        if digits[0].get(place, 0) != digits[1].get(place, 0):
            places.add(place)
    return tuple(f"10^{place}" for place in sorted(places))


def _digits(value: Decimal) -> dict[int, int]:
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int), "checked finite"
    return {exponent + index: digit for index, digit in enumerate(reversed(digits))}
