"""The number that a text gives as its answer."""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

from qtool.evaluate.answers import marks, number_words
from qtool.evaluate.answers.numerals import Numeral, numerals
from qtool.evaluate.answers.plain import bold, boxed, plain, unmarked

_FENCE = re.compile(r"(?ms)^[ \t]*(```|~~~)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)")
_FILLERS = (
    r"(?:a|an|the|about|approximately|approx\.?|around|roughly|nearly|almost|exactly|precisely|just|only|simply|equal|equals|to|that|of|"
    r"total|sum|number|value|amount|amounts|price|cost|be|is|it|it's|she|he|they|there|are|will|would|has|have|now|then|option|say|so|as|follows|following|thus|"
    r"in|x|y|n|USD|EUR|GBP|INR)"
)
_DIRECT = re.compile(rf"^(?:{_FILLERS}\b|[\s:=≈~<>$€£¥₹('\"\[→,*+-]|[-–−])*$", re.IGNORECASE)
_OPERATION = re.compile(
    r"\s*(?:[×x*/÷+]|[-–−](?=\s)|\bplus\b|\bminus\b|\btimes\b|\bdivided\s+by\b|\bmultiplied\s+by\b|\^)\s*[($]*\s*$",
    re.IGNORECASE,
)
_TAIL = re.compile(
    r"[,;(]?\s*\b(?:because|since|which|rather\s+than|instead\s+of|not(?!\s+(?:including|counting))|out\s+of|but\s+not|so\s+that"
    r"|given\s+that|for\s+a\s+total)\b"
    r"|[,;(]\s*(?:where|who|as\s+(?:it|the|we|you|there)|rounded|rounding|when|if|after|compared)\b|\s[–—]\s(?![\d$€£(])",
    re.IGNORECASE,
)
_WORKED = re.compile(
    r"\b(?:add|subtract|multipl|divid|sum|product|times|plus|minus|taking|combin)\w*\b[^=]*?,?\s*which\s+(?:is|equals|gives|makes|comes\s+to|results\s+in)\s+",
    re.IGNORECASE,
)
_SO = re.compile(
    r"(?:[,;]\s*(?:and\s+)?|\s)(?:so|therefore|thus|hence|which\s+leaves|leaving)(?:\s+that|,)?\s+(?!far\b|much\b|many\b)",
    re.IGNORECASE,
)
_SUMMED = re.compile(
    r"(?:\bi\.?e\.?,?|\bthat\s+is,?|\bnamely,?|\b(?:for|making|giving|with)?\s*a\s+(?:grand\s+)?total\s+of|\bwhich\s+(?:totals|makes|is\s+a\s+total\s+of))\s+[$€£]?(?=[-\d.])",
    re.IGNORECASE,
)
_IN_ALL = re.compile(
    r"\s*(?:[a-z]+\s+){0,2}(?:in\s+all|in\s+total|altogether|all\s+together|in\s+sum)\b", re.IGNORECASE
)
_UNSURE = re.compile(r"\bbut\s+(?:it|that|this)\s+(?:could|might|may)\b", re.IGNORECASE)
_CLOSING = re.compile(
    r"\b(?:let\s+me\s+know|feel\s+free|hope\s+(?:this|that)\s+helps|if\s+you\s+have\s+any|any\s+(?:other|more|further)\s+questions?|anything\s+else|would\s+you\s+like)\b",
    re.IGNORECASE,
)
_HEAD = re.compile(
    r"^\s*(?:since|because|if|when|after|given|as|with|by|for|of|from|out\s+of|starting|before)\b[^,]*,\s+",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"^\W*(?:(?:and|but)\s+)?(?:so|therefore|thus|hence|finally|in\s+total|altogether|in\s+all|overall|in\s+conclusion|in\s+summary|this\s+means|that\s+means|which\s+means|"
    r"consequently|as\s+a\s+result|we\s+get|we\s+have|we\s+find|this\s+gives|that\s+gives|this\s+leaves|now,?|the\s+total|the\s+final|the\s+sum|the\s+product|the\s+difference|∴)\b|^\W*∴",
    re.IGNORECASE,
)
_COPULA = (
    r"(?:\b(?:is|are|was|were|equals?|be|becomes?|makes?|gives?|yields?|totals?|costs?|gets?|got|has|have|had|leaves?|left\s+with|remain(?:s|ing)?|pays?|paid|earns?|earned|"
    r"receives?|owes?|needs?|sells?|buys?|ends?\s+up\s+with|comes?\s+(?:out\s+)?to|amounts?\s+to|adds?\s+up\s+to|increases?\s+to|works?\s+out\s+(?:to|at|as)|result(?:s|ing)?\s+in)\b|'s\b|[=≈→])"
)
_AFTER_COPULA = re.compile(
    rf"{_COPULA}(?=(?:\s+(?:{_FILLERS}|a\s+total\s+of|left|still))*[\s:=≈~$€£(]*(?:-|–|−|minus|negative)?\s*[$€£¥₹]?\s*\.?\d)",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"\b(?:after|in|within|for|over|per|during|every|each|at|by|on|from|than|of|with|before|every|times|until|since)\s+(?:the\s+|all\s+|about\s+|another\s+|these\s+|those\s+|only\s+)*[$€£]?\s*$",
    re.IGNORECASE,
)
_REVERSED = re.compile(
    r"\b(?:is|was|would\s+be|must\s+be|should\s+be)\s+(?:therefore\s+|thus\s+)?(?:the|my|our|your)\s+(?:final\s+|correct\s+|right\s+)*(?:answer|result|solution)\b|\bis\s+(?:correct|right)\b",
    re.IGNORECASE,
)
_BARE_LABEL = re.compile(r"^[^\d\n]{0,60}?[:=≈]\s*[^\d\n]{0,6}$|^[^\w\n]*$|^\s*[a-zA-Z]\s*[=≈]\s*\W*$")
_NOT_LABELS = re.compile(
    r"\b(?:confidence|certainty|step|note|check|verif\w*|source|page|points?|score|date|id|item|example|probability|given|where|let|version)\b",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"^\s*(?:\([^)]*\)\s*)?,?\s*(?:or|and/or)\s+(?:(?:maybe|perhaps|possibly|about|even)\s+)?[$€£]?$", re.IGNORECASE
)


