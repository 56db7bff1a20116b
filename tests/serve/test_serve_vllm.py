"""`--engine vllm`: the command, and the supervision of a stand-in that speaks vLLM's API."""

import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from live_server import serving, wait_for

from qtool.errors import MissingPackage
from qtool.serve.http_server import listen
from qtool.serve.limits import Limits
from qtool.serve.routing.router import Router
from qtool.serve.routing.vllm import VllmEngine, vllm_command
from qtool.serve.service import Service

STAND_IN = """#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *told): pass
    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        model = {{"id": arguments["--served-model-name"], "max_model_len": int(arguments["--max-model-len"])}}
        self.answer({{"object": "list", "data": [model]}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        choice = {{"index": 0, "text": f"{{os.getpid()}} " + asked["prompt"], "finish_reason": "stop"}}
        self.answer({{"model": asked["model"], "choices": [choice], "usage": {{"total_tokens": 3}}}})
ThreadingHTTPServer((arguments["--host"], int(arguments["--port"])), Handler).serve_forever()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An executable named `vllm`."""
    path = tmp_path / "vllm"
    path.write_text(STAND_IN.format(python=sys.executable), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_command_is_found_on_the_path(program: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(program.parent))
    command = vllm_command(Path("b"), "m", 8100, limits=Limits(max_running=7), context_tokens=512)
    assert command[:3] == [str(program), "serve", "b"]
    assert dict(zip(command[3::2], command[4::2], strict=True)) == {
        "--served-model-name": "m",
        "--host": "127.0.0.1",
        "--port": "8100",
        "--max-model-len": "512",
        "--max-num-seqs": "7",
    }


def test_without_vllm_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingPackage, match=r"qtool\[vllm\]"):
        vllm_command(Path("b"), "m", 8100, limits=Limits(), context_tokens=512)


def test_it_is_started_asked_and_started_again(program: Path, monkeypatch: pytest.MonkeyPatch):
    from qtool.serve.routing import upstream, vllm

    monkeypatch.setattr(upstream, "_CHECK_SECONDS", 0.1)
    monkeypatch.setattr(vllm, "_SHORTEST_WAIT_SECONDS", 0.1)
    limits = Limits(max_running=4, queue_seconds=60.0)
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    command = vllm_command(Path("b"), "m", port, limits=limits, context_tokens=512, program=str(program))
    engine = VllmEngine(command, "m", port, limits, variant="w8a8")
    with serving(Service(Router([engine])), FakeEngine()) as server:
        wait_for(lambda: engine.readiness.ready, 30)
        first = engine.pid
        assert first is not None
        answer = server.complete(prompt="hello")
        assert answer.headers["x-qtool-variant"] == "w8a8"
        assert answer.json()["choices"][0]["text"] == f"{first} hello"
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: engine.pid != first and engine.readiness.ready, 30)
        assert server.complete(prompt="hello").json()["choices"][0]["text"] == f"{engine.pid} hello"
        assert engine.restarts == 1
        last = engine.pid
    wait_for(lambda: not Path(f"/proc/{last}").exists(), 10)
