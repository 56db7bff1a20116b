"""What a captured decode step reads and writes, run here without the capture: its parts are plain tensors."""

from collections.abc import Callable

import pytest
import torch

from qtool.engine.contract import GenerationRequest
from qtool.engine.drive import generate
from qtool.engine.scheduling.graphs import GraphedDecoder, batch_bucket, fill, length_bucket, static_decode
from qtool.engine.scheduling.ragged import Row, plan_step
from qtool.engine.scheduling.slots import KeyValueSlots
from tests.engine.small_models import make_engine, make_model


def test_buckets_hold_what_they_must() -> None:
    assert [batch_bucket(rows) for rows in (1, 3, 17, 128, 129)] == [1, 4, 24, 128, None]
    assert [length_bucket(length, 1000) for length in (1, 256, 257, 900)] == [256, 256, 512, 1000]


def test_a_static_step_gives_what_a_ragged_step_gives_and_leaves_idle_slots_alone() -> None:
    network = make_engine(make_model())._network
    device, context = torch.device("cpu"), 32
    memory = KeyValueSlots(network.shapes, slots=4, context=context, dtype=torch.float32, device=device)
    ids = torch.tensor([5, 6, 7, 8, 9, 10])
    prompts = [Row(0, 0, 2), Row(2, 0, 3), Row(3, 0, 1)]
    network.forward(ids, plan_step(prompts, device), memory, torch.tensor([1]))
    twin = KeyValueSlots(network.shapes, slots=4, context=context, dtype=torch.float32, device=device)
    network.forward(ids, plan_step(prompts, device), twin, torch.tensor([1]))
    rows, tokens = [Row(0, 2, 1), Row(2, 3, 1)], [11, 12]
    expected = network.forward(torch.tensor(tokens), plan_step(rows, device), twin, torch.arange(2))

    static = static_decode(4, context, context, dtype=torch.float32, device=device)
    fill(static, rows, tokens, context)
    logits = network.forward(static.ids, static.step, memory, static.keep)
    torch.testing.assert_close(logits[[0, 2]], expected)
    for layer in network.shapes:
        assert torch.equal(memory._keys[layer][3, :, :-1], twin._keys[layer][3, :, :-1])


class Recorder:
    """Stands in for CUDA's capture: warms up, then replays into one and the same tensor."""

    def __init__(self) -> None:
        self.captures = self.replays = 0

    def __call__(self, run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        run()  # whatever it caches now has parked rows in it, as after CUDA's warm-up
        result = run()
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            result.copy_(run())

        return replay, result


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2"])  # no window, one, one in every second layer
def test_requests_decoded_by_graphs_get_the_tokens_they_get_without(architecture: str) -> None:
    requests = [GenerationRequest(tuple(range(5, 5 + length)), 9) for length in (3, 12, 1, 20, 7)]
    expected = [generation.ids for generation in generate(make_engine(make_model(architecture)), requests)]
    engine = make_engine(make_model(architecture), slots=3)  # between two buckets
    scheduler = engine._scheduler
    recorder = Recorder()
    scheduler.feeder.compiled = None
    scheduler.feeder.graphs = GraphedDecoder(engine._network, scheduler._memory, recorder)
    assert [generation.ids for generation in generate(engine, requests)] == expected
    assert recorder.replays > 3 * recorder.captures > 0


def test_where_a_capture_fails_decoding_goes_the_plain_way() -> None:
    def fails(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    engine = make_engine(make_model())
    engine._scheduler.feeder.compiled = None
    engine._scheduler.feeder.graphs = GraphedDecoder(engine._network, engine._scheduler._memory, fails)
    assert generate(engine, [GenerationRequest((5, 6), 4)])[0].finish == "length"
    assert not engine._scheduler.feeder.graphs.usable


def test_without_a_gpu_nothing_is_captured() -> None:
    network = make_engine(make_model())._network
    memory = KeyValueSlots(network.shapes, slots=1, context=8, dtype=torch.float32, device=torch.device("cpu"))
    assert GraphedDecoder(network, memory).decode([Row(0, 0, 1)], [5]) is None