class Unsettled(Exception):
    """The text marks an answer and gives none that can be told: a range, or one of two."""


def number(text: str, *, question: str = "", complete: bool = True) -> Numeral | None:
    """The number that `text`, a completion without its thinking, gives as the answer; None where it can't be told.

    Numbers that only repeat the `question` give way to those that do not. Of a text that is not `complete` only what
    it marks as its answer counts: it was still under way.
    """
    try:
        return _read(_outside_code(text), question, complete) if text.strip() else None
    except Unsettled:
        return None


def _read(text: str, question: str, complete: bool) -> Numeral | None:
    marks_kept = plain(text)
    asked = {value for each in numerals(plain(question)) if not each.broken for value in each.readings}
    for inside in reversed(boxed(marks_kept)):
        if (found := _region(unmarked(inside), asked)) is not None:
            return found
    clean = unmarked(marks_kept)
    for region in reversed(marks.said(clean)):
        if (found := _region(region, asked)) is not None:
            return found
    parts = [part for part in marks.sentences(clean) if _CLOSING.search(part) is None]
    if not complete:
        return _reversed_mark(parts) or _bare(clean.strip().partition("\n")[0] if "\n" in clean.strip() else "")
    stages: tuple[Callable[[], Numeral | None], ...] = (
        lambda: _reversed_mark(parts),
        lambda: _bold(marks_kept),
        lambda: _bare(clean),
        lambda: _concluded(parts, asked),
        lambda: _only(_counted("\n".join(parts)), asked),
        lambda: _narrated(parts, asked),
    )
    return next((found for stage in stages if (found := stage()) is not None), None)


def _outside_code(text: str) -> str:
    """`text` without fenced blocks, unless numbers stand only there."""
    outside = _FENCE.sub("\n", text)
    return outside if _counted(plain(outside)) else _FENCE.sub(lambda found: found.group(2), text)


def _counted(text: str) -> list[Numeral]:
    """The numbers of `text` that may be its answer; words count where there are no digits."""
    found = numerals(text)
    if not found:
        found = numerals(number_words.digits(text))
    whole = [each for each in found if not each.broken]
    strong = [each for each in whole if not each.weak]
    return strong or whole


