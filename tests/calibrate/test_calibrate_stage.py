"""From a model folder and a set to a finished calibration: what is in it, and what happens when things go wrong."""

import contextlib
import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_architectures
import torch
from tiny_model import make_tiny_llama

from qtool.calibrate.passes.shards import merge_shards
from qtool.calibrate.stage import Machine, calibrate, calibrate_shard
from qtool.calibrate.statistics.activations import Activations
from qtool.errors import DataError, MismatchError, NumericError, StoreError, UnknownName, UsageError
from qtool.models.completeness import load_base
from qtool.progress import Advance, Silent
from qtool.records.calibration import Calibration
from qtool.records.plan import CalibrationSettings
from qtool.store.ranges_file import (
    read_all_sequences,
    read_bounds,
    read_calibration,
    read_channels,
    read_histograms,
    read_ranges,
    read_sequences,
)
from qtool.streaming.stored_tensors import StoredTensors

ALL = (
    "absmax",
    "percentile:99",
    "mse",
    "entropy",
    "moving_average",
    "absmax:channel",
    "absmax:token",
    "absmax:asymmetric",
)


def write_text(path: Path, rows: int = 30) -> Path:
    words = ["the", "river", "ran", "past", "seven", "old", "mills", "and", "nobody", "counted", "them", "twice"]
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(words, 12)) for _ in range(rows)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("data") / "rows.jsonl")


@pytest.fixture
def settings(text: Path) -> CalibrationSettings:
    return CalibrationSettings(set=str(text), sequences=10, sequence_tokens=48, observers=("absmax", "percentile:99"))


