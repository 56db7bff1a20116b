"""qtool's methods beside their peers: same model, same calibration tokens, same scheme, same machine, same run.

    python benchmarks/quantization.py --model DIR --case w4a16:128 [--case ...] [--text corpus] [--method gptq ...]
                                      [--peers DIR --peer llmcompressor:gptq ...] [--task arithmetic] [--output FILE.md]
    python benchmarks/quantization.py --random-llama DIR --layers 16      # the 0.89 B model for time and memory

Each method runs in a process of its own, a peer in its own virtual environment `DIR/<peer>` (made from
benchmarks/peers/requirements-<peer>.txt); they exchange files: tokens go in as JSON, a checkpoint comes out. KL
divergence and agreement of the most likely token are against the base in float32, on tokens no method has seen. Wall
time counts the whole process: imports, loading, quantizing, saving and, for qtool, opening it again to compare.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from quantization_inputs import Scored, tokens_for, write_random_llama
from torch import Tensor

from qtool.models.checkpoint import open_checkpoint, tokenizer_files
from qtool.models.device import hardware
from qtool.quantize.streaming import StreamedModel

HERE = Path(__file__).resolve().parent
OWN = ("rtn", "rtn:clip=mse", "awq", "gptq:propagate=0", "gptq", "gptq_awq")
OWN_W8A8 = ("rtn", "gptq", "smoothquant")
BITSANDBYTES = ("nf4", "int8")  # schemes, made by the one method of that name
RUN_QTOOL = "from qtool.cli.app import main; main()"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None where it was not measured or the method failed, and then `note` says why."""

    method: str
    kl: float | None
    top1: float | None
    perplexity: float | None
    accuracy: float | None
    bytes: int | None
    seconds: float | None
    peak_bytes: int | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What every method is asked for."""

    scheme: str
    group_size: int

    @classmethod
    def parse(cls, text: str) -> "Case":
        """From "w4a16:128"; without a group the whole row shares a scale."""
        scheme, _, group = text.partition(":")
        return cls(scheme, int(group or -1))

    def __str__(self) -> str:
        return f"{self.scheme}, {'whole row' if self.group_size == -1 else f'group {self.group_size}'}"


class Quality:
    """The base's answers on the evaluation tokens, to compare with."""

    def __init__(self, model: Path, scored: Scored) -> None:
        self._ids, self._counts = scored
        self._base = self._log_probabilities(model)
        self.tokens = int(self._counts.sum())

    def of(self, folder: Path) -> tuple[float, float, float]:
        """Mean KL (nats a token), share of equal most likely tokens, perplexity of the checkpoint in `folder`."""
        found, base = self._log_probabilities(folder), self._base
        divergence = float((base.exp() * (base - found)).sum(-1).double().mean())
        agreement = float((base.argmax(-1) == found.argmax(-1)).double().mean())
        surprise = -found.gather(-1, self._ids.roll(-1, dims=1)[self._counts][:, None])
        return divergence, agreement, float(surprise.double().mean().exp())

    @torch.inference_mode()
    def _log_probabilities(self, folder: Path) -> Tensor:
        stored = json.loads((folder / "config.json").read_text()).get("quantization_config", {})
        if stored.get("quant_method") == "bitsandbytes":  # only transformers reads it whole
            from transformers import AutoModelForCausalLM

            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
            logits: Tensor = model(self._ids, use_cache=False).logits.float()
        else:
            logits = StreamedModel(folder).logits([self._ids])[0]
        return logits[self._counts].log_softmax(-1)


def main() -> None:
    arguments = parse()
    if arguments.random_llama:
        write_random_llama(arguments.random_llama, arguments.layers)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="qtool-bench-", dir=arguments.scratch) as scratch:
        calibration, evaluation = tokens_for(
            arguments.model, arguments.text, arguments.rows, arguments.tokens, Path(scratch)
        )
        (Path(scratch) / "tokens.json").write_text(json.dumps(calibration), encoding="utf-8")
        quality = None if evaluation is None or arguments.speed_only else Quality(arguments.model, evaluation)
        cases = [Case.parse(text) for text in arguments.case]
        tables = {str(case): compare(arguments, case, quality, Path(scratch)) for case in cases}
    text = page(arguments, tables, load, None if quality is None else quality.tokens)
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


