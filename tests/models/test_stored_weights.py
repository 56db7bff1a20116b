"""Stored codes become the right numbers: against compressed-tensors, and against each format's definition by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from qtool.errors import ModelError
from qtool.formats.stored_format import decode, stored_formats
from qtool.formats.stored_weights import StoredFormat, StoredWeight, dequantize, group_index
from qtool.models.architecture import describe
from qtool.models.checkpoint import open_checkpoint


def pack_along_last(codes: np.ndarray, bits: int) -> torch.Tensor:
    """Unsigned codes as int32 words, least significant first; written apart from the code under test."""
    each = 32 // bits
    words = np.zeros((codes.shape[0], -(-codes.shape[1] // each)), dtype=np.uint32)
    for column in range(codes.shape[1]):
        words[:, column // each] |= codes[:, column].astype(np.uint32) << np.uint32(bits * (column % each))
    return torch.from_numpy(words.view(np.int32).copy())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pack_quantized_decodes_as_compressed_tensors_does(
    bits: int, group_size: int, symmetric: bool, dtype: torch.dtype
) -> None:
    from compressed_tensors.compressors import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    generator = torch.Generator().manual_seed(bits)
    rows, columns = 24, 96
    groups = columns // group_size if group_size > 0 else 1
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    tensors = {
        "weight": torch.randn(rows, columns, generator=generator).to(dtype),
        "weight_scale": (torch.rand(rows, groups, generator=generator) * 0.1 + 0.01).to(dtype),
    }
    if not symmetric:
        tensors["weight_zero_point"] = torch.randint(low, high + 1, (rows, groups), generator=generator).to(torch.int8)
    arguments = QuantizationArgs(
        num_bits=bits,
        symmetric=symmetric,
        strategy="group" if group_size > 0 else "channel",
        group_size=group_size if group_size > 0 else None,
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    stored = PackedQuantizationCompressor.compress(tensors, scheme)
    expected = PackedQuantizationCompressor.decompress(stored, scheme)["weight"]
    form = StoredFormat("pack-quantized", bits, group_size, symmetric)
    assert torch.equal(dequantize(decode(form, stored, layer="x")), expected)


def test_codes_in_order_make_the_word_of_the_format() -> None:
    word = torch.tensor([[0x76543210]], dtype=torch.int32)
    tensors = {"weight_packed": word, "weight_scale": torch.ones(1, 1), "weight_shape": torch.tensor([1, 8])}
    stored = decode(StoredFormat("pack-quantized", 4, -1, True), tensors, layer="x")
    assert stored.codes.tolist() == [[-8, -7, -6, -5, -4, -3, -2, -1]]


@pytest.mark.parametrize(("packing", "offset"), [("gptq", 1), ("gptq_v2", 0)])
@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_follows_its_definition(packing: str, offset: int, bits: int) -> None:
    rng = np.random.default_rng(bits)
    rows, columns, group_size = 16, 64, 32
    codes = rng.integers(0, 1 << bits, (columns, rows))
    zeros = rng.integers(1, 1 << bits, (columns // group_size, rows))
    scales = rng.random((columns // group_size, rows)).astype(np.float16)
    groups = rng.permutation(np.arange(columns) // group_size)
    tensors = {
        "qweight": pack_along_last(codes.T, bits).t().contiguous(),
        "qzeros": pack_along_last(zeros - offset, bits),
        "scales": torch.from_numpy(scales),
        "g_idx": torch.from_numpy(groups.astype(np.int32)),
    }
    form = StoredFormat(packing, bits, group_size, False)  # type: ignore[arg-type]
    found = dequantize(decode(form, tensors, layer="x"))
    expected = (codes - zeros[groups]).astype(np.float16) * scales[groups]
    assert np.array_equal(found.numpy(), expected.T)


def test_symmetric_v1_zero_word_means_no_zero_point() -> None:
    tensors = {
        "qweight": torch.zeros(4, 8, dtype=torch.int32),
        "qzeros": torch.full((1, 1), 0x77777777, dtype=torch.int32),
        "scales": torch.ones(1, 8, dtype=torch.float16),
        "g_idx": torch.zeros(32, dtype=torch.int32),
    }
    stored = decode(StoredFormat("gptq", 4, 32, True), tensors, layer="x")
    assert stored.zeros is None
    assert stored.group_of_column is None


def test_v1_zero_point_that_readers_disagree_on_is_refused() -> None:
    tensors = {
        "qweight": torch.zeros(4, 8, dtype=torch.int32),
        "qzeros": torch.full((1, 1), -1, dtype=torch.int32),
        "scales": torch.ones(1, 8, dtype=torch.float16),
    }
    with pytest.raises(ModelError, match="readers disagree"):
        decode(StoredFormat("gptq", 4, 32, False), tensors, layer="x")


def test_awq_follows_its_definition() -> None:
    rng = np.random.default_rng(0)
    rows, columns, group_size = 16, 64, 32
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    codes = rng.integers(0, 16, (columns, rows))
    zeros = rng.integers(0, 16, (columns // group_size, rows))
    scales = rng.random((columns // group_size, rows)).astype(np.float16)

    def pack(values: np.ndarray) -> torch.Tensor:
        words = np.zeros((values.shape[0], rows // 8), dtype=np.uint32)
        for word in range(rows // 8):
            for nibble, column in enumerate(order):
                words[:, word] |= values[:, word * 8 + column].astype(np.uint32) << np.uint32(4 * nibble)
        return torch.from_numpy(words.view(np.int32).copy())

    tensors = {"qweight": pack(codes), "qzeros": pack(zeros), "scales": torch.from_numpy(scales)}
    found = dequantize(decode(StoredFormat("awq", 4, group_size, False), tensors, layer="x"))
    group = np.arange(columns) // group_size
    assert np.array_equal(found.numpy(), ((codes - zeros[group]).astype(np.float16) * scales[group]).T)


def test_float8_weights() -> None:
    weight = torch.randn(8, 16)
    scales = weight.abs().amax(1, keepdim=True) / 448
    codes = (weight / scales).to(torch.float8_e4m3fn)
    form = StoredFormat("float-quantized", 8, -1, True, "dynamic")
    stored = decode(form, {"weight": codes, "weight_scale": scales}, layer="x")
    assert torch.equal(dequantize(stored), codes.float() * scales)


def test_static_input_scale_is_kept() -> None:
    form = StoredFormat("int-quantized", 8, -1, True, "static")
    tensors = {
        "weight": torch.zeros(2, 4, dtype=torch.int8),
        "weight_scale": torch.ones(2, 1),
        "input_scale": torch.tensor([0.5]),
        "input_zero_point": torch.zeros(1, dtype=torch.int8),
    }
    stored = decode(form, tensors, layer="x")
    assert stored.input_scale is not None
    assert stored.input_scale.tolist() == [0.5]
    assert stored.input_zero is None


def test_last_group_may_be_short() -> None:
    stored = StoredWeight(torch.ones(1, 5, dtype=torch.int8), torch.tensor([[1.0, 2.0]]), None, 4, 4)
    assert group_index(stored).tolist() == [0, 0, 0, 0, 1]
    assert dequantize(stored).tolist() == [[1.0, 1.0, 1.0, 1.0, 2.0]]


def test_missing_and_unexpected_tensors_are_named() -> None:
    with pytest.raises(ModelError, match=r"x: .*has no weight_scale; also has qweight"):
        decode(
            StoredFormat("int-quantized", 8, -1, True),
            {"weight": torch.zeros(1, 1, dtype=torch.int8), "qweight": torch.zeros(1)},
            layer="x",
        )


def test_raw_codes_of_another_type_are_refused() -> None:
    with pytest.raises(ModelError, match="where int-quantized stores"):
        decode(
            StoredFormat("int-quantized", 8, -1, True),
            {"weight": torch.zeros(1, 1), "weight_scale": torch.ones(1, 1)},
            layer="x",
        )


def test_unknown_quant_method_is_refused(llama: Path, edit_config) -> None:  # type: ignore[no-untyped-def]
    edit_config(llama, quantization_config={"quant_method": "modelopt"})
    with pytest.raises(ModelError, match="quantized by 'modelopt'"):
        stored_formats(open_checkpoint(llama), describe(llama).linears)


def test_scheme_without_its_codes_is_refused(llama: Path, edit_config) -> None:  # type: ignore[no-untyped-def]
    group = {"targets": ["Linear"], "weights": {"num_bits": 4, "strategy": "group", "group_size": 32}}
    edit_config(
        llama,
        quantization_config={
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
        },
    )
    with pytest.raises(ModelError, match="weight_packed is missing"):
        stored_formats(open_checkpoint(llama), describe(llama).linears)