def test_absmax_is_what_the_whole_model_sees(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    calibrate(model, replace(settings, observers=ALL), tmp_path / "out", progress=Silent())
    whole = load_base(model, dtype=torch.float32)
    seen: dict[str, float] = {}

    def watch(name: str):  # type: ignore[no-untyped-def]
        def hook(module, inputs):  # type: ignore[no-untyped-def]
            seen[name] = max(seen.get(name, 0.0), float(inputs[0].abs().max()))

        return hook

    ranges = read_ranges(tmp_path / "out", "absmax")
    for name in ranges:
        whole.get_submodule(name).register_forward_pre_hook(watch(name))
    with torch.no_grad():
        for row in read_sequences(tmp_path / "out"):
            whole(input_ids=torch.tensor([row]))
    assert set(ranges) == set(seen)
    assert len(ranges) == 2 * 7 + 1  # seven linear layers a block, and the output head
    for name, found in ranges.items():
        assert found.high == pytest.approx(seen[name], rel=1e-5), name  # 1e-5: float32 sums in another order


def test_every_observer_gives_every_layer_a_range(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    calibration = calibrate(model, replace(settings, observers=ALL), tmp_path / "out", progress=Silent())
    assert read_calibration(tmp_path / "out") == calibration
    assert len(calibration.ranges) == len(ALL) * 15
    assert all(entry.low <= 0 <= entry.high for entry in calibration.ranges)
    assert all(entry.dynamic == (entry.observer == "absmax:token") for entry in calibration.ranges)
    bounds = read_bounds(tmp_path / "out", "absmax:channel")
    assert bounds["model.layers.1.mlp.down_proj"].high.shape == (128,)
    assert read_bounds(tmp_path / "out", "absmax")["model.layers.1.mlp.down_proj"].high.shape == (1,)
    channels = read_channels(tmp_path / "out")["model.layers.0.self_attn.v_proj"]
    assert channels.tokens == calibration.tokens
    assert (channels.mean_abs <= channels.absmax).all()


def test_rows_used_are_stored_and_counted(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    calibration = calibrate(model, settings, tmp_path / "out", progress=Silent())
    rows, held_out = read_sequences(tmp_path / "out"), read_sequences(tmp_path / "out", held_out=True)
    assert (len(rows), len(held_out)) == (calibration.sequences, calibration.held_out_sequences) == (10, 3)
    assert sum(map(len, rows)) == calibration.tokens == read_histograms(tmp_path / "out")["lm_head"].values // 64
    assert set(read_all_sequences(tmp_path / "out").tags) == {"rows"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "calibration.json",
        "histograms.safetensors",
        "ranges.safetensors",
        "sequences.safetensors",
    }


def test_the_same_seed_gives_the_same_bytes(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    first = calibrate(model, settings, tmp_path / "a", progress=Silent())
    second = calibrate(model, settings, tmp_path / "b", progress=Silent())
    other = calibrate(model, replace(settings, seed=1), tmp_path / "c", progress=Silent())
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)
    for name in ("ranges.safetensors", "histograms.safetensors", "sequences.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert other.set_digest != first.set_digest


def assert_same(one: Path, other: Path) -> None:
    first, second = read_histograms(one), read_histograms(other)
    assert first.keys() == second.keys()
    for layer in first:
        assert (first[layer].counts == second[layer].counts).all()
        assert (first[layer].low, first[layer].high) == (second[layer].low, second[layer].high)
    before, after = read_calibration(one), read_calibration(other)
    assert before.ranges == after.ranges
    channels, merged = read_channels(one), read_channels(other)
    for layer in channels:
        assert (channels[layer].absmax == merged[layer].absmax).all()
        np.testing.assert_allclose(channels[layer].second_moment, merged[layer].second_moment, rtol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_merged_shards_equal_one_pass_bit_for_bit(
    model: Path, settings: CalibrationSettings, tmp_path: Path, count: int
) -> None:
    wanted = replace(settings, observers=("absmax", "percentile:99.9", "moving_average"))
    calibrate(model, wanted, tmp_path / "whole", progress=Silent())
    shards = [tmp_path / f"shard{number}" for number in range(1, count + 1)]
    for number, folder in enumerate(shards, start=1):
        calibrate_shard(model, wanted, folder, shard=f"{number}/{count}", progress=Silent())
    merge_shards(shards[::-1], tmp_path / "merged")
    assert_same(tmp_path / "whole", tmp_path / "merged")
    certificates = [read_calibration(tmp_path / name).certificate for name in ("whole", "merged")]
    assert certificates[0] is not None
    assert certificates[1] is not None
    assert certificates[0].tags == certificates[1].tags


def test_what_is_no_whole_set_is_not_merged(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    calibrate_shard(model, settings, one, shard="1/2", progress=Silent())
    calibrate_shard(model, replace(settings, seed=5), other, shard="2/2", progress=Silent())
    with pytest.raises(MismatchError, match=r"other: set_digest is \w+, but .*one has"):
        merge_shards([one, other], tmp_path / "merged")
    with pytest.raises(MismatchError, match="shard 2/2 is missing"):
        merge_shards([one], tmp_path / "merged")
    with pytest.raises(MismatchError, match="shard 1/2 is given twice"):
        merge_shards([one, one], tmp_path / "merged")
    with pytest.raises(StoreError, match=r"no shard\.json"):
        merge_shards([one, model], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(UsageError, match="write i/n"):
        calibrate_shard(model, settings, tmp_path / "x", shard="3/2", progress=Silent())


class _Interrupted(Silent):
    """Ctrl-C after some tokens, and what was noted."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.notes: list[str] = []

    @contextlib.contextmanager
    def track(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        def advance(units: int) -> None:
            self.after -= units
            if self.after < 0:
                raise KeyboardInterrupt

        yield advance

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_an_interrupted_pass_goes_on_where_it_stopped(
    model: Path, settings: CalibrationSettings, tmp_path: Path
) -> None:
    whole = calibrate(model, settings, tmp_path / "whole", progress=Silent())
    one_block = whole.tokens + sum(map(len, read_sequences(tmp_path / "whole", held_out=True)))
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, settings, tmp_path / "out", progress=_Interrupted(one_block + 50))
    assert not (tmp_path / "out").exists()
    progress = _Interrupted(10**9)
    calibrate(model, settings, tmp_path / "out", progress=progress)
    assert any("1 of 3 parts are done, resuming" in note for note in progress.notes)
    assert_same(tmp_path / "whole", tmp_path / "out")


def test_parts_of_another_task_are_not_taken_over(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, settings, tmp_path / "out", progress=_Interrupted(700))
    progress = _Interrupted(10**9)
    calibrate(model, replace(settings, seed=3), tmp_path / "out", progress=progress)
    assert not any("resuming" in note for note in progress.notes)


def test_activations_on_disk_give_the_same(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    calibrate(model, settings, tmp_path / "memory", progress=Silent())
    calibrate(model, settings, tmp_path / "disk", progress=Silent(), machine=Machine(activation_bytes=20_000))
    assert_same(tmp_path / "memory", tmp_path / "disk")
    assert not (tmp_path / "disk" / "activations.bin").exists()


def test_a_full_disk_while_spilling_leaves_nothing(
    model: Path, settings: CalibrationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def seek(self, offset: int) -> None: ...
        def close(self) -> None: ...
        def write(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Activations, "_opened", lambda store: Full())
    with pytest.raises(StoreError, match=r"activations\.bin: the disk is full"):
        calibrate(model, settings, tmp_path / "out", progress=Silent(), machine=Machine(activation_bytes=0))
    assert list(tmp_path.iterdir()) == []


def test_nan_activations_name_layer_and_row(settings: CalibrationSettings, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_tiny_llama(tmp_path / "tiny")
    tensors = load_file(folder / "model.safetensors")
    for leaf in ("gate_proj", "up_proj"):  # sound numbers whose product is none
        tensors[f"model.layers.1.mlp.{leaf}.weight"][3] = 1e30
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        NumericError, match=r"layers\.1\.mlp\.down_proj: .* first made by row \d+ of the set, .*rows\.jsonl:\d+"
    ):
        calibrate(folder, settings, tmp_path / "out", progress=Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_bad_input_is_refused_before_anything_is_written(
    model: Path, settings: CalibrationSettings, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "one good row of text"}\n{"text": oops}\n')
    other_fields = tmp_path / "fields.jsonl"
    other_fields.write_text('{"body": "x", "title": "y"}\n')
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": "   "}\n')
    before = set(tmp_path.iterdir())
    for change, error, message in (
        ({"set": str(broken)}, DataError, r"broken\.jsonl:2: not JSON"),
        ({"set": str(other_fields)}, DataError, r"fields\.jsonl:1: has no field 'text'.*its fields are body, title"),
        ({"set": str(empty)}, DataError, "yields no token: empty: 1 rows read, 1 empty"),
        ({"set": "mixd"}, UnknownName, "did you mean mixed"),
        ({"set": "missing.jsonl"}, DataError, "no such file"),
        ({"observers": ("absmx",)}, UnknownName, "did you mean absmax"),
        ({"observers": ()}, UsageError, "name at least one"),
        ({"sequences": 0}, UsageError, "at least 1"),
    ):
        with pytest.raises(error, match=message):
            calibrate(model, replace(settings, **change), tmp_path / "out", progress=Silent())
    assert set(tmp_path.iterdir()) == before


def test_a_tokenizer_of_another_model_is_refused(settings: CalibrationSettings, tmp_path: Path) -> None:
    folder = small_architectures.save("llama", tmp_path / "small", vocabulary=40)
    with pytest.raises(MismatchError, match="embedding has 40 rows"):
        calibrate(folder, settings, tmp_path / "out", progress=Silent())


def test_an_existing_folder_is_kept(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(StoreError, match="already exists"):
        calibrate(model, settings, tmp_path / "out", progress=Silent())
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
    done: Calibration = calibrate(model, settings, tmp_path / "out", progress=Silent(), replace=True)
    assert read_calibration(tmp_path / "out") == done


@pytest.mark.parametrize("name", small_architectures.NAMES)
def test_every_architecture_is_calibrated(name: str, text: Path, tmp_path: Path) -> None:
    folder = small_architectures.save(name, tmp_path / "model")
    settings = CalibrationSettings(set=str(text), sequences=4, sequence_tokens=40, observers=("absmax",))
    calibration = calibrate(folder, settings, tmp_path / "out", progress=Silent())
    ranges = read_ranges(tmp_path / "out", "absmax")
    whole = load_base(folder, dtype=torch.float32)
    from qtool.models.architecture import describe_model

    linears = {layer.name for layer in describe_model(whole).linears}
    assert linears <= set(ranges)
    assert all(entry.high > 0 for entry in ranges.values())
    assert calibration.streamed


def test_a_checkpoint_in_another_form_is_loaded_whole(
    model: Path, settings: CalibrationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = calibrate(model, settings, tmp_path / "streamed", progress=Silent())
    monkeypatch.setattr(StoredTensors, "complete", lambda stored, model: False)
    progress = _Interrupted(10**9)
    whole = calibrate(model, settings, tmp_path / "whole", progress=progress)
    assert any("loaded whole" in note for note in progress.notes)
    assert not whole.streamed
    assert whole.ranges == streamed.ranges


@pytest.mark.parametrize("name", small_architectures.WITH_EXPERTS)
def test_experts_that_saw_too_few_tokens_are_named(name: str, text: Path, tmp_path: Path) -> None:
    folder = small_architectures.save(name, tmp_path / "model")
    settings = CalibrationSettings(set=str(text), sequences=2, sequence_tokens=10, observers=("absmax",))
    calibration = calibrate(folder, settings, tmp_path / "out", progress=Silent())
    assert calibration.certificate is not None
    starved = calibration.certificate.starved_experts
    # 20 tokens, two experts each: no expert of four can have seen twice its 32 columns
    assert len(starved) == 3 * 4
    assert {expert.expert for expert in starved} == {0, 1, 2, 3}
    assert sum(expert.tokens for expert in starved) == 3 * 2 * calibration.tokens
    assert calibration.verdict == "more_samples"


def test_histograms_of_single_columns_give_their_percentiles(
    model: Path, settings: CalibrationSettings, tmp_path: Path
) -> None:
    wanted = replace(settings, observers=("absmax:channel", "percentile:90:channel", "mse:4:channel:asymmetric"))
    calibrate(model, wanted, tmp_path / "whole", progress=Silent())
    layer = "model.layers.0.mlp.down_proj"
    whole = load_base(model, dtype=torch.float32)
    seen: list[torch.Tensor] = []
    whole.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        for row in read_sequences(tmp_path / "whole"):
            whole(input_ids=torch.tensor([row]))
    magnitudes = np.sort(torch.cat(seen).abs().numpy(), axis=0)
    exact = magnitudes[int(0.9 * (len(magnitudes) - 1))]
    found = read_bounds(tmp_path / "whole", "percentile:90:channel")[layer]
    # one bin above the smallest magnitude a column's histogram tells from zero; 1.1 % elsewhere
    np.testing.assert_allclose(found.high, exact, rtol=0.012, atol=2**-19)
    narrow, wide = (
        read_bounds(tmp_path / "whole", "mse:4:channel:asymmetric")[layer],
        read_bounds(tmp_path / "whole", "absmax:channel")[layer],
    )
    assert (narrow.high <= wide.high * 1.001).all()
    assert (narrow.low <= 0).all()
    shards = [tmp_path / "a", tmp_path / "b"]
    for number, folder in enumerate(shards, start=1):
        calibrate_shard(model, wanted, folder, shard=f"{number}/2", progress=Silent())
    merge_shards(shards, tmp_path / "merged")
    assert (read_bounds(tmp_path / "merged", "percentile:90:channel")[layer].high == found.high).all()


def test_groups_of_columns_and_running_means_of_single_ones(
    model: Path, settings: CalibrationSettings, tmp_path: Path
) -> None:
    texts = ("percentile:90:group16", "absmax:group16", "absmax:channel", "moving_average:0.5:channel")
    wanted = replace(settings, observers=(*texts, "absmax"))
    calibrate(model, wanted, tmp_path / "whole", progress=Silent())
    found = {text: read_bounds(tmp_path / "whole", text) for text in texts}
    layer = "model.layers.0.mlp.down_proj"
    inputs = inputs_of(model, layer, tmp_path / "whole")
    columns = inputs[0].shape[1]
    blocks = np.abs(np.concatenate(inputs)).reshape(-1, columns // 16, 16).transpose(1, 0, 2).reshape(columns // 16, -1)
    exact = np.sort(blocks, axis=1)[:, int(0.9 * (blocks.shape[1] - 1))]
    np.testing.assert_allclose(found["percentile:90:group16"][layer].high, exact, rtol=0.011)
    assert found["absmax:group16"][layer].high == pytest.approx(blocks.max(1), rel=1e-5)  # float32 of another order
    running, widest = found["moving_average:0.5:channel"][layer], found["absmax:channel"][layer]
    assert running.high.shape == widest.high.shape == (columns,)
    assert (running.high <= widest.high).all()
    assert (running.high < widest.high).any()
    shards = [tmp_path / "a", tmp_path / "b"]
    for number, folder in enumerate(shards, start=1):
        calibrate_shard(model, wanted, folder, shard=f"{number}/2", progress=Silent())
    merge_shards(shards, tmp_path / "merged")
    for text in texts:
        assert (read_bounds(tmp_path / "merged", text)[layer].high == found[text][layer].high).all()


def test_outputs_are_calibrated_where_asked(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    wanted = replace(settings, observers=("absmax",), outputs=("*.k_proj",))
    calibrate(model, wanted, tmp_path / "out", progress=Silent())
    ranges = read_ranges(tmp_path / "out", "absmax")
    assert [name for name in ranges if name.endswith(".output")] == [
        f"model.layers.{block}.self_attn.k_proj.output" for block in range(2)
    ]
    layer = "model.layers.1.self_attn.k_proj"
    weight = load_base(model, dtype=torch.float32).get_submodule(layer).weight.detach().numpy()
    largest = max(float(np.abs(values @ weight.T).max()) for values in inputs_of(model, layer, tmp_path / "out"))
    assert ranges[f"{layer}.output"].high == pytest.approx(largest, rel=1e-4)  # float32 sums of another order
    with pytest.raises(UsageError, match=r"outputs '\*\.key': no linear layer"):
        calibrate(model, replace(wanted, outputs=("*.key",)), tmp_path / "none", progress=Silent())
    assert not (tmp_path / "none").exists()


def inputs_of(model: Path, layer: str, calibration: Path) -> list[np.ndarray]:
    """Inputs [tokens, columns] of `layer` for each calibration row, from the whole model."""
    whole = load_base(model, dtype=torch.float32)
    seen: list[np.ndarray] = []
    whole.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0].numpy()))
    with torch.no_grad():
        for row in read_sequences(calibration):
            whole(input_ids=torch.tensor([row]))
    return seen


def test_traffic_checks_the_ranges_and_makes_none(model: Path, settings: CalibrationSettings, tmp_path: Path) -> None:
    path = tmp_path / "shouting.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"!!! {number} ??? {{}} @@@ ~~~ ^^^ ### $$$ &&&"}) + "\n" for number in range(12))
    )
    plain = calibrate(model, settings, tmp_path / "plain", progress=Silent())
    checked = calibrate(model, replace(settings, traffic=str(path)), tmp_path / "checked", progress=Silent())
    assert checked.ranges == plain.ranges
    assert checked.certificate is not None
    scores = {tag.tag: tag for tag in checked.certificate.tags}
    assert set(scores) == {"rows", "shouting"}
    assert scores["shouting"].sequences == 0
    assert scores["shouting"].score < scores["rows"].score
    assert scores["shouting"].verdict == "wrong_mix"
    assert checked.verdict == "wrong_mix"
    assert "shouting" in checked.verdict_reason