def compare(arguments: argparse.Namespace, case: Case, quality: Quality | None, scratch: Path) -> list[Row]:
    """One row for each method, the base first."""
    size = open_checkpoint(arguments.model).bytes
    rows = [Row("base", None, None, None, None, size, None, None)]
    if quality is not None:
        accuracy, note = task_accuracy(arguments, arguments.model)
        rows = [Row("base", *quality.of(arguments.model), accuracy, size, None, None, note)]
    for method in arguments.method or (OWN_W8A8 if case.scheme == "w8a8" else OWN):
        command = own_command(arguments, case, method, scratch)
        rows.append(measured(f"qtool {method}", command, arguments, quality, scratch))
    for peer in arguments.peer or ():
        rows.append(measured(peer, peer_command(arguments, case, peer, scratch), arguments, quality, scratch))
    return rows


def measured(
    name: str, command: list[str], arguments: argparse.Namespace, quality: Quality | None, scratch: Path
) -> Row:
    """Runs one method in its own process and scores what it wrote."""
    output = scratch / "out"
    shutil.rmtree(output, ignore_errors=True)
    started = time.monotonic()
    with (scratch / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(arguments))
        status, peak = watched(process, started + arguments.limit_seconds)
    seconds = time.monotonic() - started
    sys.stderr.write(f"{name}: {seconds:.1f} s\n")
    found = sorted(output.rglob("config.json"))  # auto-round writes into a folder of its own below
    if status != 0 or not found:
        lines = (scratch / "log").read_text(errors="replace").strip().splitlines()
        if status < 0:
            lines = [f"stopped after {seconds:.0f} s (--limit-seconds, or out of memory)"]
        return Row(name, None, None, None, None, None, seconds, peak, note=lines[-1][:160] if lines else "failed")
    folder = found[0].parent
    for file in tokenizer_files(arguments.model):  # not every peer puts it beside the weights
        if (arguments.model / file).is_file() and not (folder / file).exists():
            shutil.copyfile(arguments.model / file, folder / file)
    told = folder / "stored_bytes"
    size = int(told.read_text()) if told.is_file() else open_checkpoint(folder).bytes
    if quality is None:
        return Row(name, None, None, None, None, size, seconds, peak)
    accuracy, note = task_accuracy(arguments, folder)
    return Row(name, *quality.of(folder), accuracy, size, seconds, peak, note)


def watched(process: subprocess.Popen[bytes], deadline: float) -> tuple[int, int | None]:
    """Its exit status, negative where a signal ended it, and the most resident bytes seen; killed at `deadline`.

    Read while it runs: `getrusage` would count what this script itself held when it started the process.
    """
    peak = None
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
        peak = _resident_peak(process.pid) or peak
        time.sleep(0.1)
    return process.returncode, peak


def _resident_peak(process: int) -> int | None:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended, or this system has no /proc
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), None)


def own_command(arguments: argparse.Namespace, case: Case, method: str, scratch: Path) -> list[str]:
    """`qtool quantize` with the method and its options, "name:key=value:key=value"; or a scheme of bitsandbytes."""
    words = [sys.executable, "-c", RUN_QTOOL, "quantize", str(arguments.model), "-o", str(scratch / "out")]
    words += ["--verify-streamed", "-q", "--calibration", str(scratch / "calibration")]
    if method in BITSANDBYTES:
        return [*words, "--scheme", method, "--method", "bitsandbytes"]
    name, *options = method.split(":")
    words += ["--scheme", case.scheme, "--method", name, "--group-size", str(case.group_size)]
    for option in options:
        words += ["--activations", "static"] if option == "static" else ["--set", option]
    return words


