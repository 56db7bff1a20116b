"""`qtool bench URL` against a server on this machine that streams as vLLM does, and against one that refuses."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from qtool.cli import bench

app = typer.Typer()
app.command()(bench.command)


@app.command()
def other() -> None:
    """Makes `bench` a command by name."""


class Streaming(BaseHTTPRequestHandler):
    """Lists one model; answers every prompt with as many tokens as were asked for, or with 400."""

    refuses = False

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self._answer(200, json.dumps({"data": [{"id": "tiny", "max_model_len": 64}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refuses:
            return self._answer(400, json.dumps({"error": "too busy to answer"}))
        count = body["max_tokens"]
        choices = [
            {"text": "x", "token_ids": [7], "finish_reason": "length" if index == count - 1 else None}
            for index in range(count)
        ]
        return self._answer(200, "".join(f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices))

    def _answer(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Refusing(Streaming):
    """A server that takes nobody."""

    refuses = True


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


SHAPE = ["--prompt-tokens", "5", "--output-tokens", "3", "--requests", "6", "-c", "1", "-c", "3", "--rate", "100", "-q"]


@pytest.mark.parametrize("url", [Streaming], indirect=True)
def test_a_server_is_timed_and_what_is_not_known_of_it_is_said(url: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["command", url, "-o", str(tmp_path), *SHAPE])
    assert result.exit_code == 0, result.output
    assert "is not known here" in result.output
    assert "0.00 s" not in result.output
    for load in ("1 in flight", "3 in flight", "100 req/s"):
        assert load in result.output
    (samples,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.samples.json"))
    assert {name: len(found) for name, found in samples.items()} == {"closed-1": 6, "closed-3": 6, "open-100": 6}


@pytest.mark.parametrize("url", [Refusing], indirect=True)
def test_a_server_that_refuses_everything_fails_with_its_reason(url: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["command", url, "-o", str(tmp_path), *SHAPE])
    assert result.exit_code != 0
    assert "too busy to answer" in result.output
    assert "too busy to answer" in str(result.exception)


@pytest.mark.parametrize("url", [Streaming], indirect=True)
def test_a_task_needs_a_tokenizer(url: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["command", url, "-o", str(tmp_path), "--task", "arithmetic", *SHAPE[4:]])
    assert result.exit_code != 0
    assert "tokenizer" in str(result.exception)
