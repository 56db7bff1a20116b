"""qtool's engine beside transformers, bitsandbytes and llama.cpp: one part in one process, peers in turn.

    python benchmarks/engine.py --work /tmp/engine-benchmark --part one        # then the other parts, see PARTS
    python benchmarks/engine.py --work /tmp/engine-benchmark --report          # Markdown of all parts measured
    python benchmarks/engine.py --work /tmp/engine-benchmark --part one --toy  # tries the script itself, in a minute

Llama of 0.9 B random parameters, prompts of 128 tokens, outputs of 64. Every part measures the peers it compares in
rounds, one after another, so that a machine that is busy for a while is busy for all of them; load averages are
recorded. A peer that is not installed is named as missing. Raw times are kept in the JSON of each part.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qtool.engine.contract import GenerationRequest
from qtool.engine.drive import generate
from qtool.engine.layers.weights import kernels_of
from qtool.engine.load import open_engine
from qtool.kernels.cpu.native_build import native
from qtool.latency.roofline import step_bytes
from qtool.machine.device import hardware
from qtool.machine.state import load_average, measured_bandwidth
from qtool.progress import Silent
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe

BIG = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "intermediate_size": 5632,
    "vocab_size": 32000,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
TOY = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "intermediate_size": 256,
    "vocab_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
RECIPES = {
    "w8a8": Recipe("w8a8", "rtn", activations="dynamic"),
    "w8a16": Recipe("w8a16", "rtn"),
    "w4a16": Recipe("w4a16", "rtn", group_size=128),
    "nf4": Recipe("nf4", "bitsandbytes", format="bitsandbytes"),
}


ALL = ("base", "w8a8", "w8a16", "w4a16", "nf4")


class Part(NamedTuple):
    """What one process compares: qtool's variants, others, how many requests at once, rounds."""

    variants: tuple[str, ...]
    theirs: tuple[str, ...]
    levels: tuple[int, ...]
    rounds: int
    share: bool = False


PARTS = {
    "one": Part(ALL, ("float32 generate",), (1,), 3, share=True),
    "one-bfloat16": Part(("base", "w8a8", "w4a16"), ("float32 generate", "bfloat16 generate"), (1,), 3, share=True),
    "sixteen": Part(("base", "w8a8", "w8a16", "w4a16"), ("float32 continuous",), (16,), 3),
    "sixteen-bfloat16": Part(("base", "w8a8", "w8a16", "w4a16"), ("bfloat16 continuous",), (16,), 3),
    "rows": Part(("base", "w8a8", "w8a16", "w4a16"), (), (1, 8, 32), 3),
    "llama.cpp": Part(("w4a16", "w8a16", "w8a8"), ("llama.cpp Q4_0", "llama.cpp Q8_0"), (1, 8), 3),
    "nf4": Part(("w4a16", "nf4"), ("nf4",), (1,), 3),
}
MODULES = {"llama-cpp-python": "llama_cpp"}
VERSIONS = ("torch", "transformers", "bitsandbytes", "llama-cpp-python", "gguf")


def make_base(folder: Path, shape: dict[str, int]) -> Path:
    """A random Llama in bfloat16, written once."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if not (folder / "config.json").is_file():
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=2048, tie_word_embeddings=False))
        torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder)
        from tests.tiny_model import make_tokenizer

        make_tokenizer().save_pretrained(folder)
    return folder


def make_variants(base: Path) -> dict[str, Path]:
    """The base quantized by rounding, written once; without the scheme whose package is not installed."""
    found = {}
    for name, recipe in RECIPES.items():
        if recipe.method == "bitsandbytes" and find_spec("bitsandbytes") is None:
            print(f"{name}: bitsandbytes is not installed", file=sys.stderr)
            continue
        found[name] = base.parent / name
        if not (found[name] / "variant.json").is_file():
            shutil.rmtree(found[name], ignore_errors=True)
            quantize(base, recipe, found[name], name=name, calibration=None, progress=Silent(), whole_check=False)
    return found


def prompts(count: int, tokens: int, vocabulary: int, seed: int) -> list[tuple[int, ...]]:
    """Random prompts that share nothing."""
    stream = random.Random(seed)
    return [tuple(stream.randrange(3, vocabulary) for _ in range(tokens)) for _ in range(count)]


class Peer:
    """Something that answers a batch of prompts: its name, and decode and whole times of each round."""

    def __init__(self, name: str, answer: Callable[[list[tuple[int, ...]], int], None]) -> None:
        self.name = name
        self.answer = answer
        self.rounds: dict[str, list[float]] = {}

    def time(self, level: str, batch: list[tuple[int, ...]], tokens: int) -> None:
        started = time.perf_counter()
        self.answer(batch, tokens)
        self.rounds.setdefault(level, []).append(time.perf_counter() - started)


def qtool_peer(name: str, folder: Path, slots: int, dtype: str) -> tuple[Peer, Any]:
    """qtool's engine over a folder."""
    engine = open_engine(folder, slots=slots, dtype=dtype, context_tokens=1024)

    def answer(batch: list[tuple[int, ...]], tokens: int) -> None:
        for generation in generate(engine, [GenerationRequest(ids, tokens) for ids in batch]):
            assert len(generation.ids) == tokens, generation.error

    return Peer(name, answer), engine