def peer_command(arguments: argparse.Namespace, case: Case, peer: str, scratch: Path) -> list[str]:
    """The peer's script in the peer's own environment; "name:method". -P: the scripts bear their packages' names."""
    name, _, method = peer.partition(":")
    python = arguments.peers / name / "bin" / "python"
    words = [str(python), "-P", str(HERE / "peers" / f"{name}.py"), "--method", method or "gptq"]
    words += ["--model", str(arguments.model), "--tokens", str(scratch / "tokens.json")]
    words += ["--output", str(scratch / "out")]
    return [*words, "--scheme", case.scheme, "--group-size", str(case.group_size)]


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    """The same threads for everyone, and no network."""
    fixed = {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    return os.environ | fixed | {"GPTQMODEL_CPU_WORKERS": "2", "TOKENIZERS_PARALLELISM": "false"}


def task_accuracy(arguments: argparse.Namespace, folder: Path) -> tuple[float | None, str]:
    """Share of the task's items that the checkpoint answers correctly, by qtool's own evaluation; or why not."""
    if not arguments.task:
        return None, ""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as place:
        words = ["eval", str(folder), "--task", arguments.task, "--limit", str(arguments.limit), "-o", place + "/found"]
        done = subprocess.run([sys.executable, "-c", RUN_QTOOL, *words], capture_output=True, text=True)
        written = Path(place) / "found" / f"{arguments.task}.json"
        if not written.is_file():
            return None, (done.stderr.strip().splitlines() or ["no answer"])[-1][:160]
        return float(json.loads(written.read_text())["score"]["value"]), ""


def page(arguments: argparse.Namespace, tables: dict[str, list[Row]], load: float, evaluated: int | None) -> str:
    """The rows as Markdown, with what they were measured on."""
    told = ", ".join(f"{name} {version}" for name, version in versions(arguments).items())
    scored = "" if evaluated is None else f"scored on {evaluated} tokens that no method has seen; "
    lines = [
        f"# {arguments.model.name}",
        "",
        f"`python benchmarks/quantization.py {' '.join(sys.argv[1:])}`",
        "",
        f"{arguments.rows} x {arguments.tokens} calibration tokens ({arguments.text}); {scored}{hardware()}; "
        f"{arguments.threads} threads; load average {load:.1f} before; {told}",
    ]
    for title, rows in tables.items():
        lines += ["", f"## {title}", ""]
        lines += ["| method | KL (nats/token) | top-1 | perplexity | accuracy | MB | seconds | peak MB | note |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        lines += [_line(row) for row in rows]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    numbers = (
        _shown(row.kl, "{:.5f}"),
        _shown(row.top1, "{:.4f}"),
        _shown(row.perplexity, "{:.4f}"),
        _shown(row.accuracy, "{:.4f}"),
        _shown(None if row.bytes is None else row.bytes / 1e6, "{:.2f}"),
        _shown(row.seconds, "{:.1f}"),
        _shown(None if row.peak_bytes is None else row.peak_bytes / 1e6, "{:.0f}"),
    )
    return f"| {row.method} | {' | '.join(numbers)} | {row.note.replace('|', '/')} |"


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def versions(arguments: argparse.Namespace) -> dict[str, str]:
    """Versions of what was measured with, and of each peer's own package."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("torch", "transformers", "compressed-tensors")}
    for peer in sorted({text.partition(":")[0] for text in arguments.peer or ()}):
        for line in (HERE / "peers" / f"requirements-{peer}.txt").read_text().splitlines():
            name, _, pinned = line.partition("==")
            if name.replace("-", "") == peer:
                found[name] = pinned
    return found


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--random-llama", type=Path)
    parser.add_argument("--layers", type=int, default=16, help="of the random Llama")
    parser.add_argument("--text", default="corpus", help="calibration set or data file, corpus, sampled or random")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--case", action="append", help="scheme:group, for example w4a16:128; repeats")
    parser.add_argument("--method", action="append", help="own method, as name:key=value, or nf4, int8; repeats")
    parser.add_argument("--peers", type=Path, help="folder of the peers' virtual environments")
    parser.add_argument("--peer", action="append", help="name:method, for example llmcompressor:gptq; repeats")
    parser.add_argument("--task", help="also the accuracy on this task")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--limit-seconds", type=float, default=3600, help="a method that takes longer is stopped")
    parser.add_argument("--speed-only", action="store_true", help="time, memory and size only")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scratch", help="where folders are written meanwhile")
    parser.add_argument("--output", type=Path, help="Markdown file")
    arguments = parser.parse_args()
    arguments.case = arguments.case or ["w4a16"]
    if not arguments.model and not arguments.random_llama:
        parser.error("give --model or --random-llama")
    return arguments


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
