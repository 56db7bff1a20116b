"""The stage: one pass over a calibration set, from a model folder and settings to a finished calibration folder."""

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_in
from pathlib import Path
from typing import Any

from qtool import __version__
from qtool.calibrate.conclusion import Task, finish, store_sequences
from qtool.calibrate.observe import Asked, check_columns, kept_for, parse
from qtool.calibrate.passes import stored_rows
from qtool.calibrate.passes.collect import layers_named
from qtool.calibrate.passes.one_pass import Work, collect, part_file, part_names
from qtool.calibrate.passes.shards import Shard, parse_shard, write_shard
from qtool.calibrate.statistics.channels import settled
from qtool.calibrate.statistics.groups import draw_tokens, make_groups
from qtool.calibrate.statistics.inputs import Group
from qtool.calibrate.statistics.inputs_file import read_statistics
from qtool.data.sequences import Drawn, TokenSequence, draw_sequences
from qtool.data.sets import load_set, with_traffic
from qtool.engine.scheduling.memory import give_back_freed
from qtool.errors import QtoolError, UsageError
from qtool.models.tokenizer import refuse_beyond
from qtool.progress import Progress
from qtool.records.calibration import Calibration
from qtool.records.plan import CalibrationSettings
from qtool.store.digest import record_digest
from qtool.store.run_directory import new_folder, write_text

ACTIVATION_BYTES = 2 << 30  # hidden states kept in memory between two blocks; the rest goes to disk
_SIGNATURE = "signature"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how to compute; "auto" takes a GPU where there is one, and float32 on a CPU.

    bfloat16 without hardware for it is many times slower on a CPU than float32, and every bfloat16 is a float32.
    """

    device: str = "auto"
    dtype: str = "auto"
    activation_bytes: int = ACTIVATION_BYTES


def calibrate(
    model: Path,
    settings: CalibrationSettings,
    output: Path,
    *,
    progress: Progress,
    name: str | None = None,
    source: str | None = None,
    sets_dir: Path | None = None,
    replace: bool = False,
    machine: Machine | None = None,
) -> Calibration:
    """Runs the set through the model and writes ranges, histograms, rows used and `calibration.json` to `output`.

    A run that was interrupted goes on where it stopped when it is asked for again. Raises what its parts raise before
    anything is written: unknown set or observer, malformed rows, a model that cannot be run.
    """
    started = time.monotonic()
    prepared = prepare(model, settings, name=name, source=source, sets_dir=sets_dir, machine=machine, progress=progress)
    with working_folder(output, prepared.task, replace=replace) as folder:
        prepared = _stored(prepared, folder)
        _collect(prepared, prepared.groups, folder, progress)
        parts = part_names(len(prepared.stream.blocks))
        blocks = [settled(read_statistics(part_file(folder, part))) for part in parts]
        calibration = finish(
            folder,
            prepared.task,
            blocks,
            asked=prepared.asked,
            groups=prepared.groups,
            sequences=prepared.sequences,
            started=started,
        )
        shutil.rmtree(folder / "parts")
        for name in (_SIGNATURE, stored_rows.NAME):
            (folder / name).unlink()
    return calibration


def calibrate_shard(
    model: Path,
    settings: CalibrationSettings,
    output: Path,
    *,
    shard: str,
    progress: Progress,
    sets_dir: Path | None = None,
    machine: Machine | None = None,
) -> Shard:
    """Runs part i of n of the set, `shard` "i/n", and writes its statistics and `shard.json` for merge_shards."""
    started = time.monotonic()
    number, count = parse_shard(shard)
    prepared = prepare(model, settings, name=None, source=None, sets_dir=sets_dir, machine=machine, progress=progress)
    groups = prepared.groups[number - 1 :: count]
    if not groups:
        raise UsageError(f"shard {shard}: the set has only {len(prepared.groups)} groups of rows; use fewer shards")
    with working_folder(output, prepared.task, replace=False, shard=shard) as folder:
        prepared = _stored(prepared, folder)
        _collect(prepared, groups, folder, progress)
        store_sequences(folder, prepared.sequences)
        for name in (_SIGNATURE, stored_rows.NAME):
            (folder / name).unlink()
        return write_shard(
            folder,
            Shard(
                number,
                count,
                prepared.task,
                prepared.groups,
                part_names(len(prepared.stream.blocks)),
                round(time.monotonic() - started, 3),
            ),
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything checked and drawn, nothing run yet."""

    task: Task
    asked: tuple[Asked, ...]
    sequences: Sequence[TokenSequence]
    groups: tuple[Group, ...]
    draws: Mapping[int, Mapping[int, float]]
    outputs: frozenset[str]
    stream: Any
    machine: Machine


