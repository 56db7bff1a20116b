"""Request bodies, read within limits of size, time and count, and JSON decoded without the usual leniencies.

Work on a body is bounded before it is done: a legal body of two megabytes can hold a million values, and to parse and
walk them takes seconds. What separates values is counted first, by searches that take a millisecond per megabyte.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NoReturn, TypeVar

from starlette.requests import ClientDisconnect, Request

from qtool.serve.api.refusal import Disconnected, Refused, shed
from qtool.serve.limits import Limits

_DEEPEST = 24
_SMALL_BYTES = 4096  # decoded in the event loop: less than a millisecond, and a thread would take as long to wake
Decoded = TypeVar("Decoded")


class Reading:
    """Bytes of bodies that are held at this moment, over all requests."""

    def __init__(self) -> None:
        self.held_bytes = 0


async def read_document(
    request: Request,
    limits: Limits,
    reading: Reading,
    *,
    decode: Callable[[dict[str, object]], Decoded],
    executor: Executor,
) -> Decoded:
    """What `decode` makes of the JSON object a client sent.

    Raises Refused (400, 408, 413, 415, 431, 503) or Disconnected. `decode` may run in a thread of `executor`.
    """
    _check_headers(request, limits)
    content = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                content += chunk
                reading.held_bytes += len(chunk)
                if len(content) > limits.max_body_bytes:
                    raise Refused(413, f"the body is larger than {limits.max_body_bytes:,} bytes")
                if reading.held_bytes > limits.max_reading_bytes:
                    raise shed("too many large bodies are being read", 1)
        if len(content) <= _SMALL_BYTES:
            return decode(parse(bytes(content), limits))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(executor, lambda: decode(parse(bytes(content), limits)))
    except TimeoutError as error:
        raise Refused(408, f"the body did not arrive within {limits.body_seconds:g} seconds") from error
    except ClientDisconnect as error:
        raise Disconnected("the client left while sending its request") from error
    finally:
        reading.held_bytes -= len(content)


def parse(content: bytes, limits: Limits) -> dict[str, object]:
    """`content` as a JSON object: no duplicate keys, NaN, Infinity or lone surrogates, limited depth and count."""
    _check_count(content, limits.max_items)
    try:
        text = content.decode("utf-8")
        document = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise Refused(400, "the body is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise Refused(400, f"the body is not valid JSON: {error.msg} at character {error.pos}") from error
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not valid UTF-8 at byte {error.start}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise Refused(400, "the body holds a number that is too long") from error
    if not isinstance(document, dict):
        raise Refused(400, f"the body must be a JSON object, not {_kind(document)}")
    messages = document.get("messages")
    if isinstance(messages, list) and len(messages) > limits.max_messages:
        raise Refused(400, f"messages: has {len(messages)}; at most {limits.max_messages} are read", param="messages")
    _check_tree(document)
    return document


def _check_count(content: bytes, most: int) -> None:
    """Counts what separates values, outside of strings."""
    if len(content) <= most:
        return
    plain = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 2 * most:
        raise Refused(400, f"the body holds more than {most:,} strings")
    outside = b"".join(plain.split(b'"')[::2])
    if sum(outside.count(mark) for mark in (b",", b":", b"[", b"{")) > most:
        raise Refused(400, f"the body holds more than {most:,} values")


def _check_headers(request: Request, limits: Limits) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "send the body with content-type: application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "compressed bodies are not accepted")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length[:18]) > limits.max_body_bytes:
        raise Refused(413, f"the body is larger than {limits.max_body_bytes:,} bytes")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise Refused(400, f"the key {twice[:60]!r} appears twice")
    return table


def _refuse_constant(name: str) -> NoReturn:
    raise Refused(400, f"{name} is not a JSON number")


def _check_tree(document: object) -> None:
    """Walks without recursion: a body may be nested as deeply as the parser bears."""
    pending: list[tuple[object, int]] = [(document, 1)]
    while pending:
        value, depth = pending.pop()
        if depth > _DEEPEST:
            raise Refused(400, f"the body is nested more than {_DEEPEST} levels deep")
        if isinstance(value, dict):
            pending += [(part, depth + 1) for part in (*value.keys(), *value.values())]
        elif isinstance(value, list):
            pending += [(part, depth + 1) for part in value]
        elif isinstance(value, str):
            _check_text(value)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise Refused(400, "the body holds a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(400, "the body holds a lone surrogate, which is no character") from error


def _kind(document: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(document), "a number")
