"""Constraints on the form of a text: paragraphs, bullets, sections, titles, JSON, beginnings and ends."""

import json
import re

from qtool.evaluate.constraints.words import Arguments, integer, string

_FENCE = ("```json", "```Json", "```JSON", "```")
_ALLOWED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def number_paragraphs(text: str, arguments: Arguments) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner, edges = parts[1:-1], parts[:1] + parts[1:][-1:]
    if any(not part.strip() for part in inner):
        return False
    return len(inner) + sum(bool(part.strip()) for part in edges) == integer(arguments, "num_paragraphs")


def nth_paragraph_first_word(text: str, arguments: Arguments) -> bool:
    parts = re.split(r"\n\n", text)
    count, nth = sum(bool(part.strip()) for part in parts), integer(arguments, "nth_paragraph")
    if count != integer(arguments, "num_paragraphs") or not 1 <= nth <= count or not parts[nth - 1].strip():
        return False
    word = parts[nth - 1].split()[0].lstrip("'\"")
    return re.split(r"[.,?!'\"]", word)[0].lower() == string(arguments, "first_word").lower()


def number_placeholders(text: str, arguments: Arguments) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= integer(arguments, "num_placeholders")


def postscript(text: str, arguments: Arguments) -> bool:
    marker = string(arguments, "postscript_marker")
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(rf"\s*{known.get(marker, re.escape(marker.lower()))}.*$", text.lower(), re.MULTILINE) is not None


def number_bullet_lists(text: str, arguments: Arguments) -> bool:
    found = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE) + re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(found) == integer(arguments, "num_bullets")


def constrained_response(text: str, arguments: Arguments) -> bool:
    return any(answer in text for answer in _ALLOWED)


def number_highlighted_sections(text: str, arguments: Arguments) -> bool:
    single = [each for each in re.findall(r"\*[^\n\*]*\*", text) if each.strip("*").strip()]
    double = [each for each in re.findall(r"\*\*[^\n\*]*\*\*", text) if each[2:-2].strip()]
    return len(single) + len(double) >= integer(arguments, "num_highlights")


def multiple_sections(text: str, arguments: Arguments) -> bool:
    found = re.split(rf"\s?{string(arguments, 'section_spliter')}\s?\d+\s?", text)
    return len(found) - 1 >= integer(arguments, "num_sections")


def json_format(text: str, arguments: Arguments) -> bool:
    inside = text.strip()
    for opening in _FENCE:
        inside = inside.removeprefix(opening)
    try:
        json.loads(inside.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str, arguments: Arguments) -> bool:
    return any(found.strip("<>").strip() for found in re.findall(r"<<[^\n]+>>", text))


def two_responses(text: str, arguments: Arguments) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    spoken = [part.strip() for part in parts if part.strip()]
    return len(spoken) == 2 and spoken[0] != spoken[1]


def repeat_prompt(text: str, arguments: Arguments) -> bool:
    return text.strip().lower().startswith(string(arguments, "prompt_to_repeat").strip().lower())


def end_checker(text: str, arguments: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(string(arguments, "end_phrase").strip().lower())


def quotation(text: str, arguments: Arguments) -> bool:
    inside = text.strip()
    return len(inside) > 1 and inside[0] == inside[-1] == '"'
