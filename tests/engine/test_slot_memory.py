"""Keys and values take the memory that requests need, and running short of it changes no token."""

import random
import subprocess
import sys

import pytest
import torch

from qtool.engine.backends.qtool import QtoolEngine
from qtool.engine.contract import GenerationRequest
from qtool.engine.drive import generate
from qtool.engine.layers.weights import LoadedModel
from qtool.engine.scheduling.lazy_memory import LazyZeros
from qtool.engine.scheduling.slots import KeyValueSlots, LayerShape
from tests.engine.small_models import make_engine, make_model

MEASURE = """
import re
from pathlib import Path
import torch
from qtool.engine.scheduling.slots import KeyValueSlots, LayerShape

def megabytes():  # of numbers alone: pages of torch's code come in when they are first run
    status = Path("/proc/self/status").read_text()
    return sum(int(size) for size in re.findall(r"Rss(?:Anon|Shmem):\\s+(\\d+) kB", status)) / 1024

shape = {0: LayerShape(4, 64, 64)}
device = torch.device("cpu")
before = megabytes()
memory = KeyValueSlots(shape, slots=32, context=4096, dtype=torch.float32, device=device)  # 268 MB in all
made = megabytes() - before
keys, values = memory.layer(0)
keys[:, :, :40] = 1.0
used = megabytes() - before
keys[3] = values[3] = 1.0
filled = megabytes() - before
memory.clear(3)
print(made, used, filled, megabytes() - before, float(keys[3].abs().max()), float(keys[2, :, :40].min()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_slot_takes_memory_where_it_is_written_and_gives_it_back() -> None:
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    made, used, filled, cleared, zero, kept = map(float, run.stdout.split())
    assert made < 2
    assert used < made + 2 * 32 * 4 * 40 * 64 * 4 / 2**20 + 2  # at most a page more a head than was written
    assert filled > used + 6  # the 8 MB of slot 3
    assert cleared < used + 1
    assert (zero, kept) == (0.0, 1.0)


@pytest.mark.parametrize("row_numbers", [7, 1500])
def test_a_row_that_is_no_whole_page_is_cleared_alone(row_numbers: int) -> None:
    lazy = LazyZeros((3, row_numbers), torch.float32)
    lazy.tensor.fill_(2.0)
    lazy.clear(1)
    assert lazy.tensor[1].abs().max() == 0
    assert lazy.tensor[[0, 2]].min() == 2.0


def test_little_room_makes_requests_wait_and_changes_no_token() -> None:
    dice = random.Random(3)
    start = tuple(range(3, 30))  # some share it, so that slots are kept for their prefixes and must be given back
    requests = [
        GenerationRequest((*(start if index % 2 else ()), *dice.choices(range(3, 90), k=dice.randint(1, 40))), 6)
        for index in range(24)
    ]
    token_bytes = make_engine(make_model(), slots=1, context_tokens=96).cache_bytes // 96
    device = torch.device("cpu")
    ample = QtoolEngine(make_model(), device=device, dtype=torch.float32, slots=8, context_tokens=96)
    tight = QtoolEngine(
        make_model(), device=device, dtype=torch.float32, slots=8, context_tokens=96, memory_bytes=100 * token_bytes
    )
    expected = [generation.ids for generation in generate(ample, requests)]
    assert [generation.ids for generation in generate(tight, requests)] == expected
    assert tight.status().running == tight.status().waiting == 0


def test_a_frugal_engine_keeps_its_context_whatever_its_weights_take() -> None:
    device = torch.device("cpu")
    shape = {"device": device, "dtype": torch.float32, "slots": 32, "context_tokens": 128}
    heavy, light = (
        QtoolEngine(model, **shape, frugal=True, loaded=LoadedModel(model, (), weight_bytes, torch.float32))
        for model, weight_bytes in ((make_model(), 1 << 30), (make_model(), 1))
    )
    assert heavy.status() == light.status()


def test_slots_may_be_copied_from_one_another() -> None:
    shapes = {0: LayerShape(2, 4, 4)}
    memory = KeyValueSlots(shapes, slots=2, context=8, dtype=torch.float32, device=torch.device("cpu"))
    memory.layer(0)[0][0, :, :3] = 5.0
    memory.copy_prefix(0, 1, 2)
    assert memory.layer(0)[0][1].sum() == 2 * 2 * 4 * 5.0
