"""Numbers as they stand in a text: every common way of writing them, and what only looks like one."""

import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 60  # digits; a looping model writes thousands, and they are no number anybody asked for

_CURRENCY = r"(?:US|AU|CA|NZ|HK|A|C|R)?[$€£¥₹₽₩฿]|(?:USD|EUR|GBP|INR|JPY|CNY|RMB|CHF|AUD|CAD|Rs\.?)"
_CHUNK = re.compile(r"(?<![\d.])(?:\d+(?:[.,'_]\d+)*|\.\d+)")
_SPACED = re.compile(r"[ \u00a0\u2009\u202f]\d{3}(?!\d)(?![.,]\d{3})")
_EXPONENT = re.compile(r"[eE]([+-]?\d{1,4})(?![\w.]\d|\w)")
_POWER = re.compile(r"\s*(?:×|x|X|\*|·)\s*10\s*(?:\^|\*\*)\s*\(?\s*([+-]?\d{1,4})\)?")
_SCALE = re.compile(
    r"\s*-?(hundred|thousand|million|billion|trillion|lakh|crore|dozen|mn|bn)\b|(k|K|M|B|bn|mn|m)(?![\w/])"
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "lakh": 10**5,
           "crore": 10**7, "dozen": 12, "mn": 10**6, "bn": 10**9, "k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9,
           "m": 10**6}  # fmt: skip
