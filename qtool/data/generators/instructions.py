"""Short writing tasks with one to three conditions that a program can check: lengths, words, case, form.

The id covers the subject and the conditions with their arguments, not the words in which they are put. The reference
answer keeps them all and says little else. Conditions carry the names and arguments of IFEval.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from qtool.records.task import Item

SUBJECTS = (
    "bees", "a rainy day", "old bridges", "the sea", "bread", "a small library", "night trains", "winter coats",
    "a school garden", "bicycles", "the moon", "river boats", "paper maps", "a village market", "tea", "clocks", "owls",
    "a first job", "mountain paths", "stone walls", "a new neighbour", "lost keys", "street music", "apple trees",
    "a lighthouse", "honey", "letters", "a busy kitchen", "snow", "wooden toys", "windows", "a long queue",
)  # fmt: skip
REQUESTS = ("Write a short text about {}.", "Tell me something about {}.", "Describe {} to a friend.")
SENTENCES = (
    "There is much to say about {}.", "Many people like to think of {}.", "It is good to know more about {}.",
    "The story of {} is a long one.", "We can learn a lot from {}.", "Not everyone has seen {} in this way.",
)  # fmt: skip
KEYWORDS = ("silver", "garden", "honest", "river", "morning", "copper", "gentle", "harbour", "window", "pepper")
BARRED = ("very", "always", "never", "beautiful", "really", "important", "nice", "thing")
ENDINGS = ("That is all there is.", "Let us see what comes.", "So it goes on.", "This is where it ends.")


@dataclass
class Draft:
    """A reference answer under way: its sentences, what frames them, and the conditions it keeps."""

    sentences: list[str]
    frame: str = "plain"
    parts: int = 0
    case: str = ""
    postscript: bool = False
    ending: str = ""
    conditions: list[tuple[str, dict[str, object], str]] = field(default_factory=list)

    def add(self, name: str, words: str, **arguments: object) -> None:
        """One more condition: its name, how the question puts it, its arguments."""
        self.conditions.append((name, arguments, words))


def candidates(rng: random.Random) -> Iterator[Item]:
    """Endless tasks."""
    while True:
        yield _item(rng)


def _item(rng: random.Random) -> Item:
    subject = rng.choice(SUBJECTS)
    draft = Draft([sentence.format(subject) for sentence in rng.sample(SENTENCES, 3)])
    count = rng.choices((1, 2, 3), weights=(1, 5, 4))[0]
    chosen = [rng.choice(_FRAMES)] if rng.random() < 0.5 else []
    chosen += rng.sample(_EXTRAS, count - len(chosen))
    for condition in chosen:
        condition(draft, rng)
    names = [name for name, _, _ in draft.conditions]
    pairs = [[name, arguments] for name, arguments, _ in draft.conditions]
    words = " ".join(words for _, _, words in draft.conditions)
    return Item(
        id=f"{subject} {json.dumps(sorted(pairs, key=json.dumps))}",
        fields=(("question", f"{rng.choice(REQUESTS).format(subject)} {words}"),),
        answer=" " + _written(draft),
        target=json.dumps(pairs),
        slices=(("conditions", str(len(pairs))), ("kind", names[0].split(":")[0] if len(names) == 1 else "several")),
    )


def _written(draft: Draft) -> str:
    """The reference answer: sentences, then frame, case, postscript, ending."""
    text = _FRAMED[draft.frame](draft)
    if draft.case:
        text = text.lower() if draft.case == "lower" else text.upper()
    text += "\nP.S. Take care." if draft.postscript and draft.case == "" else ""
    if draft.ending:
        text = f'{text[:-1]} {draft.ending}"' if draft.frame == "quotation" else f"{text}\n{draft.ending}"
    return text


def _plain(draft: Draft) -> str:
    return " ".join(draft.sentences)


def _bullets(draft: Draft) -> str:
    return "\n".join(f"- {draft.sentences[n % len(draft.sentences)]}" for n in range(draft.parts)) + _rest(draft)


def _paragraphs(draft: Draft) -> str:
    return "\n***\n".join([_plain(draft), *draft.sentences[: draft.parts - 1]])


def _rest(draft: Draft) -> str:
    """Sentences beyond those that the parts took up, so that no keyword is lost."""
    left = draft.sentences[draft.parts :]
    return "\n" + " ".join(left) if left else ""


def _sections(draft: Draft) -> str:
    return "\n".join(f"SECTION {n + 1}\n{_plain(draft)}" for n in range(draft.parts))


_FRAMED: dict[str, Callable[[Draft], str]] = {
    "plain": _plain,
    "bullets": _bullets,
    "paragraphs": _paragraphs,
    "sections": _sections,
    "title": lambda draft: f"<<A Few Words>>\n{_plain(draft)}",
    "quotation": lambda draft: f'"{_plain(draft)}"',
    "two": lambda draft: f"{_plain(draft)}\n******\n{_plain(draft)} {draft.sentences[0]}",
}


def _as_bullets(draft: Draft, rng: random.Random) -> None:
    draft.frame, draft.parts = "bullets", rng.randint(2, 6)
    words = f"Use exactly {draft.parts} bullet points, each beginning with a dash."
    draft.add("detectable_format:number_bullet_lists", words, num_bullets=draft.parts)


def _as_paragraphs(draft: Draft, rng: random.Random) -> None:
    draft.frame, draft.parts = "paragraphs", rng.randint(2, 4)
    words = f"Write exactly {draft.parts} paragraphs with a line of three stars (***) between them."
    draft.add("length_constraints:number_paragraphs", words, num_paragraphs=draft.parts)


def _as_sections(draft: Draft, rng: random.Random) -> None:
    draft.frame, draft.parts = "sections", rng.randint(2, 4)
    words = f"Divide it into {draft.parts} sections and begin each with SECTION and its number, such as SECTION 1."
    draft.add("detectable_format:multiple_sections", words, section_spliter="SECTION", num_sections=draft.parts)


def _as_title(draft: Draft, rng: random.Random) -> None:
    draft.frame = "title"
    draft.add("detectable_format:title", "Give it a title in double angular brackets, such as <<my title>>.")


def _as_quotation(draft: Draft, rng: random.Random) -> None:
    draft.frame = "quotation"
    draft.add("startend:quotation", "Put the whole answer in double quotation marks.")


def _as_two(draft: Draft, rng: random.Random) -> None:
    draft.frame = "two"
    draft.add("combination:two_responses", "Give two different answers, with six stars (******) between them.")


def _no_comma(draft: Draft, rng: random.Random) -> None:
    draft.add("punctuation:no_comma", rng.choice(("Do not use any comma.", "Use no commas at all.")))


def _case(draft: Draft, rng: random.Random) -> None:
    if draft.postscript or draft.ending or draft.frame == "sections" or rng.random() < 0.5:
        if draft.frame == "sections" or draft.ending or draft.postscript:
            return _no_comma(draft, rng)
        draft.case = "upper"
        return draft.add("change_case:english_capital", "Write in English and in capital letters only.")
    draft.case = "lower"
    return draft.add("change_case:english_lowercase", "Write in English and in small letters only, without capitals.")


def _keywords(draft: Draft, rng: random.Random) -> None:
    words = rng.sample(KEYWORDS, rng.randint(1, 3))
    draft.sentences[0] = f"{draft.sentences[0][:-1]} and of {' and '.join(words)}."
    draft.add("keywords:existence", f"Use the words {', '.join(words)}.", keywords=words)


def _often(draft: Draft, rng: random.Random) -> None:
    word, times = rng.choice(KEYWORDS), rng.randint(2, 4)
    draft.sentences[0] = f"{draft.sentences[0][:-1]} or {' or '.join([word] * times)}."
    draft.add("keywords:frequency", f"Use the word {word} at least {times} times.",
              keyword=word, frequency=times, relation="at least")  # fmt: skip


def _barred(draft: Draft, rng: random.Random) -> None:
    words = rng.sample(BARRED, rng.randint(1, 3))
    draft.add("keywords:forbidden_words", f"Do not use the words {', '.join(words)}.", forbidden_words=words)


def _ending(draft: Draft, rng: random.Random) -> None:
    if draft.case or draft.postscript:
        return _barred(draft, rng)
    draft.ending = rng.choice(ENDINGS)
    words = f"End with exactly these words: {draft.ending} Nothing may follow them."
    return draft.add("startend:end_checker", words, end_phrase=draft.ending)


def _postscript(draft: Draft, rng: random.Random) -> None:
    if draft.case or draft.ending or draft.frame == "quotation":
        return _keywords(draft, rng)
    draft.postscript = True
    return draft.add("detectable_content:postscript", "Add a postscript that begins with P.S. at the end.",
                     postscript_marker="P.S.")  # fmt: skip


def _long(draft: Draft, rng: random.Random) -> None:
    fewest = rng.randrange(30, 90, 5)
    subject = draft.sentences[-1]
    while sum(len(sentence.split()) for sentence in draft.sentences) < fewest:
        draft.sentences.append(subject)
    draft.add("length_constraints:number_words", f"Write at least {fewest} words.",
              num_words=fewest, relation="at least")  # fmt: skip


def _placeholders(draft: Draft, rng: random.Random) -> None:
    count = rng.randint(1, 3)
    draft.sentences[-1] = f"{draft.sentences[-1][:-1]} with {' and '.join(f'[name {n + 1}]' for n in range(count))}."
    words = f"Leave at least {count} placeholders in square brackets, such as [address]."
    draft.add("detectable_content:number_placeholders", words, num_placeholders=count)


_FRAMES = (_as_bullets, _as_paragraphs, _as_sections, _as_title, _as_quotation, _as_two)
_EXTRAS = (_no_comma, _case, _keywords, _often, _barred, _ending, _postscript, _long, _placeholders)
