"""Several variants behind one name: ladder, canary, breaker, other servers; keys; samples."""

import concurrent.futures
import hashlib
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from fake_engine import FakeEngine, FakeVocabulary
from live_server import Running, running_server, serving, threaded, wait_for

from qtool.errors import CapacityError, StoreError, UsageError
from qtool.front_door.canary import canary_status
from qtool.serve.admission.keys import Keys, read_keys
from qtool.serve.deployment import Deployment, Identity, Parts
from qtool.serve.limits import Limits
from qtool.serve.routing.breaker import Breaker, Thresholds
from qtool.serve.routing.canary import Canary
from qtool.serve.routing.router import Router
from qtool.serve.routing.upstream import Upstream
from qtool.serve.service import Service
from qtool.serve.watching.output_checks import faults
from qtool.serve.watching.sampling import Samples, redact

PATIENT = Limits(max_running=2, max_queue=4, queue_seconds=60.0)


def variant(name: str, engine: FakeEngine, limits: Limits = PATIENT) -> Deployment:
    """A variant of the model `m` around an engine of the test."""
    return Deployment(Identity("m", name, f"qtool-{name}", 1), Parts(FakeVocabulary, threaded(lambda: engine)), limits)


@contextmanager
def routed(
    router: Router, engine: FakeEngine, keys: Keys | None = None, samples: Samples | None = None
) -> Iterator[Running]:
    """A server with several variants, all of them ready."""
    service = Service(router, keys)
    service.samples = samples
    with serving(service, engine) as server:
        wait_for(lambda: all(backend.readiness.ready for backend in router.backends), 10)
        yield server


def test_overload_steps_down_the_ladder_and_the_answer_says_which_rung():
    best, small = FakeEngine(slots=1), FakeEngine(slots=4)
    tight = Limits(max_running=1, max_queue=0, queue_seconds=60.0)
    router = Router([variant("bf16", best, tight), variant("int4", small)])
    with routed(router, best) as server:
        assert server.complete().headers["x-qtool-rung"] == "0"
        best.hold.clear()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(server.complete)
            wait_for(lambda: server.deployment.supervisor.running == 1)
            answer = server.complete(prompt="x=ok")
            assert (answer.status_code, answer.headers["x-qtool-rung"]) == (200, "1")
            assert answer.headers["x-qtool-variant"] == "int4"
            assert answer.json()["system_fingerprint"] == "qtool-int4"
            best.hold.set()
            assert stuck.result().headers["x-qtool-variant"] == "bf16"
        text = server.client.get("/metrics").text
        assert 'qtool_requests_total{class="success",model="m",variant="int4"} 1.0' in text
        assert text.count("# TYPE qtool_requests_total counter") == 1


def test_a_rung_that_answers_badly_is_passed_over_until_it_is_well():
    looping, good = FakeEngine(), FakeEngine()
    router = Router([variant("int4", looping), variant("int8", good)])
    router.backends[0].breaker = Breaker(Thresholds(quality=0.8, fewest=5, shortest_open_seconds=0.3))
    with routed(router, looping) as server:
        found = [server.complete(prompt="x=" + "ab" * 25, max_tokens=60).headers["x-qtool-variant"] for _ in range(8)]
        assert found == ["int4"] * 5 + ["int8"] * 3
        assert server.metric("qtool_damaged_answers_total", variant="int4", fault="looping") == 5
        time.sleep(0.3)
        assert [server.complete().headers["x-qtool-variant"] for _ in range(4)] == ["int4"] * 4


def test_a_canary_gets_its_share_and_is_withdrawn_when_it_is_worse():
    router = Router(
        [variant("bf16", FakeEngine(slots=4))],
        candidate=variant("int4", FakeEngine(slots=4)),
        canary=Canary(share=0.5, margin=0.05, alpha=0.05, automatic=True),
    )
    with routed(router, FakeEngine()) as server:
        first = {
            user: server.complete(user=user, max_tokens=2).headers["x-qtool-variant"] for user in map(str, range(30))
        }
        assert set(first.values()) == {"bf16", "int4"}
        again = {user: server.complete(user=user, max_tokens=2).headers["x-qtool-variant"] for user in first}
        assert first == again
        status = server.client.get("/admin/canary").json()
        assert (status["incumbent"], status["candidate"], status["state"]) == ("bf16", "int4", "running")
        assert sum(status["served"].values()) == 60
        bad = next(user for user, name in first.items() if name == "int4")
        well = next(user for user, name in first.items() if name == "bf16")
        for _ in range(120):
            server.complete(user=bad, prompt="x=" + "ab" * 25, max_tokens=60)  # it loops
            server.complete(user=well, max_tokens=2)
            if server.client.get("/admin/canary").json()["state"] == "withdrawn":
                break
        assert server.complete(user=bad).headers["x-qtool-variant"] == "bf16"
        act = lambda action: server.client.post("/admin/canary", json={"action": action})  # noqa: E731
        assert act("promote").json()["state"] == "promoted"
        assert server.complete(user=well).headers["x-qtool-variant"] == "int4"
        assert act("explode").status_code == 400
        from typer.testing import CliRunner

        from qtool.cli.app import app

        said = CliRunner().invoke(app, ["canary", "status", server.address])
        assert said.exit_code == 0
        assert "int4 on 50% of the users of bf16: promoted" in said.stdout
        assert "verdict: worse" in said.stdout
        held = CliRunner().invoke(app, ["canary", "decide", server.address, "hold", "--json"])
        assert json.loads(held.stdout)["state"] == "held"
    with pytest.raises(CapacityError, match="does not answer"):
        canary_status("http://127.0.0.1:9")


