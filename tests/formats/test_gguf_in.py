"""A GGUF file as a model: the same numbers as the file's, the same answers, and clear words for files that are none."""

from pathlib import Path

import pytest
import torch
from gguf_models import merging
from tiny_model import make_tiny_llama

from qtool.errors import MismatchError, ModelError
from qtool.models.locate import locate
from qtool.progress import Silent
from qtool.quantize.output.conversion import convert
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe

gguf = pytest.importorskip("gguf")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _written(tmp_path: Path, scheme: str = "w4a16") -> tuple[Path, Path]:
    """A variant's folder and its GGUF file."""
    base = merging(make_tiny_llama(tmp_path / "base", dtype=torch.bfloat16))
    recipe = Recipe(scheme=scheme, method="rtn", group_size=32)  # type: ignore[arg-type]
    quantize(base, recipe, tmp_path / scheme, name=scheme, calibration=None, progress=Silent(), whole_check=False)
    convert(tmp_path / scheme, tmp_path / f"{scheme}.gguf", progress=Silent())
    return tmp_path / scheme, tmp_path / f"{scheme}.gguf"


@pytest.mark.parametrize("scheme", ["w4a16", "w8a16"])
def test_a_variant_comes_back_with_its_own_codes(scheme: str, tmp_path: Path, cache: Path) -> None:
    from qtool.formats.stored_format import read_weight, stored_formats
    from qtool.models.architecture import describe
    from qtool.models.checkpoint import open_checkpoint

    folder, file = _written(tmp_path, scheme)
    back = locate(str(file))
    before, after = open_checkpoint(folder), open_checkpoint(back)
    linears = describe(folder).linears
    forms, again = stored_formats(before, linears), stored_formats(after, describe(back).linears)
    assert set(forms) == set(again)
    for layer, form in forms.items():
        one, other = read_weight(before, layer, form), read_weight(after, layer, again[layer])
        assert torch.equal(one.codes, other.codes)
        assert torch.equal(one.scales.float(), other.scales)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q8_0", "F16", "BF16", "F32"])
def test_every_number_is_what_the_gguf_package_makes_of_it(kind: str, tmp_path: Path, cache: Path) -> None:
    from qtool.formats.stored_format import read_weight, stored_formats
    from qtool.formats.stored_weights import dequantize
    from qtool.models.architecture import describe
    from qtool.models.checkpoint import open_checkpoint

    file = _requantized(_written(tmp_path)[1], tmp_path / f"{kind}.gguf", kind)
    back = locate(str(file))
    stored = open_checkpoint(back)
    forms = stored_formats(stored, describe(back).linears)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(str(file)).tensors}
    for index in range(2):
        layer = f"model.layers.{index}.mlp.down_proj"
        tensor = tensors[f"blk.{index}.ffn_down.weight"]
        wanted = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
        kept = layer in forms
        found = dequantize(read_weight(stored, layer, forms[layer])) if kept else stored.tensor(f"{layer}.weight")
        assert torch.equal(found.float(), wanted.float())
        assert kept == (kind in ("Q4_0", "Q8_0"))


def test_a_file_answers_as_the_variant_it_was_made_from(tmp_path: Path, cache: Path) -> None:
    from qtool.engine.load import open_engine

    folder, file = _written(tmp_path)
    prompts = [tuple(range(3, 20)), (40, 41, 42)]
    assert _greedy(open_engine(folder, dtype="float32"), prompts) == _greedy(
        open_engine(locate(str(file)), dtype="float32"), prompts
    )


@pytest.mark.parametrize(("kind", "scheme"), [("Q4_0", "w4a16"), ("Q5_0", "gguf")])
def test_an_imported_file_belongs_to_the_base_it_names(kind: str, scheme: str, tmp_path: Path, cache: Path) -> None:
    from qtool.models.identity import identify
    from qtool.quantize.output.importing import import_variant

    _, file = _written(tmp_path)
    file = _requantized(file, tmp_path / f"{kind}.gguf", kind)
    base = tmp_path / "base"
    made = import_variant(locate(str(file)), tmp_path / "in", name="in", base=base, progress=Silent())
    assert made.recipe.scheme == scheme
    assert made.bytes == file.stat().st_size
    assert made.tokenizer_digest == identify(base).tokenizer_digest
    assert made.base.weights_digest == identify(base).weights_digest
    other = make_tiny_llama(tmp_path / "other", dtype=torch.bfloat16)
    with pytest.raises(MismatchError, match="its tokens are not those of"):
        import_variant(locate(str(file)), tmp_path / "no", name="no", base=other, progress=Silent())


def test_a_file_is_made_a_folder_once(tmp_path: Path, cache: Path) -> None:
    _, file = _written(tmp_path)
    first = locate(str(file))
    stamp = (first / "config.json").stat().st_mtime_ns
    assert locate(str(file)) == first
    assert (first / "config.json").stat().st_mtime_ns == stamp


def test_files_that_are_no_whole_gguf_are_named(tmp_path: Path, cache: Path) -> None:
    _, file = _written(tmp_path)
    content = file.read_bytes()
    for name, data in (
        ("short", content[:1000]),
        ("cut", content[: len(content) - 5000]),
        ("other", b"not a gguf file at all"),
        ("empty", b""),
        ("version", content[:4] + (99).to_bytes(4, "little") + content[8:]),
        ("order", content[:4] + (3).to_bytes(4, "big") + content[8:]),
        ("family", content.replace(b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama",
                                   b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0lxama")),
    ):  # fmt: skip
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        with pytest.raises(ModelError, match=f"{name}.gguf: "):
            locate(str(path))
    part = tmp_path / "model-00001-of-00002.gguf"
    part.write_bytes(content)
    with pytest.raises(ModelError, match=r"model-00002-of-00002.gguf: missing"):
        locate(str(part))
    assert not list(cache.rglob("*.partial"))


def _requantized(file: Path, target: Path, kind: str) -> Path:
    """The same file with every matrix of the blocks as `kind`."""
    reader = gguf.GGUFReader(str(file))
    writer = gguf.GGUFWriter(str(target), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=of)
    wanted = gguf.GGMLQuantizationType[kind]
    for tensor in reader.tensors:
        if not tensor.name.startswith("blk.") or len(tensor.shape) == 1:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, gguf.quantize(numbers, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _greedy(engine, prompts):  # type: ignore[no-untyped-def]
    from qtool.engine.contract import GenerationRequest
    from qtool.engine.drive import generate

    try:
        return [tuple(found.ids) for found in generate(engine, [GenerationRequest(ids, 16) for ids in prompts])]
    finally:
        engine.close()
