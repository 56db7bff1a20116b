"""The choices of an item, as letters with their texts: given, listed in its fields, or a field for each letter."""

import re

from qtool.records.task import Item

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LISTED = re.compile(r"(?m)(?:^|(?<=\s))\(?([A-Z])(?:\)|\.|:)\s+(\S[^\n]*?)(?=\s+\(?[A-Z](?:\)|\.|:)\s|\s*$)")


def options(item: Item) -> tuple[tuple[str, str], ...]:
    """(letter, text) of each choice; none where the item does not say."""
    if item.choices:
        bare = all(len(choice.strip()) == 1 and choice.strip().isalpha() for choice in item.choices)
        if bare:
            texts = dict(_fields(item))
            return tuple((choice.strip().upper(), texts.get(choice.strip().upper(), "")) for choice in item.choices)
        return tuple(zip(LETTERS, item.choices, strict=False))
    fields = _fields(item)
    if len(fields) >= 2:
        return fields
    for _, text in item.fields:
        listed = [(found.group(1), found.group(2).strip()) for found in _LISTED.finditer(text)]
        for start in [place for place, (letter, _) in enumerate(listed) if letter == "A"][::-1]:
            run = [entry for entry, letter in zip(listed[start:], LETTERS, strict=False) if entry[0] == letter]
            if len(run) >= 2:
                return tuple(run)
    return ()


def _fields(item: Item) -> tuple[tuple[str, str], ...]:
    """Fields that are called a, b, c and so on."""
    named = {name.upper(): text for name, text in item.fields if len(name) == 1}
    run = []
    for letter in LETTERS:
        if letter not in named:
            break
        run.append((letter, named[letter]))
    return tuple(run)
