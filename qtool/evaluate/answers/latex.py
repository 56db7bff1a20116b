"""Mathematical answers in LaTeX: the boxed part of a text, and one form for the many ways to write a value."""

import re

_DROPPED = re.compile(
    r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|mathrm|,|;|:|!| )|\\\$|\$|\\%|%"
    r"|\^\s*\{?\s*\\circ\s*\}?|\\degree"
)
_UNIT = re.compile(r"\\(?:text|mbox)\s*\{\s*(?:[a-zA-Z]+(?:\^?\d)?\s*)+\.?\}(?:\^\{?\d\}?)?\s*$")
_TEXT = re.compile(r"\\(?:text|textbf|mbox|mathbf)\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\frac\s*(\d)\s*(\d)|\\frac\s*(\d)\s*\{([^{}]+)\}|\\frac\s*\{([^{}]+)\}\s*(\d)")
_SLASH = re.compile(r"(-?)\s*(\d+)\s*/\s*(\d+)")
_ROOT = re.compile(r"\\sqrt\s*(\d|[a-z])")
_NAME = re.compile(r"^\s*[a-zA-Z](?:\([a-zA-Z]\))?\s*=\s*")
_BOX = re.compile(r"\\f?boxed\s*\{")


def last_box(text: str) -> str | None:
    """What stands in the last \\boxed of `text`, braces inside kept; None where there is none that closes."""
    for start in reversed([found.end() for found in _BOX.finditer(text)]):
        depth = 1
        for place in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[start:place].strip()
    return None


def parts(value: str) -> tuple[str, tuple[str, ...]]:
    """Bracket and normal form of each part of `value`: ("(", ("1", "2")) of a pair, ("", ("2", "3")) of a list in no
    order, ("", ("x",)) of one value."""
    text = normal(value)
    opening, closing = text[:1], text[-1:]
    if opening in "([" and closing in ")]" and opening and "," in text and _is_closed(text[1:-1]):
        return f"{opening}{closing}", tuple(_split(text[1:-1]))
    inside = text.removeprefix("\\{").removesuffix("\\}")
    return "", tuple(sorted(_split(inside))) if "," in inside else (inside,)


def normal(value: str) -> str:
    """`value` without what does not change it: spaces, dollars, units, `x =`, other forms of fractions and roots."""
    text = value.strip().rstrip(".").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\u2212", "-")
    text = re.sub(r"(?<=\d),\\!(?=\d{3})|(?<=\d),(?=\d{3}(?!\d))(?<!\d{4},)", "", text)
    text = _UNIT.sub("", text) if _UNIT.sub("", text).strip() else text
    text = _TEXT.sub(r"\1", _DROPPED.sub("", text))
    text = _NAME.sub("", text)
    text = _SHORT_FRACTION.sub(_fraction, text)
    text = _SLASH.sub(r"\1\\frac{\2}{\3}", text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    return re.sub(r"\s+", "", text)


def _fraction(found: re.Match[str]) -> str:
    above, below = (part for part in found.groups() if part is not None)
    return f"\\frac{{{above}}}{{{below}}}"


def _split(text: str) -> list[str]:
    """`text` at its commas, those inside of brackets apart."""
    found, depth = [""], 0
    for letter in text:
        depth += {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def _is_closed(text: str) -> bool:
    """Whether no bracket of `text` closes one from outside, as in `(1,2)(3,4)`."""
    depth = 0
    for letter in text:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(letter, 0)
        if depth < 0:
            return False
    return True
