"""qtool's methods beside their peers: same model, same calibration tokens, same scheme, same machine, same run.

    python benchmarks/quantization.py --model DIR --case w4a16:128 [--case ...] [--text corpus] [--method gptq ...]
                                      [--peers DIR --peer llmcompressor:gptq ...] [--task arithmetic] [--output FILE.md]
    python benchmarks/quantization.py --random-llama DIR --layers 16      # the 0.89 B model for time and memory
    python benchmarks/quantization.py --rows-file ROWS.jsonl --output FILE.md    # the page of all rows found so far

Each method runs in a process of its own, a peer in its own virtual environment `DIR/<peer>` (made from
benchmarks/peers/requirements-<peer>.txt); they exchange files: tokens go in as JSON, a checkpoint comes out. KL
divergence and agreement of the most likely token are against the base in float32, on tokens no method has seen. Wall
time counts the whole process: imports, loading, quantizing, saving and, for qtool, opening it again to compare.
With `--rows-file` a finished row is written at once, and rows that are there already are not measured again.
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
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from quantization_inputs import Drawing, tokens_for, write_random_llama
from quantization_page import OWN as OWN_NAME
from quantization_page import page
from quantization_rows import Row, RowsFile
from quantization_score import Quality

from qtool.machine.device import hardware
from qtool.models.checkpoint import open_checkpoint, tokenizer_files, weights_digest

HERE = Path(__file__).resolve().parent
OWN = ("rtn", "rtn:clip=mse", "awq", "gptq", "gptq_awq")
OWN_W8A8 = ("rtn", "gptq", "smoothquant")
RUN_QTOOL = "from qtool.cli.app import main; main()"


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
        return self.scheme if self.group_size == -1 else f"{self.scheme}:{self.group_size}"


def main() -> None:
    arguments = parse()
    if arguments.random_llama:
        write_random_llama(arguments.random_llama, arguments.layers)
        return
    held = RowsFile(arguments.rows_file)
    about = f"{hardware()}; {arguments.threads} threads; load average {os.getloadavg()[0]:.1f} before"
    if arguments.model:
        measure(arguments, held)
    text = page(list(held.rows.values()), about)
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")


def measure(arguments: argparse.Namespace, held: RowsFile) -> None:
    """Adds the rows that `held` does not have yet; nothing is drawn or loaded when it has them all."""
    wanted = []
    for text in arguments.case:
        case = Case.parse(text)
        own = arguments.method if arguments.method is not None else OWN_W8A8 if case.scheme == "w8a8" else OWN
        names = ["base", *(f"qtool {name}" for name in own if name), *(arguments.peer or ())]
        wanted += [empty_row(arguments, case, name) for name in names]
    missing = [row for row in wanted if row.key not in held.rows or (arguments.retry and held.rows[row.key].failed)]
    if not missing:
        return
    with tempfile.TemporaryDirectory(prefix="qtool-bench-", dir=arguments.scratch) as folder:
        scratch = Path(folder)
        drawing = Drawing(arguments.text, arguments.rows, arguments.tokens, arguments.scored)
        given = scratch
        if arguments.rows_file and arguments.text != "random":  # kept: a calibration with its certificate takes long
            named = "-".join(
                (arguments.model.name, Path(arguments.text).stem, str(arguments.rows), str(arguments.tokens))
            )
            given = arguments.rows_file.with_suffix(".inputs") / named
            given.mkdir(parents=True, exist_ok=True)
        calibration, evaluation = tokens_for(arguments.model, drawing, given)
        if given != scratch:
            (scratch / "calibration").symlink_to((given / "calibration").absolute())
        (scratch / "tokens.json").write_text(json.dumps(calibration), encoding="utf-8")
        quality = None if evaluation is None or arguments.speed_only else Quality(arguments.model, evaluation)
        for row in missing:
            is_base = row.method == "base"
            held.add(base_row(row, arguments, quality) if is_base else run(row, arguments, quality, scratch))


def empty_row(arguments: argparse.Namespace, case: Case, method: str) -> Row:
    """What is to be measured, without the numbers."""
    settings = f"{arguments.rows} x {arguments.tokens} calibration tokens ({arguments.text}), "
    settings += f"{arguments.threads} threads"
    if not arguments.speed_only:
        examples = f" on {arguments.scored} examples" if arguments.text == "corpus" else ""
        settings += f"; scored{examples} that no method has seen"
    if arguments.task:
        settings += f"; accuracy on {arguments.limit} items of {arguments.task}"
    settings += f"; weights {weights_digest(arguments.model)[:12]}"
    return Row(arguments.model.name, settings, str(case), method, made_with=made_with(method))


def base_row(row: Row, arguments: argparse.Namespace, quality: Quality | None) -> Row:
    """The unquantized model."""
    row = replace(row, bytes=open_checkpoint(arguments.model).bytes)
    if quality is None:
        return row
    accuracy, note = task_accuracy(arguments, arguments.model)
    return replace(row, **quality.of(arguments.model), scored=quality.tokens, accuracy=accuracy, note=note)


def run(row: Row, arguments: argparse.Namespace, quality: Quality | None, scratch: Path) -> Row:
    """Runs one method in its own process and scores what it wrote."""
    output = scratch / "out"
    shutil.rmtree(output, ignore_errors=True)
    started, spent = time.monotonic(), children_cpu_seconds()
    with (scratch / "log").open("w") as log:
        command = command_for(arguments, row, scratch)
        place = scratch / "work"  # some peers write logs where they are started
        place.mkdir(exist_ok=True)
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(arguments), cwd=place)
        status, peak = watched(process, arguments.limit_seconds)
    seconds, cpu = time.monotonic() - started, children_cpu_seconds() - spent
    sys.stderr.write(f"{row.model}, {row.case}, {row.method}: {seconds:.1f} s, {cpu:.1f} s of processor\n")
    row = replace(row, seconds=seconds, cpu_seconds=cpu, peak_bytes=peak)
    found = sorted(output.rglob("config.json"))  # auto-round writes into a folder of its own below
    if status != 0 or not found:
        lines = (scratch / "log").read_text(errors="replace").strip().splitlines()
        if status < 0:
            lines = [f"stopped after {cpu:.0f} s of processor (--limit-seconds, or out of memory)"]
        return replace(row, note=lines[-1][:160] if lines else "failed")
    folder = found[0].parent
    for file in tokenizer_files(arguments.model):  # not every peer puts it beside the weights
        if (arguments.model / file).is_file() and not (folder / file).exists():
            shutil.copyfile(arguments.model / file, folder / file)
    told = folder / "stored_bytes"
    row = replace(row, bytes=int(told.read_text()) if told.is_file() else open_checkpoint(folder).bytes)
    if quality is None:
        return row
    accuracy, note = task_accuracy(arguments, folder)
    return replace(row, **quality.of(folder), accuracy=accuracy, note=note)


def watched(process: subprocess.Popen[bytes], limit_seconds: float) -> tuple[int, int | None]:
    """Its exit status, negative where a signal ended it, and the most resident bytes seen; killed once it has used
    `limit_seconds` of a processor: on a shared machine it may have to stand still.

    Read while it runs: `getrusage` would count what this script itself held when it started the process.
    """
    peak = None
    while process.poll() is None:
        if _cpu_seconds(process.pid) > limit_seconds:
            process.kill()
        peak = _resident_peak(process.pid) or peak
        time.sleep(0.1)
    return process.returncode, peak


def children_cpu_seconds() -> float:
    """What all processes that this one started and saw end have used of a processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended, or this system has no /proc
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_peak(process: int) -> int | None:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended, or this system has no /proc
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), None)


