"""Kills and environments: what a user's machine does to qtool, and whether anything is lost by it.

    python benchmarks/robustness.py [--kills N] [--work DIR]

Kills: `calibrate`, `quantize --method gptq`, `eval` and `run` on a small reference model are killed (SIGKILL) after a
random time and started again until they end; their files are then compared with those of an undisturbed run, apart
from times. Environments: the same commands where memory, disk, compiler, output or threads are not what is expected.
Each must end as listed, with at most one line and no traceback. Ends with 1 where anything is lost.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MODEL = "reference-64"
TIMES = frozenset(
    {"seconds", "peak_memory_bytes", "timing", "latency_ms", "item_ms_p50", "manifest_digest", "calibration_digest"}
)
PLAN = f"""base = "{MODEL}"
name = "small"
[calibration]
sequences = 8
sequence_tokens = 64
[variants.w8a16]
scheme = "w8a16"
[tasks.arithmetic]
items = 12
[latency]
concurrency = [1]
requests = 2
prompt_tokens = 16
output_tokens = 4
"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "calibrate": ("calibrate", MODEL, "--set", "mixed", "--sequences", "48", "--sequence-tokens", "128", "-o", "out"),
    "quantize": (
        *("quantize", MODEL, "--scheme", "w4a16", "--method", "gptq", "--group-size", "32"),
        *("--calibration", "../calibration", "-o", "out"),
    ),
    "eval": ("eval", MODEL, "--task", "arithmetic", "--limit", "24", "-o", "out"),
    "run": ("run", "plan.toml", "-o", "out"),
}


@dataclass(slots=True)
class Tally:
    """What was counted."""

    kills: int = 0
    lost: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)


