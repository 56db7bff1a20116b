"""Where a text says that its answer comes: "the answer is", "Answer:", and their like in the larger languages."""

import re

_NOUN = r"(?:answers?|results?|solution|outputs?|ans|conclusion|final)"
_BEFORE = r"(?:(?:final|correct|right|best|exact|numeric(?:al)?|short|overall|my|the)\s+)*"
_ABOUT = r"(?:\s+(?:to|of|for|from|in|as)\s+[^.\n:=?!]{1,120}?)?"
_ADVERB = r"(?:,?\s*(?:then|therefore|thus|hence|so|indeed|clearly|actually|simply)\s*,?)?"
_VERB = (
    r"(?:\s(?:is|was|are|would\s+be|will\s+be|should\s+be|must\s+be|has\s+to\s+be|can\s+be|comes?\s+(?:out\s+)?to|becomes"
    r"|equals|turns\s+out\s+to\s+be|being)\b(?!\s+(?:not|n't|incorrect|wrong|correct\b(?!ly)|that\s+there\s+is\s+no)\b)\s*:?"
    r"|\s*(?::|=>|=|->|→|⇒))"
)
_ENGLISH = rf"\b{_BEFORE}{_NOUN}{_ABOUT}{_ADVERB}\s*(?:\([^)\n]{{0,30}}\))?{_VERB}"
_OTHERS = (
    r"答案(?:应该)?(?:是|为|:)|结果(?:是|为|:)|答えは|答え:|정답은|답은|답:|\b(?:die\s+)?antwort\s*(?:ist|lautet|:)"
    r"|\b(?:das\s+)?ergebnis\s*(?:ist|lautet|:)|\b(?:la\s+)?réponse\s*(?:est|:)|\b(?:la\s+)?respuesta\s*(?:es|:)"
    r"|\b(?:la\s+)?risposta\s*(?:è|:)|\b(?:a\s+)?resposta\s*(?:é|:)|\bответ\s*(?:—|-|:|это|равен)|उत्तर\s*(?:है|:)|الجواب\s*(?:هو|:)"
)
_SAID = re.compile(f"{_ENGLISH}|{_OTHERS}", re.IGNORECASE)
_LABEL_LINE = re.compile(rf"(?im)^\s*{_BEFORE}(?:answer|result|solution)\s*\n+")
_SENTENCE_END = re.compile(
    r"(?<!\bapprox)(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bNo)(?<!\bRs)(?<!\bMr)(?<!\bDr)[.!?](?=\s|[\"')\]]|$)|\n"
)
_ITEM_MARK = re.compile(r"\A\s*(?:\d{1,2}[.)]|[-•*])\s+(?=[A-Za-z])")
_CORRECTION = re.compile(
    r"\b(?:wait|actually|correction|sorry|apolog\w+|i made (?:a|an) (?:mistake|error)"
    r"|that(?:'s| is) (?:wrong|incorrect|not right)"
    r"|let me (?:re|correct|double)\w*|on second thought|scratch that|hold on|oops|hmm)\b",
    re.IGNORECASE,
)
_RESTATED = r"(?:(?:final|correct|right|actual|real)\s+)+"


def said(text: str) -> list[str]:
    """What follows each mark of an answer, up to the end of its sentence, in the order of the text.

    A text that takes an answer back is read from there on only, where it gives another.
    """
    later = _after_correction(text)
    return later or _regions(text)


def _regions(text: str) -> list[str]:
    ends = [found.end() for pattern in (_SAID, _LABEL_LINE) for found in pattern.finditer(text)]
    return [region for end in sorted(ends) if (region := sentence_at(text, end))]


def sentence_at(text: str, start: int) -> str:
    """From `start` to the end of its sentence; of the next line that is not blank, where this one ends there."""
    rest = text[start:].lstrip(" \t*:")
    rest = rest.lstrip("\n ") if not rest.partition("\n")[0].strip() else rest
    found = next((end for end in _SENTENCE_END.finditer(rest) if not _inside_number(rest, end.start())), None)
    return (rest[: found.start()] if found else rest).strip()


def sentences(text: str) -> list[str]:
    """The sentences of `text`; a line end ends one too."""
    parts, start = [], 0
    for found in _SENTENCE_END.finditer(text):
        if _inside_number(text, found.start()) or _list_number(text, start, found.start()):
            continue
        parts.append(text[start : found.start()])
        start = found.end()
    return [stripped for part in (*parts, text[start:]) if (stripped := _ITEM_MARK.sub("", part).strip())]


def _after_correction(text: str) -> list[str]:
    last = None
    for found in _CORRECTION.finditer(text):
        last = found
    if last is None:
        return []
    rest = text[last.start() :]
    given = re.search(r"\b(?:should|must|would)\s+be\b|\bit(?:'s| is)\b", rest, re.IGNORECASE)
    return _regions(rest) or ([sentence_at(rest, given.end())] if given else [])


def _inside_number(text: str, place: int) -> bool:
    return text[place : place + 1] == "." and text[place + 1 : place + 2].isdigit()


def _list_number(text: str, start: int, place: int) -> bool:
    """Whether the full stop at `place` only closes the number of a list item."""
    return (
        text[place : place + 1] == "."
        and bool(re.fullmatch(r"\s*\d{1,2}", text[start:place]))
        and text[place + 1 :].strip() != ""
    )
