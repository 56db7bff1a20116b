"""The words that a text gives as its answer: one of the labels where they are known, else what its sentence says."""

import re
from collections.abc import Sequence

from qtool.evaluate.answers import marks
from qtool.evaluate.answers.plain import bold, boxed, plain, unicode_plain, unmarked, unspaced

_LONGEST_RUN = 4
_LONGEST_NAME = 2  # words at the end of a sentence
_CLAUSE = re.compile(r"[,;:]\s+(?:and|but|so|while|with)?\s*")
_HEAD = re.compile(r"\s*(?:the|its|their|his|her)?\s*([\w'-]+)", re.IGNORECASE)
_LONGEST = 8  # words; what is longer is a sentence and no answer
_EDGE = " \t\n\"'.,;:!?()[]*_`<>-–—"
_ARTICLE = re.compile(r"^(?:the|a|an)\s+", re.IGNORECASE)
_COPULA = re.compile(
    r"\b(?:is|are|was|were|would\s+be|must\s+be|should\s+be|seems\s+to\s+be|appears\s+to\s+be|called|named|known\s+as|has|have|stands\s+for|represents|denotes|becomes|equals|means)\b|'s\b|[=:→]",
    re.IGNORECASE,
)
_EMPTY_WORDS = frozenset((
    "the", "a", "an", "is", "are", "was", "were", "be", "been", "being", "of", "in", "on", "at", "to", "for",
    "from", "by", "with", "as", "and", "or", "it", "its", "it's", "this", "that", "these", "those", "which", "what",
    "who", "whom", "whose", "there", "here", "has", "have", "had", "do", "does", "did", "answer", "correct",
    "final", "name", "named", "called", "known", "symbol", "number", "city", "capital", "country", "element",
    "chemical", "atomic", "table", "periodic", "just", "only", "simply", "please", "sure", "also", "one", "s",
    "located", "situated", "found", "represented", "written", "spelled", "denoted", "given", "equal", "value",
    "official", "largest", "text", "sentence", "review", "passage", "about", "topic", "label", "category",
    "sentiment", "word", "would", "will", "can", "could", "should", "must", "may", "i", "think", "believe", "my",
    "your", "our", "so", "therefore", "thus", "hence", "because", "since", "based",
))  # fmt: skip
_POLITE = re.compile(
    r"^\W*(?:sure|certainly|of\s+course|ok(?:ay)?|great(?:\s+question)?|good\s+question|yes|hello|hi|absolutely|here(?:'s|\s+is)\s+the\s+answer|thank\s+you\b.*|(?:i'm\s+)?(?:sorry|unsure)\b.*|i\s+(?:don't|do\s+not|cannot|can't|am\s+unable|have\s+no)\b.*|i(?:'m|\s+am)\s+(?:not|unable|afraid)\b.*|as\s+an?\s+(?:ai|language)\b.*|no\s+idea|unknown|none)\W*$",
    re.IGNORECASE,
)
_APPOSED = re.compile(r"\b([Ss]ymbol|[Nn]umber|[Nn]ame|[Cc]ode|[Cc]ity|[Ww]ord)\s+[\"']?([A-Z][\w-]*|\d[\d.,]*\b)")
_NEGATION = re.compile(
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|\brather\s+than|\binstead\s+of|\bthan|\bunlike|\bwithout|\bno)\s+(?:\w+\s+){0,2}$",
    re.IGNORECASE,
)


def label(text: str, labels: Sequence[str]) -> str | None:
    """The one of `labels` that `text` settles on, as it is written there; None where it can't be told."""
    kept = _without_lists(plain(text), labels)
    clean = unmarked(kept)
    places = [unmarked(inside) for inside in reversed(boxed(kept))] + marks.said(clean)[::-1]
    places += [inside for inside, _ in bold(kept) if len(_found(inside, labels)) == 1][:1]
    lines = [line for line in clean.split("\n") if line.strip()]
    places += [line for line in (*lines[-1:], *lines[:1]) if len(line.split()) <= 3]
    for place in places:
        found = _found(place, labels)
        if len(found) == 1:
            return found[0]
        if (first := _first_told(place, labels)) is not None:
            return first
    found = _found(clean, labels)
    if len(found) == 1:
        return found[0]
    told = [_first_told(sentence, labels) for sentence in marks.sentences(clean)]
    told = [each for each in told if each is not None]
    return told[0] if told and len(set(told)) == 1 else None


def words(text: str, question: str = "") -> str | None:
    """The answer's own words, without markup, quotes and full stop; None where the text is longer than an answer and
    marks none."""
    kept = plain(text)
    clean = unmarked(kept)
    asked = _asked(question)
    for inside in reversed(boxed(kept)):
        if stripped := _trimmed(unmarked(inside)):
            return stripped
    for region in reversed(marks.said(clean)):
        if (found := _short(region, asked)) is not None:
            return found
    lines = [line for line in clean.split("\n") if re.search(r"\w", line)]
    if not lines:
        return None
    if (
        len(lines[0].split()) <= 3
        and _POLITE.match(lines[0]) is None
        and (found := _short(lines[0], asked)) is not None
    ):
        return found
    marked = [
        _trimmed(inside) for inside, following in bold(kept) if following != ":" and not inside.rstrip().endswith(":")
    ]
    marked = [each for each in marked if each and not _content(each, frozenset()) <= asked]
    if len(set(marked)) == 1:
        return marked[0]
    for part in marks.sentences(clean):
        if _POLITE.match(part) is None and (found := _sentence(part, asked)) is not None:
            return found
    return None


def trimmed(text: str) -> str:
    """`text` without the quotes, marks and full stop around it."""
    return _trimmed(text)


