"""Log-likelihood of given continuations: one pass over packed tokens, a prompt that several share fed once."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.engine.contract import Reading, Scored, ScoreRequest
from qtool.engine.layers.network import Network
from qtool.engine.scheduling.ragged import Block, Step
from qtool.engine.scheduling.slots import common_prefix
from qtool.engine.scheduling.watched_inputs import log_probabilities, watched_inputs

_SHORTEST_SHARED = 16  # fewer shared tokens are not worth a block of their own
_CELLS_PER_TOKEN = 8  # keys gathered for each fed token, at most: what sharing may cost in memory
_MOST_LOGITS = 1 << 24  # scalars of one logits tensor: 64 MiB in float32; measuring them takes as much again


@dataclass(slots=True, eq=False)
class _Sequence:
    """A stretch of fed tokens: what all prompts begin with, the rest of a prompt, or a continuation behind it."""

    tokens: tuple[int, ...]
    start: int
    prompt: "_Sequence | None" = None
    request: int = -1
    offset: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def cells(self) -> list[int]:
        """Packed indices of everything this sequence may look at, in order of position."""
        before = [] if self.prompt is None else self.prompt.cells()
        return [*before, *range(self.offset, self.offset + len(self.tokens))]


class StepMemory:
    """Keys of this step only, gathered for each sequence from its prompt and itself."""

    def __init__(self, gather: Tensor, shape: tuple[int, int]) -> None:
        self._gather = gather
        self._shape = shape

    def write(self, layer: int, step: Step, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What each sequence may look at; nothing is kept for later steps."""
        return self._of_each(keys), self._of_each(values)

    def _of_each(self, stored: Tensor) -> Tensor:
        by_token = stored[0].transpose(0, 1)
        return by_token.index_select(0, self._gather).view(*self._shape, *by_token.shape[1:]).transpose(1, 2)


def score(network: Network, requests: Sequence[ScoreRequest], *, batch_tokens: int) -> list[Scored]:
    """Log-probability, argmax flag and margin of every continuation token, in the order of `requests`."""
    results: list[Scored | None] = [None] * len(requests)
    shared = shared_tokens([request.ids[:-1] for request in requests])
    for batch in _batches(requests, shared, batch_tokens):
        found = _score_batch(network, [requests[index] for index in batch], shared)
        for index, scored in zip(batch, found, strict=True):
            results[index] = scored
    return [result for result in results if result is not None]


def read(network: Network, request: ScoreRequest, *, places: Sequence[int], layers: Sequence[str]) -> Reading:
    """The distributions before the continuation's tokens at `places`, and what went into `layers`, in one pass."""
    sequences = _sequences([request], 0)
    fed = [token for sequence in sequences for token in sequence.tokens]
    positions = [position for sequence in sequences for position in range(sequence.start, sequence.end)]
    step, memory = _plan(sequences, positions, network.device)
    keep = [sequences[-1].offset + place for place in places] or [len(fed) - 1]
    with watched_inputs(network.model, layers) as watched:
        logits = network.forward(
            torch.tensor(fed, device=network.device), step, memory, torch.tensor(keep, device=network.device)
        )
    return Reading(log_probabilities(logits[: len(places)]), watched.counts())