_PERCENT = re.compile(r"\s*(?:%|percent\b|per\s+cent\b|pct\b)", re.IGNORECASE)
_CENTS = re.compile(r"\s*(?:¢|cents?\b)", re.IGNORECASE)
_DOLLARS_CENTS = re.compile(r"\s*(?:dollars?|euros?)\s*(?:and|,)?\s*(\d{1,2})\s*cents?\b", re.IGNORECASE)
_UNFINISHED = re.compile(
    r"(?:sqrt|√|\bsquare\s+root\s+of|\blog|\bln)\s*\(?\s*$", re.IGNORECASE
)  # worked out by nobody here
_LATIN = re.compile(r"[A-Za-zÀ-ɏͰ-ϿЀ-ӿ]")
_LABEL = re.compile(
    r"(?:\b(?:steps?|questions?|examples?|equations?|figure|chapter|page|part|section|problem|exercise|line|item|no\.|number(?=\s*\d+\s*[:.)])|"
    r"option|choice|room|phase|stage|case|method|way|tip|note)\s*#?|#)\s*\(?$",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:\bnot|n't|\brather\s+than|\binstead\s+of|\bunlike|\bneither|\bnor)\s+(?:be\s+|is\s+|equal\s+to\s+|just\s+)?$",
    re.IGNORECASE,
)
_WORD_SIGN = re.compile(r"\b(?:minus|negative)\s*$", re.IGNORECASE)
_LOSS = re.compile(r"\b(?:deficit|loss|debt|shortfall|negative|overdraft)\b[^.\n]{0,20}$", re.IGNORECASE)
_LEADS_NEGATIVE = re.compile(
    r"(?:\b(?:is|are|was|were|be|equals|to|of|by|get|gets|gives|yields|makes|at)|[=:(≈~<>→\[,;|])\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number in a text, at `start` to `end` with its sign and unit. `exact` is how it is written in plain digits;
    `unit` is "%" or "¢" where its value may also be meant as hundredths; `weak` numbers count only where nothing else
    does (ordinals, labels, what is ruled out); a `broken` one looks like a number and is none (dates, ranges)."""

    start: int
    end: int
    value: Fraction
    exact: str
    unit: str = ""
    weak: bool = False
    broken: bool = False

    @property
    def readings(self) -> frozenset[Fraction]:
        """The values it may stand for."""
        return frozenset({self.value, self.value / 100} if self.unit else {self.value})


def numerals(text: str) -> list[Numeral]:
    """Every number of `text`, in order, those that only look like one marked as broken."""
    found: list[Numeral] = []
    place = 0
    while (chunk := _CHUNK.search(text, place)) is not None:
        numeral = _numeral(text, chunk.start(), chunk.end(), found[-1] if found else None)
        place = max(chunk.end(), numeral.end if numeral else 0)
        if numeral is not None:
            found.append(numeral)
    return found


def value_of(chunk: str) -> tuple[Fraction, str] | None:
    """(value, plain digits) of digits with separators; None where they are a list, a version or too long."""
    if sum(letter.isdigit() for letter in chunk) > LONGEST:
        return None
    whole, point, part = _separated(chunk)
    if whole is None:
        return None
    plain = whole + (f".{part}" if point else "")
    return Fraction(plain if whole else f"0{plain}"), plain if whole else f"0{plain}"


def _separated(chunk: str) -> tuple[str | None, bool, str]:
    """Whole digits, whether there is a decimal point, the digits after it; None where the separators make no number."""
    marks = re.sub(r"\d", "", chunk)
    if not marks:
        return chunk, False, ""
    if chunk.startswith("."):
        return "", True, chunk[1:]
    last = max(chunk.rfind("."), chunk.rfind(","))
    kinds = set(marks)
    if kinds <= {"."} or kinds <= {","}:
        parts = chunk.split(marks[0])
        thousands = _grouped(parts, indian=marks[0] == ",")
        if len(parts) == 2 and not (thousands and marks[0] == ","):
            return parts[0], True, parts[1]
        return ("".join(parts), False, "") if thousands else (None, False, "")
    if last < 0:
        parts = re.split(r"['_ ]", chunk)
        loose = kinds == {"_"}
        return ("".join(parts), False, "") if loose or _grouped(parts) else (None, False, "")
    before, decimal, after = chunk[:last], chunk[last], chunk[last + 1 :]
    groups = re.split(r"[.,'_ ]", before)
    inner = set(re.sub(r"\d", "", before))
    if decimal in inner or len(inner) > 1:
        return None, False, ""
    return ("".join(groups), True, after) if _grouped(groups, indian=inner == {","}) else (None, False, "")


def _grouped(parts: list[str], *, indian: bool = False) -> bool:
    """Whether digit groups are thousands: three each after the first, or, as in India, two each and three at last."""
    first, rest = parts[0], parts[1:]
    if not rest or not first or first[0] == "0" or len(first) > 3 or len(rest[-1]) != 3:
        return False
    western = all(len(part) == 3 for part in rest)
    return western or (indian and len(first) <= 2 and all(len(part) == 2 for part in rest[:-1]))


def _numeral(text: str, start: int, end: int, before: Numeral | None) -> Numeral | None:
    if _attached(text, start):
        return None
    if _UNFINISHED.search(text[:start]) or re.match(r"\s*(?:π|pi\b)|[xyzn](?![A-Za-z])", text[end:]):
        return Numeral(start, end, Fraction(0), "", broken=True)
    fraction = _fraction(text, start, end)
    if fraction is not None:
        return _finished(text, start, *fraction)
    broken = _broken_end(text, start, end)
    if broken is not None:
        return Numeral(start, broken, Fraction(0), "", broken=True)
    chunk = text[start:end]
    if re.fullmatch(r"\d{1,3}", chunk) and not chunk.startswith("0"):
        while (group := _SPACED.match(text, end)) is not None:
            end = group.end()
        tail = re.compile(r"[.,]\d+").match(text, end) if " " in re.sub(r"\s", " ", text[start:end]) else None
        end = tail.end() if tail and not re.match(r"[.,]?\d", text[tail.end() :]) else end
    read = value_of(re.sub(r"\s", " ", text[start:end]))
    if read is None:
        return Numeral(start, end, Fraction(0), "", broken=True)
    value, exact, end = _scaled(text, *read, start, end)
    if value is None:
        return Numeral(start, end, Fraction(0), "", broken=True)
    return _finished(text, start, value, exact, end)


def _attached(text: str, start: int) -> bool:
    """Whether the digits hang on a word or a power: "km2", "x2", "10^5"."""
    previous = text[start - 1 : start]
    if previous == "^":
        return True
    if not _LATIN.match(previous or " "):
        return previous == "_"
    return re.search(rf"(?:^|[^A-Za-z])(?:{_CURRENCY})$", text[:start]) is None


def _fraction(text: str, start: int, end: int) -> tuple[Fraction, str, int] | None:
    """(value, digits, end) of "3/4", "3 1/2" or "3 and 1/2" at `start`."""
    found = re.compile(r"(\d{1,15})\s?/\s?(\d{1,15})(?![\d.,]*\d|/\d)").match(text, start)
    if found and int(found.group(2)) and not re.match(r"\s*=", text[found.end() :]):
        return _of(int(found.group(1)), int(found.group(2)), found.end())
    mixed = re.compile(r"(\d{1,12})(?:\s+and\s+|\s+|-)(\d{1,6})\s?/\s?(\d{1,6})(?![\d/])").match(text, start)
    if mixed and 0 < int(mixed.group(2)) < int(mixed.group(3)):
        whole, part, of = map(int, mixed.groups())
        return _of(whole * of + part, of, mixed.end())
    return None


def _of(numerator: int, denominator: int, end: int) -> tuple[Fraction, str, int]:
    value = Fraction(numerator, denominator)
    return value, plain_digits(value), end


def plain_digits(value: Fraction) -> str:
    """`value` as a decimal number where it ends, else as a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest, count = rest // prime, count + 1
        places = max(places, count)
    if rest != 1 or places > LONGEST:
        return f"{value.numerator}/{value.denominator}"
    scaled = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{scaled[:-places]}.{scaled[-places:]}"


def _broken_end(text: str, start: int, end: int) -> int | None:
    """Where a date, time, ratio or range that begins at `start` ends; None where none begins."""
    for pattern in (
        r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}(?!\d)",
        r"\d{1,3}(?::\d{1,3})+(?!\d)",
        r"\d+(?:[.,]\d+)*\s?[-–—]\s?\d+(?:[.,]\d+)*(?!\s*[=≈])(?![\d/])(?=\D|$)",
        r"\d+(?:[.,]\d+)*\s+to\s+[$€£]?\d+(?:[.,]\d+)*",
    ):
        found = re.compile(pattern).match(text, start)
        if found is None:
            continue
        if pattern.startswith(r"\d+") and re.search(r"(?:[-+*×x/÷−]\s*|=[^=\n]*[-+*×/÷]\s*)$", text[:start]):
            continue  # inside an expression: a subtraction
        if "–" not in found.group() and "-" in found.group() and " " in found.group():
            continue  # "10 - 15" is a subtraction
        return found.end()
    between = re.compile(r"\d+(?:[.,]\d+)*\s+and\s+[$€£]?\d+(?:[.,]\d+)*").match(text, start)
    if between and re.search(r"\bbetween\s+[$€£]?$", text[:start], re.IGNORECASE):
        return between.end()
    return None


