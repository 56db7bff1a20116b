"""Quantizes a model block by block from disk: each block is calibrated on what the quantized blocks before it give."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qtool.errors import NumericError, QuantizationError
from qtool.formats.stored_weights import StoredWeight, dequantize
from qtool.models.architecture import LinearLayer
from qtool.progress import Progress
from qtool.quantize.blocks.finished_parts import PartRecord, Parts, tensor_digest
from qtool.quantize.blocks.hidden_states import BlockActivations, Samples, enter
from qtool.quantize.blocks.outcome import held_out_change
from qtool.quantize.blocks.routed_experts import with_experts
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.quantize.contract import BlockMethod, BlockWork, LayerResult, LayerWork
from qtool.quantize.output.layouts import grid_of, layer_tensors, scale_dtype, stored_format
from qtool.quantize.output.ledger import OutputError, kept_row, nonfinite, row_of, weight_error
from qtool.quantize.request.selection import Selection
from qtool.quantize.rounding.activations import quantize_inputs, round_input
from qtool.quantize.rounding.held_out import held_out_of
from qtool.quantize.rounding.moments import refuse_nonfinite
from qtool.quantize.rounding.nearest import nearest
from qtool.quantize.rounding.static_inputs import spoilt_by
from qtool.records.variant import HeldOutChange, LedgerRow, Recipe

_STEPS = (1, 4, 10, 100, 1000)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One variant to make. `rows` are the token sequences a method learns from, `held_out` those that only measure;
    `input_scales` holds the calibrated scale of each layer's 8-bit input where it is static; `propagates` says that the
    method wants to know what the unquantized model would see."""

    source: Path
    recipe: Recipe
    selection: Selection
    method: BlockMethod
    rows: tuple[tuple[int, ...], ...]
    held_out: tuple[tuple[int, ...], ...]
    input_scales: Mapping[str, float]
    device: torch.device
    progress: Progress
    propagates: bool = False


def quantize_blocks(job: Job, parts: Parts, *, blocks: int | None = None) -> list[PartRecord]:
    """Makes every part that is not on disk yet; returns the records of all, or of the first `blocks` blocks only."""
    streamed = StreamedModel(job.source, device=job.device)
    count = len(streamed.architecture.blocks)
    records = [_finished_or_outside(job, streamed, parts)]
    samples: Samples | None = None
    with job.progress.track(f"quantizing with {job.recipe.method}", count, "blocks") as advance:
        for index in range(count if blocks is None else blocks):
            record = parts.read(index + 1)
            if record is None:
                samples = samples or _samples(job, streamed, parts, index)
                record = _make_block(job, streamed, parts, index, samples)
            records.append(record)
            advance(1)
    return records


def _samples(job: Job, streamed: StreamedModel, parts: Parts, index: int) -> Samples | None:
    """The hidden states that enter block `index`: from the embedding, or as the interrupted run left them."""
    if not job.rows and not job.held_out:
        return None
    streamed.load_outside()
    samples = enter(streamed, job.rows, job.held_out)
    if job.propagates:
        samples.base = list(samples.hidden[: samples.held_out_from])
    if index:
        saved = parts.read_samples(index)
        if saved is None:
            raise QuantizationError(f"{parts.folder}: the interrupted run left no activations; remove the folder")
        states = iter(state.to(job.device) for state in saved)
        samples.hidden = [next(states) for _ in samples.real]
        samples.base_held_out = [next(states) for _ in samples.base_held_out]
        samples.base = list(states) if job.propagates else None
    return samples


