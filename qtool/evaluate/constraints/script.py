"""In which language a text is, told by its letters and its commonest words."""

import re
import unicodedata
from collections import Counter

from qtool.errors import DataError

_SCRIPTS = {
    "hi": "DEVANAGARI", "mr": "DEVANAGARI", "ne": "DEVANAGARI", "bn": "BENGALI", "pa": "GURMUKHI", "gu": "GUJARATI",
    "ta": "TAMIL", "te": "TELUGU", "kn": "KANNADA", "ml": "MALAYALAM", "th": "THAI", "ko": "HANGUL", "ar": "ARABIC",
    "fa": "ARABIC", "ur": "ARABIC", "he": "HEBREW", "el": "GREEK", "ru": "CYRILLIC", "bg": "CYRILLIC", "uk": "CYRILLIC",
    "ja": "KANA", "zh": "CJK",
}  # fmt: skip
_WORDS = {
    "en": "the a of and to in is that it was for on are with as at be this have from or by not you but",
    "de": "der die das und ist nicht ein eine zu mit den auf von für im sich dem auch es an werden wird ich",
    "fr": "le la les de des et est une un du que dans pour il qui pas sur au avec ce sont par plus",
    "es": "el la los las de y es que en un una por con para no se del su al lo como más pero",
    "it": "il la di che e è un una per non in con del della sono si da come anche le gli dei",
    "pt": "o a os as de e é que em um uma para não do da com por se no na mais como dos ao",
    "nl": "de het een en van is niet dat op te in voor met zijn er aan ook als bij door maar",
    "fi": "ja on ei se että hän oli olla myös mutta kun ovat tai joka mitä niin kuin sen",
    "sv": "och att det som en är på för av med den inte ett till har om de var i",
    "pl": "i w nie na się jest z że do to jak o ale po co od za przez",
    "vi": "và của là có không một những được cho với trong các người này đó khi",
    "sw": "na ya wa kwa ni katika la za kuwa hii hiyo yake watu au si kama",
    "tr": "ve bir bu da de için ile çok ne var daha gibi ama olan olarak en",
}
_EXTRA = {"uk": "іїєґ", "bg": "", "ru": "ыэё", "fa": "پچژگ", "ur": "ٹڈڑےں", "mr": "ळ"}


def is_in(text: str, language: str) -> bool:
    """Whether `text` is in `language`, a two-letter code such as "de". Raises DataError for one that is not known."""
    if language not in _SCRIPTS and language not in _WORDS:
        known = ", ".join(sorted({*_SCRIPTS, *_WORDS}))
        raise DataError(f"the language {language!r} cannot be told; known: {known}")
    script = script_of(text)
    if language in _SCRIPTS:
        return script == _SCRIPTS[language] and _letters_fit(text, language)
    return script == "LATIN" and _likeliest(text) in (None, language)


def script_of(text: str) -> str:
    """The script of most letters of `text`: "LATIN", "CYRILLIC", "CJK", "KANA" where Japanese letters stand among
    Chinese ones; empty where there are no letters."""
    counts = Counter(unicodedata.name(letter, " ").split()[0] for letter in text if letter.isalpha())
    kana = counts.pop("HIRAGANA", 0) + counts.pop("KATAKANA", 0)
    if kana and kana >= 0.1 * (kana + counts["CJK"]) and kana + counts["CJK"] > max(counts.values(), default=0) / 2:
        return "KANA"
    return counts.most_common(1)[0][0] if counts else ""


def _likeliest(text: str) -> str | None:
    """The language in Latin letters whose commonest words occur most; None where the text is too short to tell."""
    words = set(re.findall(r"[^\W\d_]+", text.casefold()))
    scores = {name: len(words.intersection(listed.split())) for name, listed in _WORDS.items()}
    best = max(scores.values())
    if best < 2:
        return None
    leaders = [name for name, score in scores.items() if score == best]
    return leaders[0] if len(leaders) == 1 else None


def _letters_fit(text: str, language: str) -> bool:
    """Whether `text` has no letter that only another language of its script uses, for those that have such letters."""
    rivals = [other for other, script in _SCRIPTS.items() if script == _SCRIPTS[language] and other != language]
    own = set(_EXTRA.get(language, ""))
    return not any(letter in text for other in rivals for letter in set(_EXTRA.get(other, "")) - own)
