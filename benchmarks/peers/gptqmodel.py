"""GPTQModel, run in its own environment: tokens in as JSON, a GPTQ checkpoint out."""

import argparse
import json

import torch
from gptqmodel import GPTQModel, QuantizeConfig


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--method", "--model", "--tokens", "--output", "--scheme"):
        parser.add_argument(name, required=True)
    parser.add_argument("--group-size", type=int, required=True)
    arguments = parser.parse_args()
    with open(arguments.tokens) as stream:
        rows = json.load(stream)
    config = QuantizeConfig(
        bits=4 if arguments.scheme == "w4a16" else 8,
        group_size=arguments.group_size,
        sym=True,
        desc_act=arguments.method.startswith("gptq_desc_act"),
    )
    settings = {"dtype": torch.float32} if arguments.method.endswith("float32") else {}
    model = GPTQModel.load(arguments.model, config, device="cpu", **settings)
    model.quantize([{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows], batch_size=1)
    model.save(arguments.output)


main()
