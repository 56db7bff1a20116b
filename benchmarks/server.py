"""Load, overhead and faults of `qtool serve`, on loopback and bounded: python benchmarks/server.py BUNDLE [--quick].

Starts its own server of BUNDLE (one engine thread), measures, kills its engine, and prints one Markdown table.
Numbers are of a quiet machine; the client shares the cores with the server.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qtool.machine.state import load_average

TOKENS = 32
PROMPT = "What is 12 + 30?"


@dataclass(slots=True)
class Tally:
    """Outcomes of one load: seconds of complete answers, of refusals, and what had neither."""

    answered: list[float] = field(default_factory=list)
    shed: list[float] = field(default_factory=list)
    failed: int = 0
    lost: int = 0
    seconds: float = 0.0

    def row(self, name: str) -> str:
        """One row of the table."""
        rate = len(self.answered) / self.seconds if self.seconds else 0.0
        return (
            f"| {name} | {len(self.answered)} | {rate:.1f} | {quantile(self.answered, 0.5)} | "
            f"{quantile(self.answered, 0.99)} | {len(self.shed)} | {quantile(self.shed, 0.99)} | "
            f"{self.failed} | {self.lost} |"
        )


def quantile(values: list[float], q: float) -> str:
    """A quantile in milliseconds; a dash where the sample is too small for it."""
    if len(values) * min(q, 1 - q) < 1:
        return "-"
    return f"{1000 * sorted(values)[min(int(q * len(values)), len(values) - 1)]:.0f}"


@contextlib.contextmanager
def server(bundle: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A ready server of `bundle`: its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "qtool", "serve", str(bundle), "--port", str(port), "--threads", "1", *options]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until_ready(address, 300)
        yield address, process
    finally:
        process.terminate()
        process.wait(60)


def until_ready(address: str, seconds: float) -> float:
    """Waits for /ready; seconds that it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{address}/ready", timeout=2).status_code == 200:
                return time.monotonic() - began
        time.sleep(0.05)
    raise SystemExit("the server did not become ready")


async def ask(client: httpx.AsyncClient, model: str, tally: Tally, **extra: Any) -> None:
    """One request, counted."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, **extra}
    began = time.monotonic()
    try:
        answer = await client.post("/v1/completions", json=body)
    except httpx.HTTPError:
        tally.lost += 1
        return
    seconds = time.monotonic() - began
    if answer.status_code == 200:
        tally.answered.append(seconds)
    elif answer.status_code in (429, 503):
        tally.shed.append(seconds)
    else:
        tally.failed += 1


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without limits of its own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:
        yield client


async def closed_loop(address: str, model: str, users: int, seconds: float) -> Tally:
    """`users` that each ask again as soon as they are answered."""
    tally = Tally()

    async def user(client: httpx.AsyncClient) -> None:
        while time.monotonic() < began + seconds:
            before = len(tally.shed)
            await ask(client, model, tally)
            if len(tally.shed) > before:
                await asyncio.sleep(0.2)

    async with connected(address) as client:
        began = time.monotonic()
        await asyncio.gather(*(user(client) for _ in range(users)))
    tally.seconds = time.monotonic() - began
    return tally


async def open_loop(address: str, model: str, rate: float, seconds: float) -> Tally:
    """Requests at `rate` per second, whatever the server does."""
    tally = Tally()
    tasks = []
    began = time.monotonic()
    async with connected(address) as client:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(began + number / rate - time.monotonic(), 0))
            tasks.append(asyncio.create_task(ask(client, model, tally)))
        await asyncio.gather(*tasks)
    tally.seconds = time.monotonic() - began
    return tally


def engine_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """The engine's process of a server."""
    children = psutil.Process(process.pid).children(recursive=True)
    return next(child for child in children if "supervision.child" in " ".join(child.cmdline()))


async def kills(address: str, model: str, process: subprocess.Popen[bytes], times: int) -> tuple[Tally, list[float]]:
    """The engine killed again and again under load: outcomes, and seconds until ready each time."""
    tally, back = Tally(), []
    ended = asyncio.Event()

    async def user(client: httpx.AsyncClient) -> None:
        while not ended.is_set():
            await ask(client, model, tally)
            await asyncio.sleep(0.05)

    began = time.monotonic()
    async with connected(address) as client:
        users = [asyncio.create_task(user(client)) for _ in range(8)]
        for _ in range(times):
            await asyncio.sleep(1.0)
            os.kill(engine_of(process).pid, signal.SIGKILL)
            await asyncio.sleep(0.3)
            back.append(await asyncio.to_thread(until_ready, address, 300))
        ended.set()
        await asyncio.gather(*users)
    tally.seconds = time.monotonic() - began
    return tally, back


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--quick", action="store_true", help="two seconds per level and two kills")
    arguments = parser.parse_args()
    seconds, deaths = (2.0, 2) if arguments.quick else (20.0, 20)
    print(f"load of the machine before: {load_average():.1f}")
    print("| load | answered | per second | p50 ms | p99 ms | shed | p99 of sheds ms | failed | lost |")
    print("|---|---|---|---|---|---|---|---|---|")
    with server(arguments.bundle) as (address, process):
        model = httpx.get(f"{address}/v1/models").json()["data"][0]["id"]
        memory = psutil.Process(process.pid).memory_info().rss
        capacity = 1.0
        for users in (1, 10, 50, 100):
            tally = asyncio.run(closed_loop(address, model, users, seconds))
            capacity = max(capacity, len(tally.answered) / tally.seconds)
            print(tally.row(f"{users} users"))
        print(asyncio.run(open_loop(address, model, 10 * capacity, seconds)).row("10 x capacity, open"))
        time.sleep(5)
        print(asyncio.run(closed_loop(address, model, 1, seconds)).row("1 user, 5 s later"))
        tally, back = asyncio.run(kills(address, model, process, deaths))
        print(tally.row(f"{deaths} engines killed"))
        grown = psutil.Process(process.pid).memory_info().rss - memory
        print(json.dumps({"ready_again_seconds": [round(value, 1) for value in back], "server_grew_bytes": grown}))


if __name__ == "__main__":
    main()
