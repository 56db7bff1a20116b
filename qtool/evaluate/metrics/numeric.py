"""Same number, within a tolerance.

What it does: 1 if the number that the answer gives is the target within `metric_options.tolerance` (absolute, 0 unless
given), else 0, in exact arithmetic: "12.50" is 12.5, "1/2" is 0.5, "0.1" is not 0.10000001. Answer and target are read
alike: signs, currencies, thousands in every common form, LaTeX, fractions, exponents, percent, words. Tells how it was
wrong: sign, scale (a power of ten: units or a lost point), cents (the whole part is right), or digits, with the places
of the wrong digits.
When to use it: sums, money, word problems.
What it costs: nothing.
When it fails: where an answer gives several numbers and marks none, it counts as unparsable; roots and other unfinished
expressions are not worked out; "1,234" is 1234 and "1.234" is 1.234 wherever the text comes from.
"""

from decimal import Decimal
from fractions import Fraction

from qtool.errors import DataError
from qtool.evaluate.answers import number as reader
from qtool.evaluate.answers.numerals import Numeral
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = True
PERFECT = 1.0
UNIT: Unit = "fraction"


def check(item: Item, task: TaskSpec) -> None:
    """Raises DataError where the target is no number."""
    if reader.number(item.target) is None:
        raise DataError(f"the target {item.target!r} is not a number; correct it, or use the metric exact")


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """0 or 1, with a note on the kind of error."""
    target = reader.number(item.target)
    if target is None:
        raise DataError(f"item {item.id!r}: the target {item.target!r} is not a number; use the metric exact")
    extracted = extract(task, item, answer)
    value = None if extracted is None else reader.number(extracted)
    if extracted is None or value is None:
        return Grade(score=0.0, extracted=extracted or "", parsed=False)
    if same(value, target, Fraction(str(task.metric_options.get("tolerance", 0)))):
        return Grade(score=1.0, extracted=extracted)
    notes = [("error", "digits")]
    if "/" not in value.exact + target.exact:
        got, wanted = Decimal(value.exact), Decimal(target.exact)
        notes = [("error", kind_of_error(got, wanted))]
        if places := wrong_places(got, wanted):
            notes.append(("wrong_digits", ",".join(places)))
    return Grade(score=0.0, extracted=extracted, notes=tuple(notes))


def same(value: Numeral, target: Numeral, tolerance: Fraction) -> bool:
    """Whether two numbers agree; a percent sign or cents on one side only may mean hundredths."""
    if value.unit == target.unit:
        return abs(value.value - target.value) <= tolerance
    return any(abs(mine - theirs) <= tolerance for mine in value.readings for theirs in target.readings)


def number(text: str) -> Decimal | None:
    """The number that `text` gives, as a decimal; None if it gives none that ends."""
    found = reader.number(text)
    return None if found is None or "/" in found.exact else Decimal(found.exact)


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
