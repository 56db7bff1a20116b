"""A transformers causal model driven over ragged rows, and the check that this gives what its own forward gives."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from qtool.data.probe_text import spread_ids
from qtool.engine.layers import attention
from qtool.engine.layers.attention import Look, Memory, ShapeRecorder, UnsupportedAttention
from qtool.engine.layers.own_forward import use_attention, whole_pass
from qtool.engine.layers.own_spread import distance, own_spread
from qtool.engine.layers.weights import kernels_of
from qtool.engine.scheduling.ragged import Row, Step, plan_step
from qtool.engine.scheduling.slots import KeyValueSlots, LayerShape
from qtool.kernels.dense import DenseKernel
from qtool.models.architecture import longest_context
from qtool.models.skeleton import attention_of

PROBE_TOKENS = 24
_FEWEST_TOKENS = 8
_LARGEST_ERROR = 1e-3  # of float32 logits, relative
_LARGEST_ROUNDED_ERROR = 4 * 2.0**-7  # where inputs are rounded to bfloat16 or 8 bits: a few steps of bfloat16
_SPREADS = 3  # above that, an error this many times the model's own distance from itself is rounding too


class Network:
    """The model, its device and number type; `forward` is the only way through it.

    `probe` are token ids of plain text that it is checked with; without any, ids from all over its vocabulary.
    """

    def __init__(self, model: Any, *, device: torch.device, dtype: torch.dtype, probe: Sequence[int] = ()) -> None:
        attention.register()
        self.model = model
        self.device = device
        self.dtype = dtype
        self.config = model.config.get_text_config(decoder=True)
        self.vocabulary = int(self.config.vocab_size)
        self._selects = "logits_to_keep" in inspect.signature(model.forward).parameters
        quantized = any(not isinstance(kernel, DenseKernel) for kernel in kernels_of(model)) or any(
            type(module).__module__.startswith("bitsandbytes") for module in model.modules()
        )
        rounds = dtype is not torch.float32 or quantized
        self._floor = _LARGEST_ROUNDED_ERROR if rounds else _LARGEST_ERROR
        self._spread: float | None = None
        ids = probe if len(probe) >= _FEWEST_TOKENS else spread_ids(self.vocabulary, tokens=PROBE_TOKENS)
        self.probe = torch.tensor(ids[:PROBE_TOKENS], device=device)
        self._expected = self._whole_pass()
        self.shapes, self.looks = self._check()

    @torch.inference_mode()
    def forward(self, ids: Tensor, step: Step, memory: Memory, keep: Tensor) -> Tensor:
        """Logits [kept, vocabulary] of the tokens whose packed indices are in `keep`; ids are [tokens]."""
        arguments: dict[str, Any] = {"logits_to_keep": keep} if self._selects else {}
        with attention.during(step, memory):
            output = self.model(
                input_ids=ids[None], position_ids=step.positions[None], use_cache=False, return_dict=True, **arguments
            )
        logits: Tensor = output.logits[0]
        return logits if self._selects else logits[keep]

    @torch.inference_mode()
    def forward_in_parts(
        self, ids: Tensor, step: Step, memory: Memory, keep: Tensor, *, most_rows: int
    ) -> Iterator[Tensor]:
        """What `forward` gives, at most `most_rows` rows at a time: with a vocabulary of 262,144 the logits of 500
        tokens are half a gigabyte. The layers run once; only the head runs for each part."""
        body = self._body() if len(keep) > most_rows else None
        if body is None:
            yield self.forward(ids, step, memory, keep)
            return
        with attention.during(step, memory):
            states = body(input_ids=ids[None], position_ids=step.positions[None], use_cache=False, return_dict=True)
        hidden: Tensor = states.last_hidden_state[:, keep]
        for start in range(0, len(keep), most_rows):
            part = keep[start : start + most_rows]
            states.last_hidden_state = hidden[:, start : start + most_rows]
            with _answers(body, states):  # what follows the layers is the model's own: scaled, capped or plain logits
                output = self.model(input_ids=ids[part][None], use_cache=False, return_dict=True)
            yield output.logits[0]

    def longest_context(self) -> int:
        """Positions the model was made for; rotary scalings that change with length are held to their short form."""
        return longest_context(self.config.to_dict())

    def tolerates(self, error: float) -> bool:
        """Whether logits of the probe may be `error` off the model's own, relative: by a few roundings, or by not much
        more than the model is off itself, which is measured only where it matters."""
        return error <= self._floor or error <= _SPREADS * self.spread()

    def spread(self) -> float:
        """How far the model's own forward is from itself on the probe, relative."""
        if self._spread is None:
            fused = attention_of(self.model.config) == "sdpa" and all(look.plain for look in self.looks.values())
            try:
                self._spread = own_spread(self.model, self.probe, self._whole_pass(), fused=fused)
            finally:
                use_attention(self.model, attention.NAME)
        return self._spread

    def _body(self) -> Any | None:
        """The module that gives the model its last hidden states, found by watching one token pass; None if none."""
        found: list[Any] = []

        def watch(module: Any, given: Any, output: Any) -> None:
            if module is not self.model and hasattr(output, "last_hidden_state"):
                found.append(module)

        handles = [module.register_forward_hook(watch) for module in self.model.modules()]
        step = plan_step([Row(0, 0, 1)], self.device)
        try:
            self.forward(torch.zeros(1, dtype=torch.long, device=self.device), step, ShapeRecorder(), step.positions)
        finally:
            for handle in handles:
                handle.remove()
        return found[-1] if found else None  # the outermost ends last

    @torch.inference_mode()
    def _whole_pass(self) -> Tensor:
        use_attention(self.model, "eager")
        expected = whole_pass(self.model, self.probe[None])[0].float()
        use_attention(self.model, attention.NAME)
        return expected

    @torch.inference_mode()
    def _check(self) -> tuple[dict[int, LayerShape], dict[int, Look]]:
        """What each layer stores and sees. Raises UnsupportedAttention if ragged rows disagree with the forward."""
        recorder, count = ShapeRecorder(), len(self.probe)
        step = plan_step([Row(0, 0, count)], self.device)
        try:
            self.forward(self.probe, step, recorder, torch.arange(count, device=self.device))
            if len(recorder.shapes) != self.config.num_hidden_layers:
                raise UnsupportedAttention(
                    f"{type(self.model).__name__}: {len(recorder.shapes)} of {self.config.num_hidden_layers} layers "
                    "let their attention be replaced"
                )
            self.looks = recorder.looks
            slots = KeyValueSlots(recorder.shapes, slots=3, context=count + 2, dtype=self.dtype, device=self.device)
            self._compare(slots)
        except (TypeError, AttributeError, RuntimeError, IndexError) as error:
            raise UnsupportedAttention(f"{type(self.model).__name__}: {error}") from error
        return recorder.shapes, recorder.looks

    def _compare(self, slots: KeyValueSlots) -> None:
        """Two rows of the probe, in uneven steps, must both give the logits of one whole pass."""
        half = len(self.probe) // 2
        for rows in (
            [Row(0, 0, half), Row(2, 0, half + 2)],
            [Row(0, half, 1), Row(2, half + 2, 2)],
            [Row(0, half + 1, 1), Row(2, half + 4, 1)],
        ):
            step = plan_step(rows, self.device)
            fed = torch.cat([self.probe[row.start : row.end] for row in rows])
            logits = self.forward(fed, step, slots, torch.arange(step.tokens, device=self.device)).float()
            error = distance(logits, torch.cat([self._expected[row.start : row.end] for row in rows]))
            if not self.tolerates(error):
                raise UnsupportedAttention(
                    f"{type(self.model).__name__}: logits over ragged rows are {error:.1%} off its own forward, which "
                    f"is {self.spread():.1%} off itself"
                )


@contextlib.contextmanager
def _answers(body: Any, states: Any) -> Iterator[None]:
    """While inside, calling `body` gives `states` and computes nothing."""
    body.forward = lambda *arguments, **named: states  # an attribute of the object hides the method of its class
    try:
        yield
    finally:
        del body.forward
