"""How a server and its engine's process talk: frames of JSON over a socket. Nothing that arrives can run.

A frame is its length (4 bytes, big-endian) and a JSON array: the kind of the message first, its fields behind. Tokens
are written field by field, because a step of 32 requests must cost microseconds; what is rare goes through the codec.
"""

import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from qtool.engine.contract import EngineStatus, GenerationRequest, Sampling, ScoreRequest, TokenEvent
from qtool.errors import StoreError
from qtool.serve.supervision.messages import (
    Abort,
    Beat,
    Close,
    Command,
    Compare,
    Compared,
    Failed,
    Look,
    Looked,
    Opened,
    Phase,
    Refusal,
    Report,
    Submit,
)

_LENGTH = struct.Struct(">I")
_LONGEST_FRAME = 1 << 28  # bytes; a longer one can only be a broken stream


@dataclass(frozen=True, slots=True)
class Opening:
    """How a child makes its opener: `module:name` is called with `arguments`, which are JSON."""

    target: str
    arguments: dict[str, Any]


Message = Opening | Command | Report


class Channel:
    """One end of the socket. Each direction belongs to one thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: Message) -> None:
        """Writes one frame. Raises OSError where the other end is gone."""
        body = pack(message)
        self._end.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Message:
        """Reads one frame. Raises EOFError at the end of the stream, StoreError where it is broken."""
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > _LONGEST_FRAME:
            raise StoreError(f"the engine's socket: a frame of {length:,} bytes cannot be one")
        return unpack(self._exactly(length))

    def close(self) -> None:
        """Closes this end."""
        self._end.close()

    def _exactly(self, count: int) -> bytes:
        content = bytearray(count)
        view = memoryview(content)
        while view:
            read = self._end.recv_into(view)
            if not read:
                raise EOFError
            view = view[read:]
        return bytes(content)


def pack(message: Message) -> bytes:
    """`message` as the body of a frame."""
    kind = "Tokens" if isinstance(message, tuple) else type(message).__name__
    return json.dumps([kind, *_WRITERS[kind](message)], separators=(",", ":"), default=_plain).encode()


def unpack(body: bytes) -> Message:
    """The message of a frame's body. Raises StoreError where it is none."""
    try:
        kind, *parts = json.loads(body)
        return _READERS[kind](parts)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise StoreError(f"the engine's socket: not a message of this version: {error!r}") from error


def _plain(record: Any) -> list[Any]:
    return [getattr(record, field.name) for field in fields(record)]


def _tokens(events: tuple[TokenEvent, ...]) -> list[Any]:
    return [
        [event.request, event.token, event.logprob, event.time_s, event.finish, event.error, event.top]
        for event in events
    ]


def _read_tokens(parts: list[Any]) -> tuple[TokenEvent, ...]:
    return tuple(
        TokenEvent(request, token, logprob, time_s, finish, error, tuple((id_, value) for id_, value in top))
        for request, token, logprob, time_s, finish, error, top in parts
    )


def _submit(message: Submit) -> list[Any]:
    request = message.request
    return [
        message.number,
        request.ids,
        request.max_new_tokens,
        request.sampling,
        request.stop_ids,
        request.stop,
        request.logprobs,
        request.grammar,
    ]


def _read_submit(parts: list[Any]) -> Submit:
    number, ids, most, sampling, stop_ids, stop, logprobs, grammar = parts
    request = GenerationRequest(tuple(ids), most, Sampling(*sampling), tuple(stop_ids), tuple(stop), logprobs, grammar)
    return Submit(number, request)


def _request(parts: list[Any]) -> ScoreRequest:
    ids, continuation = parts
    return ScoreRequest(tuple(ids), tuple(continuation))


def _read_look(parts: list[Any]) -> Look:
    number, request, places, layers, path = parts
    return Look(number, _request(request), tuple(places), tuple(layers), path)


def _read_compare(parts: list[Any]) -> Compare:
    number, request, places, path = parts
    return Compare(number, _request(request), tuple(places), path)


def _read_looked(parts: list[Any]) -> Looked:
    number, inputs, reason = parts
    return Looked(number, tuple((layer, tuple(bins), tuple(counts)) for layer, bins, counts in inputs), reason)


def _read_beat(parts: list[Any]) -> Beat:
    status, device_bytes = parts
    return Beat(EngineStatus(*status) if status else None, (device_bytes[0], device_bytes[1]) if device_bytes else None)


def _read_opened(parts: list[Any]) -> Opened:
    status, facts, slowest = parts
    return Opened(EngineStatus(*status), tuple((name, value) for name, value in facts), slowest)


_PLAIN = (
    *("Opening", "Abort", "Look", "Compare", "Close"),
    *("Phase", "Opened", "Refusal", "Looked", "Compared", "Beat", "Failed"),
)
_WRITERS: dict[str, Callable[[Any], list[Any]]] = {
    "Tokens": _tokens,
    "Submit": _submit,
    **dict.fromkeys(_PLAIN, _plain),
}
_READERS: dict[str, Callable[[list[Any]], Message]] = {
    "Tokens": _read_tokens,
    "Submit": _read_submit,
    "Look": _read_look,
    "Compare": _read_compare,
    "Looked": _read_looked,
    "Beat": _read_beat,
    "Opened": _read_opened,
    **{
        kind.__name__: lambda parts, kind=kind: kind(*parts)  # type: ignore[misc]
        for kind in (Opening, Abort, Close, Phase, Refusal, Compared, Failed)
    },
}
