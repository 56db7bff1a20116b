"""A model behind a URL is evaluated as a local one: same items, same rows; what it cannot give is not asked of it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from qtool import reference
from qtool.errors import CapacityError, UsageError
from qtool.evaluate.asking.language import load_language
from qtool.evaluate.asking.model import identify
from qtool.evaluate.asking.subject import Settings
from qtool.evaluate.items.wording import PROBE
from qtool.evaluate.session import Order, default_output, fulfil
from qtool.evaluate.terminal_text import render
from qtool.front_door.paths import model_place
from qtool.progress import Silent
from qtool.records.place import Server, server_at

ANSWER = " Paris."
BASE = reference.folder("reference-64")


class Handler(BaseHTTPRequestHandler):
    """An API that knows text alone and always gives the same answer; it can neither echo nor list token ids."""

    version = ""
    context: int | None = None
    tokens: list[int] | None = None

    def do_GET(self) -> None:
        if self.path == "/version":
            self._send(json.dumps({"version": self.version}), status=200 if self.version else 404)
            return
        self._send(json.dumps({"data": [{"id": "always-paris", "max_model_len": self.context}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert "echo" not in body
        if self.path == "/tokenize":
            self._send(json.dumps({"tokens": self.tokens}), status=200 if self.tokens else 404)
            return
        if "return_token_ids" in body:
            self._send('{"error": "return_token_ids: unknown"}', status=400)
            return
        self._send(f"data: {json.dumps({'choices': [{'text': ANSWER, 'finish_reason': 'stop'}]})}\n\ndata: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Nothing: stderr is the test's."""

    def _send(self, text: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture(scope="module")
def url() -> Iterator[Server]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Server(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def order(url: Server, output: Path, tokenizer: Path | None = BASE) -> Order:
    settings = Settings(tokenizer=tokenizer, in_flight=4)
    return Order(url, tasks=("facts",), output=output, limit=6, settings=settings)


def test_answers_of_a_server_are_rows_like_any_other(url: Server, tmp_path: Path) -> None:
    found = fulfil(order(url, tmp_path / "remote"), Silent()).evaluations[0]
    rows = [json.loads(line) for line in (tmp_path / "remote" / "facts.items.jsonl").read_text().splitlines()]
    assert [row["output"] for row in rows] == [ANSWER] * 6
    assert found.engine == "openai"
    assert found.score.value == sum(row["score"] for row in rows) / 6
    assert found.agreement is None
    assert found.forecast is None


def test_a_server_is_held_against_a_local_baseline(
    url: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    findings = fulfil(replace(order(url, tmp_path / "remote"), baseline=BASE), Silent())
    found = findings.evaluations[0]
    assert found.comparison is not None
    assert found.comparison.baseline == "reference-64"
    assert found.parting is not None
    assert found.parting.items == 6
    assert found.parting.same < 6, "the server says the same to everything"
    assert found.parting.item is not None
    assert found.parting.token is not None
    assert found.parting.variant_text != found.parting.baseline_text
    line = next(line for line in render(findings).splitlines() if "same tokens as the baseline" in line)
    assert f"item {found.parting.item!r} at token {found.parting.token}" in line


def test_another_version_of_the_server_is_recorded_and_asked_again(
    url: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for version in ("0.11.0", "0.12.0"):
        monkeypatch.setattr(Handler, "version", version)
        found = fulfil(order(url, tmp_path / "remote"), Silent()).evaluations[0]
        assert found.server == version
        digests.add(found.run_digest)
    assert len(digests) == 2


def test_how_a_server_was_asked_is_recorded_and_held_against_the_baseline(
    url: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = load_language(BASE)
    monkeypatch.setattr(Handler, "version", "0.11.0")
    monkeypatch.setattr(Handler, "context", 512)
    monkeypatch.setattr(Handler, "tokens", list(language.encode(language.chat(PROBE))))
    first = fulfil(order(url, tmp_path / "first"), Silent()).evaluations[0]
    assert first.asked is not None
    assert (first.asked.server, first.asked.context_tokens, first.asked.server_template) == ("0.11.0", 512, "same")
    assert (first.asked.max_new_tokens, first.asked.temperature) == (16, 0.0)
    assert first.asked.template
    monkeypatch.setattr(Handler, "version", "0.12.0")
    monkeypatch.setattr(Handler, "tokens", [1, 2, 3])
    later = fulfil(replace(order(url, tmp_path / "later"), baseline=tmp_path / "first"), Silent())
    found = later.evaluations[0]
    assert found.unlike_baseline == ("server version (0.11.0 and 0.12.0)",)
    assert found.asked is not None
    assert found.asked.server_template == "other"
    text = render(later)
    assert "asked otherwise than the baseline: server version (0.11.0 and 0.12.0)" in text
    assert "own chat template makes other tokens" in text
    monkeypatch.setattr(Handler, "tokens", None)
    assert identify(url, Settings(tokenizer=BASE)).server_template == "not told"


def test_the_same_server_is_not_asked_twice(url: Server, tmp_path: Path) -> None:
    first = fulfil(order(url, tmp_path / "remote"), Silent()).evaluations[0]
    again = fulfil(order(url, tmp_path / "remote"), Silent(), opener=_refuse).evaluations[0]
    assert again.score == first.score


def test_without_a_tokenizer_the_way_out_is_named(url: Server, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--tokenizer"):
        fulfil(order(url, tmp_path / "remote", tokenizer=None), Silent())
    assert not (tmp_path / "remote").exists()


def test_where_no_server_answers_is_said_with_its_address() -> None:
    with pytest.raises(CapacityError, match=r"http://127\.0\.0\.1:9: does not answer"):
        identify(Server("http://127.0.0.1:9"), Settings(tokenizer=BASE))


@pytest.mark.parametrize(
    "address", ["http://host:8000", "http://host:8000/", "https://host:8000/v1", "https://host:8000/v1/"]
)
def test_an_address_becomes_a_file_name(address: str) -> None:
    server = model_place(address)
    assert isinstance(server, Server)
    assert server.name == "host-8000"
    assert default_output(server) == Path("evaluations/host-8000")


def test_what_is_no_address_is_a_folder(tmp_path: Path) -> None:
    assert model_place(tmp_path) == tmp_path
    assert server_at("http:/host") is None


def _refuse(folder: Path, settings: Settings) -> tuple[object, object]:
    raise AssertionError("nothing is left to ask")
