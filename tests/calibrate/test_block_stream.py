"""Block by block gives what the whole model gives, for every architecture."""

from pathlib import Path

import pytest
import small_architectures as architectures
import torch

from qtool.models.completeness import load_base
from qtool.streaming.block_stream import BlockStream

CPU = torch.device("cpu")


def rows(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(3, architectures.VOCABULARY, (1, length), generator=generator) for length in (12, 7, 12)[:count]
    ]


@pytest.mark.parametrize("name", architectures.NAMES)
def test_block_by_block_equals_the_whole_model(name: str, tmp_path: Path) -> None:
    folder = architectures.save(name, tmp_path / name)
    model = load_base(folder, dtype=torch.float32)
    last = model.get_submodule(BlockStream(folder, dtype=torch.float32, device=CPU).architecture.blocks[-1])
    expected = []
    last.register_forward_hook(
        lambda module, inputs, output: expected.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        for tokens in rows():
            model(input_ids=tokens, use_cache=False)

    stream = BlockStream(folder, dtype=torch.float32, device=CPU)
    with stream.embedding() as embed:
        hidden = [embed(row, tokens) for row, tokens in enumerate(rows())]
    for index in range(len(stream.blocks)):
        with stream.block(index) as run:
            hidden = [run(row, state) for row, state in enumerate(hidden)]

    for found, wanted in zip(hidden, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", architectures.NAMES)
def test_weights_are_read_from_disk_block_by_block_and_let_go(name: str, tmp_path: Path) -> None:
    stream = BlockStream(architectures.save(name, tmp_path / name), dtype=torch.float32, device=CPU)
    assert stream.streamed
    with stream.embedding() as embed:
        embed(0, rows(1)[0])
    with stream.block(1):
        assert all(tensor.device.type == "cpu" for tensor in stream.blocks[1].parameters())
        assert all(tensor.device.type == "meta" for tensor in stream.blocks[0].parameters())
    assert all(tensor.device.type == "meta" for block in stream.blocks for tensor in block.parameters())