def command_for(arguments: argparse.Namespace, row: Row, scratch: Path) -> list[str]:
    """How the method of `row` is started."""
    own = row.method.startswith(OWN_NAME)
    make = own_command if own else peer_command
    return make(arguments, Case.parse(row.case), row.method.removeprefix(OWN_NAME), scratch)


def own_command(arguments: argparse.Namespace, case: Case, method: str, scratch: Path) -> list[str]:
    """`qtool quantize` with the method and its options, "name:key=value:key=value"."""
    words = [sys.executable, "-c", RUN_QTOOL, "quantize", str(arguments.model.resolve()), "-o", str(scratch / "out")]
    words += ["--verify-streamed", "-q", "--calibration", str(scratch / "calibration")]
    name, *options = method.split(":")
    words += ["--scheme", case.scheme, "--method", name, "--group-size", str(case.group_size)]
    for option in options:
        words += ["--activations", "static"] if option == "static" else ["--set", option]
    return words


def peer_command(arguments: argparse.Namespace, case: Case, peer: str, scratch: Path) -> list[str]:
    """The peer's script in the peer's own environment; "name:method". -P: the scripts bear their packages' names.
    bitsandbytes is in none of its own: qtool calls it, with a scheme of its own in the place of the method."""
    name, _, method = peer.partition(":")
    model, output = str(arguments.model.resolve()), str(scratch / "out")
    if name == "bitsandbytes":
        words = [sys.executable, "-c", RUN_QTOOL, "quantize", model, "-o", output, "--verify-streamed", "-q"]
        return [*words, "--scheme", method, "--method", name]
    python = arguments.peers.absolute() / name / "bin" / "python"
    words = [str(python), "-P", str(HERE / "peers" / f"{name}.py"), "--method", method or "gptq"]
    words += ["--model", model, "--tokens", str(scratch / "tokens.json"), "--output", output]
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


@cache
def made_with(method: str) -> str:
    """The version of what `method` is made by."""
    from importlib.metadata import version

    if method == "base":
        return f"torch {version('torch')}"
    if method.startswith(OWN_NAME):
        command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return f"qtool {version('qtool')} {commit}".strip()
    name = method.partition(":")[0]
    if name == "bitsandbytes":
        return f"{name} {version(name)}"
    lines = (HERE / "peers" / f"requirements-{name}.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    return next(f"{package} {number}" for package, number in pinned.items() if name in package.replace("-", ""))


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
    parser.add_argument("--scored", type=int, default=1024, help="examples of the corpus to score")
    parser.add_argument("--method", action="append", help='own method, as name:key=value; "" for none; repeats')
    parser.add_argument("--peers", type=Path, help="folder of the peers' virtual environments")
    parser.add_argument("--peer", action="append", help="llmcompressor:gptq, bitsandbytes:nf4 and the like; repeats")
    parser.add_argument("--task", help="also the accuracy on this task")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument(
        "--limit-seconds", type=float, default=3600, help="of a processor; a method that takes more is stopped"
    )
    parser.add_argument("--speed-only", action="store_true", help="time, memory and size only")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rows-file", type=Path, help="JSON lines: rows found, kept as they come and not made again")
    parser.add_argument("--retry", action="store_true", help="try rows again that failed or were stopped")
    parser.add_argument("--scratch", help="where folders are written meanwhile")
    parser.add_argument("--output", type=Path, help="Markdown file")
    arguments = parser.parse_args()
    arguments.case = arguments.case or ["w4a16"]
    if not (arguments.model or arguments.random_llama or arguments.rows_file):
        parser.error("give --model, --random-llama or --rows-file")
    return arguments


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