def _finished_or_outside(job: Job, streamed: StreamedModel, parts: Parts) -> PartRecord:
    """Part 0: all that lies outside the blocks, as it is, except linear layers that were asked for by name."""
    if record := parts.read(0):
        return record
    checkpoint = streamed.checkpoint
    inside = tuple(block + "." for block in streamed.architecture.blocks)
    tensors = {name: checkpoint.sound_tensor(name) for name in checkpoint.names if not name.startswith(inside)}
    rows, numbers = [], {}
    for layer in streamed.architecture.linears:
        if layer.block is not None:
            continue
        if layer.name in job.selection.kept:
            size = checkpoint.tensor_bytes(layer.weight) if layer.weight in checkpoint.names else 0
            reason = job.selection.kept[layer.name]
            rows.append(kept_row(layer, job.recipe, stored_bytes=size, reason=reason))
            continue
        work, result = _outside(job, layer, tensors.pop(layer.weight))
        finished = _Finished(job, work, result, weight_error(work.weight(), result))
        tensors |= finished.tensors
        rows.append(finished.row(None))
        numbers[layer.name] = finished.number
    return parts.write(0, streamed.names.written(tensors), tuple(rows), numbers)


def _outside(job: Job, layer: LinearLayer, weight: Tensor) -> tuple[LayerWork, LayerResult]:
    module = nn.Linear(layer.columns, layer.rows, bias=False, device="meta")
    module.weight = nn.Parameter(weight, requires_grad=False)
    work = _layer_work(job, layer, module, weight.dtype)
    _refuse_nonfinite([work])
    asked = job.recipe.method
    result = nearest(work)
    return work, replace(
        result,
        reason="" if asked == "rtn" else "lies outside the blocks: rounded to nearest",
        weight=_with_input_scale(job, work, result.weight),
    )


def _make_block(job: Job, streamed: StreamedModel, parts: Parts, index: int, samples: Samples | None) -> PartRecord:
    with streamed.loaded_block(index) as module:
        making = _BlockInTheMaking(job, streamed, index, module, samples)
        try:
            if making.activations is not None and not job.propagates:
                making.activations.advance_base()
            for result in job.method.quantize(making.work):
                making.settle(result)
            making.check()
            tensors, rows, numbers = making.finish()
            if making.activations is not None and samples is not None:
                making.activations.advance(streamed.architecture.blocks[index])
                parts.keep_samples(index + 1, samples)
        finally:
            making.release()
    return parts.write(index + 1, streamed.names.written(tensors), rows, numbers, dynamic=making.dynamic)


def measure_outcome(job: Job, parts: Parts) -> HeldOutChange | None:
    """How far the finished blocks are from the base's on held-out tokens; None where there are none."""
    if not job.held_out:
        return None
    found = parts.read_outcome()
    if found is None:
        streamed = StreamedModel(job.source, device=job.device)
        samples = _samples(job, streamed, parts, parts.count - 1)
        found = None if samples is None else held_out_change(streamed, samples)
        if found is not None:
            parts.write_outcome(found)
    return found


