"""NVIDIA's Model Optimizer, run in its own environment: tokens in as JSON, the numbers its weights stand for out.

Its own format is read by few, so they are written as a dense checkpoint, and beside it how many bytes they would take.
"""

import argparse
import copy
import json
from pathlib import Path

import modelopt.torch.quantization as mtq
import torch
from transformers import AutoModelForCausalLM

ALGORITHMS = {"rtn": "max", "awq": "awq_lite", "awq_full": "awq_full"}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--method", "--model", "--tokens", "--output", "--scheme"):
        parser.add_argument(name, required=True)
    parser.add_argument("--group-size", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.scheme != "w4a16":
        raise SystemExit(f"modelopt: {arguments.scheme} cannot be written as a dense checkpoint")
    with open(arguments.tokens) as stream:
        rows = json.load(stream)
    settings = copy.deepcopy(mtq.INT4_AWQ_CFG)
    settings["algorithm"] = {"method": ALGORITHMS[arguments.method]}
    for entry in settings["quant_cfg"]:
        sizes = (entry.get("cfg") or {}).get("block_sizes")
        if sizes:
            sizes[-1] = arguments.group_size
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    with torch.no_grad():
        mtq.quantize(model, settings, lambda network: [network(torch.tensor([row])) for row in rows])
    dense, saved = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32), 0
    for name, layer in model.named_modules():
        quantizer = getattr(layer, "weight_quantizer", None)
        if quantizer is None or not quantizer.is_enabled:
            continue
        weight = quantizer(layer.weight.data)
        moved = getattr(layer.input_quantizer, "pre_quant_scale", None)  # its inputs are multiplied by this
        weight = weight if moved is None else weight * moved
        dense.get_submodule(name).weight = torch.nn.Parameter(weight.detach().float(), requires_grad=False)
        saved += weight.numel() * 2 - weight.numel() // 2 - weight.numel() // arguments.group_size * 2
        saved -= 0 if moved is None else moved.numel() * 2
    assert saved, "nothing was quantized"
    size = sum(parameter.numel() * 2 for parameter in dense.parameters())
    dense.save_pretrained(arguments.output)
    (Path(arguments.output) / "stored_bytes").write_text(str(size - saved))


main()