def qtool(arguments: Sequence[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """One command of the program, started in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "qtool", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], tally: Tally, name: str) -> tuple[int, str]:
    """Its exit code and what it said; a traceback is counted."""
    _, said = process.communicate()
    if "Traceback (most recent call last)" in said:
        tally.tracebacks.append(f"{name}: {said.strip().splitlines()[-1]}")
    return process.returncode, said


def contents(folder: Path) -> dict[str, str]:
    """What each file of `folder` holds, apart from times and what follows from them."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if name.startswith(("latency/", "report.", "bundle/", "stages.json", "plan.lock")):
            continue  # measurements of time, and what is computed from them
        if path.suffix == ".json":
            found[name] = json.dumps(_untimed(json.loads(path.read_text())), sort_keys=True)
        elif path.suffix == ".jsonl":
            rows = [_untimed(json.loads(line)) for line in path.read_text().splitlines()]
            found[name] = json.dumps(rows, sort_keys=True)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _untimed(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _untimed(entry) for key, entry in value.items() if key not in TIMES}
    return [_untimed(entry) for entry in value] if isinstance(value, list) else value


def killed(name: str, work: Path, kills: int, tally: Tally, dice: random.Random) -> None:
    """`name` undisturbed, then killed `kills` times on its way to the same files."""
    plain, disturbed = work / f"{name}-plain", work / f"{name}-killed"
    for folder in (plain, disturbed):
        folder.mkdir()
        (folder / "plan.toml").write_text(PLAN)
    started = time.monotonic()
    code, said = ended(qtool(COMMANDS[name], plain), tally, name)
    seconds = time.monotonic() - started
    if code > 2:
        tally.lost.append(f"{name}: undisturbed, it ends with {code}: {said.strip()[-200:]}")
        return
    for _ in range(kills):
        process = qtool(COMMANDS[name], disturbed)
        try:
            process.wait(dice.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            tally.kills += 1
        code, said = ended(process, tally, name)
        if code > 2:
            tally.lost.append(f"{name}: after a kill it ends with {code}: {said.strip()[-200:]}")
        if (disturbed / "out").exists() and name in ("calibrate", "quantize"):
            break  # it was done before the kill came
    if not ((disturbed / "out").exists() and name in ("calibrate", "quantize")):
        code, said = ended(qtool(COMMANDS[name], disturbed), tally, name)
        if code > 2:
            tally.lost.append(f"{name}: it cannot be finished: {said.strip()[-200:]}")
    left = [path.name for path in disturbed.rglob("*.partial")]
    before, after = contents(plain / "out"), contents(disturbed / "out")
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if left or changed:
        tally.lost.append(f"{name}: left over {left}, other files {changed[:5]}")


def environments(work: Path, tally: Tally) -> list[tuple[str, str, bool]]:
    """Each environment, how qtool ended in it, and whether that is what is expected."""
    odd = work / "odd"
    (odd / "tools").mkdir(parents=True)
    (odd / "file").write_text("")
    (odd / "link").symlink_to("nowhere")
    python = shlex_quote(sys.executable)
    tools = {"fails": "exit 1", "hangs": "exec sleep 1000", "writes-nothing": "exit 0"}
    for name, body in tools.items():
        folder = odd / "tools" / name
        folder.mkdir()
        for compiler in ("g++", "c++", "clang++"):
            (folder / compiler).write_text(f"#!/bin/sh\n{body}\n")
            (folder / compiler).chmod(0o755)
    quantize = f"{python} -m qtool quantize {MODEL} --scheme w8a16 -q"
    ask = f"{python} -m qtool eval {MODEL} --task arithmetic --limit 4 -q"
    listed = f"{python} -m qtool list tasks"
    cases: list[tuple[str, str, tuple[int, ...]]] = [
        ("output below a file", f"{quantize} -o file/v", (8,)),
        ("output is a link to nowhere", f"{quantize} -o link", (8,)),
        ("output exists", f"{quantize} -o tools", (8,)),
        ("a name of 250 characters", f"{quantize} -o {'x' * 250}", (8,)),
        ("a path of 4,400 characters", f"{quantize} -o {'/'.join(['y' * 200] * 22)}", (8,)),
        ("little address space", f"ulimit -v 1500000; {quantize} -o small", (0, 9)),
        ("no compiler", f"PATH=/nonexistent XDG_CACHE_HOME=$PWD/c0 {ask} -o e0", (0,)),
        *(
            (
                f"a compiler that {name}",
                f"PATH=$PWD/tools/{name}:$PATH XDG_CACHE_HOME=$PWD/{name} {ask} -o {name}",
                (0,),
            )
            for name in tools
        ),
        ("threads unset", f"env -u OMP_NUM_THREADS {ask} -o e1", (0,)),
        ("one core", f"taskset -c 0 env -u OMP_NUM_THREADS {ask} -o e2", (0,)),
        ("no HOME", f"env -u HOME {ask} -o e3", (0,)),
        ("LANG=C, narrow terminal", f"LANG=C COLUMNS=40 {listed}", (0,)),
        ("a reader that goes", f"set -o pipefail; {listed} | head -c 1", (0, 141)),
        ("a full disk behind stdout", f"{listed} > /dev/full", (8,)),
        ("stdout closed", f"{listed} >&-", (8,)),
        ("two runs into one folder", f"{quantize} -o two & {quantize} -o two; a=$?; wait; exit $a", (0, 8)),
    ]
    rows = []
    for name, command, expected in cases:
        said = ""
        try:
            done = subprocess.run(
                ["bash", "-c", command], cwd=odd, capture_output=True, text=True, check=False, timeout=300,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
            code, said = done.returncode, done.stderr
        except subprocess.TimeoutExpired:
            code = -1
        if "Traceback (most recent call last)" in said:
            tally.tracebacks.append(f"{name}: {said.strip().splitlines()[-1]}")
        last = said.strip().splitlines()[-1] if said.strip() else ""
        rows.append((name, f"{code} {last}".strip().replace(str(work), ""), code in expected))
        print(f"{name}: {rows[-1][1][:160]}{'' if rows[-1][2] else '   NOT AS EXPECTED'}", flush=True)
        if not rows[-1][2]:
            tally.lost.append(f"{name}: ended with {code}, expected {expected}")
    return rows


def shlex_quote(text: str) -> str:
    """`text` as one word of a shell."""
    import shlex

    return shlex.quote(text)


def main() -> None:
    """Kills, then environments; prints what was counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=65, help="Kills over all commands (default: 65).")
    parser.add_argument("--work", type=Path, help="Folder to work in (default: a temporary one).")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments of the kills (default: 0).")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="qtool-robustness-"))
    work.mkdir(parents=True, exist_ok=True)
    tally, dice = Tally(), random.Random(arguments.seed)
    if arguments.kills:
        code, said = ended(qtool((*COMMANDS["calibrate"][:-1], "calibration"), work), tally, "calibrate")
        if code:
            sys.exit(said)
        for name in COMMANDS:
            killed(name, work, -(-arguments.kills // len(COMMANDS)), tally, dice)
            print(f"{name}: {tally.kills} kills so far, {len(tally.lost)} lost", flush=True)
    environments(work, tally)
    shutil.rmtree(work)
    print(f"{tally.kills} kills, {len(tally.lost)} lost, {len(tally.tracebacks)} tracebacks")
    for line in (*tally.lost, *tally.tracebacks):
        print(f"  {line}")
    sys.exit(1 if tally.lost or tally.tracebacks else 0)


if __name__ == "__main__":
    main()
