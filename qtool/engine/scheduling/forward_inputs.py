"""One step of rows through the network by the fastest way there is: a CUDA graph, a compiled call, or its forward."""

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from qtool.engine.layers.compiled import CompiledDecoder, compiled_decoder
from qtool.engine.layers.network import Network
from qtool.engine.scheduling.graphs import GraphedDecoder
from qtool.engine.scheduling.ragged import Row, plan_step
from qtool.engine.scheduling.slots import KeyValueSlots


class Feeder:
    """Feeds rows to the network. How a row of one token is computed does not depend on the rows beside it where steps
    are compiled; neither does how a prompt is computed where there are `piece_tokens`: it is then fed alone, in pieces
    that begin at multiples of that, so that each product has the shape it would have without company."""

    def __init__(self, network: Network, memory: KeyValueSlots, *, piece_tokens: int = 0) -> None:
        self._network = network
        self._memory = memory
        self._piece_tokens = piece_tokens
        self.graphs = GraphedDecoder(network, memory)
        found = compiled_decoder(network, memory)
        self.compiled = found if isinstance(found, CompiledDecoder) else None
        self.not_compiled = "" if isinstance(found, CompiledDecoder) else str(found)

    def logits(self, rows: list[Row], fed: list[int], keep: list[int]) -> Tensor:
        """Logits [kept, vocabulary] of the rows' packed tokens `fed` at the indices `keep`, which ascend."""
        single = [row.count == 1 for row in rows]
        if all(single) and len(keep) == len(rows):
            decoded = self.compiled.decode(rows, fed) if self.compiled else self.graphs.decode(rows, fed)
            if decoded is not None:
                return decoded
        if not self._piece_tokens and (self.compiled is None or not any(single)):
            return self._together(rows, fed, keep)
        return self._apart(rows, single, fed, keep)

    def _apart(self, rows: list[Row], single: list[bool], fed: list[int], keep: list[int]) -> Tensor:
        """Rows of one token by the compiled call, longer ones by the network: the weights are read more than once,
        which costs little beside a prompt."""
        starts = list(accumulate((row.count for row in rows), initial=0))
        alone = [index for index, one in enumerate(single) if one]
        found: dict[int, Tensor] = {}
        if alone:
            decoded = self._decoded([rows[index] for index in alone], [fed[starts[index]] for index in alone])
            found = {starts[index]: logits.float() for index, logits in zip(alone, decoded, strict=True)}
        wanted = set(keep)
        for first, row in ((starts[index], rows[index]) for index, one in enumerate(single) if not one):
            for piece in pieces_of(row, self._piece_tokens or row.count):
                offset = first + piece.start - row.start
                kept = [place for place in range(piece.count) if offset + place in wanted]
                logits = self._together([piece], fed[offset : offset + piece.count], kept)
                found |= {offset + place: each.float() for place, each in zip(kept, logits, strict=True)}
        return torch.stack([found[place] for place in keep]) if keep else torch.empty(0, self._network.vocabulary)

    def _decoded(self, rows: list[Row], fed: list[int]) -> Tensor:
        if self.compiled is not None:
            return self.compiled.decode(rows, fed)
        return self._together(rows, fed, list(range(len(rows))))

    def _together(self, rows: list[Row], fed: list[int], keep: list[int]) -> Tensor:
        where = torch.tensor(keep, dtype=torch.long, device=self._network.device)
        ids = torch.tensor(fed, device=self._network.device)
        return self._network.forward(ids, plan_step(rows, self._network.device), self._memory, where)


def pieces_of(row: Row, tokens: int) -> Iterator[Row]:
    """`row` cut at the positions that are multiples of `tokens`."""
    start = row.start
    while start < row.end:
        end = min(start - start % tokens + tokens, row.end)
        yield Row(row.slot, start, end - start)
        start = end
