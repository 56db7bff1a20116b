"""The letter of the choice that a text settles on."""

import re
from collections.abc import Callable, Sequence

from qtool.evaluate.answers import marks
from qtool.evaluate.answers.options import LETTERS
from qtool.evaluate.answers.plain import bold, boxed, plain, unmarked

_THING = r"(?:option|choice|answer|passage|statement|letter|alternative|candidate|selection|item|variant)"
_TOKEN = re.compile(r"(?<![A-Za-z0-9'])\(?[\"']?([A-Za-z])[\"']?\)?(?![A-Za-z0-9'])")
_LEAD = re.compile(
    rf"^(?:(?:the|that|is|in|it|it's|would|be|a(?=\s+{_THING})|an|most|likely|definitely|clearly|probably|indeed|simply|correct|best|right|one|labeled|labelled|called|with|{_THING})\b"
    r"|[\s:,(\[\"'*-])*$",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"\b(?:pick(?:ed|ing)?|choos(?:e|ing)|chose|select(?:ed|ing)?|go(?:ing)?\s+(?:with|for)|went\s+with|opt(?:ed|ing)?\s+for|say|guess|vote\s+for|prefer|settle\s+on|"
    r"(?:answer|choice|option|passage|one|it|response|pick|selection|guess|this|that|conclusion|statement)(?:\s+(?:is|must\s+be|should\s+be|would\s+be|has\s+to\s+be|will\s+be)|'s)|"
    r"(?:leaves|leaving)(?:\s+(?:us|only|with))*|means|corresponds\s+to|matches|is\s+(?:in|given\s+in|found\s+in|stated\s+in))\s*:?",
    re.IGNORECASE,
)
_RIGHT = re.compile(
    r"(?<![A-Za-z0-9'])\(?[\"']?([A-Za-z])[\"']?\)?[.:]?\s*(?:is|was|are|would\s+be|must\s+be|seems|looks)\s+(?:definitely\s+|clearly\s+|probably\s+|most\s+likely\s+|therefore\s+|thus\s+)?"
    rf"(?:(?:the|my)\s+)?(?:only\s+)?(?:correct|right|best|true|accurate|most\s+\w+|answer|final\s+answer|one\s+that|{_THING}\s+that)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(
    rf"\b(?:{_THING})\s*:?\s*\(?[\"']?([A-Za-z])[\"']?\)?(?![A-Za-z0-9'])(?!\s*(?:is|are)\s+(?:not|wrong|incorrect|false)|\s+(?:does|do)(?:\s+not|n't))",
    re.IGNORECASE,
)
_RULED_OUT = re.compile(
    r"(?i:\b(?:not|n't|neither|nor|unlike|rather\s+than|instead\s+of|except|without|than|cannot\s+be|can't\s+be|rul(?:e|ed|ing)\s+out|eliminat(?:e|ed|es|ing)|exclud(?:e|ed|ing)|"
    r"discard(?:ed|ing)?|reject(?:ed|ing)?)\s+(?:be\s+)?(?:the\s+)?(?:(?:options?|choices?|answers?|passages?)\s+)?)((?:\(?[A-Z]\)?(?:\s*,\s*(?:and\s+|or\s+|nor\s+)?|\s+(?:and|or|nor)\s+|\s*&\s*)?)+)(?![A-Za-z])"
)
_WRONG = re.compile(
    r"(?<![A-Za-z])((?:\(?[A-Z]\)?(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+|\s*&\s*)?)+)\s*(?:(?:is|are|was|were|can\s+be|seems?)\s+(?:both\s+|all\s+|clearly\s+|simply\s+|also\s+)*(?:not|wrong|incorrect|false|irrelevant|"
    r"eliminated|ruled\s+out|unrelated|a\s+(?:trap|common|distractor)\w*|untrue)|isn't|aren't|(?:does|do)\s*(?:n't|\s+not)|cannot|can't|(?:only\s+)?(?:says?|talks?|mentions?|tells?|states?|describes?|speaks?)\b)"
)
_SAYS_SO = re.compile(
    r"(?<![A-Za-z])\(?([A-Z])\)?\s+(?:says|states|tells|mentions|describes|answers|contains|gives|talks|directly|explicitly|clearly|specifically)\b"
)
_LINE = re.compile(
    r"^\W*(?:(?:option|choice|answer|passage|letter)\s*:?\s*)?[(\[\"']?([A-Za-z])[\"')\]]?(?:\s*[.:),-]|\s*$)(.*)$",
    re.IGNORECASE,
)
_BOTH = re.compile(r"^\W*(?:and|or|&|/|,)\s*\(?[A-Z]\)?(?![A-Za-z])")