def one_after_another(model: Any) -> Callable[[list[tuple[int, ...]], int], None]:
    """transformers' `generate`, greedy, for one prompt after another."""

    def answer(batch: list[tuple[int, ...]], tokens: int) -> None:
        for ids in batch:
            given = torch.tensor([ids])
            model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )

    return answer


def transformers_peers(folder: Path, dtype: torch.dtype) -> list[Peer]:
    """`generate`, one prompt after another, and continuous batching."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").eval()
    kind = str(dtype).removeprefix("torch.")

    def continuous(batch: list[tuple[int, ...]], tokens: int) -> None:
        settings = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        model.generate_batch([list(ids) for ids in batch], generation_config=settings)

    return [
        Peer(f"transformers generate {kind}", one_after_another(model)),
        Peer(f"transformers continuous batching {kind}", continuous),
    ]


def nf4_peer(base: Path) -> Peer:
    """bitsandbytes' 4 bits through transformers' `generate`."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=settings, dtype=torch.float32).eval()
    return Peer("transformers generate bitsandbytes nf4", one_after_another(model))


def kernel_ratio(engine: Any, ids: tuple[int, ...]) -> float:
    """Share of a decoding run's time that is spent inside the products of linear layers."""
    model, spent = engine._network.model, [0.0]

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            started = time.perf_counter()
            result = call(*given)
            spent[0] += time.perf_counter() - started
            return result

        return run

    for kernel in kernels_of(model):
        kernel.multiply = timed(kernel.multiply)  # type: ignore[method-assign]
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.forward = timed(module.forward)
    engine.submit(GenerationRequest(ids, 33))
    while not engine.step():
        pass  # the prompt, and the first token
    compiled = engine._scheduler.feeder.compiled
    if compiled is not None:
        compiled.decoder.product_seconds = 0.0
    spent[0], started = 0.0, time.perf_counter()
    while engine.status().running:
        engine.step()
    inside = spent[0] if compiled is None else compiled.decoder.product_seconds
    return inside / (time.perf_counter() - started)


def prepare(work: Path, toy: bool) -> tuple[dict[str, int], dict[str, Path]]:
    """The shape, and the folders of the base and its variants."""
    base = make_base(work / ("toy" if toy else "big") / "base", TOY if toy else BIG)
    return (TOY if toy else BIG), {"base": base, **make_variants(base)}


def missing_package(theirs: str) -> str:
    """What a peer needs and is not installed; empty where nothing is."""
    package = "bitsandbytes" if theirs == "nf4" else "llama_cpp" if theirs.startswith("llama.cpp") else "transformers"
    return "" if find_spec(package) is not None else package


def peers_of(part: str, folders: dict[str, Path], slots: int, only: Sequence[str]) -> tuple[list[Peer], dict[str, Any]]:
    """Everything that a part compares, or `only` some of it, loaded; and qtool's engines by name."""
    peers, engines = [], {}
    for name in PARTS[part].variants:
        if name not in folders or (only and name not in only):
            continue
        peer, engines[name] = qtool_peer(f"qtool {name}", folders[name], slots, "auto")
        peers.append(peer)
    for theirs in PARTS[part].theirs:
        if only and theirs not in only:
            continue
        if missing := missing_package(theirs):
            print(f"{theirs}: {missing} is not installed", file=sys.stderr)
            continue
        if theirs == "nf4":
            peers.append(nf4_peer(folders["base"]))
        elif theirs.startswith("llama.cpp"):
            from peers.llama_cpp_peer import LlamaCpp, write_gguf

            kind = theirs.split()[1]
            peers.append(Peer(theirs, LlamaCpp(write_gguf(folders["base"], kind), torch.get_num_threads()).answer))
        else:
            kind, _, way = theirs.partition(" ")
            peers.append(transformers_peers(folders["base"], getattr(torch, kind))[way == "continuous"])
    return peers, engines