def _region(region: str, asked: set[Fraction]) -> Numeral | None:
    """The number that a marked region gives. Raises Unsettled where it gives a range, or one of two."""
    if not numerals(region):
        region = number_words.digits(region)
    found = numerals(region)
    if not found:
        return None
    first = next((each for each in found if not each.weak), found[0])
    direct = _DIRECT.match(region[: first.start]) is not None
    if first.broken:
        if direct:
            raise Unsettled
        return _sentence(region, asked)
    if not direct:
        return _sentence(region, asked)
    rest = [each for each in found if each.start >= first.end]
    if rest and _OPERATION.match(region[first.end : rest[0].start]):
        return _sentence(region, set())
    if re.match(r"\s*[=≈]\s*", region[first.end :]) and rest:
        return _sentence(region, set())
    if (
        rest
        and not rest[0].broken
        and _HEDGE.match(region[first.end : rest[0].start])
        and not first.readings & rest[0].readings
    ):
        raise Unsettled
    if _compound(region, first, rest) or _list_of(region, first, rest):
        raise Unsettled
    return first


def _compound(region: str, first: Numeral, rest: Sequence[Numeral]) -> bool:
    """ "3 hours and 20 minutes", "5 feet 7 inches": one quantity in two units, which is neither number."""
    units = (
        r"(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|m|feet|foot|pounds?|lbs?|kg|km|met(?:re|er)s?)"
    )
    return (
        bool(rest)
        and re.fullmatch(rf"\s*{units}\.?,?\s*(?:and\s+)?", region[first.end : rest[0].start], re.IGNORECASE)
        is not None
    )


def _list_of(region: str, first: Numeral, rest: Sequence[Numeral]) -> bool:
    """ "40, 41 and 42": bare numbers one after the other."""
    if not rest or rest[0].broken:
        return False
    return (
        re.fullmatch(r"\s*(?:,|;|&|,?\s+and)\s*", region[first.end : rest[0].start]) is not None
        and not first.readings & rest[0].readings
    )


def _sentence(sentence: str, asked: set[Fraction]) -> Numeral | None:
    """What one sentence comes to: after its last "=", after its verb, or its only number; None where unclear."""
    clause = _last_clause(sentence)
    summed = list(_SUMMED.finditer(clause))
    if summed and (totals := _counted(clause[summed[-1].start() :])):
        return totals[0]
    outside = re.sub(r"(?<![=≈])(?<![=≈] )\([^()]*\)", lambda inside: " " * len(inside.group()), clause)
    text = outside if _counted(outside) else clause
    worked = _WORKED.search(text)
    if worked and (results := _counted(text[worked.end() :])):
        return results[0]
    text = _main_clause(text)
    text = text if numerals(text) else number_words.digits(text)
    found = _counted(text)
    if not found:
        return None
    equal = max(text.rfind("="), text.rfind("≈"))
    if equal >= 0:
        after = [each for each in found if each.start > equal]
        if not after:
            return None
        if len(after) == 1 or not _OPERATION.match(text[after[0].end : after[1].start]):
            return after[0]
    return _one(found) or _told(text, found, asked)


def _last_clause(sentence: str) -> str:
    """What follows the last "so" of a sentence, where it gives a number."""
    clauses = list(_SO.finditer(sentence))
    if clauses and _counted(sentence[clauses[-1].end() :]) and _SO.sub("", sentence[: clauses[-1].start()]).strip():
        return sentence[clauses[-1].end() :]
    return sentence


def _main_clause(text: str) -> str:
    """`text` without its reasons and conditions, where a number is left."""
    for tail in _TAIL.finditer(text):
        before = text[: tail.start()]
        if _counted(before) and not before.rstrip().endswith("="):
            text = before
            break
    head = _HEAD.match(text)
    return text[head.end() :] if head and _counted(text[head.end() :]) else text


def _told(text: str, found: Sequence[Numeral], asked: set[Fraction]) -> Numeral | None:
    """The number that a sentence with several gives: as a sum, after its verb, or outside of its phrases."""
    results = [each for each in found if not _in_operation(text, each, found)]
    if _UNSURE.search(text):
        return None
    if whole := [each for each in results if _IN_ALL.match(text[each.end :])]:
        return _one(whole)
    verbs = [
        next((each for each in results if each.start >= verb.end() and _near(text, verb.end(), each)), None)
        for verb in _AFTER_COPULA.finditer(text)
    ]
    told = [each for each in verbs if each is not None]
    if told and (len({each.value for each in told}) == 1 or _CUE.match(text)):
        return None if _one_of_two(text, told[-1], results, asked) else told[-1]
    if told:
        return _only(told, asked)
    free = [each for each in results if _PHRASE.search(text[: each.start]) is None]
    return _one(free) or _only(results, asked)


