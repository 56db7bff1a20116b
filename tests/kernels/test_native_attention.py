"""Compiled attention of single tokens: right against float64, the same bits in any batch, NaN kept to its owner."""

import pytest
import torch

from qtool.kernels.cpu import native_attention, native_cpu
from qtool.kernels.cpu.native_attention import Tokens

pytestmark = pytest.mark.skipif(bool(native_cpu.refusal()), reason=f"not here: {native_cpu.refusal()}")
SLOTS, CONTEXT, SCALE = 5, 50, 0.13


def memory(kv_heads: int, width: int, value_width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(width)
    return (
        torch.randn(SLOTS, kv_heads, CONTEXT, width, generator=generator),
        torch.randn(SLOTS, kv_heads, CONTEXT, value_width, generator=generator),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 1, 5, 60])
@pytest.mark.parametrize(("heads", "kv_heads", "width", "value_width"), [(4, 4, 64, 64), (8, 2, 24, 40), (6, 3, 8, 16)])
def test_it_gives_softmax_attention(
    heads: int, kv_heads: int, width: int, value_width: int, window: int | None, dtype: torch.dtype
) -> None:
    keys, values = (part.to(dtype) for part in memory(kv_heads, width, value_width))
    query = torch.randn(7, heads, width).transpose(0, 1)
    where = Tokens(torch.randint(0, SLOTS, (7,)), torch.tensor([0, 1, 6, 7, 8, 48, 49]))
    output = native_attention.attend(query, keys, values, where, SCALE, window)
    for token, (slot, position) in enumerate(zip(*(part.tolist() for part in where), strict=True)):
        seen = slice(0 if window is None else max(position + 1 - window, 0), position + 1)
        own_keys, own_values = (
            part[slot, :, seen].repeat_interleave(heads // kv_heads, 0).double() for part in (keys, values)
        )
        scores = torch.einsum("hw,hkw->hk", query[:, token].double(), own_keys) * SCALE
        expected = torch.einsum("hk,hkw->hw", torch.softmax(scores, dim=-1), own_values)
        # float32 scores of up to 10 round by 2^-20, which the exponential passes on; values are below 5
        assert (output[token] - expected).abs().max() <= 5 * 2.0**-19


def test_a_token_gets_the_same_bits_alone_and_in_a_batch() -> None:
    keys, values = memory(2, 32, 32)
    query = torch.randn(4, 6, 32)
    where = Tokens(torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([3, 49, 8, 20, 0, 33]))
    together = native_attention.attend(query, keys, values, where, SCALE, None)
    for token in range(6):
        own = Tokens(*(part[token : token + 1] for part in where))
        alone = native_attention.attend(query[:, token : token + 1], keys, values, own, SCALE, None)
        assert torch.equal(alone[0], together[token])


def test_nan_and_infinity_stay_with_the_token_that_has_them() -> None:
    keys, values = memory(2, 32, 32)
    keys[1, 0, 2, 5], values[2, 1, 0, 0] = float("inf"), float("nan")
    query = torch.randn(4, 3, 32)
    output = native_attention.attend(query, keys, values, Tokens(torch.arange(3), torch.tensor([4, 4, 4])), SCALE, None)
    assert output[0].isfinite().all()
    assert output[1, :2].isnan().all()
    assert output[1, 2:].isfinite().all()
    assert output[2, 2:, 0].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_stored_lies_at_its_slot_and_position_and_nowhere_else(dtype: torch.dtype) -> None:
    target, given = torch.zeros(3, 2, 8, 16, dtype=dtype), torch.randn(1, 2, 4, 16)
    given[0, 0, 0, :5] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 3.4e38])
    where = Tokens(torch.tensor([2, 0, 2, 1]), torch.tensor([7, 0, 1, 3]))
    native_attention.store(given[0], target, where)
    expected = torch.zeros(3, 2, 8, 16, dtype=dtype)
    expected[where.slots, :, where.positions] = given[0].transpose(0, 1).to(dtype)
    torch.testing.assert_close(target, expected, rtol=0, atol=0, equal_nan=True)


def test_other_types_and_broken_vectors_are_left_to_torch() -> None:
    plain = torch.zeros(1, 1, 1, 16)
    assert native_attention.fits(plain, plain, plain)
    assert native_attention.fits(plain.bfloat16(), plain.bfloat16(), plain.bfloat16())
    assert not native_attention.fits(plain.half(), plain.half(), plain.half())
    assert not native_attention.fits(plain[..., :12], plain[..., :12], plain)
