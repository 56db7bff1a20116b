"""A real bundle behind a real port: verified, reproduced, answering as the engine alone does."""

import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from qtool.engine.contract import GenerationRequest
from qtool.errors import CapacityError, MismatchError, StoreError
from qtool.records.bundle import Bundle
from qtool.serve.http_server import listen
from qtool.serve.supervision.gate import read_bundle, reproduce, verify_files
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record


@pytest.fixture
def spoiled(made_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return Path(shutil.copytree(made_bundle, tmp_path / "bundle"))


def test_an_untouched_bundle_verifies(made_bundle: Path):
    verify_files(made_bundle, read_bundle(made_bundle))


def test_damage_is_refused(spoiled: Path):
    manifest = read_bundle(spoiled)
    config = spoiled / "config.json"
    original = config.read_bytes()
    config.write_bytes(original.replace(b" ", b"\t", 1))
    with pytest.raises(MismatchError, match="SHA-256"):
        verify_files(spoiled, manifest)
    config.write_bytes(original[:-1])
    with pytest.raises(MismatchError, match="bytes"):
        verify_files(spoiled, manifest)
    config.unlink()
    with pytest.raises(MismatchError, match="missing"):
        verify_files(spoiled, manifest)


@pytest.mark.parametrize("name", ["extra.safetensors", "pytorch_model.bin", "modeling.py", "deploy/x.pkl"])
def test_files_that_are_not_listed_and_could_be_loaded_are_refused(spoiled: Path, name: str):
    (spoiled / name).write_bytes(b"x")
    with pytest.raises(MismatchError, match="not listed"):
        verify_files(spoiled, read_bundle(spoiled))


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", ""])
def test_paths_that_leave_the_bundle_are_refused(spoiled: Path, path: str):
    manifest = read_bundle(spoiled)
    manifest = replace(manifest, files=(replace(manifest.files[0], path=path),))
    with pytest.raises(MismatchError, match="outside"):
        verify_files(spoiled, manifest)


def test_links_that_leave_the_bundle_are_refused(spoiled: Path, tmp_path: Path):
    outside = tmp_path / "outside.json"
    shutil.move(spoiled / "config.json", outside)
    (spoiled / "config.json").symlink_to(outside)
    with pytest.raises(MismatchError, match="link"):
        verify_files(spoiled, read_bundle(spoiled))


def test_what_is_no_bundle_is_said(tmp_path: Path, spoiled: Path):
    with pytest.raises(StoreError, match="qtool bundle"):
        read_bundle(tmp_path)
    write_record(spoiled / "bundle.json", replace(read_json(Bundle, spoiled / "bundle.json"), format_version=9))
    with pytest.raises(StoreError, match="format 9"):
        read_bundle(spoiled)


def test_a_bundle_without_golden_prompts_proves_nothing(made_bundle: Path):
    class Untouched:
        """An engine that must not be asked."""

    with pytest.raises(MismatchError, match="no golden prompts"):
        reproduce(Untouched(), replace(read_bundle(made_bundle), golden=()))  # type: ignore[arg-type]


def test_golden_prompts_catch_other_weights(made_bundle: Path):
    from qtool.engine.load import open_engine

    manifest = read_bundle(made_bundle)
    engine = open_engine(made_bundle, dtype=manifest.runtime.dtype, slots=4)
    assert reproduce(engine, manifest) <= manifest.golden[0].tolerance
    golden = manifest.golden[0]
    moved = replace(golden, top_logprobs=tuple(value - 2 * golden.tolerance for value in golden.top_logprobs))
    with pytest.raises(MismatchError, match="not reproduced"):
        reproduce(engine, replace(manifest, golden=(moved,)))
    strange = replace(golden, top_ids=tuple(reversed(range(len(golden.top_ids)))), top_logprobs=(-0.1,) * 5)
    with pytest.raises(MismatchError, match="not reproduced"):
        reproduce(engine, replace(manifest, golden=(strange,)))
    engine.close()


def test_a_port_in_use_is_one_line():
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CapacityError, match=f"port {port} on 127.0.0.1 is in use"):
            listen("127.0.0.1", port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_command_serves_drains_and_leaves(made_bundle: Path):
    from qtool.engine.drive import generate
    from qtool.engine.load import open_engine
    from qtool.models.tokenizer import encode, load_tokenizer

    port = _free_port()
    command = [sys.executable, "-m", "qtool", "serve", str(made_bundle), "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    manifest = read_bundle(made_bundle)
    tokenizer = load_tokenizer(made_bundle)
    engine = open_engine(made_bundle, dtype=manifest.runtime.dtype, slots=1)
    prompts = [f"What is {number} + 30?" for number in range(10, 16)]
    alone = generate(engine, [GenerationRequest(encode(tokenizer, prompt), 12) for prompt in prompts])
    engine.close()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_ready(client, server)
            body = {"model": manifest.name, "temperature": 0, "max_tokens": 12, "ignore_eos": True, "logprobs": 1}

            def ask(prompt: str) -> httpx.Response:
                return client.post("/v1/completions", json={**body, "prompt": prompt})

            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                answers = list(pool.map(ask, prompts))
            for answer, expected in zip(answers, alone, strict=True):
                found = answer.json()["choices"][0]["logprobs"]["token_logprobs"]
                assert found == pytest.approx(expected.logprobs, abs=manifest.golden[0].tolerance)
            chat = client.post(
                "/v1/chat/completions",
                json={
                    "model": manifest.name,
                    "messages": [{"role": "user", "content": "What is 12 + 30?"}],
                    "temperature": 0,
                    "max_tokens": 20,
                },
            )
            assert chat.status_code == 200, chat.text
            assert chat.headers["x-qtool-variant"] == "w8a16"
            long = {**body, "prompt": "x", "max_tokens": manifest.runtime.context_tokens - 8, "stream": True}
            with client.stream("POST", "/v1/completions", json=long) as stream:
                events = stream.iter_lines()
                next(events)
                server.send_signal(signal.SIGTERM)
                time.sleep(0.05)
                rest = list(events)
            assert rest[-2] == "data: [DONE]"  # what was running when the signal came was finished
            server.wait(timeout=30)  # a second signal would cut what is not yet counted as answered
    finally:
        server.terminate()
        _, log = server.communicate(timeout=30)
    assert server.returncode == 0, log
    assert "drained" in log
    assert "Traceback" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    assert {line["outcome"] for line in lines if line["message"] == "request"} <= {"success", "shed"}
    assert not re.search(r"What is", log)


def _wait_ready(client: httpx.Client, server: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert server.poll() is None, server.stderr.read() if server.stderr else ""
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.ConnectError:
            pass
        time.sleep(0.1)
    raise AssertionError("never ready")