def _one_of_two(text: str, told: Numeral, results: Sequence[Numeral], asked: set[Fraction]) -> bool:
    """Whether `told` is only the first of two things counted: "7 apples and 3 oranges"."""
    following = next((each for each in results if each.start >= told.end), None)
    if following is None or following.value in asked or _CUE.match(text):
        return False
    return re.fullmatch(r"\s+(?:\w+\s+){1,2}and\s+", text[told.end : following.start]) is not None


def _near(text: str, start: int, each: Numeral) -> bool:
    return (
        re.fullmatch(
            rf"(?:\s+(?:{_FILLERS}|a\s+total\s+of|left|still))*[\s:=≈~$€£(]*", text[start : each.start], re.IGNORECASE
        )
        is not None
    )


def _in_operation(text: str, each: Numeral, found: Sequence[Numeral]) -> bool:
    """Whether `each` is an operand: what stands between it and a neighbour is an arithmetic sign."""
    place = found.index(each)
    before = place > 0 and _OPERATION.match(text[found[place - 1].end : each.start]) is not None
    after = place + 1 < len(found) and _OPERATION.match(text[each.end : found[place + 1].start]) is not None
    return before or after


def _one(found: Sequence[Numeral]) -> Numeral | None:
    """The last of `found` where all are one value."""
    return found[-1] if found and all(each.readings & found[-1].readings for each in found) else None


def _only(found: Sequence[Numeral], asked: set[Fraction]) -> Numeral | None:
    """The only number, or the only one that the question does not hold already."""
    return _one(found) or _one([each for each in found if not each.readings & asked])


def _reversed_mark(parts: Sequence[str]) -> Numeral | None:
    """ "42 is the answer"."""
    for part in reversed(parts):
        found = _REVERSED.search(part)
        if found and (before := _counted(part[: found.start()])):
            return before[-1]
    return None


def _bold(text: str) -> Numeral | None:
    """The number in bold, where there is one only, or one only in the last line."""
    for part in (text, _last_line(text)):
        found = []
        for inside, following in bold(part):
            label = inside.rstrip().endswith(":") or following == ":" or _NOT_LABELS.search(inside)
            if not label and (numbers := _counted(inside)):
                value = numbers[0] if len(numbers) == 1 else _sentence(inside, set())
                found += [] if value is None else [value]
        if found and _one(found):
            return found[-1]
    return None


def _bare(text: str) -> Numeral | None:
    """The number of a line that holds nothing else: the last line, else the first."""
    lines = [line.strip() for line in text.split("\n") if re.search(r"\w", line)]
    for line in (lines[-1:] + lines[:1]) if lines else []:
        found = numerals(line) or numerals(line := number_words.digits(line))
        if len(found) != 1 or found[0].broken or (found[0].weak and len(lines) > 1):
            continue
        before, after = line[: found[0].start], line[found[0].end :]
        units = re.fullmatch(
            r"\s*(?:st|nd|rd|th)?\s*[^\d\s.,;:=]*(?:\s*[/^]?\s*[^\d\s.,;:=]+){0,3}\d?\s*[.!?,;:)\]\"'*]*\s*", after
        )
        if units and _BARE_LABEL.match(before) and not _NOT_LABELS.search(before):
            return found[0]
    return None


def _concluded(parts: Sequence[str], asked: set[Fraction]) -> Numeral | None:
    """The number of the last sentence that draws a conclusion."""
    for part in reversed(parts):
        if _CUE.match(part) and (found := _sentence(part, asked)) is not None:
            return found
    return None


def _narrated(parts: Sequence[str], asked: set[Fraction]) -> Numeral | None:
    """What the last sentence with a number comes to, where it says so with a verb or an equals sign."""
    for part in reversed(parts):
        found = _counted(part)
        if not found:
            continue
        told = _sentence(part, asked)
        verbal = "=" in part or _AFTER_COPULA.search(part) is not None
        return told if told is not None and (verbal or len(parts) == 1) else None
    return None


def _last_line(text: str) -> str:
    lines = [line for line in text.split("\n") if re.search(r"\w", line)]
    return lines[-1] if lines else ""
