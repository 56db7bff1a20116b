"""The compiled products: right against float64, the same bits for any batch, and never needed."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from qtool.errors import CapacityError, UsageError
from qtool.formats.stored_weights import StoredWeight, dequantize
from qtool.kernels import dense
from qtool.kernels.contract import Kernel
from qtool.kernels.cpu import levels, native_build, native_cpu, native_many, native_structures
from qtool.kernels.cpu.int4_cpu import Int4Kernel
from qtool.kernels.dense import DenseKernel
from qtool.kernels.dispatch import choose_kernel
from qtool.kernels.tiles import InputQuantizer
from tests.kernels.test_products import FLOAT32_PATH, make_weight, poisoned_memory  # noqa: F401  (a fixture)

needs_native = pytest.mark.skipif(bool(native_cpu.refusal()), reason=f"not here: {native_cpu.refusal()}")
TOKENS = (1, 2, 3, 7, 32, 100)
SHAPES = ((1, 32), (31, 96), (33, 160), (70, 100), (64, 2176), (40, 4224))  # wider than one and than two chunks


def forget() -> None:
    """What the module remembers of this machine is asked again."""
    native_build.native.cache_clear()
    native_cpu.refusal.cache_clear()


@pytest.fixture
def fresh() -> Iterator[None]:
    """What the module remembers of this machine is forgotten before and after."""
    forget()
    yield
    forget()


@pytest.fixture(params=[level.name for level in levels.LEVELS])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every level of instructions that this processor has, one after another."""
    missing = next(level for level in levels.LEVELS if level.name == request.param).needs - levels.processor_flags()
    if missing:
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    monkeypatch.setenv(levels.FORCED, request.param)
    forget()
    yield request.param
    monkeypatch.delenv(levels.FORCED)
    forget()


def test_products_that_compile_are_right() -> None:
    """Else every test below would be skipped, and nobody would know."""
    assert "not right" not in native_cpu.refusal()


@needs_native
@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [-1, 32, 64, 96, 128, 256])
def test_sixteen_bit_inputs_cost_less_than_rounding_them_to_bfloat16(bits: int, group: int, zeros: bool) -> None:
    for rows, columns in (*SHAPES, (48, 768)):
        if group != -1 and columns % group:
            continue
        weight = make_weight(rows, columns, bits, group, zeros=zeros)
        kernel, exact = native_cpu.weight_kernel(weight), dequantize(weight).double()
        for tokens in TOKENS:
            inputs = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(tokens))
            inputs[:, 0] *= 300  # an outlier, as activations have them
            step = 128 if group == -1 else next(step for step in (128, 64, 32) if group % step == 0)
            padded = torch.nn.functional.pad(inputs, (0, -columns % step)).double().view(tokens, -1, step)
            half_step = (padded.abs().amax(-1, keepdim=True) / 32767 / 2).expand_as(padded).reshape(tokens, -1)
            bound = half_step[:, :columns] @ exact.abs().t()
            rounding = FLOAT32_PATH * (inputs.double().abs() @ exact.abs().t())
            error = (kernel.multiply(inputs).double() - inputs.double() @ exact.t()).abs()
            assert (error <= 1.01 * bound + rounding).all(), (rows, columns, tokens)


@needs_native
@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("static", [False, True])
def test_eight_bit_inputs_are_summed_exactly(static: bool) -> None:
    for rows, columns in SHAPES:
        weight = make_weight(rows, columns, 8, -1, static=static)
        weight.codes[0] = -128
        if static:
            weight = StoredWeight(
                weight.codes, weight.scales, None, 8, -1, input_scale=torch.tensor([0.03]), input_zero=torch.tensor([9])
            )
        quantizer = InputQuantizer(weight, "static" if static else "dynamic")
        kernel = native_cpu.input_kernel(weight, "static" if static else "dynamic")
        for tokens in TOKENS:
            inputs = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(tokens))
            inputs[0, 0] = 1e12 if static else 5.0
            codes, scale = quantizer.codes(inputs)
            whole = (codes - quantizer.zero).double() @ weight.codes.double().t()
            expected = whole.float() * weight.scales[:, 0] * scale
            torch.testing.assert_close(kernel.multiply(inputs), expected, rtol=2.0**-22, atol=0)


