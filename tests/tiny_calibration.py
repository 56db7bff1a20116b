"""A calibration folder of random tokens, written without running the model."""

from pathlib import Path

import numpy as np

from qtool.models.architecture import describe
from qtool.models.identity import identify
from qtool.records.calibration import Calibration, LayerRange
from qtool.store.ranges_file import Sequences, pad, write_sequences
from qtool.store.run_directory import write_record


def make_calibration(folder: Path, model: Path, *, rows: int = 12, tokens: int = 40, reach: float = 6.0) -> Path:
    """A calibration folder of random tokens; every layer's range is from -`reach` to `reach`."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    drawn = [tuple(int(token) for token in rng.integers(3, 259, tokens - index % 3)) for index in range(rows)]
    ids, lengths = pad(drawn)
    held_out = np.arange(rows) >= rows - 3
    write_sequences(folder, Sequences(ids, lengths, held_out, ("text",) * rows))
    ranges = tuple(
        LayerRange(layer.name, "absmax", -reach, reach, 0.0, 100, 10, 0) for layer in describe(model).linears
    )
    manifest = Calibration(
        format_version=1,
        model=identify(model),
        set_name="random",
        set_digest="0" * 64,
        seed=0,
        sequence_tokens=tokens,
        sequences=rows,
        tokens=rows * tokens,
        packed=False,
        sources=(),
        observers=("absmax",),
        ranges=ranges,
        qtool_version="0",
        seconds=0.0,
    )
    write_record(folder / "calibration.json", manifest)
    return folder
