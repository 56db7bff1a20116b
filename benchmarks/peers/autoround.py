"""auto-round, run in its own environment: tokens in as JSON, a GPTQ checkpoint out.

Its method names how many steps of its tuning: light 50, default 200 (its own), best 1000 (its own recipe of that name).
Mixed precision is off: this way it computes in float32, which is no worse, and faster where bfloat16 is emulated.
"""

import argparse
import json

import torch
from auto_round import AutoRound
from transformers import AutoModelForCausalLM, AutoTokenizer

STEPS = {"rtn": 0, "light": 50, "default": 200, "best": 1000}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--method", "--model", "--tokens", "--output", "--scheme"):
        parser.add_argument(name, required=True)
    parser.add_argument("--group-size", type=int, required=True)
    arguments = parser.parse_args()
    with open(arguments.tokens) as stream:
        rows = json.load(stream)
    # it stacks its samples, so all must have one length: rows are packed end to end, as its own loader does
    length, stream = max(map(len, rows)), [token for row in rows for token in row]
    packed = [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]
    rounding = AutoRound(
        AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32),
        AutoTokenizer.from_pretrained(arguments.model),
        bits=4 if arguments.scheme == "w4a16" else 8,
        group_size=arguments.group_size,
        sym=True,
        iters=STEPS[arguments.method],
        dataset=[torch.tensor([row]) for row in packed],
        nsamples=len(packed),
        seqlen=length,
        device_map="cpu",
        amp=False,
    )
    rounding.quantize_and_save(arguments.output, format="auto_gptq")


main()
