"""Text that a model is probed with, in tokens of its own tokenizer.

Token ids by number would do for a random model. A trained one has control tokens among the first ids, and on a row of
those it is chaotic: SmolLM2's two attentions in transformers differ by 85 % on ids 1 to 9 and by 2 % on prose.
"""

from pathlib import Path

from qtool.errors import ModelError
from qtool.models.checkpoint import tokenizer_files

PASSAGES = (
    "The harbour was quiet in the early morning. A few boats left for the open sea, and an old man on the pier counted "
    "them as he had done for thirty years.",
    "To make the soup, cut two onions and three carrots into small pieces, fry them in a little oil, add a litre of "
    "water and let everything cook for half an hour.",
    "def total(prices, tax=0.2):\n    result = 0\n    for price in prices:\n        result += price * (1 + tax)\n"
    "    return round(result, 2)\n",
    "The committee met on Tuesday to discuss the new library. Most members agreed that the building should be open in "
    "the evening, but the cost of it worried some of them.",
    "Question: A train leaves at 8:15 and arrives at 10:40. How long is the journey?\nAnswer: From 8:15 to 10:15 are "
    "two hours, and 25 minutes are left.",
    "Water boils at a lower temperature on a mountain, because the pressure of the air above it is smaller there than "
    "it is at the level of the sea.",
    "Dear Ms. Green, thank you for your letter of 3 May. We are sorry that the lamp arrived broken, and we will send "
    "you another one this week without charge.",
    "In the second half the visitors played better and scored twice within ten minutes, so that the match ended in a "
    "draw that neither side had expected at the break.",
)


def probe_rows(folder: Path, vocabulary: int, *, tokens: int) -> tuple[tuple[int, ...], ...]:
    """The passages in token ids of the tokenizer in `folder`, each cut after `tokens`; none where it has none that can
    be used, or one that does not belong to a model of `vocabulary` ids."""
    from qtool.models.tokenizer import encode, load_tokenizer

    if not tokenizer_files(folder):
        return ()
    try:
        tokenizer = load_tokenizer(folder)
    except ModelError:  # what it is needed for says so; a model runs without one
        return ()
    rows = [encode(tokenizer, passage)[:tokens] for passage in PASSAGES]
    return tuple(row for row in rows if len(row) > 1 and max(row) < vocabulary)


def spread_ids(vocabulary: int, *, tokens: int) -> tuple[int, ...]:
    """Ids from all over a vocabulary that nothing is known of."""
    return tuple((1 + index * (vocabulary // tokens | 1)) % vocabulary for index in range(tokens))
