"""llm-compressor, run in its own environment: tokens in as JSON, a compressed-tensors checkpoint out."""

import argparse
import json

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from transformers import AutoModelForCausalLM


def recipe(method: str, scheme: str, group_size: int) -> list[object]:
    """The modifiers of `method`, for every linear layer but the head."""
    weights = {"num_bits": 4 if scheme == "w4a16" else 8, "type": "int", "symmetric": True, "dynamic": False}
    weights |= {"strategy": "channel"} if group_size == -1 else {"strategy": "group", "group_size": group_size}
    group = {"targets": ["Linear"], "weights": weights}
    if scheme == "w8a8":
        inputs = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
        group["input_activations"] = inputs
    settings = {"config_groups": {"group_0": group}, "ignore": ["lm_head"]}
    modifiers = {
        "rtn": [QuantizationModifier(**settings)],
        "gptq": [GPTQModifier(**settings)],
        "awq": [AWQModifier(), QuantizationModifier(**settings)],
        "smoothquant": [SmoothQuantModifier(smoothing_strength=0.8), GPTQModifier(**settings)],
    }
    return modifiers[method]


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--method", "--model", "--tokens", "--output", "--scheme"):
        parser.add_argument(name, required=True)
    parser.add_argument("--group-size", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.method.startswith("awq"):  # its cache pins memory, which a host without an accelerator refuses
        from llmcompressor.pipelines.cache import IntermediatesCache

        IntermediatesCache.pin_memory = lambda self, *_, **__: self
    with open(arguments.tokens) as stream:
        rows = json.load(stream)
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    method, _, wide = arguments.method.partition("_")
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32 if wide else "auto")
    with torch.random.fork_rng():
        oneshot(
            model=model,
            dataset=data,
            recipe=recipe(method, arguments.scheme, arguments.group_size),
            max_seq_length=max(map(len, rows)),
            num_calibration_samples=len(rows),
            shuffle_calibration_samples=False,
        )
    model.save_pretrained(arguments.output, save_compressed=True)


main()
