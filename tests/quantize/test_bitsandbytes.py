"""bitsandbytes: what is written is what was in memory, and loads as the same model, by KL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from qtool.models.checkpoint import open_checkpoint
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.records.variant import Recipe, Variant

pytestmark = pytest.mark.extra
pytest.importorskip("bitsandbytes")
pytest.importorskip("accelerate")

Make = Callable[..., Variant]
IDS = torch.arange(3, 67).reshape(2, 32)


def log_probabilities(folder: Path) -> Tensor:
    """What any user of transformers gets from the folder."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        logits: Tensor = model(IDS, use_cache=False).logits.float()
    return logits.log_softmax(-1)


def divergence(first: Tensor, second: Tensor) -> float:
    """Mean KL in nats a token."""
    return float((first.exp() * (first - second)).sum(-1).mean())


@pytest.mark.parametrize("options", [(), (("double", "yes"),)], ids=["plain", "double"])
def test_nf4_loaded_again_is_the_model_its_numbers_stand_for(
    make: Make, tmp_path: Path, llama: Path, options: tuple[tuple[str, str], ...]
) -> None:
    """The reference is computed without any kernel of bitsandbytes: the base with each weight replaced by the numbers
    stored for it. Where a save is corrupt, as after a first forward on some processors, the two are different models.
    """
    from bitsandbytes.functional import QuantState, dequantize_4bit
    from transformers import AutoModelForCausalLM

    make(Recipe("nf4", "bitsandbytes", format="bitsandbytes", options=options))
    written = open_checkpoint(tmp_path / "variant")
    dense: Any = AutoModelForCausalLM.from_pretrained(llama, local_files_only=True).eval()
    for name in [name for name in written.names if name.endswith("proj.weight")]:
        state = {key: written.tensor(key) for key in written.names if key.startswith(f"{name}.")}
        found = dequantize_4bit(written.tensor(name), QuantState.from_dict(state, device=torch.device("cpu")))
        dense.get_parameter(name).data.copy_(found)
    with torch.inference_mode():
        wanted = dense(IDS, use_cache=False).logits.float().log_softmax(-1)
        rounded = dense.bfloat16()(IDS, use_cache=False).logits.float().log_softmax(-1)
    base = StreamedModel(llama).logits([IDS])[0].log_softmax(-1)
    lost = divergence(base, wanted)
    assert lost > 1e-3, "nf4 must cost something, or nothing was compared"
    # with bfloat16 instructions the kernels of bitsandbytes round to bfloat16, elsewhere only sums differ
    allowed = 2 * divergence(wanted, rounded)
    assert allowed < 0.05 * lost, "a bound that a corrupt save would keep proves nothing"
    assert divergence(wanted, log_probabilities(tmp_path / "variant")) < allowed


def test_int8_loaded_again_is_the_model_in_memory(make: Make, tmp_path: Path, llama: Path) -> None:
    """Its weights are within 1/254 of a row's largest magnitude: closer to the base than nf4 by far."""
    variant = make(Recipe("int8", "bitsandbytes", format="bitsandbytes"))
    assert variant.verification is not None
    assert variant.verification.tensors_bit_identical == variant.verification.tensors_compared > 0
    base = StreamedModel(llama).logits([IDS])[0].log_softmax(-1)
    make(Recipe("nf4", "bitsandbytes", format="bitsandbytes"), name="nf4")
    eight, four = (divergence(base, log_probabilities(tmp_path / name)) for name in ("variant", "nf4"))
    assert eight < four / 10


@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_a_save_that_loads_as_another_model_is_refused(
    make: Make, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtool.errors import QuantizationError
    from qtool.quantize.methods import bitsandbytes

    true_load = bitsandbytes._load

    def corrupt(folder: Path, config: Any | None) -> Any:
        model = true_load(folder, config)
        if config is None:  # the second load, of what was written
            model.get_parameter("model.layers.0.input_layernorm.weight").data.mul_(1.1)
        return model

    monkeypatch.setattr(bitsandbytes, "_load", corrupt)
    with pytest.raises(QuantizationError, match="loaded again it is another model"):
        make(Recipe(scheme, "bitsandbytes", format="bitsandbytes"))  # type: ignore[arg-type]
    assert not (tmp_path / "variant").exists()