@needs_native
@pytest.mark.usefixtures("level")
def test_float32_weights_are_multiplied_where_they_lie() -> None:
    for rows, columns in (*SHAPES, (7, 48)):
        weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
        kernel = native_cpu.float32_kernel(weight)
        if columns % 16:
            assert kernel is None
            continue
        assert kernel is not None
        assert kernel.product.codes == weight.data_ptr()
        for tokens in TOKENS:
            inputs = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(tokens))
            error = (kernel.multiply(inputs).double() - inputs.double() @ weight.double().t()).abs()
            assert (error <= FLOAT32_PATH * (inputs.double().abs() @ weight.double().abs().t())).all()


@needs_native
@pytest.mark.usefixtures("level")
def test_places_in_a_book_are_multiplied_without_overflow() -> None:
    book = torch.cat([torch.tensor([-1.0]), torch.linspace(-0.7, 0.9, 14), torch.tensor([1.0])])
    for rows, columns in ((1, 64), (33, 192), (40, 2176)):
        generator = torch.Generator().manual_seed(rows)
        places = torch.randint(0, 16, (rows, columns), generator=generator)
        places[0] = 15  # the largest products there are, all of one sign
        scales = torch.rand(rows, columns // 64, generator=generator)
        exact = (book[places].view(rows, -1, 64) * scales[:, :, None]).view(rows, columns).double()
        wide = scales.repeat_interleave(64, dim=1).double()
        kernel = native_cpu.book_kernel(places, scales, book, "test")
        for tokens in TOKENS:
            inputs = torch.randn(tokens, columns, generator=generator)
            inputs[0] = 1.0
            found = kernel.multiply(inputs).double()
            bound = 2.0**-14 * 1.01 * (inputs.double().abs() @ wide.t())  # of the book
            bound += (
                2.0**-16
                * 1.01
                * (inputs.abs().view(tokens, -1, 64).amax(-1).repeat_interleave(64, 1).double() @ exact.abs().t())
            )
            rounding = FLOAT32_PATH * (inputs.double().abs() @ exact.abs().t())
            assert ((found - inputs.double() @ exact.t()).abs() <= bound + rounding).all(), (rows, columns, tokens)
            alone = torch.cat([kernel.multiply(row[None]) for row in inputs[:5]])
            assert torch.equal(alone, kernel.multiply(inputs)[:5])


@needs_native
@pytest.mark.usefixtures("level")
def test_bfloat16_weights_give_what_their_float32_copy_gives() -> None:
    for rows, columns in SHAPES:
        weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).bfloat16().float()
        kernel = native_cpu.bfloat16_kernel(weight)
        for tokens in TOKENS:
            inputs = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(tokens))
            error = (kernel.multiply(inputs).double() - inputs.double() @ weight.double().t()).abs()
            # float32 sums of `columns` products in sixteen lanes
            bound = 2.0**-24 * (columns / 16 + 16) * (inputs.double().abs() @ weight.double().abs().t())
            assert (error <= bound).all(), (rows, columns, tokens)


def all_kernels(columns: int = 160) -> list[Kernel]:
    eight = make_weight(70, columns, 8, -1)
    float32 = native_cpu.float32_kernel(torch.randn(70, columns))
    assert float32 is not None
    return [
        native_cpu.weight_kernel(make_weight(70, columns, 4, 32)),
        native_cpu.weight_kernel(make_weight(70, columns, 4, 32, zeros=True)),
        native_cpu.weight_kernel(eight),
        native_cpu.input_kernel(eight, "dynamic"),
        native_cpu.bfloat16_kernel(torch.randn(70, columns).bfloat16().float()),
        float32,
    ]


@needs_native
@pytest.mark.usefixtures("level")
@pytest.mark.parametrize("columns", [160, 2112])  # less and more than what is added up at a time
def test_a_token_gets_the_same_bits_alone_and_in_any_batch_on_one_thread_and_two(columns: int) -> None:
    inputs = torch.randn(33, columns)
    before = torch.get_num_threads()
    try:
        for kernel in all_kernels(columns):
            torch.set_num_threads(1)
            alone = torch.cat([kernel.multiply(inputs[row : row + 1]) for row in range(33)])
            torch.set_num_threads(2)
            for size in (*range(2, 12), 16, 17, 33):
                assert torch.equal(kernel.multiply(inputs[:size]), alone[:size]), (kernel.label, size)
    finally:
        torch.set_num_threads(before)