def _scaled(text: str, value: Fraction, exact: str, start: int, end: int) -> tuple[Fraction | None, str, int]:
    """Value, digits and end with a power of ten, an exponent or a scale word taken in."""
    power = _EXPONENT.match(text, end) or _POWER.match(text, end)
    if power is not None:
        exponent = int(power.group(1))
        if abs(exponent) > LONGEST:
            return None, exact, power.end()
        value *= Fraction(10) ** exponent
        return value, plain_digits(value), power.end()
    ten = re.compile(r"\^\s*\(?([+-]?\d{1,3})\)?").match(text, end)
    if ten is not None:
        if value != 10 or abs(int(ten.group(1))) > LONGEST:
            return None, exact, ten.end()
        value = Fraction(10) ** int(ten.group(1))
        return value, plain_digits(value), ten.end()
    scale = _SCALE.match(text, end)
    if scale is not None and (scale.group(1) or _means_money(text, start, scale.group(2))):
        value *= _SCALES[scale.group(1) or scale.group(2)]
        return value, plain_digits(value), scale.end()
    return value, exact, end


def _means_money(text: str, start: int, letter: str) -> bool:
    return letter in ("k", "K", "bn", "mn") or re.search(rf"(?:{_CURRENCY})\s?$", text[:start]) is not None