def test_an_external_server_is_the_last_rung():
    with running_server(FakeEngine()) as outside:
        engine = FakeEngine(slots=1)
        tight = Limits(max_running=1, max_queue=0, queue_seconds=60.0)
        router = Router([variant("w8", engine, tight), Upstream("m", [outside.address], tight, variant="fallback")])
        with routed(router, engine) as server:
            engine.hold.clear()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                stuck = pool.submit(server.complete)
                wait_for(lambda: server.deployment.supervisor.running == 1)
                answer = server.complete(prompt="x=ok")
                assert (answer.headers["x-qtool-variant"], answer.json()["choices"][0]["text"]) == ("fallback", "ok")
                streamed = server.complete(prompt="x=ok", stream=True)
                assert streamed.text.endswith("data: [DONE]\n\n")
                engine.hold.set()
                stuck.result()
            wait_for(lambda: router.backends[1].places.admitted == 0)


@contextmanager
def gateway(*engines: FakeEngine) -> Iterator[tuple[Running, list[Running]]]:
    """A gateway before servers, one for each engine."""
    with ExitStack() as stack:
        behind = [stack.enter_context(running_server(engine)) for engine in engines]
        upstream = Upstream(None, [server.address for server in behind], Limits(max_running=16, queue_seconds=60.0))
        server = stack.enter_context(serving(Service(Router([upstream])), engines[0]))
        wait_for(lambda: all(target.healthy for target in upstream.targets))
        wait_for(lambda: upstream.readiness.ready)
        yield server, behind


def test_a_gateway_answers_as_the_servers_behind_it_and_keeps_prefixes_together():
    with gateway(FakeEngine(), FakeEngine()) as (front, behind):
        assert front.client.get("/ready").status_code == 200
        assert front.client.get("/v1/models").json()["data"][0]["id"] == "m"
        mine, theirs = front.complete(prompt="x=hello").json(), behind[0].complete(prompt="x=hello").json()
        assert mine["choices"] == theirs["choices"]
        for _ in range(6):
            front.complete(prompt="the same beginning=y")
        counts = [server.counted("success") for server in behind]
        assert max(counts) - 1 >= 6 or min(counts) <= 2
        assert front.complete(prompt=[-1]).status_code == 400
        assert front.client.post("/tokenize", json={"model": "m", "prompt": "x"}).status_code == 404
        body = {"model": "m", "prompt": "x=ok", "stream": True}
        assert '"text":"o"' in front.client.post("/v1/completions", json=body).text


