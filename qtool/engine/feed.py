"""One step of rows through the network by the fastest way there is: a CUDA graph, a compiled call, or its forward."""

from itertools import accumulate

import torch
from torch import Tensor

from qtool.engine.compiled import CompiledDecoder, compiled_decoder
from qtool.engine.graphs import GraphedDecoder
from qtool.engine.network import Network
from qtool.engine.ragged import Row, plan_step
from qtool.engine.slots import KeyValueSlots


class Feeder:
    """Feeds rows to the network. How a row of one token is computed does not depend on the rows beside it."""

    def __init__(self, network: Network, memory: KeyValueSlots) -> None:
        self._network = network
        self._memory = memory
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
        if self.compiled is None or not any(single):
            return self._forward(rows, fed, keep)
        return self._apart(rows, single, fed, keep)

    def _apart(self, rows: list[Row], single: list[bool], fed: list[int], keep: list[int]) -> Tensor:
        """Rows of one token by the compiled call, longer ones by the network: the weights are read twice, which costs
        little beside a prompt."""
        starts = list(accumulate((row.count for row in rows), initial=0))
        alone = [index for index, one in enumerate(single) if one]
        longer = [index for index, one in enumerate(single) if not one]
        assert self.compiled is not None
        decoded = self.compiled.decode([rows[index] for index in alone], [fed[starts[index]] for index in alone])
        found = {starts[index]: logits for index, logits in zip(alone, decoded, strict=True)}
        if longer:
            places = [place for index in longer for place in range(starts[index], starts[index + 1])]
            wanted = set(keep)
            kept = [index for index, place in enumerate(places) if place in wanted]
            prompts = self._forward([rows[index] for index in longer], [fed[place] for place in places], kept)
            found |= {places[index]: logits.float() for index, logits in zip(kept, prompts, strict=True)}
        return torch.stack([found[place] for place in keep]) if keep else decoded[:0]

    def _forward(self, rows: list[Row], fed: list[int], keep: list[int]) -> Tensor:
        where = torch.tensor(keep, dtype=torch.long, device=self._network.device)
        ids = torch.tensor(fed, device=self._network.device)
        return self._network.forward(ids, plan_step(rows, self._network.device), self._memory, where)
