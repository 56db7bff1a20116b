"""vLLM as the engine: its command is built, started, watched and started again; answers pass through the gateway."""

import asyncio
import logging
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from qtool.errors import MissingPackage
from qtool.serve.limits import Limits
from qtool.serve.routing.upstream import Upstream

_log = logging.getLogger("qtool.serve")
_WATCH_SECONDS = 0.1
_SHORTEST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_QUIET_SECONDS = 60.0  # a life as long as this was a good one: the next wait is short again


def vllm_command(
    folder: Path, model: str, port: int, *, limits: Limits, context_tokens: int, program: str | None = None
) -> list[str]:
    """How vLLM serves `folder` on loopback. Raises MissingPackage where it is not installed."""
    found = program or shutil.which("vllm")
    if found is None:
        raise MissingPackage("vllm", "--engine vllm", "vllm")
    command = [found, "serve", str(folder), "--served-model-name", model]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--max-model-len", str(context_tokens), "--max-num-seqs", str(limits.max_running)]


class VllmEngine(Upstream):
    """One vLLM process behind the gateway. It is not ready until vLLM lists its model."""

    def __init__(self, command: Sequence[str], model: str, port: int, limits: Limits, *, variant: str) -> None:
        super().__init__(model, [f"http://127.0.0.1:{port}"], limits, variant=variant)
        self.restarts = 0
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """vLLM's process."""
        return self._process.pid if self._process else None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts vLLM, and begins to look after it."""
        super().start(loop)
        self._watching = loop.create_task(self._supervise())

    def close(self) -> None:
        """Ends vLLM and the health checks."""
        super().close()
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        wait = _SHORTEST_WAIT_SECONDS
        while True:
            began = loop.time()
            # a session of its own: a Ctrl-C at the terminal is for the gateway, which drains first
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
            while self._process.poll() is None:
                await asyncio.sleep(_WATCH_SECONDS)
            self.targets[0].healthy = False
            self.readiness.enter("restarting vLLM", "vLLM ended; its last lines are in the log")
            self.metrics.ready(False)
            self.metrics.restarted()
            wait = _SHORTEST_WAIT_SECONDS if loop.time() - began > _QUIET_SECONDS else wait
            _log.error("vLLM ended with %s; another one starts in %.1f s", self._process.returncode, wait)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            self.restarts += 1