def test_a_gateway_passes_over_a_server_that_is_gone():
    with gateway(FakeEngine(), FakeEngine()) as (front, _):
        upstream = front.service.first
        assert isinstance(upstream, Upstream)
        upstream.targets[0].url = upstream.targets[1].url.replace("127.0.0.1:", "127.0.0.1:1")[:18] + "9"
        answers = [front.complete(prompt=f"p{number}=ok") for number in range(8)]
        assert {answer.status_code for answer in answers} == {200}
        for target in upstream.targets:
            target.url = "http://127.0.0.1:9"
            target.healthy = True
        gone = front.complete()
        assert gone.status_code == 503
        assert gone.headers["retry-after"]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Three keys: a plain one, one with limits, one for administration."""
    digest = lambda secret: hashlib.sha256(secret.encode()).hexdigest()  # noqa: E731
    path = tmp_path / "keys.toml"
    path.write_text(
        f"[plain]\nsha256 = '{digest('one')}'\n"
        f"[limited]\nsha256 = '{digest('two')}'\nconcurrency = 1\nrequests_per_minute = 3\ntokens_per_minute = 100000\n"
        f"[boss]\nsha256 = '{digest('three')}'\nadmin = true\n"
    )
    return path


def test_keys_let_in_limit_and_separate(key_file: Path):
    engine = FakeEngine()
    with routed(Router([variant("w8", engine)]), engine, read_keys(key_file)) as server:

        def ask(secret: str | None, path: str = "/v1/completions") -> httpx.Response:
            headers = {"authorization": f"Bearer {secret}"} if secret is not None else {}
            if path != "/v1/completions":
                return server.client.get(path, headers=headers)
            body = {"model": "m", "prompt": "x=ok", "max_tokens": 5}
            return server.client.post(path, json=body, headers=headers)

        for wrong in (None, "none", "x" * 10_000, "one two"):
            answer = ask(wrong)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert ask("one").status_code == 200
        assert [ask("two").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        assert int(ask("two").headers["retry-after"]) >= 1
        assert ask("one", "/metrics").status_code == 403
        assert ask("three", "/metrics").status_code == 200
        assert server.client.get("/health").status_code == 200
        assert server.client.get("/v1/models").status_code == 401
        wait_for(lambda: server.deployment.places.admitted == 0)


@pytest.mark.parametrize(
    "text",
    ["", "x", "[a]", "[a]\nsha256 = 'zz'", "[a]\nsha256 = 'ab'", "[a]\nsha256 = '" + "0" * 64 + "'\nlimit = 1",
     "[a]\nsha256 = '" + "0" * 64 + "'\nconcurrency = -1"],
)  # fmt: skip
def test_a_bad_file_of_keys_is_one_line(tmp_path: Path, text: str):
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_keys(path)
    assert "\n" not in str(caught.value)


def test_samples_are_a_share_redacted_bounded_and_never_waited_for(tmp_path: Path):
    engine = FakeEngine()
    samples = Samples(tmp_path, rate=1.0)
    with routed(Router([variant("w8", engine)]), engine, samples=samples) as server:
        server.complete(prompt="write to jo@example.com=ok", user="x")
        server.complete(n=0)
        wait_for(lambda: samples.written == 1)
    (line,) = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert line["choices"] == [{"text": "ok", "finish_reason": "stop"}]
    assert line["body"]["prompt"] == "write to [email]=ok"
    few = Samples(tmp_path / "few", rate=0.01, most_bytes=4000, files=4)
    chosen = sum(few.chooses(str(random.random())) for _ in range(20_000))
    assert 120 < chosen < 290
    for number in range(100):
        few.keep({"text": "y" * 100, "number": number})
        time.sleep(0.001)
    few.close()
    files = sorted((tmp_path / "few").iterdir())
    assert len(files) <= 4
    assert sum(path.stat().st_size for path in files) < 6000
    slow = Samples(tmp_path / "slow", rate=1.0)
    slow._folder = tmp_path / "gone"
    for _ in range(600):
        slow.keep({})
    wait_for(lambda: slow.lost == 600)
    with pytest.raises(StoreError):
        Samples(tmp_path / "samples.jsonl", rate=1.0)


def test_what_looks_like_a_secret_is_taken_out():
    text = "mail a.b@c.de, key sk-abcdefghijklmnop, call +49 170 1234567, 42 apples"
    assert redact(text) == "mail [email], key [secret], call [number], 42 apples"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fine text", ()),
        ("  \n", ("empty",)),
        ("no " * 40, ("looping",)),
        ("haha", ()),
        ("-" * 60, ("looping",)),
        ("```python\ndef f(:\n```", ("broken_code",)),
        ("```python\ndef f(): pass\n```", ()),
    ],
)
def test_signs_of_damage(text: str, expected: tuple[str, ...]):
    assert faults(text, "stop") == expected


def test_broken_json_counts_where_json_was_asked_for():
    assert faults("{", "stop", json_wanted=True) == ("broken_json",)
    assert faults("{", "length", json_wanted=True) == ()
    assert faults("{}", "stop", json_wanted=True) == ()


def test_metrics_have_vllms_names_too_where_asked():
    with running_server(FakeEngine()) as server:
        server.complete(prompt="x=abc")
        assert "vllm:" not in server.client.get("/metrics").text
        server.service.vllm_metrics = True
        text = server.client.get("/metrics").text
        assert 'vllm:generation_tokens_total{model_name="m",variant="w8a16"} 3.0' in text
        assert 'vllm:e2e_request_latency_seconds_count{model_name="m",variant="w8a16"} 1.0' in text
        assert "# TYPE vllm:num_requests_waiting gauge" in text
        assert 'qtool_generation_tokens_total{model="m",variant="w8a16"} 3.0' in text


def test_threads_are_left():
    assert threading.active_count() < 100
