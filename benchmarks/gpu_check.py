"""Checks and measures the CUDA paths on a machine with a GPU; without one it says so and ends.

    python benchmarks/gpu_check.py --output results/

Needs torch and transformers only. First every kernel against float64 on the device, then a Llama of Llama-3-8B's shapes
with random weights in bf16, w8a16, w8a8, fp8 and w4a16 at batch 1, 8, 32 and 100: tokens per second, and the share of
the roofline t = max((W + B c k) / bandwidth, 2 P B / flops). Writes one JSON file a device.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

try:
    import torch
    import transformers
except ImportError as error:
    sys.exit(f"{sys.executable}: {error}; run this with a Python that has torch and transformers")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qtool.engine.layers.plain_layers import LoadedLinears, place_plain, plain_layers, replace_module
from qtool.engine.layers.weights import kernels_of
from qtool.formats.stored_weights import StoredWeight, dequantize
from qtool.kernels.contract import Activations
from qtool.kernels.dispatch import choose_kernel
from qtool.kernels.fused import FusedLinear, SharedProduct, fuse
from qtool.kernels.linear import KernelLinear
from qtool.kernels.tiles import InputQuantizer
from qtool.models.architecture import describe_model

# peak bytes per second and dense bf16 operations per second, from the vendors' data sheets
PEAKS = {"H200": (4.8e12, 989e12), "H100": (3.35e12, 989e12), "A100": (2.04e12, 312e12), "L40": (0.864e12, 181e12)}
EIGHT_BILLION = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
TOY = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
SCHEMES: dict[str, tuple[int, int, Activations, bool]] = {  # bits, group, inputs, float8
    "w8a16": (8, -1, "none", False),
    "w8a8": (8, -1, "dynamic", False),
    "fp8": (8, -1, "dynamic", True),
    "w4a16": (4, 128, "none", False),
}
BATCHES = (1, 8, 32, 100)
PROMPT_TOKENS = 128
OUTPUT_TOKENS = 128


def random_weight(rows: int, columns: int, scheme: str, device: torch.device) -> StoredWeight:
    """Random codes whose numbers have the size of trained weights."""
    bits, group, _, float8 = SCHEMES[scheme]
    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, (rows, columns), dtype=torch.int8, device=device)
    spread = columns**-0.5 / half
    if float8:
        codes = (codes.float() / 16).to(torch.float8_e4m3fn)
        spread *= 16
    groups = 1 if group == -1 else columns // group
    scales = torch.full((rows, groups), spread, device=device)
    return StoredWeight(codes, scales.bfloat16().float(), None, bits, group)


def check_kernels(device: torch.device) -> list[dict[str, Any]]:
    """Relative error of each scheme's kernel against float64, over rows and widths on and off the tile sizes."""
    found = []
    for scheme, (_, _, activations, _) in SCHEMES.items():
        for rows, columns in ((256, 256), (384, 1024), (4096, 4096), (176, 384), (100, 200)):
            if SCHEMES[scheme][1] > 0 and columns % SCHEMES[scheme][1]:
                continue
            weight = random_weight(rows, columns, scheme, device)
            kernel = choose_kernel(weight, activations, device=device)
            exact = dequantize(weight).double()
            for tokens in (1, 2, 7, 32, 100):
                inputs = torch.randn(tokens, columns, device=device).bfloat16()
                stored = InputQuantizer(weight, activations).simulate(inputs.float()).double()
                product, expected = kernel.multiply(inputs).double(), stored @ exact.t()
                error = float((product - expected).norm() / expected.norm())
                found.append(
                    {
                        "scheme": scheme,
                        "shape": [rows, columns],
                        "rows": tokens,
                        "kernel": kernel.label,
                        "relative_error": error,
                        "right": error < 0.02,
                    }
                )
    return found


def make_model(shape: dict[str, int], scheme: str, device: torch.device) -> Any:
    """A random Llama on `device`, its linear layers but the head in `scheme`, joined as the loader joins them."""
    config = transformers.LlamaConfig(**shape, max_position_embeddings=4096, tie_word_embeddings=False)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    linears = describe_model(model).linears
    if scheme != "bf16":
        for names in plain_layers(model, linears, {"lm_head": None}):
            place_quantized(model, names, scheme, device)
    for name, parameter in list(model.named_parameters()):
        owner = model.get_submodule(name.rpartition(".")[0])
        filled = torch.ones(parameter.shape, dtype=torch.bfloat16, device=device)
        if parameter.ndim == 2:
            filled.normal_(0.0, 0.02)
        owner._parameters[name.rpartition(".")[2]] = torch.nn.Parameter(filled, requires_grad=False)
    if scheme == "bf16":
        for names in plain_layers(model, linears, {}):
            place_plain(model, names, LoadedLinears(model))
    return model


def place_quantized(model: Any, names: tuple[str, ...], scheme: str, device: torch.device) -> None:
    """One random product in the place of layers that share an input."""
    rows = [model.get_submodule(name).out_features for name in names]
    columns = model.get_submodule(names[0]).in_features
    kernel = choose_kernel(random_weight(sum(rows), columns, scheme, device), SCHEMES[scheme][2], device=device)
    if len(names) == 1:
        replace_module(model, names[0], KernelLinear(kernel, rows=rows[0], columns=columns, bias=None))
        return
    shared = SharedProduct(kernel, columns=columns, parts=len(names))
    for name, part in zip(names, fuse(shared, rows, columns, [None] * len(names)), strict=True):
        replace_module(model, name, part)