def measure(options: argparse.Namespace, keep: Callable[[dict[str, Any]], None]) -> None:
    """One part: rounds of its peers in turn. What is known is kept after each round, so that no limit loses it."""
    part, started = PARTS[options.part], time.monotonic()
    shape, folders = prepare(options.work, options.toy)
    vocabulary, tokens, length = shape["vocab_size"], options.tokens, options.prompt_tokens
    found: dict[str, Any] = {
        "part": options.part,
        "hardware": hardware(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": options.threads,
        "versions": {name: version(name) for name in VERSIONS if find_spec(MODULES.get(name, name)) is not None},
        "load_average": [load_average()],
        "level": native().level.name if native().level else "none",
        "bandwidth_bytes_per_second": measured_bandwidth("cpu"),
        "prompt_tokens": options.prompt_tokens,
        "shape": shape,
        "output_tokens": tokens,
        "speeds": [],
        "kernel_ratio": {},
    }
    peers, engines = peers_of(options.part, folders, max(part.levels), options.only)
    found["kernels"] = {name: sorted({label for _, label in engine.kernels}) for name, engine in engines.items()}
    found["weight_bytes"] = {name: engine.weight_bytes for name, engine in engines.items()}
    found["step_bytes"] = {name: step_bytes(folders[name], engine.weight_bytes) for name, engine in engines.items()}
    rounds = options.rounds or part.rounds
    for peer in peers:
        peer.time("warm", prompts(1, options.prompt_tokens, vocabulary, 99), 4)
    for number in range(rounds):
        for level in part.levels:
            for peer in peers:
                peer.time(f"{level} first", prompts(level, length, vocabulary, 100 * level + number + 50), 1)
                peer.time(str(level), prompts(level, length, vocabulary, 100 * level + number), tokens)
                found["speeds"] = [
                    summarize(known, str(size), size, tokens)
                    for size in part.levels for known in peers if str(size) in known.rounds
                ]  # fmt: skip
                found["load_average"] = [*found["load_average"][:1], load_average()]
                keep(found)
        if time.monotonic() - started > options.seconds:
            break
    if part.share:
        ids = prompts(1, 128, vocabulary, 7)[0]
        for name, engine in engines.items():
            found["kernel_ratio"][name] = kernel_ratio(engine, ids)
            keep(found)


def summarize(peer: Peer, level: str, count: int, tokens: int) -> dict[str, Any]:
    """Median tokens per second of a peer's rounds, with their range."""
    speeds = sorted(count * tokens / seconds for seconds in peer.rounds[level])
    first, whole = (statistics.median(peer.rounds[name]) for name in (f"{level} first", level))
    return {
        "peer": peer.name,
        "level": level,
        "tokens_per_second": statistics.median(speeds),
        "slowest": speeds[0],
        "fastest": speeds[-1],
        "first_s": first,
        "decode_tokens_per_second": count * (tokens - 1) / (whole - first),
        "rounds_s": peer.rounds[level],
    }


def limit_share(found: dict[str, Any], row: dict[str, Any]) -> str:
    """Bytes a second that one request's steps read, over what the machine reads at most; of qtool's rows."""
    step = found.get("step_bytes", {}).get(row["peer"].removeprefix("qtool "))
    if step is None or row["level"] != "1":
        return ""
    return f"{step * row['decode_tokens_per_second'] / found['bandwidth_bytes_per_second']:.0%}"


def report(folder: Path) -> str:
    """Markdown of every part that was measured: speeds, and ratios to the part's last peers."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        before, after = (f"{load:.1f}" for load in found["load_average"])
        versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
        lines += [
            f"## Part `{found['part']}`",
            "",
            f"{found['hardware']}, level {found.get('level', found['vector_instructions'])}, "
            f"{found['threads']} threads; load {before} before "
            f"and {after} after; {found['output_tokens']} output tokens; {versions}.",
            "",
        ]
        for level in dict.fromkeys(row["level"] for row in found["speeds"]):
            rows = [row for row in found["speeds"] if row["level"] == level]
            theirs = [row for row in rows if not row["peer"].startswith("qtool")]
            head = "".join(f" | decoding x {row['peer']}" for row in theirs)
            lines += [
                f"| {level} at once | prompts, s | decoding, tokens/s | whole, tokens/s | slowest, fastest "
                f"| rounds | of the limit{head} |",
                "|---|---|---|---|---|---|---" + "|---" * len(theirs) + "|",
            ]
            for row in rows:
                own = row["decode_tokens_per_second"]
                ratios = "".join(f" | {own / peer['decode_tokens_per_second']:.2f}" for peer in theirs)
                lines.append(
                    f"| {row['peer']} | {row['first_s']:.2f} | {own:.1f} | {row['tokens_per_second']:.1f} | "
                    f"{row['slowest']:.1f}, {row['fastest']:.1f} | {len(row['rounds_s'])} | "
                    f"{limit_share(found, row)}{ratios} |"
                )
            lines.append("")
        for name, ratio in found["kernel_ratio"].items():
            lines.append(
                f"- {name}: {100 * ratio:.0f} % of a decoding step inside matrix products; weights "
                f"{found['weight_bytes'][name] / 1e6:.0f} MB; {'; '.join(found['kernels'][name])}"
            )
        lines += [""] if found["kernel_ratio"] else []
    return "\n".join(lines)


def main() -> None:
    """Measures one part and keeps its JSON, or prints the report of all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the models (6 GB) and the results")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--rounds", type=int, default=0, help="0: as many as the part says")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=240, help="no round begins later than this")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", action="append", default=[], help="only this variant or peer of the part; may repeat")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--toy", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = options.work / ("toy-results" if options.toy else "results")
    if options.report:
        print(report(results))
        return
    if options.part is None:
        parser.error("say which --part, or --report")
    results.mkdir(parents=True, exist_ok=True)
    kept = results / f"{options.part}.json"
    measure(options, lambda found: kept.write_text(json.dumps(found, indent=2) + "\n") and None)
    for row in json.loads(kept.read_text())["speeds"]:
        print(f"{row['peer']:<45} {row['level']:>3} at once {row['tokens_per_second']:>8.1f} tok/s")


if __name__ == "__main__":
    main()
