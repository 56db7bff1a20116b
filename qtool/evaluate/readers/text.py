"""Running text, cut into pieces of about 2,000 characters at line ends.

What it does: takes `text` (or `page`, `content`, `document`) of a row, or a whole text file, and makes one item of each
piece, so that a comparison has many paired values instead of one.
When to use it: with the rolling scorer, for perplexity.
What it costs: nothing; each piece starts without context, so perplexity reads a little higher than over one long text.
When it fails: on rows without text; blank pieces are left out.
"""

from collections.abc import Iterable, Iterator

from qtool.evaluate.items.rows import Row, text_of
from qtool.records.task import Item, TaskSpec

PIECE_CHARACTERS = 2000


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a piece; its text is both the field `text` and the reference answer."""
    size = int(task.metric_options.get("piece_characters", PIECE_CHARACTERS))
    for index, piece in enumerate(_pieces(text_of(row, "text", "page", "content", "document"), size)):
        yield Item(id=f"{number}.{index}", fields=(("text", piece),), answer=piece, target=piece)


def _pieces(text: str, size: int) -> Iterator[str]:
    held: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        for start in range(0, len(line), size):
            part = line[start : start + size]
            if length + len(part) > size and held:
                yield from _kept("".join(held))
                held, length = [], 0
            held.append(part)
            length += len(part)
    yield from _kept("".join(held))


def _kept(piece: str) -> Iterator[str]:
    if piece.strip():
        yield piece