class _BlockInTheMaking:
    """One block while a method works on it: its layers, what they were, and what has been put in their place."""

    def __init__(
        self, job: Job, streamed: StreamedModel, index: int, module: nn.Module, samples: Samples | None
    ) -> None:
        self._job = job
        self._streamed = streamed
        self._index = index
        self._module = module
        name = streamed.architecture.blocks[index]
        self._handles: list[Any] = []
        self._before: dict[str, Tensor] = {}
        self._spoilt: dict[str, str] = {}  # why inputs asked to be static are not, by the first layer that reads them
        self._errors: dict[str, float] = {}
        self._results: dict[str, LayerResult] = {}
        self._small = {name: value.detach().clone() for name, value in module.named_parameters() if value.ndim == 1}
        self.activations = None if samples is None else with_experts(BlockActivations(module, index, samples), name)
        layers = [layer for layer in streamed.architecture.in_block(index) if layer.name in job.selection.schemes]
        works = tuple(self._work(layer) for layer in layers)
        _refuse_nonfinite(works)
        learns = self.activations if job.rows else None
        stored = streamed.checkpoint.main_dtype()
        self.work = BlockWork(module, works, job.recipe, learns, stored)

    def settle(self, result: LayerResult) -> None:
        """Puts the quantized weight of `result` into the block and rounds its input where it will be served so."""
        work = next((work for work in self.work.layers if work.name == result.layer), None)
        if work is None or work.name in self._results:
            told = "no layer to quantize in this block" if work is None else "quantized already"
            raise QuantizationError(f"{result.layer}: method {self._job.recipe.method!r} yields it, but it is {told}")
        held: Any = work.module
        weight = work.weight()
        self._errors[work.name] = weight_error(weight, result)
        self._before[work.name] = weight if work.master is not None else held.weight.detach()
        stored = _with_input_scale(self._job, work, result.weight)
        if work.static and (reason := self._spoilt_static(work, stored)):
            work.static = False
            stored = replace(stored, input_scale=None)
            result = replace(result, reason="; ".join(filter(None, (result.reason, reason))))
        self._results[work.name] = replace(result, weight=stored)
        held.weight = nn.Parameter(dequantize(stored).to(held.weight), requires_grad=False)
        if self._activations_of(work) != "none":
            self._handles.append(
                quantize_inputs(work.module, float8=work.grid.kind == "float8", scale=stored.input_scale)
            )

    @property
    def dynamic(self) -> tuple[str, ...]:
        """Layers whose inputs were asked to be static and are not."""
        return tuple(
            work.name
            for work in self.work.layers
            if self._job.selection.schemes[work.name].activations == "static" and not work.static
        )

    def _spoilt_static(self, work: LayerWork, stored: StoredWeight) -> str:
        """Why the input of `work` cannot have one scale, the same for all layers that read it; empty where it can."""
        first = work.layer.fused_group[0] if work.layer.fused_group else work.name
        if first not in self._spoilt:
            self._spoilt[first] = ""
            if self.activations is not None and stored.input_scale is not None:
                inputs = held_out_of(self.activations, work, None).inputs
                reading = [
                    each.weight() for each in self.work.layers if each.name in (work.layer.fused_group or (first,))
                ]
                float8 = work.grid.kind == "float8"
                if times := spoilt_by(inputs, reading, stored.input_scale, float8=float8):
                    least = max(step for step in _STEPS if step <= times)  # few steps: the summary counts equal reasons
                    self._spoilt[first] = (
                        f"input kept dynamic: one scale for all tokens leaves over {least:,} times the error of one a "
                        "token (massive activations)"
                    )
        return self._spoilt[first]

    def check(self) -> None:
        """Raises QuantizationError when the method forgot a layer."""
        for work in self.work.layers:
            if work.name not in self._results:
                raise QuantizationError(f"{work.name}: method {self._job.recipe.method!r} left it as it was")

    def finish(self) -> tuple[dict[str, Tensor], tuple[LedgerRow, ...], dict[str, str]]:
        """The block's tensors by name, its ledger rows in the model's order, and the digests of its numbers."""
        checkpoint = self._streamed.checkpoint
        prefix = self._streamed.architecture.blocks[self._index] + "."
        output_errors = self._output_errors()
        done = {
            work.name: _Finished(self._job, work, self._results[work.name], self._errors[work.name])
            for work in self.work.layers
        }
        replaced = {f"{name}.weight" for name in done}
        tensors = {
            name: self._unquantized(name, prefix)
            for name in checkpoint.names
            if name.startswith(prefix) and name not in replaced
        }
        rows = []
        for layer in self._streamed.architecture.in_block(self._index):
            if layer.name in done:
                tensors |= done[layer.name].tensors
                rows.append(done[layer.name].row(output_errors.get(layer.name)))
            else:
                size, reason = checkpoint.tensor_bytes(layer.weight), self._job.selection.kept[layer.name]
                rows.append(kept_row(layer, self._job.recipe, stored_bytes=size, reason=reason))
        return tensors, tuple(rows), {name: finished.number for name, finished in done.items()}

    def release(self) -> None:
        """Lets go of everything that was attached to the block, at once: this object and its work hold each other, and
        waiting for the garbage collector would keep every block that was ever made in memory."""
        for handle in self._handles:
            handle.remove()
        if self.activations is not None:
            self.activations.forget()
        self._before.clear()
        self._small.clear()
        for work in self.work.layers:
            work.master = None
        self._results.clear()

    def _work(self, layer: LinearLayer) -> LayerWork:
        stored = self._streamed.checkpoint.dtype(layer.weight)
        work = _layer_work(self._job, layer, self._streamed.model.get_submodule(layer.name), stored)
        work.parent = self._streamed.model.get_submodule(layer.name.rpartition(".")[0])
        return work

    def _activations_of(self, work: LayerWork) -> str:
        asked = self._job.selection.schemes[work.name].activations
        return "dynamic" if asked == "static" and not work.static else asked

    def _unquantized(self, name: str, prefix: str) -> Tensor:
        """A tensor that is stored as it is: bit for bit the base's, unless the method rescaled it."""
        base = self._streamed.checkpoint.sound_tensor(name)
        before = self._small.get(name.removeprefix(prefix))
        if before is None:
            return base
        now = self._module.get_parameter(name.removeprefix(prefix)).detach()
        return base if torch.equal(now, before) else now.to(base)

    @torch.inference_mode()
    def _output_errors(self) -> dict[str, float | None]:
        if self.activations is None:
            return {}
        totals = {work.name: OutputError() for work in self.work.layers}
        works = {work.name: work for work in self.work.layers}

        def measure(name: str, inputs: Tensor) -> None:
            refuse_nonfinite(name, inputs)
            served, module = inputs, works[name].module
            if self._activations_of(works[name]) != "none":
                scale = self._results[name].weight.input_scale
                scale = None if scale is None else scale.to(inputs)
                served = round_input(inputs, float8=works[name].grid.kind == "float8", scale=scale)
            weight: Any = module.weight
            totals[name].add(inputs, served, self._before[name], weight)

        self.activations.visit(self.work.layers, measure, held_out=True)
        return {name: total.ratio() for name, total in totals.items()}