def letter(text: str, choices: Sequence[tuple[str, str]] = ()) -> str | None:
    """The capital letter that `text` gives as its answer, among `choices` where they are known; else None."""
    known = "".join(name for name, _ in choices) or LETTERS
    kept = plain(text)
    clean = unmarked(kept)
    for inside in reversed(boxed(kept)):
        if found := _first(unmarked(inside), known) or _by_text(unmarked(inside), choices):
            return found
    for region in reversed(marks.said(clean)):
        if _unsettled(region, known):
            return None
        if found := _first(region, known) or _by_text(region, choices):
            return found
    out = _ruled_out(clean)
    stages: tuple[Callable[[], str | None], ...] = (
        lambda: _right(clean, known, out),
        lambda: _chosen(clean, known, out),
        lambda: _bold(kept, known, choices),
        lambda: _line(clean, known, choices),
        lambda: _named(clean, known, out),
        lambda: _only(clean, known, out),
        lambda: _by_text(clean, choices),
        lambda: _opening(clean, known, out),
    )
    return next((found for stage in stages if (found := stage()) is not None), None)


def _tokens(text: str, known: str) -> list[tuple[int, int, str]]:
    """(start, end, letter) of single letters that are no words, as in "I think" or "A good question"."""
    found = []
    for token in _TOKEN.finditer(text):
        name = token.group(1)
        marked = not re.fullmatch(r"[A-Za-z]", token.group())
        if name.upper() not in known or (name.islower() and not marked):
            continue
        if not marked and _is_word(name, text[token.end() :], text[: token.start()]):
            continue
        found.append((token.start(), token.end(), name.upper()))
    return found


def _is_word(name: str, after: str, before: str) -> bool:
    if name == "I":
        return (
            re.match(r"\s+[a-z]|'|\s+\(", after) is not None
            or re.search(r"\b(?:and|as|that|so|if|when|because|but)\s+$", before) is not None
        )
    if name == "A":
        return (
            re.match(
                r"\s+(?!(?:is|are|was|and|or|because|since|as|but|says|states|tells|mentions|describes|gives|would|must|seems|not|with|which|that|for|does|if|here|correctly|directly|only|also|can|has)\b)[a-z]",
                after,
            )
            is not None
        )
    return False


def _first(region: str, known: str) -> str | None:
    """The letter a marked region begins with."""
    lowered = re.match(r"^\W*([a-z])\W*$", region)
    if lowered and lowered.group(1).upper() in known:
        return lowered.group(1).upper()
    tokens = _tokens(region, known)
    if not tokens or _LEAD.match(region[: tokens[0][0]]) is None:
        chosen = _CHOSEN.search(region)
        return _first(region[chosen.end() :], known) if chosen and tokens else None
    return tokens[0][2]


def _unsettled(region: str, known: str) -> bool:
    """Whether the region begins with several letters: "A and C", "either A or B"."""
    tokens = _tokens(region, known)
    if not tokens or re.match(rf"^(?:either|both|\s|\W|{_THING}s?)*$", region[: tokens[0][0]], re.IGNORECASE) is None:
        return False
    rest = region[tokens[0][1] :]
    joined = _BOTH.match(rest)
    return joined is not None and not re.match(r"^\W*(?:,|and)\s*\(?[A-Z]\)?\s+(?:is|are|was)\b", rest)


