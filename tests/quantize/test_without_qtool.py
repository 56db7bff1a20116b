"""What qtool writes, loaded by transformers in a process where qtool cannot be imported: the same greedy tokens."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tiny_model import make_tiny_llama

from qtool.quantize.blocks.streaming import StreamedModel
from qtool.records.variant import Recipe, Variant

RECIPES = {
    "w4a16-32": Recipe("w4a16", "rtn", group_size=32),
    "w4a16-64": Recipe("w4a16", "rtn", group_size=64),
    "w4a16-128": Recipe("w4a16", "rtn", group_size=128),
    "w4a16-row": Recipe("w4a16", "rtn"),
    "w4a16-asymmetric": Recipe("w4a16", "rtn", group_size=32, symmetric=False),
    "w8a16": Recipe("w8a16", "rtn"),
    "w8a8": Recipe("w8a8", "rtn"),
    "w8a8-static": Recipe("w8a8", "rtn", activations="static"),
    "fp8": Recipe("fp8", "rtn"),
    "fp8-static": Recipe("fp8", "rtn", activations="static"),
}
PROMPT = list(range(3, 27))
NEW_TOKENS = 6
ALONE = """
import json, sys
sys.modules["qtool"] = None  # importing it fails from here on
import torch
from transformers import AutoModelForCausalLM
answers = {}
for folder in sys.argv[3:]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    model.generation_config.eos_token_id = None
    ids = torch.tensor([json.loads(sys.argv[1])])
    made = model.generate(ids, max_new_tokens=int(sys.argv[2]), do_sample=False, pad_token_id=0)
    answers[folder] = made[0, ids.shape[1] :].tolist()
print("ANSWERS" + json.dumps(answers))
"""


def test_every_scheme_answers_the_same_without_qtool(
    make: Callable[..., Variant], tmp_path: Path, calibration: Path
) -> None:
    wide = make_tiny_llama(tmp_path / "wide", hidden=128, intermediate=256)  # columns that hold one group and two
    for name, recipe in RECIPES.items():
        static = {"calibration": calibration} if recipe.activations == "static" else {}
        make(recipe, name=name, **static, **({"model": wide} if recipe.group_size == 128 else {}))
    folders = [str(tmp_path / name) for name in RECIPES]
    command = [sys.executable, "-c", ALONE, json.dumps(PROMPT), str(NEW_TOKENS), *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.partition("ANSWERS")[2])
    for name, folder in zip(RECIPES, folders, strict=True):
        ids = torch.tensor([PROMPT])
        for _ in range(NEW_TOKENS):
            ids = torch.cat((ids, StreamedModel(Path(folder)).logits([ids])[0][:, -1].argmax(-1, keepdim=True)), dim=1)
        assert ids[0, len(PROMPT) :].tolist() == answers[folder], name