@needs_native
@pytest.mark.parametrize("static", [False, True])
def test_exact_sums_are_the_same_bits_at_every_level(
    static: bool, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = make_weight(50, 2112, 8, -1, static=static)
    if static:
        weight = StoredWeight(
            weight.codes, weight.scales, None, 8, -1, input_scale=torch.tensor([0.03]), input_zero=torch.tensor([-7])
        )
    inputs = torch.randn(11, 2112)
    products = []
    for level in levels.LEVELS:
        if level.needs <= levels.processor_flags():
            monkeypatch.setenv(levels.FORCED, level.name)
            forget()
            products.append(native_cpu.input_kernel(weight, "static" if static else "dynamic").multiply(inputs))
    assert all(torch.equal(product, products[0]) for product in products)


@needs_native
@pytest.mark.usefixtures("level")
def test_nan_and_infinity_reach_the_output_of_their_own_token_only() -> None:
    for kernel in all_kernels():
        inputs = torch.randn(3, 160)
        clean = kernel.multiply(inputs)
        inputs[1, 3] = float("nan")
        inputs[2, 159] = float("inf")
        product = kernel.multiply(inputs)
        assert torch.equal(product[0], clean[0])
        assert not product[1:].isfinite().any(), kernel.label


@needs_native
@pytest.mark.usefixtures("level")
def test_zeros_no_tokens_and_other_number_types_are_taken() -> None:
    for kernel in all_kernels():
        assert torch.equal(kernel.multiply(torch.zeros(2, 160)), torch.zeros(2, 70))
        assert kernel.multiply(torch.zeros(0, 160)).shape == (0, 70)
        assert kernel.multiply(torch.randn(160, 4).t().bfloat16()).dtype is torch.bfloat16


@needs_native
@pytest.mark.usefixtures("level")
def test_a_large_bfloat16_weight_computed_in_float32_stays_small() -> None:
    weight = torch.randn(1024, 1024)
    assert DenseKernel(weight.bfloat16().float()).bytes == weight.numel() * 2
    assert DenseKernel(weight).bytes == weight.numel() * 4


def test_the_switch_turns_them_off_and_torch_does_the_work(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native_build.SWITCH, "0")
    assert native_build.SWITCH in native_cpu.refusal() or "AVX2" in native_cpu.refusal()
    assert isinstance(choose_kernel(make_weight(64, 64, 4, 32), "none", device=torch.device("cpu")), Int4Kernel)


def test_no_compiler_and_no_cache_is_an_answer(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    library = native_build.native()
    assert library.library is None
    assert library.reason


def test_a_level_that_does_not_exist_or_is_not_here_is_one_line(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "processor_flags", lambda: frozenset({"avx2", "fma"}))
    monkeypatch.setenv(levels.FORCED, "avx1024")
    with pytest.raises(UsageError, match=r"no such level; use one of amx, avx512, avx2"):
        levels.chosen_level()
    monkeypatch.setenv(levels.FORCED, "avx512")
    with pytest.raises(UsageError, match=r"this processor has no avx512_vnni.*unset it"):
        levels.chosen_level()
    monkeypatch.delenv(levels.FORCED)
    assert levels.chosen_level().level is levels.LEVELS[-1]
    monkeypatch.setattr(levels, "processor_flags", lambda: frozenset({"sse2"}))
    assert levels.chosen_level().reason == "the processor has no avx2 and no fma"


@needs_native
def test_a_level_that_cannot_be_built_leaves_the_next(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real = native_build._load

    def without_avx512(level: levels.Level, *rest: Any) -> Any:
        if level.own:
            raise OSError("g++ failed: unrecognized command-line option '-mavx512vnni'")
        return real(level, *rest)

    monkeypatch.setattr(native_build, "_load", without_avx512)
    monkeypatch.setattr(levels, "processor_flags", lambda: frozenset().union(*(level.needs for level in levels.LEVELS)))
    library = native_build.native()
    assert library.library is not None
    assert library.level is levels.LEVELS[-1]
    assert "avx512vnni" in library.reason


@needs_native
def test_a_compiler_that_hangs_is_waited_for_once(
    fresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "g++"
    compiler.write_text(f"#!/bin/sh\necho >> {tmp_path}/calls\nsleep 1000\necho never\n")  # a child holds its output
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(native_build, "_BUILD_SECONDS", 0.5)
    library = native_build.native()
    assert library.library is None
    assert "did not finish" in library.reason
    assert "torch's own operators do the work" in capsys.readouterr().err
    calls = (tmp_path / "calls").read_text()
    native_build.native.cache_clear()  # as another process would find it
    assert "remove" in native_build.native().reason
    assert (tmp_path / "calls").read_text() == calls


def test_a_library_that_others_could_have_written_is_not_loaded(tmp_path: Path) -> None:
    library = tmp_path / "folder" / "library.so"
    library.parent.mkdir(mode=0o700)
    library.touch(mode=0o600)
    assert native_build._only_ours(library)
    library.chmod(0o666)
    assert not native_build._only_ours(library)
    library.chmod(0o600)
    library.parent.chmod(0o777)
    assert not native_build._only_ours(library)


@needs_native
@pytest.mark.parametrize(("bits", "group", "zeros"), [(4, 32, True), (4, -1, False), (8, 64, False), (8, -1, True)])
def test_many_rows_by_torch_multiply_the_same_weight_rounded_to_bfloat16(
    bits: int, group: int, zeros: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a processor with bfloat16 instructions may choose, on any processor with panels."""
    weight = make_weight(530, 192, bits, group, zeros=zeros)
    kernel = native_cpu.weight_kernel(weight)
    if not native_cpu.in_panels(kernel):
        pytest.skip("no panels at this level")
    monkeypatch.setattr(native_many, "_TILE_BYTES", 192 * 2 * 64)  # several tiles, the last one short
    inputs = torch.randn(70, 192, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = (dequantize(weight).float()).bfloat16().double()
    found = native_many.by_torch(kernel, inputs, None).double()
    # bfloat16 products are summed in float32 and rounded once; one more rounding for the order of sums
    bound = 2.0**-8 * (inputs.double() @ exact.t()).abs() + 2.0**-16 * (inputs.double().abs() @ exact.abs().t())
    assert ((found - inputs.double() @ exact.t()).abs() <= bound).all()
    tile = native_many._tile(kernel, 64, 100, torch.bfloat16)
    assert torch.equal(tile[:192, :36].double(), exact[64:100].t())


@needs_native
@pytest.mark.parametrize("static", [False, True])
def test_many_rows_of_8_bit_inputs_by_torch_are_the_same_bits(static: bool) -> None:
    weight = make_weight(70, 160, 8, -1, static=static)
    if static:
        weight = StoredWeight(
            weight.codes, weight.scales, None, 8, -1, input_scale=torch.tensor([0.01]), input_zero=torch.tensor([9])
        )
    quantizer = InputQuantizer(weight, "static" if static else "dynamic")
    kernel = native_cpu.input_kernel(weight, "static" if static else "dynamic")
    if not native_cpu.in_panels(kernel):
        pytest.skip("no panels at this level")
    inputs = torch.randn(65, 160)
    assert torch.equal(native_many.by_torch(kernel, inputs, quantizer), kernel.by_compiled(inputs))


@needs_native
def test_the_way_of_many_rows_is_measured_only_where_it_may_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = make_weight(512, 512, 8, -1)
    kernel = native_cpu.weight_kernel(weight)
    if not native_cpu.in_panels(kernel):
        pytest.skip("no panels at this level")
    monkeypatch.setattr(native_many, "has_bfloat16", lambda: False)
    assert native_many.faster_way(kernel, weight, "none").many_rows is None
    monkeypatch.setattr(native_many, "has_bfloat16", lambda: True)
    for faster in (False, True):
        monkeypatch.setattr(native_many, "_torch_is_faster", lambda kernel, quantizer, faster=faster: faster)
        assert (native_many.faster_way(kernel, weight, "none").many_rows is not None) == faster
    plain = torch.randn(256, 512).bfloat16()
    for faster in (False, True):
        monkeypatch.setattr(dense, "has_bfloat16", lambda: True)
        monkeypatch.setattr(dense, "measured_faster", lambda kernel, theirs, faster=faster: faster)
        by_torch = Mock(wraps=torch.nn.functional.linear)  # on some processors both ways give the same bits
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.functional, "linear", by_torch)
            DenseKernel(plain).multiply(torch.randn(native_many.MANY, 512).bfloat16())
        assert by_torch.called == faster
        assert native_many.measured_faster(kernel, lambda inputs: inputs)  # nothing is done faster than a product
    wide = torch.randn(native_many.MANY, 512)
    assert torch.equal(kernel.multiply(wide), kernel.by_compiled(wide))  # a float32 model keeps its 16-bit inputs


@needs_native
def test_a_structure_that_python_lays_out_differently_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(native_structures.Step):
        _fields_ = (("more", ctypes.c_int64),)

    library = native_build.native().library
    native_structures.refuse_other_sizes(library)
    monkeypatch.setattr(native_structures, "STRUCTURES", (*native_structures.STRUCTURES[:-1], Longer))
    with pytest.raises(CapacityError, match=r"lay out Longer differently \(80 and 88 bytes\)"):
        native_structures.refuse_other_sizes(library)
