"""Signs that an answer is broken, which need no reference: each is a word for a metric and lowers the quality score."""

import ast
import json
import re

_LOOP_PERIODS = range(1, 65)
_LOOP_REPEATS = 6
_LOOP_CHARACTERS = 48
_TAIL_CHARACTERS = 64 * _LOOP_REPEATS
_CODE = re.compile(r"```(?:python|py)\n(.*?)```", re.DOTALL)
_LONGEST_CODE = 20_000


def faults(text: str, finish: str | None, *, json_wanted: bool = False, calls: bool = False) -> tuple[str, ...]:
    """What is wrong with an answer: empty, looping, broken_json, broken_code; nothing where it looks well."""
    found = []
    if not text.strip() and not calls:
        found.append("empty")
    if loops(text):
        found.append("looping")
    if json_wanted and finish == "stop" and not calls and not _is_json(text):
        found.append("broken_json")
    if any(not _is_python(code) for code in _CODE.findall(text[:_LONGEST_CODE])):
        found.append("broken_code")
    return tuple(found)


def loops(text: str) -> bool:
    """Whether the end of `text` is one piece again and again: at least six times, and 48 characters in all."""
    tail = text[-_TAIL_CHARACTERS:]
    for period in _LOOP_PERIODS:
        repeats = max(_LOOP_REPEATS, -(-_LOOP_CHARACTERS // period))
        size = period * repeats
        if len(tail) < size:
            continue
        piece = tail[-period:]
        if piece.strip() and tail[-size:] == piece * repeats:
            return True
    return False


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
