"""Loading takes little more than what stays, and what cannot fit is refused before anything is read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qtool.engine.layers.weights import load_model, resident_bytes
from qtool.engine.load import open_engine
from qtool.engine.scheduling import memory
from qtool.errors import CapacityError
from qtool.kernels.cpu import native_cpu
from qtool.models.checkpoint import open_checkpoint
from qtool.progress import Silent
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe
from tests.tiny_model import make_tiny_llama

WIDTH, VOCABULARY = 768, 8000
MEASURE = """
import json, sys
from pathlib import Path
import torch
from qtool.engine.layers.weights import load_model

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1])

tiny, *folders = map(Path, sys.argv[1:])
load_model(tiny, dtype=torch.float32, device=torch.device("cpu"))  # what is imported and compiled is in memory now
for folder in folders:
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again here
    loaded = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    print(json.dumps([1024 * (kilobytes("VmHWM") - before), loaded.weight_bytes]))
    del loaded
"""


def make_middling_llama(folder: Path, *, tied: bool = False) -> Path:
    """26 million random parameters in bfloat16: 53 MB, most of it in layers large enough to be packed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=2048,
        num_hidden_layers=2,
        num_attention_heads=12,
        num_key_value_heads=12,
        vocab_size=VOCABULARY,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux for peaks")
def test_loading_takes_a_quarter_more_than_what_stays_and_one_layer(tmp_path: Path) -> None:
    base, tied = make_middling_llama(tmp_path / "base"), make_middling_llama(tmp_path / "tied", tied=True)
    recipes = {"w8a8": Recipe("w8a8", "rtn", activations="dynamic"), "w4a16": Recipe("w4a16", "rtn", group_size=128)}
    for name, recipe in recipes.items():
        quantize(base, recipe, tmp_path / name, name=name, calibration=None, progress=Silent(), whole_check=False)
    folders = [base, tied, *(tmp_path / name for name in recipes)]
    command = [sys.executable, "-c", MEASURE, str(make_tiny_llama(tmp_path / "tiny")), *map(str, folders)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for folder, line in zip(folders, process.stdout.splitlines(), strict=True):
        peak, held = json.loads(line)
        largest = VOCABULARY * WIDTH * 8  # the head as float32 numbers, and once more in its kernel's form
        assert peak <= 1.25 * held + largest, f"{folder.name}: {peak} bytes for {held}"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_estimate_is_what_a_model_takes(dtype: torch.dtype, tied: bool, tmp_path: Path) -> None:
    folder = make_middling_llama(tmp_path / "base", tied=tied)
    cpu = torch.device("cpu")
    estimate = resident_bytes(open_checkpoint(folder), dtype, cpu)
    held = load_model(folder, dtype=dtype, device=cpu).weight_bytes
    assert held <= estimate <= 1.25 * held  # it may ask for more than is taken, never for less


@pytest.mark.skipif(bool(native_cpu.refusal()), reason=f"not here: {native_cpu.refusal()}")
def test_a_head_tied_to_its_embedding_multiplies_by_the_table_as_stored(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_middling_llama(tmp_path / "tied", tied=True)
    loaded = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    table, head = loaded.model.get_input_embeddings().weight, loaded.model.get_output_embeddings()
    assert table.dtype is torch.bfloat16
    assert head.kernel.product.codes == table.data_ptr()
    stored = open_checkpoint(folder).bytes
    # float32 now: five norms, and two layers' outputs of attention, too small for the compiled product
    assert loaded.weight_bytes <= stored + 2 * (5 * WIDTH + 2 * WIDTH**2)
    ids = torch.arange(3, 20)[None]
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
        found = loaded.model(ids).logits
    # the same numbers, multiplied in float32: sums of 2048 terms at most, in two layers
    torch.testing.assert_close(found, expected, rtol=0, atol=2.0**-17 * float(expected.abs().max()))


def test_an_address_space_that_is_too_small_refuses_before_reading(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
import psutil
from qtool.engine.load import open_engine
from qtool.engine.layers.weights import load_model
from qtool.errors import CapacityError
used = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))
try:
    open_engine(Path(sys.argv[1]))
except CapacityError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, str(make_tiny_llama(tmp_path / "base"))]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "are free" in process.stdout


def container(folder: Path, *, limit: str, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up tree of control groups, with this process in /pod/box."""
    root = tmp_path / "groups"
    (tmp_path / "own").write_text("0::/pod/box\n")
    monkeypatch.setattr(memory, "_CGROUP", root)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    return root


def test_the_tightest_container_counts_and_read_files_are_no_use_of_it(groups: Path) -> None:
    cpu = torch.device("cpu")
    unlimited = memory.available_bytes(cpu)
    container(groups / "pod" / "box", limit="max", used=10, cached=0)
    assert memory.available_bytes(cpu) == pytest.approx(unlimited, rel=0.1)
    container(groups / "pod", limit=str(300 << 20), used=250 << 20, cached=100 << 20)
    assert memory.available_bytes(cpu) == 150 << 20


def test_a_container_that_is_too_small_refuses_a_model(groups: Path, tmp_path: Path) -> None:
    container(groups / "pod" / "box", limit=str(100 << 20), used=90 << 20, cached=0)
    with pytest.raises(CapacityError, match="are free"):
        open_engine(make_tiny_llama(tmp_path / "base"))
