"""What a model folder must hold, and the one line a user reads when it does not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_model import make_tiny_llama

from qtool.errors import ModelError, NumericError, UnknownName
from qtool.formats.safetensors_header import read_header
from qtool.formats.stored_format import stored_formats
from qtool.models.architecture import describe
from qtool.models.checkpoint import open_checkpoint
from qtool.models.completeness import load_base
from qtool.models.identity import identify
from qtool.models.locate import locate


def test_tensors_are_read_as_they_were_saved(llama: Path) -> None:
    from safetensors.torch import load_file

    checkpoint = open_checkpoint(llama)
    saved = load_file(llama / "model.safetensors")
    assert set(checkpoint.names) == set(saved)
    for name, tensor in saved.items():
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert checkpoint.dtype(name) == tensor.dtype
        assert torch.equal(checkpoint.tensor(name), tensor)
    assert checkpoint.bytes == sum(tensor.nbytes for tensor in saved.values())


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    whole = open_checkpoint(make_tiny_llama(tmp_path / "whole"))
    sharded = open_checkpoint(make_tiny_llama(tmp_path / "sharded", max_shard_size="100KB"))
    assert len(sharded.shards) > 1
    assert sharded.names == whole.names
    for name in whole.names:
        assert torch.equal(sharded.tensor(name), whole.tensor(name))


def test_identity_follows_content_not_path(tmp_path: Path) -> None:
    first = identify(make_tiny_llama(tmp_path / "a"), name="x", source="y")
    again = identify(make_tiny_llama(tmp_path / "b"), name="x", source="y")
    other = identify(make_tiny_llama(tmp_path / "c", seed=1), name="x", source="y")
    assert first == again
    assert other.weights_digest != first.weights_digest
    assert other.tokenizer_digest == first.tokenizer_digest


def test_tied_weights_count_once(tmp_path: Path) -> None:
    tied = identify(make_tiny_llama(tmp_path / "tied", tied=True))
    loose = identify(make_tiny_llama(tmp_path / "loose"))
    assert loose.parameters - tied.parameters == 259 * 64


def test_locate_takes_a_folder(llama: Path) -> None:
    assert locate(str(llama)) == llama


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./missing", "a/b/c"])
def test_missing_folder_is_named(name: str) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        locate(name)


def test_unknown_name_lists_the_near_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtool.reference.names", lambda: ("reference-64", "reference-128"))
    with pytest.raises(UnknownName, match=r"did you mean .*reference-64"):
        locate("refrence-64")


def test_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="hub cannot be reached") as caught:
        locate("nobody/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_broken_connection_is_one_line_and_its_retries_are_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils.logging import get_logger, get_verbosity

    def breaks(model: str, *, local_files_only: bool = False, **settings: object) -> str:
        if local_files_only:
            return snapshot_download(model, local_files_only=True, cache_dir=tmp_path)
        get_logger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise errors.HTTPError("Server disconnected without sending a response.")  # type: ignore[attr-defined]

    monkeypatch.setattr("huggingface_hub.snapshot_download", breaks)
    before = get_verbosity()
    with pytest.raises(ModelError, match="hub cannot be reached") as caught:
        locate("nobody/no-such-model")
    assert "\n" not in str(caught.value)
    assert not caplog.records
    assert get_verbosity() == before


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        open_checkpoint(tmp_path)


def test_config_that_is_no_json(llama: Path) -> None:
    (llama / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        open_checkpoint(llama)


def test_folder_without_weights(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        open_checkpoint(llama)


def test_pickled_weights_are_refused(llama: Path) -> None:
    (llama / "model.safetensors").rename(llama / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights \(pytorch_model\.bin\)"):
        open_checkpoint(llama)


@pytest.mark.parametrize("kept", [4, 100, -1])
def test_weights_cut_short(llama: Path, kept: int) -> None:
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="download it again"):
        open_checkpoint(llama)


def test_weights_that_are_something_else(llama: Path) -> None:
    (llama / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match="not a safetensors file"):
        open_checkpoint(llama)


def test_missing_shard(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "model", max_shard_size="100KB")
    sorted(folder.glob("model-0*.safetensors"))[1].unlink()
    with pytest.raises(ModelError, match="missing; download the model again"):
        open_checkpoint(folder)


def test_index_that_names_a_tensor_no_shard_has(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "model", max_shard_size="100KB")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.ghost.weight"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"first 'model\.ghost\.weight'"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "not a causal language model"),
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}, "model_type": "own"}, "auto_map"),
        ({"architectures": "LlamaForCausalLM"}, "give a list of one class name"),
        ({"model_type": None}, "names no model_type"),
        ({"model_type": "no_such_model", "architectures": None}, "no causal language model"),
    ],
)
def test_models_of_another_kind_are_refused(
    llama: Path, edit_config: Callable[..., None], changes: dict[str, object], message: str
) -> None:
    edit_config(llama, **changes)
    with pytest.raises(ModelError, match=message) as caught:
        open_checkpoint(llama)
    assert "\n" not in str(caught.value)


def test_absent_tensor_is_named(llama: Path) -> None:
    with pytest.raises(ModelError, match="no tensor 'nothing'"):
        open_checkpoint(llama).tensor("nothing")


def test_two_sets_of_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "model", max_shard_size="50KB")
    make_tiny_llama(tmp_path / "newer", seed=1)
    (tmp_path / "newer" / "model.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"two sets of weights, model\.safetensors and the \d+ shards of model.saf"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adapter_config.json", "LoRA adapter .* merge it into its base"),
        ("model_index.json", "diffusers pipeline"),
        ("model.Q4_K_M.gguf", r"GGUF file \(model\.Q4_K_M\.gguf\)"),
    ],
)
def test_other_kinds_of_folders_are_named(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(ModelError, match=words):
        open_checkpoint(tmp_path)


def test_a_map_to_code_is_passed_over_where_transformers_has_its_own(
    llama: Path, edit_config: Callable[..., None]
) -> None:
    edit_config(llama, auto_map={"AutoModelForCausalLM": "modeling_own.Own"}, architectures=["Own"])
    (llama / "modeling_own.py").write_text("raise RuntimeError")
    assert load_base(llama).config.model_type == "llama"


def _change(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.float8_e4m3fn, torch.float64])
def test_codes_without_scales_are_never_taken_for_weights(llama: Path, dtype: torch.dtype) -> None:
    _change(llama, "model.layers.0.mlp.up_proj.weight", lambda weight: weight.to(dtype))
    with pytest.raises(ModelError, match=rf"up_proj\.weight is stored as {str(dtype).removeprefix('torch.')}"):
        open_checkpoint(llama)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
def test_not_a_number_is_found_in_any_tensor(llama: Path, name: str) -> None:
    def spoil(weight: torch.Tensor) -> torch.Tensor:
        weight.view(-1)[5] = torch.nan
        return weight

    _change(llama, name, spoil)
    with pytest.raises(NumericError, match=rf"{name}: 1 of its values are NaN or infinite"):
        open_checkpoint(llama).refuse_nonfinite()


@pytest.mark.parametrize("value", [[1], "gptq", {"quant_method": "gptq"}, {"quant_method": "compressed-tensors"}])
def test_a_quantization_config_that_says_nothing_is_one_line(
    llama: Path, edit_config: Callable[..., None], value: object
) -> None:
    edit_config(llama, quantization_config=value)
    with pytest.raises(ModelError, match=r"quantization_config|quantizes no layer"):
        stored_formats(open_checkpoint(llama), describe(llama).linears)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [64.0], "data_offsets": [0, 256]},
        {"dtype": "F32", "shape": ["64"], "data_offsets": [0, 256]},
        {"dtype": "F32", "shape": [64], "data_offsets": [0, 256, 300]},
        {"dtype": ["F32"], "shape": [64], "data_offsets": [0, 256]},
        [1],
    ],
)
def test_a_header_entry_that_readers_refuse_is_refused(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(256))
    with pytest.raises(ModelError, match="header"):
        read_header(path)


def test_a_header_nested_without_end_is_refused(tmp_path: Path) -> None:
    header = b"[" * 200_000 + b"]" * 200_000
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelError, match="header is damaged"):
        read_header(path)