def _sentence(sentence: str, asked: frozenset[str]) -> str | None:
    """The side of the sentence's verb that says what the question does not; the only words that are new, else none."""
    for apposed in _APPOSED.finditer(sentence):
        noun, value = apposed.groups()
        if noun.casefold() in asked and _is_new(value, asked):
            return value
    verbs = list(_COPULA.finditer(sentence))
    for verb in (*verbs[:1], *verbs[-1:]):
        left, right = sentence[: verb.start()], sentence[verb.end() :]
        new_left, new_right = _content(left, asked), _content(right, asked)
        if new_right and not new_left and (found := _short(right, asked)) is not None:
            return found
        if new_left and not new_right and (found := _short(left, asked)) is not None:
            return found
    if verbs and (found := _named_last(sentence, verbs[-1], asked)) is not None:
        return found
    return _new_words(sentence, asked) if verbs else _short(sentence, asked)


def _named_last(sentence: str, verb: re.Match[str], asked: frozenset[str]) -> str | None:
    """What the end of the sentence says of the very thing that was asked for, whatever else it tells: "Cuba is
    an island, and its capital is Havana", "the country that the Thai king rules is Thailand"."""
    subject = _CLAUSE.split(sentence[: verb.start()])[-1]
    head = _HEAD.match(subject)
    if head is None or head.group(1).casefold() not in asked:
        return None
    told = sentence[verb.end() :].strip(_EDGE)
    new = [_is_new(word, asked) for word in re.findall(r"[\w'-]+", told)]
    denied = told.split(" ", 1)[0].casefold() in ("not", "no", "never")
    return told if new and all(new) and len(new) <= _LONGEST_NAME and not denied else None


def _short(region: str, asked: frozenset[str]) -> str | None:
    """`region` as an answer: up to its first clause, without what only repeats the question; None where it is long."""
    cut = re.split(
        r"[;\n]|,\s+(?:which|who|where|because|since|as|so|and\s+it|located|the|a|an)\b|\s+(?:because|since|which|where)\b|\s[–—-]\s|\s\((?=\w)",
        region.strip(_EDGE),
        maxsplit=1,
    )[0]
    stripped = _trimmed(cut)
    if not stripped:
        return None
    if len(stripped.split()) > 1 and asked and (new := _new_words(stripped, asked)) is not None:
        return new
    return stripped if len(stripped.split()) <= _LONGEST else None


def _new_words(text: str, asked: frozenset[str]) -> str | None:
    """The only run of words that says something the question does not hold."""
    runs: list[tuple[int, int, int]] = []
    open_run = False
    for token in re.finditer(r"[\w'-]+", text):
        new = _is_new(token.group(), asked)
        if new and open_run:
            start, _, count = runs[-1]
            runs[-1] = (start, token.end(), count + 1)
        elif new:
            runs.append((token.start(), token.end(), 1))
        open_run = new
    if len(runs) != 1 or runs[0][2] > _LONGEST_RUN:
        return None
    return " ".join(text[runs[0][0] : runs[0][1]].split())


def _content(text: str, asked: frozenset[str]) -> frozenset[str]:
    """The words of `text` that carry meaning and are not the question's."""
    return frozenset(token.casefold() for token in re.findall(r"[\w'-]+", text) if _is_new(token, asked))


def _is_new(token: str, asked: frozenset[str]) -> bool:
    """Whether `token` says something of its own; short capitals such as Be and In may be symbols."""
    folded = token.casefold()
    return folded not in asked and (folded not in _EMPTY_WORDS or (len(token) <= 2 and token[0].isupper()))


def _asked(question: str) -> frozenset[str]:
    tokens = {token.casefold() for token in re.findall(r"[\w'-]+", plain(question))}
    return frozenset(tokens | {token.removesuffix("'s") for token in tokens} | {f"{token}'s" for token in tokens})


def _trimmed(text: str) -> str:
    previous = None
    while previous != text:
        previous, text = text, _ARTICLE.sub("", text.strip(_EDGE))
    return " ".join(text.split())


def _found(text: str, labels: Sequence[str]) -> list[str]:
    """The labels that `text` holds as words and does not deny."""
    return [name for name in labels if _places(text, name)]


def _without_lists(text: str, labels: Sequence[str]) -> str:
    """`text` without the places where the labels are only listed, as the question lists them."""
    name = "|".join(re.escape(each) for each in sorted(labels, key=len, reverse=True))
    return re.sub(rf"(?i)\b(?:{name})(?:\s*[,/]\s*(?:{name}))*\s*(?:,\s*)?(?:\bor\b|/)\s*(?:{name})\b", " ", text)


def _first_told(text: str, labels: Sequence[str]) -> str | None:
    """The only label right after the sentence's verb: "is positive, not negative", "is more about food than sport"."""
    head = re.split(r",|\bbut\b|\balthough\b|\bthan\b|\bbecause\b|\band\s+not\b|;|\bwhile\b", text, maxsplit=1)[0]
    found = _found(head, labels)
    return found[0] if len(found) == 1 else None


def _places(text: str, name: str) -> list[int]:
    folded, wanted = text.casefold(), re.escape(unicode_plain(name).casefold().strip())
    if unspaced(name[:1]) and unspaced(name[-1:]):  # no space tells where a word of this script begins or ends
        return [
            each.start() for each in re.finditer(wanted, folded) if _NEGATION.search(folded[: each.start()]) is None
        ]
    ends = r"(?:s|es|'s|-related)?" if name and name[-1:].isalpha() else ""
    found = re.finditer(rf"(?<!\w){wanted}{ends}(?!\w)", folded)
    return [each.start() for each in found if _NEGATION.search(folded[: each.start()]) is None]