def decode_speed(model: Any, batch: int, device: torch.device, tokens: int) -> dict[str, Any]:
    """Steps of `batch` requests decoding together through qtool's engine: median step time."""
    from qtool.engine.backends.qtool import QtoolEngine
    from qtool.engine.contract import GenerationRequest

    engine = QtoolEngine(
        model, device=device, dtype=torch.bfloat16, slots=batch, context_tokens=PROMPT_TOKENS + tokens + 8
    )
    stream = torch.Generator().manual_seed(0)
    vocabulary = engine.status().vocabulary
    for _ in range(batch):
        ids = tuple(torch.randint(0, vocabulary, (PROMPT_TOKENS,), generator=stream).tolist())
        engine.submit(GenerationRequest(ids, tokens))
    times: list[float] = []
    while engine.status().running or engine.status().waiting:
        started = time.perf_counter()
        events = engine.step()
        if len(events) == batch:
            times.append(time.perf_counter() - started)
    steady = sorted(times[8:] or times)
    middle = statistics.median(steady)
    return {
        "batch": batch,
        "steps": len(steady),
        "step_ms": 1e3 * middle,
        "step_ms_p10": 1e3 * steady[len(steady) // 10],
        "step_ms_p90": 1e3 * steady[-1 - len(steady) // 10],
        "tokens_per_second": batch / middle,
        "graphs": len(engine._scheduler.feeder.graphs._captured),  # none: every kernel was launched by itself
        "cache_bytes_per_token": engine.cache_bytes // (batch * engine.status().context_tokens),
    }


def roofline_ratio(speed: dict[str, Any], weight_bytes: int, parameters: int, name: str) -> float | None:
    """Share of what the data sheet's bandwidth and operations allow at this batch; None for an unlisted device."""
    peak = next((numbers for known, numbers in PEAKS.items() if known in name), None)
    if peak is None:
        return None
    bandwidth, operations = peak
    context = PROMPT_TOKENS + OUTPUT_TOKENS // 2
    moved = weight_bytes + speed["batch"] * context * speed["cache_bytes_per_token"]
    least = max(moved / bandwidth, 2 * parameters * speed["batch"] / operations)
    return float(least / (speed["step_ms"] / 1e3))


def step_bytes(model: Any) -> tuple[int, int]:
    """Bytes and scalars of what one step reads: every linear layer, the embedding table excluded."""
    moved, scalars = sum(kernel.bytes for kernel in kernels_of(model)), 0
    for module in model.modules():
        if isinstance(module, KernelLinear | FusedLinear):
            scalars += module.in_features * module.out_features
        elif isinstance(module, torch.nn.Linear):
            moved += module.weight.numel() * module.weight.element_size()
            scalars += module.weight.numel()
    return moved, scalars


def measure(shape: dict[str, int], device: torch.device, name: str, toy: bool) -> list[dict[str, Any]]:
    """Every scheme at every batch. What fails is one entry that says so, and the others are measured all the same."""
    found: list[dict[str, Any]] = []
    for scheme in ("bf16", *SCHEMES):
        for batch in BATCHES[:2] if toy else BATCHES:
            try:
                if batch == BATCHES[0]:
                    model = make_model(shape, scheme, device)
                    weight_bytes, parameters = step_bytes(model)
                speed = decode_speed(model, batch, device, 16 if toy else OUTPUT_TOKENS)
                speed["roofline_ratio"] = roofline_ratio(speed, weight_bytes, parameters, name)
                found.append({"scheme": scheme, "weight_bytes": weight_bytes, **speed})
            except RuntimeError as error:
                found.append({"scheme": scheme, "batch": batch, "failed": str(error).splitlines()[0]})
            print(json.dumps(found[-1]), flush=True)
        model = None
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def main() -> None:
    """Runs everything, or says that there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="folder for the JSON file")
    parser.add_argument("--toy", action="store_true", help="tiny shapes, also without a GPU: tries the script itself")
    options = parser.parse_args()
    if not torch.cuda.is_available() and not options.toy:
        print("no GPU here: nothing was checked; run this on a machine with a CUDA device")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    kernels = check_kernels(device)
    wrong = [entry for entry in kernels if not entry["right"]]
    print(f"kernels: {len(kernels) - len(wrong)} of {len(kernels)} right on {name}")
    speeds = measure(TOY if options.toy else EIGHT_BILLION, device, name, options.toy)
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"gpu-{name.replace(' ', '-').lower()}{'-toy' if options.toy else ''}.json"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "device": name}
    target.write_text(
        json.dumps({**versions, "prompt_tokens": PROMPT_TOKENS, "kernels": kernels, "decode": speeds}, indent=2) + "\n"
    )
    print(f"wrote {target}")
    if wrong:
        sys.exit(f"{len(wrong)} kernel results are wrong, first {wrong[0]}")
    if failed := [entry for entry in speeds if "failed" in entry]:
        sys.exit(f"{len(failed)} of {len(speeds)} speeds could not be measured, first {failed[0]}")


if __name__ == "__main__":
    main()
