"""Who runs: requests wait for a slot, join and leave at any step, and long prompts are fed in chunks."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from qtool.engine.contract import FinishReason, GenerationRequest, TokenEvent
from qtool.engine.grammar import Matcher
from qtool.engine.layers.network import Network
from qtool.engine.scheduling.forward_inputs import Feeder
from qtool.engine.scheduling.ragged import Row
from qtool.engine.scheduling.sampler import Choice, Chooser, choose
from qtool.engine.scheduling.slots import KeyValueSlots, PrefixIndex, SlotRoom
from qtool.engine.scheduling.stop import Decode, StopWatch

_WORTH_WAITING = 32  # a request waits for another's prompt when it saves computing at least this many tokens


@dataclass(slots=True, eq=False)
class Running:
    """One request in its slot: `tokens` is prompt and output, `computed` how many have their keys in memory."""

    number: int
    request: GenerationRequest
    chooser: Chooser
    watch: StopWatch | None
    slot: int = -1
    computed: int = 0
    tokens: list[int] = field(default_factory=list)

    @property
    def output(self) -> list[int]:
        """Tokens generated so far."""
        return self.tokens[len(self.request.ids) :]


class Scheduler:
    """Owns slots and queue. `step` feeds every decoding row one token and prompts up to `chunk_tokens` together.

    With `piece_tokens` what a request's tokens are depends on nothing but itself: prompts are fed in pieces of so many
    tokens, and what they share with others is whole pieces of others' prompts.
    """

    def __init__(
        self,
        network: Network,
        memory: KeyValueSlots,
        *,
        chunk_tokens: int,
        piece_tokens: int = 0,
        decode: Decode | None,
        device: torch.device,
    ) -> None:
        self._memory = memory
        self._chunk_tokens = chunk_tokens
        self._decode = decode
        self._piece_tokens = piece_tokens
        self.feeder = Feeder(network, memory, piece_tokens=piece_tokens)
        self._prefixes = PrefixIndex(memory.slots)
        self._room = SlotRoom(memory.slots, memory.room)
        self._free = set(range(memory.slots))
        self._waiting: deque[Running] = deque()
        self._running: dict[int, Running] = {}
        self._aborted: set[int] = set()
        self._next = 0
        self.prompt_tokens = 0
        self.reused_tokens = 0

    @property
    def kept_tokens(self) -> int:
        """Tokens whose keys and values are in memory, or whose place is set aside."""
        return self._room.taken

    @property
    def room_tokens(self) -> int:
        """Tokens that fit."""
        return self._memory.room

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests with a slot."""
        return len(self._running)

    @property
    def free_slots(self) -> int:
        """Slots without a request."""
        return len(self._free)

    def submit(self, request: GenerationRequest, matcher: Matcher | None = None) -> int:
        """Queues a valid request; its number. `matcher` holds its output to a grammar."""
        number = self._next
        self._next += 1
        watch = StopWatch(request.stop, self._decode) if request.stop and self._decode else None
        chooser = Chooser(request.sampling, request.logprobs, matcher)
        self._waiting.append(Running(number, request, chooser, watch, tokens=list(request.ids)))
        return number

    def abort(self, number: int) -> None:
        """Ends a request at the next step; one that is unknown or finished is left alone."""
        if number in self._running or any(waiting.number == number for waiting in self._waiting):
            self._aborted.add(number)

    def step(self) -> list[TokenEvent]:
        """Advances every running request by at most one token."""
        events = self._drop_aborted()
        self._admit()
        rows = self._choose_rows()
        if not rows:
            return events
        choices, failures = self._advance_or_split(rows)
        events += failures
        now = time.monotonic()
        for running, choice in choices:
            events.append(self._settle(running, choice, now))
        return events

    def _drop_aborted(self) -> list[TokenEvent]:
        if not self._aborted:
            return []
        now = time.monotonic()
        dropped = sorted(self._aborted)
        self._waiting = deque(waiting for waiting in self._waiting if waiting.number not in self._aborted)
        for number in dropped:
            if number in self._running:
                self._release(self._running[number])
        self._aborted.clear()
        return [TokenEvent(number, None, None, now, finish="abort") for number in dropped]

    def _admit(self) -> None:
        """Gives free slots in order of arrival; who would repeat a prompt in progress waits and lets others pass."""
        later: list[Running] = []
        while self._free and self._waiting:
            running = self._waiting.popleft()
            prompt = running.request.ids
            source, shared = self._prefixes.best(list(prompt))
            shared = self._whole(min(shared, len(prompt) - 1))  # the last token is always fed: its logits are needed
            owner = self._owner(source)
            ready = shared if owner is None else self._whole(min(shared, owner.computed))
            if shared - ready >= _WORTH_WAITING:
                later.append(running)
                continue
            slot = source if ready and source in self._free else min(self._free)
            if not self._make_room(slot, source if ready else -1, len(prompt) + running.request.max_new_tokens):
                later.append(running)  # nobody overtakes it: a long request would wait for ever
                break
            self._place(running, slot, source, ready)
        self._waiting.extendleft(reversed(later))

    def _make_room(self, slot: int, source: int, needed: int) -> bool:
        """Whether `slot` may hold `needed` tokens, after free slots gave back what is kept for prompts to come."""
        while not self._room.fits(slot, needed):
            oldest = self._room.oldest(besides=source)
            if oldest is None:
                return False
            self._prefixes.forget(oldest)
            self._memory.clear(oldest)
            self._room.empty(oldest)
        return True

    def _owner(self, slot: int) -> Running | None:
        return next((running for running in self._running.values() if running.slot == slot), None)

    def _place(self, running: Running, slot: int, source: int, ready: int) -> None:
        self._free.discard(slot)
        self._room.take(slot, len(running.request.ids) + running.request.max_new_tokens)
        if ready and slot != source:
            self._memory.copy_prefix(source, slot, ready)
        self._prefixes.replace(slot, self._to_share(running))
        running.slot = slot
        running.computed = ready
        self.prompt_tokens += len(running.request.ids)
        self.reused_tokens += ready
        self._running[running.number] = running

    def _choose_rows(self) -> list[tuple[Running, int]]:
        """Every decoding request with one token, then prompts in order of arrival while the chunk has room."""
        rows: list[tuple[Running, int]] = []
        prompts: list[tuple[Running, int]] = []
        for running in self._running.values():
            missing = len(running.tokens) - running.computed
            (rows if missing == 1 else prompts).append((running, missing))
        rows.sort(key=lambda row: row[0].slot)
        room = max(self._chunk_tokens - len(rows), 1)
        for running, missing in prompts:
            if room <= 0:
                break
            rows.append((running, min(missing, self._whole(room) or self._piece_tokens)))
            room -= rows[-1][1]
        return rows

    def _whole(self, tokens: int) -> int:
        """`tokens` without what is beyond whole pieces."""
        return tokens - tokens % self._piece_tokens if self._piece_tokens else tokens

    def _to_share(self, running: Running) -> list[int]:
        """Tokens of the request that others may take its keys of: all, or the whole pieces of its prompt."""
        return running.tokens[: self._whole(len(running.request.ids))] if self._piece_tokens else running.tokens

    def _advance_or_split(
        self, rows: Sequence[tuple[Running, int]]
    ) -> tuple[list[tuple[Running, Choice]], list[TokenEvent]]:
        """Feeds the rows. Where that fails, each half alone, down to the row that cannot be fed: only that one ends.

        Repeating is safe: keys are written again at the same places, and nothing was drawn yet.
        """
        try:
            return self._advance(rows), []
        except (RuntimeError, MemoryError) as error:  # out of memory, or an operator that refused these shapes
            if len(rows) == 1:
                said = str(error).splitlines()
                return [], [self._fail(rows[0][0], f"the forward pass failed: {said[0] if said else 'out of memory'}")]
        middle = len(rows) // 2
        first, second = self._advance_or_split(rows[:middle]), self._advance_or_split(rows[middle:])
        return first[0] + second[0], first[1] + second[1]

    def _advance(self, rows: Sequence[tuple[Running, int]]) -> list[tuple[Running, Choice]]:
        """Feeds the rows; a choice for each one whose last known token was among what was fed."""
        fed: list[int] = []
        keep: list[int] = []
        finished: list[Running] = []
        for running, count in rows:
            fed.extend(running.tokens[running.computed : running.computed + count])
            if running.computed + count == len(running.tokens):
                keep.append(len(fed) - 1)
                finished.append(running)
        plan = [Row(running.slot, running.computed, count) for running, count in rows]
        logits = self.feeder.logits(plan, fed, keep)
        for running, count in rows:
            running.computed += count
        if not finished:
            return []
        choices = choose(
            logits,
            [running.chooser for running in finished],
            [running.request.ids for running in finished],
            [running.output if running.chooser.penalized else () for running in finished],
        )
        return list(zip(finished, choices, strict=True))

    def _settle(self, running: Running, choice: Choice, now: float) -> TokenEvent:
        """Takes the chosen token into the request, or ends it."""
        request = running.request
        if choice.token < 0:
            return self._fail(running, "the model produced NaN or infinite logits")
        if choice.token in request.stop_ids:
            self._release(running)
            return TokenEvent(running.number, None, choice.logprob, now, finish="stop")
        running.tokens.append(choice.token)
        matcher = running.chooser.matcher
        if matcher is not None:
            matcher.take(choice.token)
        produced = len(running.tokens) - len(request.ids)
        finish: FinishReason | None = None
        stopped = running.watch is not None and running.watch.reached(running.output)
        if stopped or (matcher is not None and matcher.finished):
            finish = "stop"
        elif produced >= request.max_new_tokens:
            finish = "length"
        if finish is not None:
            self._release(running)
        return TokenEvent(running.number, choice.token, choice.logprob, now, finish=finish, top=choice.top)

    def _release(self, running: Running) -> None:
        """Frees the slot; what was computed in it stays known, for prompts that begin alike."""
        del self._running[running.number]
        self._free.add(running.slot)
        self._room.leave(running.slot, len(running.tokens))
        self._prefixes.replace(running.slot, self._to_share(running)[: running.computed])

    def _fail(self, running: Running, reason: str) -> TokenEvent:
        self._release(running)
        self._prefixes.forget(running.slot)
        self._memory.clear(running.slot)
        self._room.empty(running.slot)
        return TokenEvent(running.number, None, None, time.monotonic(), finish="error", error=reason)
