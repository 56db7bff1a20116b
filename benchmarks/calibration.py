"""Measures calibration: overhead of watching, accuracy of percentiles, memory, and the same beside other tools.

    python benchmarks/calibration.py [--toy] [--part overhead] [--threads 2] [--modelopt-python PATH]

`datasketches` (REQ sketch) runs in a child process, so that a crash of native code is reported and not silent.
`nvidia-modelopt` (histogram calibrator) pins other packages: give the Python of an environment that has it. Both are
reported as missing where they are not: pip install datasketches nvidia-modelopt
"""

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

PERCENTS = (99.0, 99.9, 99.99, 99.999)
PARTS = ("overhead", "percentiles", "tokens", "blocks", "beside")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; repeats")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modelopt-python", default=sys.executable, help="Python that has nvidia-modelopt")
    parser.add_argument("--peak-of", nargs=2, metavar=("MODEL", "SET"), help=argparse.SUPPRESS)
    parser.add_argument("--resident-of", nargs=2, metavar=("MODEL", "TOKENS"), help=argparse.SUPPRESS)
    parser.add_argument("--sketch-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--modelopt-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sketch_of:
        print(json.dumps(sketched(arguments.sketch_of)))
        return
    import torch

    torch.set_num_threads(arguments.threads)
    if arguments.modelopt_of:
        print(json.dumps(calibrated_by_modelopt(arguments.modelopt_of)))
        return
    if arguments.resident_of:
        print(json.dumps(resident_of(Path(arguments.resident_of[0]), int(arguments.resident_of[1]))))
        return
    if arguments.peak_of:
        print(json.dumps(peak_of(*map(Path, arguments.peak_of))))
        return
    from qtool.machine.device import hardware

    load = os.getloadavg()[0]
    print(f"Made by: `python benchmarks/calibration.py {' '.join(sys.argv[1:])}`\n")
    print(f"torch {torch.__version__}, {arguments.threads} threads, {hardware()}, load {load:.1f}, toy={arguments.toy}")
    for part in arguments.part or PARTS:
        print(f"\n## {part}\n", flush=True)
        lines = beside(arguments.toy, arguments.modelopt_python) if part == "beside" else globals()[part](arguments.toy)
        for line in lines:
            print(f"- {line}", flush=True)


def overhead(toy: bool) -> Iterator[str]:
    """Time of the same forward passes with and without a collector, interleaved: goal at most 10 %."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from qtool.calibrate.passes.collect import Collector
    from qtool.calibrate.statistics.inputs import Group
    from qtool.models.architecture import describe_model

    size = (64, 128, 2) if toy else (768, 2048, 12)
    config = LlamaConfig(
        vocab_size=1000 if toy else 32000,
        hidden_size=size[0],
        intermediate_size=size[1],
        num_hidden_layers=size[2],
        num_attention_heads=size[0] // 32,
        num_key_value_heads=size[0] // 32,
    )
    for dtype, pairs in ((torch.float32, 13), (torch.bfloat16, 4)):  # bfloat16 is emulated on many CPUs, and slow
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).to(dtype).eval()
        layers = {
            layer.name: model.get_submodule(layer.name)
            for layer in describe_model(model).linears
            if layer.block is not None
        }
        tokens = torch.randint(0, config.vocab_size, (1, 64 if toy else 512))
        group = Group(0, "tag", False, (0,))
        times: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(3 if toy else pairs):
            for watch in (False, True) if repeat % 2 else (True, False):
                collector = Collector(layers if watch else {})
                start = time.perf_counter()
                with torch.inference_mode(), collector.watching():
                    model.model(input_ids=tokens, use_cache=False)
                    collector.row(0, group, {}, "row 0")
                times[watch].append(time.perf_counter() - start)
        ratios = np.array(times[True][1:]) / np.array(times[False][1:])  # the first pass warms up
        parameters = sum(parameter.numel() for parameter in model.parameters())
        yield (
            f"{dtype}: {parameters / 1e6:.0f} M parameters, {tokens.numel()} tokens: "
            f"{1e3 * np.median(times[False][1:]):.0f} ms plain, {1e3 * np.median(times[True][1:]):.0f} ms watched, "
            f"overhead {100 * (np.median(ratios) - 1):+.1f} % "
            f"[{100 * (ratios.min() - 1):+.1f}, {100 * (ratios.max() - 1):+.1f}] over {len(ratios)} pairs"
        )


def percentiles(toy: bool) -> Iterator[str]:
    """Each percentile from the histogram and from a REQ sketch beside the exact one: goal within 1.1 %."""
    inputs = activations(toy)
    worst: dict[str, list[float]] = {"log2 histogram": [], "REQ k=12": []}
    problem = "" if importlib.util.find_spec("datasketches") else "datasketches is not installed"
    with tempfile.TemporaryDirectory() as folder:
        for values in inputs.values():
            for percent, exact in exact_percentiles(np.abs(values).ravel()).items():
                worst["log2 histogram"].append(abs(from_histogram(values, percent) / exact - 1))
            if not problem:
                part = np.abs(values).ravel()[:2_000_000].astype(np.float32)
                np.save(path := Path(folder) / "part.npy", part)
                found = child([sys.executable, __file__, "--sketch-of", str(path)])
                if isinstance(found, str):
                    problem = found
                    continue
                exact_of_part = exact_percentiles(part)
                worst["REQ k=12"] += [
                    abs(found[str(percent)] / exact_of_part[percent] - 1) for percent in exact_of_part
                ]
    millions = sum(values.size for values in inputs.values()) / 1e6
    yield f"{len(inputs)} inputs, {millions:.1f} M values, percentiles {PERCENTS}"
    for name, errors in worst.items():
        yield f"{name}: {describe(errors)}" if errors else f"{name}: {problem}"


def tokens(toy: bool) -> Iterator[str]:
    """Resident memory of the whole stage after few and after many tokens, each in a process: goal within 5 %."""
    marks = (5_000, 20_000) if toy else (100_000, 10_000_000)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model", blocks=1, width=32)
        for mark in marks:
            command = [sys.executable, __file__, "--resident-of", str(Path(folder) / "model"), str(mark)]
            answer = child(command)
            if isinstance(answer, str):
                yield f"{mark / 1e6:g} M tokens: {answer}"
                return
            found[mark] = answer
    for memory in found.values():
        shown = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in memory.items() if name != "tokens")
        yield f"{memory['tokens'] / 1e6:.2f} M tokens through the pass: {shown}"
    few, many = (found[mark]["during the pass"] for mark in marks)
    yield f"during the pass: {100 * (many / few - 1):+.1f} %"


def blocks(toy: bool) -> Iterator[str]:
    """Peak resident memory of the whole stage for a model of 6 blocks and one of 24: goal at most 1.3 times."""
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text(
            "".join(json.dumps({"text": f"row {number} " + "some words " * 20}) + "\n" for number in range(20))
        )
        for count in (2, 4) if toy else (6, 24):
            model = Path(folder) / f"blocks{count}"
            make_model(model, blocks=count, width=64 if toy else 512)
            command = [sys.executable, __file__, "--peak-of", str(model), str(rows)]
            peaks[count] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (few, first), (many, second) = peaks.items()
    for count, found in peaks.items():
        sizes = {name: f"{found[name] / 2**20:.0f} MiB" for name in found}
        yield f"{count} blocks, weights {sizes['weights']}: peak {sizes['peak']}, {sizes['start']} at the start"
    added = (second["peak"] - second["start"]) / (first["peak"] - first["start"])
    yield f"{many} against {few} blocks: {second['peak'] / first['peak']:.2f} times; less the start {added:.2f}"


def beside(toy: bool, modelopt_python: str) -> Iterator[str]:
    """The same activations through our counter, torch's HistogramObserver and ModelOpt's histogram calibrator."""
    import torch

    chunks = [torch.from_numpy(values) for values in next(iter(activations(toy, down_only=True).values()))]
    exact = exact_percentiles(np.abs(np.concatenate([chunk.numpy().ravel() for chunk in chunks])))
    millions = sum(chunk.numel() for chunk in chunks) / 1e6
    yield f"{millions:.1f} M values in {len(chunks)} rows of the last down projection"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        np.savez(path, *(chunk.numpy() for chunk in chunks))
        answers = {
            "qtool": measured(our_counter(), chunks, list(exact)),
            "torch HistogramObserver": measured(torch_observer(), chunks, list(exact)),
            "ModelOpt": child([modelopt_python, __file__, "--modelopt-of", str(path)]),
        }
    for name, answer in answers.items():
        if isinstance(answer, str):
            yield f"{name}: {answer}"
            continue
        errors = {percent: answer["percentiles"][str(percent)] / value - 1 for percent, value in exact.items()}
        shown = ", ".join(f"{percent:g}: {100 * error:+.2f} %" for percent, error in errors.items())
        yield f"{name}: {answer['ns_a_value']:.2f} ns a value, {answer['bytes'] / 1024:.0f} KiB, error at {shown}"


def measured(tool: Any, chunks: Any, percents: list[float]) -> dict[str, Any]:
    """Time, memory and percentiles of one tool over `chunks`."""
    see, percentile, size = tool
    start = time.perf_counter()
    for chunk in chunks:
        see(chunk)
    seconds = time.perf_counter() - start
    return {
        "ns_a_value": 1e9 * seconds / sum(chunk.numel() for chunk in chunks),
        "percentiles": {str(percent): percentile(percent) for percent in percents},
        "bytes": size(),
    }


def calibrated_by_modelopt(path: Path) -> dict[str, Any]:
    """The same of ModelOpt, in a process of the environment that has it."""
    import torch

    with np.load(path) as stored:
        chunks = [torch.from_numpy(stored[name]) for name in stored.files]
    return measured(modelopt_calibrator(), chunks, list(PERCENTS))


def sketched(path: Path) -> dict[str, float]:
    """Percentiles of the values in `path` by a REQ sketch."""
    sketch = req_sketch(np.load(path))
    return {str(percent): float(sketch.get_quantile(percent / 100)) for percent in PERCENTS}


def child(command: list[str]) -> Any:
    """What a child process prints as JSON, or in words how it ended."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1])


def our_counter() -> tuple[Callable[[Any], None], Callable[[float], float], Callable[[], int]]:
    import torch

    from qtool.kernels.log2_histogram import count_bins
    from qtool.records.histogram import BINS, Histogram, quantile

    counts = torch.zeros(BINS, dtype=torch.int64)
    largest = [0.0]

    def see(chunk: Any) -> None:
        counts.add_(count_bins(chunk))
        largest[0] = max(largest[0], float(chunk.abs().max()))

    def percentile(percent: float) -> float:
        return quantile(Histogram(counts.numpy(), -largest[0], largest[0]), percent / 100)

    return see, percentile, lambda: counts.nbytes


def torch_observer() -> tuple[Callable[[Any], None], Callable[[float], float], Callable[[], int]]:
    from torch.ao.quantization import HistogramObserver

    observer = HistogramObserver()

    def percentile(percent: float) -> float:
        counts = observer.histogram.double().numpy()
        low, high = float(observer.min_val), float(observer.max_val)
        centres = low + (np.arange(len(counts)) + 0.5) * (high - low) / len(counts)
        order = np.argsort(np.abs(centres))
        seen = np.cumsum(counts[order])
        return float(np.abs(centres[order])[np.searchsorted(seen, percent / 100 * seen[-1])])

    return observer, percentile, lambda: observer.histogram.nbytes


def modelopt_calibrator() -> tuple[Callable[[Any], None], Callable[[float], float], Callable[[], int]]:
    from modelopt.torch.quantization.calib import HistogramCalibrator

    calibrator = HistogramCalibrator(num_bits=8, axis=None, unsigned=False)

    def percentile(percent: float) -> float:
        return float(calibrator.compute_amax("percentile", percentile=percent))

    def size() -> int:
        held = (calibrator._calib_hist, calibrator._calib_bin_edges)
        return sum(part.nbytes for part in held)

    return calibrator.collect, percentile, size


def activations(toy: bool, *, down_only: bool = False) -> dict[str, Any]:
    """Raw inputs of the linear layers of a bundled reference model on the mixed set: by layer, all rows together, or
    with `down_only` the rows of the last down projection apart (its tail is the heaviest)."""
    import torch

    from qtool import reference
    from qtool.data.sequences import draw_sequences
    from qtool.data.sets import load_set
    from qtool.models.architecture import describe_model
    from qtool.models.completeness import load_base
    from qtool.models.tokenizer import load_tokenizer

    folder = reference.folder(reference.names()[0 if toy else -1])
    model = load_base(folder, dtype=torch.float32)
    found: dict[str, list[Any]] = {}
    for layer in describe_model(model).linears:
        if layer.name.endswith(("q_proj", "o_proj", "up_proj", "down_proj")):
            seen = found.setdefault(layer.name, [])
            model.get_submodule(layer.name).register_forward_pre_hook(
                lambda module, inputs, seen=seen: seen.append(inputs[0][0].numpy())
            )
    drawn = draw_sequences(load_set("mixed"), load_tokenizer(folder), sequences=16 if toy else 256, tokens=256, seed=0)
    with torch.inference_mode():
        for sequence in drawn.sequences:
            model(input_ids=torch.tensor([sequence.tokens]), use_cache=False)
    if down_only:
        last = [name for name in found if name.endswith("down_proj")][-1]
        return {last: found[last]}
    return {name: np.concatenate(rows) for name, rows in found.items()}


def exact_percentiles(magnitudes: Any) -> dict[float, float]:
    """The order statistics themselves, for those percentiles that at least ten values lie above."""
    ordered = np.sort(magnitudes)
    return {
        percent: float(ordered[int(percent / 100 * (len(ordered) - 1))])
        for percent in PERCENTS
        if len(ordered) * (1 - percent / 100) >= 10
    }


def from_histogram(values: Any, percent: float) -> float:
    """The same percentile from the log2 histogram."""
    import torch

    from qtool.kernels.log2_histogram import count_bins
    from qtool.records.histogram import Histogram, quantile

    counts = count_bins(torch.from_numpy(values)).numpy()
    return quantile(Histogram(counts, float(values.min()), float(values.max())), percent / 100)


def req_sketch(magnitudes: Any) -> Any:
    """A REQ sketch that is exact at the high ranks."""
    from datasketches import req_floats_sketch

    sketch = req_floats_sketch(12, True)
    sketch.update(magnitudes.astype(np.float32))
    return sketch


def peak_bytes() -> int:
    """Peak resident bytes of this process. `getrusage` would count what its parent held when it started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def peak_of(model: Path, rows: Path) -> dict[str, int]:
    """Peak resident bytes of one calibration in this process, and what was resident before it."""
    import psutil

    from qtool.calibrate import stage
    from qtool.progress import Silent
    from qtool.records.plan import CalibrationSettings

    start = psutil.Process().memory_info().rss
    with tempfile.TemporaryDirectory() as folder:
        settings = CalibrationSettings(set=str(rows), sequences=8, sequence_tokens=128, observers=("absmax",))
        stage.calibrate(model, settings, Path(folder) / "out", progress=Silent())
    peak = peak_bytes()
    return {"start": start, "peak": peak, "weights": (model / "model.safetensors").stat().st_size}


def resident_of(model: Path, wanted: int) -> dict[str, int]:
    """Resident bytes of one calibration over `wanted` tokens: before the rows are drawn, after each advance of the pass
    the largest, and the peak of the whole process, in which the rows are drawn and stored."""
    import psutil

    from qtool.calibrate import stage
    from qtool.progress import Silent
    from qtool.records.plan import CalibrationSettings

    process = psutil.Process()
    start, seen, done = process.memory_info().rss, [0], [0]

    class Watching(Silent):
        @contextlib.contextmanager
        def track(self, label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
            def advance(units: int) -> None:
                done[0] += units
                seen[0] = max(seen[0], process.memory_info().rss)

            yield advance

    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        generator = np.random.default_rng(0)
        with rows.open("w") as file:
            for _ in range(wanted // 400):
                file.write(json.dumps({"text": "".join(map(chr, generator.integers(97, 123, 500)))}) + "\n")
        settings = CalibrationSettings(
            set=str(rows), sequences=max(8, wanted // 640), sequence_tokens=512, observers=("absmax",)
        )
        machine = stage.Machine(activation_bytes=1 << 20)
        stage.calibrate(model, settings, Path(folder) / "out", progress=Watching(), machine=machine)
    peak = peak_bytes()
    return {"tokens": done[0] // 2, "at the start": start, "during the pass": seen[0], "peak of the process": peak}


def make_model(folder: Path, *, blocks: int, width: int) -> None:
    """A random Llama with a byte-level tokenizer, in one file."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from tiny_model import make_tokenizer

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
    )
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="20GB")
    tokenizer.save_pretrained(folder)


def describe(errors: list[float]) -> str:
    """Median and worst of relative errors, in percent."""
    return f"median {100 * np.median(errors):.2f} %, worst {100 * max(errors):.2f} % of {len(errors)}"


if __name__ == "__main__":
    main()
