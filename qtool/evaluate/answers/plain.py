"""Markup made plain: Unicode forms, LaTeX, Markdown and HTML, with boxes and bold kept as marks of their own."""

import re
import unicodedata

BOX, END_BOX, BOLD, END_BOLD = "\ue000", "\ue001", "\ue002", "\ue003"
MARKS = BOX + END_BOX + BOLD + END_BOLD

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-", strict=True))
_SUPERSCRIPT_RUN = re.compile(f"[{''.join(_SUPERSCRIPTS)}]+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_LETTERS = str.maketrans({"−": "-", "‐": "-", "‑": "-", "﹣": "-", "’": "'", "‘": "'", "“": '"', "”": '"', "٫": ".",
                          "٬": ",", "،": ",", "。": ". ", "｡": ". ", "\u2044": "/", "∕": "/"})  # fmt: skip
_LATEX = [
    (re.compile(r"(?<=[\d}])\s*\\(?:left)?\s*(?=\\d?t?frac)"), " "),
    (re.compile(r"(\d)?\s*\\[dt]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}"), r"\1 \2/\3"),
    (re.compile(r"(\d)?\s*\\[dt]?frac\s*(\d)\s*(\d)"), r"\1 \2/\3"),
    (re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname|mbox|bf|rm)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\{\s*,\s*\}|\\,(?=\d{3}(?!\d))(?<=\d\\,)|(?<=\d),\\[!,;](?=\d)"), ","),
    (re.compile(r"\\[!,;: ]|(?<=\d)~(?=\d)"), " "),
    (re.compile(r"\\([$%#&_])"), r"\1"),
    (re.compile(r"\\(?:times|cdot|ast)\b"), "×"),
    (re.compile(r"\\div\b"), "÷"),
    (re.compile(r"\\pm\b"), "±"),
    (re.compile(r"\\(?:approx|sim|simeq)\b"), "≈"),
    (re.compile(r"\\(?:Rightarrow|rightarrow|implies|to)\b"), "→"),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b"), "°"),
    (re.compile(r"\^\s*\{\s*([-+]?\d+)\s*\}"), r"^\1"),
    (re.compile(r"\\(?:left|right|displaystyle|quad|qquad|bigl?|bigr?)\b"), " "),
    (re.compile(r"\\[()\[\]]|\$\$"), " "),
    (re.compile(r"(?<![\w$])\$([^$\n]{1,80}?\S)\$(?![\d$])|(?<![\w$])\$(\S)\$(?![\d$])"), r"\1\2"),
    (re.compile(r"\\\\"), "\n"),
    (re.compile(r"\\([a-zA-Z]+)"), r" \1 "),
]
_BOLD = re.compile(
    r"\*\*(?=\S)(.+?)(?<=\S)\*\*|__(?=\S)(.+?)(?<=\S)__|<(b|strong)>(.+?)</\3>", re.DOTALL | re.IGNORECASE
)
_EMPHASIS = re.compile(
    r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])|(?<![\w_])_(?=[^\s_])([^_\n]+?)(?<=[^\s_])_(?![\w_])"
)
_ANSWER_TAG = re.compile(
    r"<\s*(answer|final_answer|final|result)\s*>(.*?)(?:<\s*/\s*\1\s*>|\Z)", re.DOTALL | re.IGNORECASE
)
_HASHES = re.compile(r"(?m)^[ \t]*#{4}[ \t]*((?:[-+−–(]|[$€£¥₹])*[ \t]*\.?\d[^\n]*|\(?[A-Za-z]\)?\.?)[ \t]*$")
_HEADING = re.compile(r"(?m)^[ \t]*(?:#{1,6}|>)[ \t]+")


def plain(text: str) -> str:
    """`text` without markup; boxed and bold parts stand between marks of the private use area."""
    text = _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _HASHES.sub(lambda found: f"{BOX}{found.group(1)}{END_BOX}", text)
    text = _boxes(_ANSWER_TAG.sub(lambda found: f"{BOX}{found.group(2).strip()}{END_BOX}\n", text))
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    text = _BOLD.sub(lambda found: f"{BOLD}{found.group(1) or found.group(2) or found.group(4)}{END_BOLD}", text)
    text = _EMPHASIS.sub(lambda found: found.group(1) or found.group(2), text)
    text = _HEADING.sub("", text).replace("`", "")
    return re.sub(r"[{}]", "", unicode_plain(text))


def unicode_plain(text: str) -> str:
    """`text` in one Unicode form: composed letters, plain digits of every script, fractions and powers written out."""
    text = _SUPERSCRIPT_RUN.sub(lambda found: "^" + "".join(map(_SUPERSCRIPTS.__getitem__, found.group())), text)
    parts: list[str] = []
    for letter in text:
        if unicodedata.decomposition(letter).startswith("<fraction>"):
            parts.append((" " if parts and parts[-1][-1:].isdigit() else "") + unicodedata.normalize("NFKC", letter))
        elif letter.isdecimal() and not letter.isascii():
            parts.append(str(unicodedata.decimal(letter)))
        else:
            parts.append(letter)
    return unicodedata.normalize("NFKC", "".join(parts)).translate(_LETTERS)


def unmarked(text: str) -> str:
    """`text` without the marks of boxes and bold."""
    return text.translate({ord(mark): None for mark in MARKS})


def boxed(text: str) -> list[str]:
    """What stands in boxes, in the order of the text."""
    return re.findall(f"{BOX}(.*?){END_BOX}", text, re.DOTALL)


def bold(text: str) -> list[tuple[str, str]]:
    """(bold text, the character after it), in the order of the text."""
    return [
        (found.group(1), text[found.end() : found.end() + 1])
        for found in re.finditer(f"{BOLD}(.*?){END_BOLD}", text, re.DOTALL)
    ]


def _boxes(text: str) -> str:
    """LaTeX boxes, braces matched, as marks."""
    while (found := re.search(r"\\(?:boxed|fbox)\s*\{", text)) is not None:
        depth, end = 1, found.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        inside = text[found.end() : end - 1 if not depth else end]
        text = f"{text[: found.start()]}{BOX}{inside}{END_BOX}{text[end:]}"
    return re.sub(r"\\boxed\s*(\d+|[A-Za-z])\b", lambda short: f"{BOX}{short.group(1)}{END_BOX}", text)


def unspaced(letter: str) -> bool:
    """Whether `letter` belongs to a script that puts no spaces between words (Chinese, Japanese, Thai, Lao, Khmer)."""
    return any(low <= letter <= high for low, high in _UNSPACED) if letter else False


_UNSPACED = (
    ("\u0e00", "\u0eff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3000", "\u30ff"),
    ("\u3400", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\uff00", "\uffef"),
)
