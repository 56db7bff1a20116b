"""HQQ, run in its own environment: no data; its own format is read by nobody else, so the numbers it stands for are
written as a dense checkpoint, and beside it how many bytes it would take."""

import argparse
from pathlib import Path

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from transformers import AutoModelForCausalLM


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--method", "--model", "--tokens", "--output", "--scheme"):
        parser.add_argument(name, required=True)
    parser.add_argument("--group-size", type=int, required=True)
    arguments = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    bits = 4 if arguments.scheme == "w4a16" else 8
    saved = 0
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, torch.nn.Linear) or name == "lm_head":
            continue
        width = layer.in_features if arguments.group_size == -1 else arguments.group_size
        config = BaseQuantizeConfig(nbits=bits, group_size=width, axis=1)
        weight = layer.weight.data.clone()
        found = HQQLinear(layer, config, compute_dtype=torch.float32, device="cpu", del_orig=False).dequantize()
        layer.weight = torch.nn.Parameter(found.reshape(weight.shape).float(), requires_grad=False)
        groups = weight.numel() // width
        saved += weight.numel() * 2 - weight.numel() * bits // 8 - groups * 4  # 16-bit scale and zero point a group
    dense = sum(parameter.numel() * 2 for parameter in model.parameters())
    model.save_pretrained(arguments.output)
    (Path(arguments.output) / "stored_bytes").write_text(str(dense - saved))


main()