def prepare(
    model: Path,
    settings: CalibrationSettings,
    *,
    name: str | None,
    source: str | None,
    sets_dir: Path | None,
    machine: Machine | None,
    progress: Progress,
) -> Prepared:
    """Draws the rows and opens the model. Raises everything that can be known to be wrong before the pass."""
    from qtool.machine.device import choose_device, choose_dtype
    from qtool.models.checkpoint import read_config
    from qtool.models.identity import identify
    from qtool.models.tokenizer import load_tokenizer
    from qtool.streaming.block_stream import BlockStream

    machine = machine or Machine()
    _check(settings)
    asked = tuple(parse(text) for text in settings.observers)
    spec = load_set(settings.set, sets_dir=sets_dir)
    if settings.traffic is not None:
        spec = with_traffic(spec, load_set(settings.traffic, sets_dir=sets_dir))
    tokenizer = load_tokenizer(model)
    device = choose_device(machine.device)
    dtype = choose_dtype(machine.dtype, read_config(model), device)
    stream = BlockStream(model, dtype=dtype, device=device)
    linears = stream.architecture.linears
    check_columns(asked, [(layer.name, layer.columns) for layer in linears])
    outputs = layers_named(settings.outputs, linears)
    check_columns(asked, [(layer.name, layer.rows) for layer in linears if layer.name in outputs])
    tokens = _fitting(settings.sequence_tokens, stream.context_tokens, progress)
    drawn = draw_sequences(
        spec, tokenizer, sequences=settings.sequences, tokens=tokens, seed=settings.seed, chat=settings.chat
    )
    _check_rows(drawn, settings.sequences, stream.vocabulary, progress)
    if not stream.streamed:
        progress.note("calibrate: this checkpoint stores its tensors in another form than the model uses; loaded whole")
    task = Task(
        model=identify(model, name=name, source=source),
        set_name=spec.name,
        set_digest=drawn.digest,
        seed=settings.seed,
        sequence_tokens=tokens,
        packed=drawn.packed,
        sources=drawn.sources,
        observers=tuple(observer.key for observer in asked),
        dtype=str(dtype).removeprefix("torch."),
        streamed=stream.streamed,
        outputs=settings.outputs,
        chat=drawn.chat,
    )
    groups = make_groups(drawn.sequences, seed=settings.seed)
    draws = draw_tokens(drawn.sequences, seed=settings.seed)
    return Prepared(task, asked, drawn.sequences, groups, draws, outputs, stream, machine)


def _stored(prepared: Prepared, folder: Path) -> Prepared:
    """The same with its rows in a file of `folder`: whoever drops the old one frees the token ids."""
    return replace_in(prepared, sequences=stored_rows.store_rows(folder / stored_rows.NAME, prepared.sequences))


def _collect(prepared: Prepared, groups: tuple[Group, ...], folder: Path, progress: Progress) -> None:
    assert isinstance(prepared.sequences, stored_rows.StoredRows)
    give_back_freed()  # the rows as they were drawn: most of what a large set takes
    work = Work(prepared.sequences, groups, prepared.draws, kept_for(prepared.asked), prepared.outputs)
    collect(prepared.stream, work, folder, activation_bytes=prepared.machine.activation_bytes, progress=progress)


@contextlib.contextmanager
def working_folder(output: Path, task: Task, *, replace: bool, shard: str = "") -> Iterator[Path]:
    """A folder that becomes `output`, with the parts an interrupted run of the same task has left; an error that the
    same command would meet again leaves nothing."""
    signature = record_digest({"task": task, "shard": shard, "version": __version__})
    with new_folder(output, resume=True, replace=replace) as folder:
        mark = folder / _SIGNATURE
        if not mark.is_file() or mark.read_text() != signature:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_text(mark, signature)
        try:
            yield folder
        except QtoolError:
            shutil.rmtree(folder)
            raise


def _check(settings: CalibrationSettings) -> None:
    for field in ("sequences", "sequence_tokens"):
        if getattr(settings, field) < 1:
            raise UsageError(f"{field} is {getattr(settings, field)}; it must be at least 1")
    if not settings.observers:
        raise UsageError("no observer is named; name at least one, for example absmax")
    twice = [text for text in settings.observers if settings.observers.count(text) > 1]
    if twice:
        raise UsageError(f"observer {twice[0]!r} is named twice")


def _fitting(asked: int, context: int | None, progress: Progress) -> int:
    if context is not None and asked > context:
        progress.note(f"calibrate: sequences are cut to {context} tokens, the model's context; {asked} were asked for")
        return context
    return asked


def _check_rows(drawn: Drawn, asked: int, vocabulary: int, progress: Progress) -> None:
    for sequence in drawn.sequences:
        refuse_beyond(sequence.tokens, vocabulary, "the set")
    found = sum(not sequence.held_out for sequence in drawn.sequences)
    if found < asked:
        progress.note(f"calibrate: the set gives {found} sequences, {asked} were asked for")