def _finished(text: str, start: int, value: Fraction, exact: str, end: int) -> Numeral | None:
    """The numeral with sign, unit and standing."""
    if re.match(r"-[A-Za-z]", text[end:]) and not re.match(r"-(?:hundred|thousand|million)", text[end:]):
        return Numeral(start, end, value, exact, weak=True)  # "a 3-digit number"
    dollars = _DOLLARS_CENTS.match(text, end)
    if dollars is not None and value.denominator == 1:
        value += Fraction(int(dollars.group(1)), 100)
        exact, end = plain_digits(value), dollars.end()
    unit = ""
    for mark, pattern in (("%", _PERCENT), ("¢", _CENTS)):
        if not dollars and (found := pattern.match(text, end)):
            unit, end = mark, found.end()
    negative, begin = _sign(text, start, end)
    if negative and value:
        value, exact = -value, f"-{exact}"
    ordinal = re.match(r"(?:st|nd|rd|th)\b", text[end:]) is not None
    listed = re.match(r"[.)]\s+\S", text[end:]) is not None and _is_list_mark(text, begin, exact)
    weak = ordinal or listed or _LABEL.search(text[:begin]) is not None or _NEGATED.search(text[:begin]) is not None
    weak = weak or re.search(r"±\s*$", text[:begin]) is not None
    return Numeral(begin, end, value, exact, unit, weak=weak)


def _is_list_mark(text: str, begin: int, exact: str) -> bool:
    """Whether a number at the start of a line, with a full stop or bracket after it, counts the items of a list."""
    line = text[text.rfind("\n", 0, begin) + 1 : begin]
    if line.strip() or not exact.isdigit() or len(exact) > 2:
        return False
    others = {found.group(1) for found in re.finditer(r"(?m)^\s*(\d{1,2})[.)]\s+\S", text)}
    return str(int(exact) - 1) in others or str(int(exact) + 1) in others or exact == "1"


def _sign(text: str, start: int, end: int) -> tuple[bool, int]:
    """(whether the number is negative, where it begins with its sign and currency)."""
    begin, before = start, text[:start]
    currency = re.search(rf"(?:{_CURRENCY})\s?$", before)
    if currency:
        begin, before = currency.start(), before[: currency.start()]
    attached = re.search(rf"(?:({_CURRENCY})\s?)?[-–−]$", before)
    if attached and not (attached.group(1) and currency):
        head = before[: attached.start()]
        if not re.search(r"[\w)\]%]$", head) and (not re.search(r"\d\s+$", head) or attached.group(1)):
            return True, attached.start()
    spaced = re.search(r"[-–]\s+$", before)
    if spaced:
        head = before[: spaced.start()]
        bullet = not head.rpartition("\n")[2].strip() and len(re.findall(r"(?m)^\s*[-–]\s", text)) > 1
        if not bullet and (not head.strip() or _LEADS_NEGATIVE.search(head)):
            return True, spaced.start()
    if word := _WORD_SIGN.search(before):
        head = before[: word.start()]
        if not re.search(r"[\d)%]\s*$", head):
            return True, word.start()
    if re.search(r"\(\s*$", before) and re.match(r"\s*\)", text[end:]) and (currency or _LOSS.search(before)):
        return True, begin
    return False, begin
