"""The frames between a server and its engine's process: every message survives, nothing that arrives can run."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import qtool
from qtool.engine.contract import (
    EngineStatus,
    GenerationRequest,
    Sampling,
    ScoreRequest,
    TokenEvent,
)
from qtool.errors import StoreError
from qtool.serve.supervision.messages import (
    Abort,
    Beat,
    Close,
    Compare,
    Compared,
    Failed,
    Look,
    Looked,
    Opened,
    Phase,
    Refusal,
    Submit,
)
from qtool.serve.supervision.wire import Channel, Message, Opening, pack, unpack

SAMPLING = Sampling(0.7, 5, 0.9, 0.1, 1.1, 0.2, -0.3, 2**62)
MESSAGES: tuple[Message, ...] = (
    Opening("module:name", {"folder": "/a b", "threads": None}),
    Submit(1, GenerationRequest((1, 2), 8, SAMPLING, (0,), ("\n", "é\u2028"), 3, "grammar")),
    Submit(2, GenerationRequest((1,), 1)),
    Abort(7),
    Look(3, ScoreRequest((1, 2), (3,)), (0,), ("a.b",), "/x/y"),
    Compare(3, ScoreRequest((1,), (2, 3)), (0, 1), "/x/y"),
    Close(),
    Phase("loading weights"),
    Opened(EngineStatus(0, 0, 4, 4, 128, 1000), (("threads", "1"), ("dtype", "float32")), 0.25),
    Refusal(4, "too long"),
    Looked(3, (("a.b", (5, 9), (1, 2)),)),
    Looked(3, (), "too long"),
    Compared(3, 0.5, 1.0, 0.75),
    Beat(),
    Beat(EngineStatus(1, 0, 3, 4, 128, 1000, 5, 512, 9, 2), (7, 8)),
    Failed("no memory", 9),
    (
        TokenEvent(1, 5, -0.5, 12.25, top=((5, -0.5), (6, float("-inf")))),
        TokenEvent(2, None, None, 13.0, "error", "NaN"),
    ),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: Message):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours).send(message)
        assert Channel(theirs).receive() == message


def test_frames_that_arrive_in_pieces_are_whole():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        received = Channel(theirs)
        for message in MESSAGES:
            body = pack(message)
            frame = len(body).to_bytes(4, "big") + body
            for start in range(0, len(frame), 7):
                ours.send(frame[start : start + 7])
            assert received.receive() == message
        ours.close()
        with pytest.raises(EOFError):
            received.receive()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'["Unknown"]', b'["Abort"]', b'["Abort",1,2]', b'["Submit",1]', b"\x80\x04N.", b"5"]
)
def test_what_is_no_message_is_refused(body: bytes):
    with pytest.raises(StoreError, match="not a message"):
        unpack(body)


def test_a_length_that_cannot_be_is_refused():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"\xff\xff\xff\xff")
        with pytest.raises(StoreError, match="cannot be one"):
            Channel(theirs).receive()


def test_server_and_child_import_no_pickle():
    """Not even by way of another module of the standard library, in the modules that read what arrives."""
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import qtool.serve.supervision.child, qtool.serve.supervision.hosts, qtool.serve.supervision.wire\n"
        "print(*sorted({'pickle', '_pickle', 'multiprocessing', 'marshal_loads'} & (set(sys.modules) - before)))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == ""


def test_no_module_of_the_server_names_pickle():
    folder = Path(qtool.__file__).parent / "serve"
    named = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in ("import pickle", "from pickle", "multiprocessing"))
    ]
    assert named == []