def shared_tokens(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many leading tokens all prompts share, for instance worked examples; 0 where they are too few to matter."""
    if len(prompts) < 2:
        return 0
    first, last = min(prompts), max(prompts)  # in dictionary order: what these two share, all do
    shared = common_prefix(first, last)
    return shared if shared >= _SHORTEST_SHARED else 0


def _batches(requests: Sequence[ScoreRequest], shared: int, batch_tokens: int) -> list[list[int]]:
    """Indices by length, so that little is padded, with equal prompts side by side; `shared` tokens are fed once."""
    order = sorted(range(len(requests)), key=lambda index: (len(requests[index].ids), requests[index].ids))
    batches: list[list[int]] = []
    tokens = cells = 0
    for index in order:
        length = len(requests[index].ids) + len(requests[index].continuation)
        cost = length - shared
        full = tokens + cost > batch_tokens or cells + length > _CELLS_PER_TOKEN * batch_tokens
        if not batches or full:
            batches.append([])
            tokens = cells = 0
        batches[-1].append(index)
        tokens += cost
        cells += length
    return batches


def _score_batch(network: Network, requests: Sequence[ScoreRequest], shared: int) -> list[Scored]:
    sequences = _sequences(requests, shared)
    fed = [token for sequence in sequences for token in sequence.tokens]
    positions = [position for sequence in sequences for position in range(sequence.start, sequence.end)]
    step, memory = _plan(sequences, positions, network.device)
    keep, wanted, borders = _targets(requests, sequences)
    where, own = torch.tensor(keep, device=network.device), torch.tensor(wanted, device=network.device)
    most_rows = max(_MOST_LOGITS // network.vocabulary, 1)
    chosen: list[float] = []
    greedy: list[bool] = []
    margins: list[float] = []
    for logits in network.forward_in_parts(
        torch.tensor(fed, device=network.device), step, memory, where, most_rows=most_rows
    ):
        part = measure_logits(logits, own[len(chosen) : len(chosen) + len(logits)])
        chosen, greedy, margins = chosen + part[0], greedy + part[1], margins + part[2]
    return [
        Scored(tuple(chosen[first:last]), tuple(greedy[first:last]), tuple(margins[first:last]))
        for first, last in borders
    ]


def _sequences(requests: Sequence[ScoreRequest], shared: int) -> list[_Sequence]:
    """What all prompts share, then prompts, each once and without its last token, which every continuation feeds itself
    to be given its logits."""
    root = _Sequence(requests[0].ids[:shared], 0) if shared else None
    prompts: dict[tuple[int, ...], _Sequence] = {} if root is None else {root.tokens: root}
    sequences: list[_Sequence] = [] if root is None else [root]
    tails: list[_Sequence] = []
    for index, request in enumerate(requests):
        head = request.ids[:-1]
        prompt = prompts.get(head)
        if prompt is None and head:
            prompt = prompts[head] = _Sequence(head[shared:], shared, root)
            sequences.append(prompt)
        fed = (request.ids[-1], *request.continuation[:-1])
        tails.append(_Sequence(fed, len(head), prompt, index))
    sequences.extend(tails)
    offset = 0
    for sequence in sequences:
        sequence.offset = offset
        offset += len(sequence.tokens)
    return sequences


def _plan(sequences: Sequence[_Sequence], positions: list[int], device: torch.device) -> tuple[Step, StepMemory]:
    """The shared start, prompts and continuations as one block each, over keys gathered from the packed tokens."""
    longest = max(sequence.end for sequence in sequences)
    gather: list[int] = []
    for sequence in sequences:
        cells = sequence.cells()
        gather.extend(cells)
        gather.extend([cells[-1]] * (longest - len(cells)))
    first_tail = next(index for index, sequence in enumerate(sequences) if sequence.request >= 0)
    roots = int(any(sequence.request < 0 and sequence.prompt is not None for sequence in sequences))
    borders = (0, roots, first_tail, len(sequences))
    parts = [range(first, last) for first, last in itertools.pairwise(borders) if last > first]
    blocks = tuple(_block(sequences, part, device) for part in parts)
    where = torch.tensor(positions, device=device)
    memory = StepMemory(torch.tensor(gather, device=device), (len(sequences), longest))
    return Step(len(positions), where, where, blocks), memory


def _block(sequences: Sequence[_Sequence], part: range, device: torch.device) -> Block:
    members = [sequences[index] for index in part]
    width = max(len(sequence.tokens) for sequence in members)
    length = max(sequence.end for sequence in members)
    gather = [0] * (len(members) * width)
    scatter: list[int] = []
    query_positions = [[0] * width for _ in members]
    for row, sequence in enumerate(members):
        count = len(sequence.tokens)
        gather[row * width : row * width + count] = range(sequence.offset, sequence.offset + count)
        scatter.extend(range(row * width, row * width + count))
        query_positions[row][:count] = range(sequence.start, sequence.end)
    first = members[0].offset
    tokens = slice(first, first + len(scatter))
    return Block(
        part.start,
        len(members),
        width,
        length,
        torch.tensor(gather, device=device),
        torch.tensor(scatter, device=device),
        tokens,
        torch.tensor(query_positions, device=device),
        causal=False,
        full=False,
    )


def _targets(
    requests: Sequence[ScoreRequest], sequences: Sequence[_Sequence]
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Packed indices whose logits are needed, the tokens they are asked about, and where each request's lie."""
    keep: list[int] = []
    wanted: list[int] = []
    borders: list[tuple[int, int]] = []
    for sequence in sequences:
        if sequence.request >= 0:
            continuation = requests[sequence.request].continuation
            borders.append((len(keep), len(keep) + len(continuation)))
            keep.extend(range(sequence.offset, sequence.offset + len(continuation)))
            wanted.extend(continuation)
    return keep, wanted, borders


def measure_logits(logits: Tensor, wanted: Tensor) -> tuple[list[float], list[bool], list[float]]:
    """Log-probability of each wanted token, whether it is the argmax, and its margin over the best other token."""
    own = logits.gather(1, wanted[:, None])[:, 0].float()
    normalizers = torch.logsumexp(logits.float(), dim=-1)
    greedy = torch.argmax(logits, dim=-1) == wanted
    best, places = torch.topk(logits, min(2, logits.shape[-1]), dim=-1)
    others = torch.where(places[:, 0] == wanted, best[:, -1], best[:, 0]).float()
    return (own - normalizers).tolist(), greedy.tolist(), (own - others).tolist()
