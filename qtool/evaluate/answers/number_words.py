"""Number words of English as digits: "forty-two apples" is "42 apples"."""

import re

_UNITS = {
    word: value
    for value, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ]
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2
    )
} | {"fourty": 40}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": 2,
    "halves": 2,
    "third": 3,
    "thirds": 3,
    "quarter": 4,
    "quarters": 4,
    "fourth": 4,
    "fourths": 4,
    "fifth": 5,
    "fifths": 5,
    "sixth": 6,
    "sixths": 6,
    "eighth": 8,
    "eighths": 8,
    "tenth": 10,
    "tenths": 10,
}
_WORD = "|".join(sorted((*_UNITS, *_TENS, *_SCALES), key=len, reverse=True))
_RUN = re.compile(
    rf"\b(?:(?:a|an)[ ]+(?=hundred|thousand|million|billion))?(?:{_WORD})(?:(?:[ -]|,[ ]|[ ]and[ ])(?:{_WORD}))*\b",
    re.IGNORECASE,
)
_POINT = re.compile(r"\b(\d+)[ ]point((?:[ ]\d)+)\b", re.IGNORECASE)
_PART = re.compile(rf"\b(\d+|a|an)[ -]({'|'.join(_PARTS)})\b(?![ -]of[ ]the\b)", re.IGNORECASE)
_HALF = re.compile(r"\b(\d+)[ ]and[ ](?:a|1)[ ](half|quarter|third)\b", re.IGNORECASE)
_ALONE = re.compile(r"\A\W*half\W*\Z", re.IGNORECASE)


def digits(text: str) -> str:
    """`text` with its number words written in digits; "one" alone only where no other number word is left."""
    runs = [found.group() for found in _RUN.finditer(text)]
    only_ones = all(run.lower() == "one" for run in runs)

    def written(found: re.Match[str]) -> str:
        if (
            found.group().lower() == "one"
            and not only_ones
            and not re.match(r"[ -](?:half|third|quarter|f|s|e|t)", text[found.end() :])
        ):
            return found.group()
        value = _value(re.findall(r"[a-z]+", found.group().lower()))
        return found.group() if value is None else str(value)

    text = _RUN.sub(written, text)
    text = _POINT.sub(lambda found: f"{found.group(1)}.{found.group(2).replace(' ', '')}", text)
    text = _HALF.sub(lambda found: f"{found.group(1)} 1/{_PARTS[found.group(2).lower()]}", text)
    text = _PART.sub(
        lambda found: (
            f"{1 if found.group(1).lower() in ('a', 'an') else found.group(1)}/{_PARTS[found.group(2).lower()]}"
        ),
        text,
    )
    text = re.sub(r"\b(?:a|an|one)\s+dozen\b", "12", text, flags=re.IGNORECASE)
    return re.sub("half", "1/2", text, flags=re.IGNORECASE) if _ALONE.match(text) else text


def _value(words: list[str]) -> int | None:
    """The number that `words` spell, None where they are several ("two three")."""
    total = group = 0
    last = "scale"
    for word in words:
        if word in ("a", "an"):
            group, last = 1, "unit"
        elif word == "and":
            continue
        elif word in _UNITS:
            if last == "unit" or (last == "tens" and not 0 < _UNITS[word] < 10):
                return None
            group, last = group + _UNITS[word], "unit"
        elif word in _TENS:
            if last in ("unit", "tens"):
                return None
            group, last = group + _TENS[word], "tens"
        elif word == "hundred":
            group, last = max(1, group) * 100, "scale"
        else:
            total, group, last = total + max(1, group) * _SCALES[word], 0, "scale"
    return total + group
