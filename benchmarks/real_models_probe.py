"""What the steps on real models are held against, each a process of its own: the last line printed is JSON.

real_models_probe.py forward MODEL CALIBRATION    the model alone, over as many tokens as the calibration read
real_models_probe.py engine MODEL ITEMS.jsonl     the engine alone, with prompts and answers as long as these
real_models_probe.py chat BUNDLE                  a server of the bundle, and three turns with it
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_READY_S = 600.0
_AT_ONCE = 32
_TURNS = (
    "What is the capital of France? Answer in one sentence.",
    "And of Germany?",
    "Which of the two cities lies further north?",
)


def forward(model: Path, calibration: Path) -> dict[str, Any]:
    """Processor seconds of a bare pass of transformers over as many rows and tokens as the calibration read."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    manifest = json.loads((calibration / "calibration.json").read_text(encoding="utf-8"))
    rows = manifest["sequences"] + manifest["held_out_sequences"]
    length = manifest["tokens"] // manifest["sequences"]
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path("docs").glob("*.md")))
    ids = tokenizer(text, return_tensors="pt").input_ids[0]
    ids = ids.repeat(1 + rows * length // len(ids))[: rows * length].view(rows, length)
    started = time.process_time()
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    loaded = time.process_time()
    with torch.inference_mode():
        for row in ids:
            network(input_ids=row[None], use_cache=False, logits_to_keep=1)
    passed = time.process_time()
    return {"load_cpu_s": loaded - started, "forward_cpu_s": passed - loaded, "tokens": rows * length}


def engine(model: Path, items: Path) -> dict[str, Any]:
    """Seconds the engine alone needs for prompts and answers as long as those of the evaluation, 32 in flight."""
    from qtool.engine.contract import GenerationRequest
    from qtool.engine.drive import generate
    from qtool.engine.load import open_engine

    rows = [json.loads(line) for line in items.read_text(encoding="utf-8").splitlines()]
    opened = open_engine(model, slots=_AT_ONCE)
    vocabulary = opened.status().vocabulary
    requests = [
        GenerationRequest(
            tuple((97 * index + place) % (vocabulary // 2) + 1 for place in range(row["prompt_tokens"])),
            max(int(row["output_tokens"]), 1),
        )
        for index, row in enumerate(rows)
    ]
    started, cpu = time.monotonic(), time.process_time()
    done = generate(opened, requests)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    return {"seconds": seconds, "cpu_s": cpu, "output_tokens": sum(len(each.ids) for each in done)}


def chat(bundle: Path) -> dict[str, Any]:
    """Serves the bundle and talks with it for three turns through the `openai` client, as its users will."""
    started = time.monotonic()
    port = _free_port()
    server = subprocess.Popen((sys.executable, "-m", "qtool", "serve", str(bundle), "--port", str(port)))
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_ready(address, server)
        ready_s = time.monotonic() - started
        _talk(address)
        talked_s = time.monotonic() - started - ready_s
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(_READY_S)
    if code not in (0, 130, 143, -signal.SIGTERM):
        raise SystemExit(f"the server ended with code {code} after SIGTERM")
    return {"ready_s": ready_s, "talked_s": talked_s}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(address: str, server: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if server.poll() is not None:
            raise SystemExit(f"the server ended with code {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"{address}/ready", timeout=10) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass  # not listening yet, or 503: still loading
        time.sleep(0.5)
    raise SystemExit(f"{address}/ready did not answer 200 within {_READY_S:.0f} seconds")


def _talk(address: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{address}/v1", api_key="none")
    name = client.models.list().data[0].id
    messages: list[Any] = []
    for turn in _TURNS:
        messages.append({"role": "user", "content": turn})
        answer = client.chat.completions.create(model=name, messages=messages)
        said = answer.choices[0].message.content or ""
        sys.stderr.write(f"> {turn}\n{said}\n[{answer.choices[0].finish_reason}]\n")
        if not said.strip():
            raise SystemExit(f"an empty answer to: {turn}")
        messages.append({"role": "assistant", "content": said})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe", choices=("forward", "engine", "chat"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("second", nargs="?", type=Path)
    given = parser.parse_args()
    os.chdir(Path(__file__).resolve().parent.parent)
    if given.probe == "forward":
        found = forward(given.folder, given.second)
    elif given.probe == "engine":
        found = engine(given.folder, given.second)
    else:
        found = chat(given.folder)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
