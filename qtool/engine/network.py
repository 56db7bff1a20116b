"""A transformers causal model driven over ragged rows, and the check that this gives what its own forward gives."""

import inspect
from typing import Any

import torch
from torch import Tensor

from qtool.engine import attention
from qtool.engine.attention import Memory, ShapeRecorder, UnsupportedAttention
from qtool.engine.ragged import Row, Step, plan_step
from qtool.engine.slots import KeyValueSlots
from qtool.engine.weights import kernels_of
from qtool.kernels.dense import DenseKernel

_CHECK_TOKENS = 9
_LARGEST_ERROR = 1e-3  # of float32 logits, relative
_LARGEST_ROUNDED_ERROR = 0.1  # where inputs are rounded to bfloat16 or 8 bits, a last bit may become a whole step
_LONG_CONTEXT_ROPES = ("dynamic", "longrope")


class Network:
    """The model, its device and number type; `forward` is the only way through it."""

    def __init__(self, model: Any, *, device: torch.device, dtype: torch.dtype) -> None:
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
        self.tolerance = _LARGEST_ROUNDED_ERROR if rounds else _LARGEST_ERROR
        recorded = self._check()
        self.shapes, self.looks = recorded.shapes, recorded.looks

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

    def longest_context(self) -> int:
        """Positions the model was made for; rotary scalings that change with length are held to their short form."""
        longest = int(getattr(self.config, "max_position_embeddings", 0) or 2048)
        rope = getattr(self.config, "rope_parameters", None) or {}
        settings = rope.values() if any(isinstance(entry, dict) for entry in rope.values()) else [rope]
        for setting in filter(None, settings):
            if setting.get("rope_type") in _LONG_CONTEXT_ROPES:
                original = setting.get("original_max_position_embeddings") or longest
                longest = min(longest, int(original))
        return longest

    @torch.inference_mode()
    def _check(self) -> ShapeRecorder:
        """What each layer stores and sees. Raises UnsupportedAttention if ragged rows disagree with the forward."""
        ids = torch.arange(1, _CHECK_TOKENS + 1, device=self.device) % self.vocabulary
        self._use_attention("eager")
        expected = self.model(input_ids=ids[None], use_cache=False, return_dict=True).logits[0].float()
        self._use_attention(attention.NAME)
        recorder = ShapeRecorder()
        step = plan_step([Row(0, 0, _CHECK_TOKENS)], self.device)
        try:
            self.forward(ids, step, recorder, torch.arange(_CHECK_TOKENS, device=self.device))
            if len(recorder.shapes) != self.config.num_hidden_layers:
                raise UnsupportedAttention(
                    f"{type(self.model).__name__}: {len(recorder.shapes)} of {self.config.num_hidden_layers} layers "
                    "let their attention be replaced"
                )
            slots = KeyValueSlots(
                recorder.shapes, slots=3, context=_CHECK_TOKENS + 2, dtype=self.dtype, device=self.device
            )
            self._compare(ids, slots, expected)
        except (TypeError, AttributeError, RuntimeError, IndexError) as error:
            raise UnsupportedAttention(f"{type(self.model).__name__}: {error}") from error
        return recorder

    def _compare(self, ids: Tensor, slots: KeyValueSlots, expected: Tensor) -> None:
        """Two rows of the same ids, in two uneven steps each, must both give the expected logits."""
        half = _CHECK_TOKENS // 2
        for rows in ([Row(0, 0, half), Row(2, 0, half + 2)], [Row(0, half, 1), Row(2, half + 2, 2)]):
            step = plan_step(rows, self.device)
            fed = torch.cat([ids[row.start : row.end] for row in rows])
            logits = self.forward(fed, step, slots, torch.arange(step.tokens, device=self.device)).float()
            wanted = torch.cat([expected[row.start : row.end] for row in rows])
            usable = wanted.isfinite()  # a model that is NaN by itself is answered request by request
            error = (logits - wanted)[usable].norm() / wanted[usable].norm().clamp(min=1e-6)
            if not error <= self.tolerance:
                raise UnsupportedAttention(
                    f"{type(self.model).__name__}: logits over ragged rows are {float(error):.0%} off its own forward"
                )

    def _use_attention(self, name: str) -> None:
        for module in self.model.modules():
            config = getattr(module, "config", None)
            if config is not None and hasattr(config, "_attn_implementation"):
                config._attn_implementation = name