def _ruled_out(text: str) -> set[str]:
    out: set[str] = set()
    for found in (*_RULED_OUT.finditer(text), *_WRONG.finditer(text)):
        out.update(re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", found.group(1)))
    wrong = {name for name in out}
    for says in _SAYS_SO.finditer(text):
        rejected = any(
            says.group(1) in re.findall(r"[A-Z]", found.group(1))
            for found in (*_RULED_OUT.finditer(text), *_WRONG.finditer(text))
            if not re.search(r"(?:says?|talks?|mentions?|tells?|states?|describes?|speaks?)$", found.group())
        )
        if not rejected:
            wrong.discard(says.group(1))
    return wrong


def _right(text: str, known: str, out: set[str]) -> str | None:
    found = {each.group(1).upper() for each in _RIGHT.finditer(text) if each.group(1).isupper()}
    return _single(found & set(known) - out)


def _chosen(text: str, known: str, out: set[str]) -> str | None:
    for found in reversed(list(_CHOSEN.finditer(text))):
        region = marks.sentence_at(text, found.end())
        name = None if re.match(r"\s*(?:not|n't)\b", region) or _unsettled(region, known) else _first(region, known)
        if name is not None and name not in out:
            return name
    return None


def _bold(text: str, known: str, choices: Sequence[tuple[str, str]]) -> str | None:
    found: set[str] = set()
    for inside, _ in bold(text):
        name = _lettered(inside.strip(), known) or _by_text(inside, choices)
        found |= {name} if name else set()
    return _single(found)


def _line(text: str, known: str, choices: Sequence[tuple[str, str]]) -> str | None:
    """The letter of a last or first line that is a letter, or a letter and its choice."""
    lines = [line.strip() for line in text.split("\n") if re.search(r"\w", line)]
    if not lines:
        return None
    names = [_lettered(line, known, choices) for line in lines]
    if len(lines) > 1 and len({name for name in names if name}) > 1 and all(names):
        return None  # the choices listed again
    return names[-1] or names[0]


def _lettered(line: str, known: str, choices: Sequence[tuple[str, str]] = ()) -> str | None:
    found = _LINE.match(line)
    if found is None or found.group(1).upper() not in known or _BOTH.match(line[found.end(1) :].lstrip("\"')]")):
        return None
    name, rest = found.group(1), found.group(2).strip()
    bracketed = line.lstrip()[:1] in "(["
    if rest and name.islower() and not bracketed:
        return None
    if rest and _is_word(name, line[found.end(1) :], ""):
        return None
    return name.upper()


def _named(text: str, known: str, out: set[str]) -> str | None:
    found = {each.group(1) for each in _NAMED.finditer(text) if each.group(1).isupper()}
    found = {
        name
        for name in found
        if not (name in "AI" and re.search(rf"(?i:{_THING})\s+{name}\s+[a-z]", text) and name not in known)
    }
    return _single((found & set(known)) - out)


def _only(text: str, known: str, out: set[str]) -> str | None:
    return _single({name for _, _, name in _tokens(text, known)} - out)


def _opening(text: str, known: str, out: set[str]) -> str | None:
    """The letter that a one-sentence answer begins with: "B because A says nothing of it"."""
    tokens = [] if "\n" in text.strip() else _tokens(text, known)
    if (
        tokens
        and not text[: tokens[0][0]].strip(" (\"'")
        and tokens[0][2] not in out
        and not _BOTH.match(text[tokens[0][1] :])
    ):
        return tokens[0][2]
    return None


def _by_text(text: str, choices: Sequence[tuple[str, str]]) -> str | None:
    """The only choice whose own text the answer holds."""
    said = _folded(text)
    found = [(name, _folded(choice)) for name, choice in choices if choice and f" {_folded(choice)} " in f" {said} "]
    longest = [
        name
        for name, choice in found
        if not any(choice != other and f" {choice} " in f" {other} " for _, other in found)
    ]
    return longest[0] if len(longest) == 1 else None


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _single(found: set[str]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None