class _Finished:
    """A layer that has its result: its stored tensors, the digest of its numbers, its row."""

    def __init__(self, job: Job, work: LayerWork, result: LayerResult, error: float) -> None:
        self._job = job
        self._work = work
        self._result = result
        self._error = error
        scheme = job.selection.schemes[work.name]
        scheme = scheme if work.static or scheme.activations != "static" else scheme.dynamic()
        form = stored_format(scheme, job.recipe.format)
        self.tensors = layer_tensors(work.name, result.weight, form)
        self.number = tensor_digest(dequantize(result.weight))

    def row(self, output_error: float | None) -> LedgerRow:
        size = sum(tensor.nbytes for tensor in self.tensors.values())
        return row_of(
            self._work,
            self._result,
            self._job.recipe,
            error=self._error,
            output_error=output_error,
            stored_bytes=size,
        )


def _layer_work(job: Job, layer: LinearLayer, module: nn.Module, stored: torch.dtype) -> LayerWork:
    scheme = job.selection.schemes[layer.name]
    grid = grid_of(scheme, scale_dtype(job.recipe.format, stored))
    return LayerWork(layer, module, grid, scheme.scheme, static=scheme.activations == "static")


def _with_input_scale(job: Job, work: LayerWork, weight: Any) -> Any:
    if not work.static:
        return weight
    scale = weight.input_scale  # a method that moved scale knows better than the calibration
    if scale is None:
        scale = torch.tensor([job.input_scales[work.name]])
    # rounded to the type it is stored in, so that what is measured here is what is served
    return replace(weight, input_scale=scale.cpu().to(work.grid.scale_dtype).float())


def _refuse_nonfinite(works: tuple[LayerWork, ...] | list[LayerWork]) -> None:
    wrong = [(work.name, nonfinite(work.weight())) for work in works]
    found = [f"{name}: {count} of its weights are NaN or infinite" for name, count in wrong if count]
    if found:
        raise NumericError("\n".join(found))
