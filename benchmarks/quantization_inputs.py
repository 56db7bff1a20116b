"""What the quantization benchmark gives every method: token ids to learn from, others to be scored on, and models."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qtool.calibrate.stage import calibrate
from qtool.models.architecture import describe
from qtool.models.checkpoint import tokenizer_files
from qtool.models.identity import identify
from qtool.progress import RichProgress
from qtool.records.calibration import Calibration, LayerRange
from qtool.records.plan import CalibrationSettings
from qtool.reference.batches import batches
from qtool.reference.corpus import MIXTURE, examples
from qtool.store.ranges_file import Sequences, pad, read_all_sequences, write_sequences
from qtool.store.run_directory import write_record

Rows = list[list[int]]
# batches of token ids [rows, tokens], and at which of them the prediction of the next one counts
Scored = list[tuple[Tensor, Tensor]]
_TOKENS_PER_BATCH = 8192
_REFERENCE = Path(__file__).resolve().parents[1] / "qtool" / "reference" / "weights" / "reference-64"


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw: `rows` rows of `tokens` tokens of `text` to learn from; of a corpus, `scored` examples to score."""

    text: str
    rows: int
    tokens: int
    scored: int


def tokens_for(model: Path, drawing: Drawing, scratch: Path) -> tuple[Rows, Scored | None]:
    """Token ids to learn from and to score on; the first also as the folder `scratch`/calibration, which qtool reads.
    What an earlier call left in `scratch` is used again.

    The text is a calibration set or data file; "corpus", what the reference models are trained on, of which only
    answers count, as in their training; "sampled", what the model itself writes; or "random", for time and memory.
    """
    text, rows, tokens = drawing.text, drawing.rows, drawing.tokens
    if text == "random":
        return _random_calibration(model, rows, tokens, scratch / "calibration"), None
    scored = _answers(model, drawing.scored) if text == "corpus" else None
    folders = [scratch / "calibration"] if scored else [scratch / "calibration", scratch / "evaluation"]
    if text in ("corpus", "sampled") and not all((folder / "calibration.json").is_file() for folder in folders):
        made = _corpus(4 * rows) if text == "corpus" else _sampled(model, 4 * rows, tokens)
        text = str(scratch / f"{text}.jsonl")
        Path(text).write_text("".join(json.dumps({"text": line}) + "\n" for line in made), encoding="utf-8")
    for seed, folder in enumerate(folders):
        if not (folder / "calibration.json").is_file():  # of an earlier run with the same settings
            settings = CalibrationSettings(set=text, sequences=rows, sequence_tokens=tokens, seed=seed)
            calibrate(model, settings, folder, progress=RichProgress())
    known = read_all_sequences(folders[0])  # also those that only measured
    learnt = [row for row, held_out in zip(_rows(known), known.held_out, strict=True) if not held_out]
    if scored is None:
        seen = set(map(tuple, _rows(known)))
        scored = _every_token([row for row in _rows(read_all_sequences(folders[1])) if tuple(row) not in seen])
    return learnt, scored


def _rows(held: Sequences) -> Rows:
    pairs = zip(held.tokens, held.lengths, strict=True)
    return [[int(token) for token in row[:size]] for row, size in pairs]


def _every_token(rows: Rows) -> Scored:
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    counts = torch.zeros_like(ids, dtype=torch.bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)  # padded on the right: a causal model never looks there
        counts[index, : len(row) - 1] = True
    return [(ids, counts)]


def _answers(model: Path, count: int) -> Scored:
    """Examples of another stream than those learnt from."""
    from transformers import AutoTokenizer

    made = examples(20261124, MIXTURE)
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    drawn = batches([next(made) for _ in range(count)], tokenizer, tokens_per_batch=_TOKENS_PER_BATCH)
    return [(batch.tokens, batch.wanted) for batch in drawn]


def write_random_llama(folder: Path, layers: int) -> None:
    """A Llama of random weights that time and memory are measured on: 0.89 B parameters with 16 layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in tokenizer_files(_REFERENCE):  # any: nothing is ever read with it, but every program asks for one
        if (_REFERENCE / name).is_file():
            shutil.copyfile(_REFERENCE / name, folder / name)


def _corpus(count: int) -> Iterator[str]:
    made = examples(20261123, MIXTURE)  # a stream of its own: no reference model was trained with this seed
    for _ in range(count):
        example = next(made)
        yield example.prompt + example.answer


@torch.inference_mode()
def _sampled(model: Path, count: int, tokens: int) -> list[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, local_files_only=True).eval()
    torch.manual_seed(0)
    start = torch.full((count, 1), tokenizer.bos_token_id)
    drawn = network.generate(start, do_sample=True, top_k=0, max_new_tokens=tokens, pad_token_id=0)
    return [tokenizer.decode(row[1:], skip_special_tokens=True) for row in drawn]


def _random_calibration(model: Path, rows: int, tokens: int, folder: Path) -> Rows:
    """A calibration folder of random tokens, written without running the model: its ranges mean nothing."""
    folder.mkdir()
    drawn = np.random.default_rng(0).integers(3, 1000, (rows + 1, tokens))
    ids, lengths = pad([tuple(int(token) for token in row) for row in drawn])
    write_sequences(folder, Sequences(ids, lengths, np.arange(rows + 1) == rows, ("text",) * (rows + 1)))
    layers = describe(model).linears
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
        ranges=tuple(LayerRange(layer.name, "absmax", -6.0, 6.0, 0.0, 100, 10, 0) for layer in layers),
        qtool_version="0",
        seconds=0.0,
    )
    write_record(folder / "calibration.json", manifest)
    return [[int(token) for token in row] for row in drawn[:rows]]
