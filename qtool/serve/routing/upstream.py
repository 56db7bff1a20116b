"""Other OpenAI-compatible servers (vLLM, llama.cpp, replicas, a paid API) as one variant of this one."""

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from qtool.serve.admission.places import Places
from qtool.serve.api.refusal import Refused, leaving
from qtool.serve.limits import Limits
from qtool.serve.routing.breaker import Breaker, Thresholds
from qtool.serve.supervision.readiness import Readiness
from qtool.serve.watching.metrics import Metrics

_log = logging.getLogger("qtool.serve")
_CHECK_SECONDS = 2.0
_CHECK_TIMEOUT_SECONDS = 5.0
_AFFINITY_CHARACTERS = 256
_AFFINITY_SLACK_TOKENS = 2048  # outstanding tokens that a known prefix is worth before another server is better
_KEY_VARIABLE = "QTOOL_UPSTREAM_KEY"
_RETRIED = frozenset({502, 503, 504})


@dataclass(slots=True, eq=False)
class Target:
    """One server: whether it answers, the model it lists, and the tokens that it still owes."""

    url: str
    healthy: bool = False
    model: str = ""
    context_tokens: int | None = None
    outstanding: int = 0


class Upstream:
    """Balances over `urls`. Answers like a deployment, but the tokens come from elsewhere."""

    fingerprint = ""

    def __init__(
        self,
        model: str | None,
        urls: Sequence[str],
        limits: Limits,
        *,
        variant: str = "upstream",
        transport: Any = None,
    ) -> None:
        self.targets = [Target(url.rstrip("/").removesuffix("/v1")) for url in urls]
        self.variant = variant
        self.limits = limits
        self.created = int(time.time())
        self.readiness = Readiness()
        self.places = Places(limits.max_running, limits.max_queue, queue_seconds=limits.queue_seconds)
        self.breaker = Breaker(Thresholds())
        self._model = model
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._checking: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Event] = set()
        self.metrics = Metrics(model or "upstream", variant, "")

    @property
    def model(self) -> str:
        """The name clients ask for: as given, else what the first server lists."""
        return self._model or next((target.model for target in self.targets if target.model), "")

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer: which variant gave it."""
        return {"x-qtool-variant": self.variant}

    @property
    def context_tokens(self) -> int | None:
        """The context that the servers list."""
        return next((target.context_tokens for target in self.targets if target.context_tokens), None)

    def healthy(self) -> tuple[bool, str]:
        """The gateway itself is well; whether its servers are is for /ready."""
        return True, "ok"

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to look after the servers."""
        key = os.environ.get(_KEY_VARIABLE)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(self.limits.deadline_seconds, connect=_CHECK_TIMEOUT_SECONDS)
        most = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout, limits=most, transport=self._transport)
        self.readiness.enter("waiting for upstream servers")
        self._checking = loop.create_task(self._check())

    def drain(self) -> None:
        """Refuses new requests from now on."""
        self.places.draining = True
        self.readiness.enter("draining")
        self.metrics.ready(False)

    async def drained(self) -> None:
        """Returns when no request is left, or when the time for that is over."""
        try:
            async with asyncio.timeout(self.limits.drain_seconds):
                while self.places.admitted:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return

    def stop(self) -> int:
        """Ends every request in progress; how many there were."""
        for event in self._sending:
            event.set()
        return len(self._sending)

    def close(self) -> None:
        """Ends the health checks."""
        if self._checking is not None:
            self._checking.cancel()

    def choose(self, document: dict[str, object], *, without: Sequence[Target] = ()) -> Target | None:
        """The server for a request: the one that saw its beginning before, unless it owes much more than the least."""
        healthy = [target for target in self.targets if target.healthy and target not in without]
        if not healthy:
            return None
        least = min(healthy, key=lambda target: target.outstanding)
        prefix = json.dumps(document.get("messages") or document.get("prompt") or document.get("input"))
        known = max(healthy, key=lambda target: _weight(prefix[:_AFFINITY_CHARACTERS], target.url))
        return known if known.outstanding <= least.outstanding + _AFFINITY_SLACK_TOKENS else least

    async def send(self, path: str, document: dict[str, object], request_id: str) -> "Flight":
        """The answer of a server, begun: its status is known, its body not yet read. Servers that do not answer, or
        have no room, are passed over; nothing has been streamed yet. Raises Refused (503) where none is left."""
        assert self._client is not None  # started
        tried: list[Target] = []
        tokens = _tokens(document)
        while (target := self.choose(document, without=tried)) is not None:
            tried.append(target)
            target.outstanding += tokens
            body = {**document, "model": target.model or document.get("model")}
            request = self._client.build_request(
                "POST", target.url + path, json=body, headers={"x-request-id": request_id}
            )
            try:
                response = await self._client.send(request, stream=True)
            except httpx.HTTPError as error:
                target.outstanding -= tokens
                target.healthy = False
                _log.warning("upstream %s does not answer: %r", target.url, error)
                continue
            if response.status_code not in _RETRIED:
                return Flight(self, target, tokens, response)
            target.outstanding -= tokens
            await response.aclose()
        raise Refused(503, "no upstream server can answer now", outcome="server_error", retry_after=2)

    async def _check(self) -> None:
        while True:
            await asyncio.gather(*(self._check_one(target) for target in self.targets))
            alive = any(target.healthy for target in self.targets)
            if alive and not self.readiness.ready:
                self.readiness.enter("ready")
            elif not alive and self.readiness.ready:
                self.readiness.enter("waiting for upstream servers", "none of them answers")
            self.metrics.ready(self.readiness.ready)
            await asyncio.sleep(_CHECK_SECONDS)

    async def _check_one(self, target: Target) -> None:
        assert self._client is not None  # started
        try:
            response = await self._client.get(target.url + "/v1/models", timeout=_CHECK_TIMEOUT_SECONDS)
            response.raise_for_status()
            first = response.json()["data"][0]
            target.model, target.context_tokens = str(first["id"]), first.get("max_model_len")
            target.healthy = True
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            if target.healthy:
                _log.warning("upstream %s is not well: %r", target.url, error)
            target.healthy = False


class Flight:
    """An answer that comes from a server."""

    def __init__(self, upstream: Upstream, target: Target, tokens: int, response: httpx.Response) -> None:
        self._upstream = upstream
        self._target = target
        self._tokens = tokens
        self._stopped = asyncio.Event()
        upstream._sending.add(self._stopped)
        self.response = response
        self.remaining_seconds = upstream.limits.deadline_seconds

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises Refused when the server breaks off or this one leaves."""
        upcoming = aiter(self.response.aiter_bytes())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            while True:
                piece = asyncio.ensure_future(_next(upcoming))
                await asyncio.wait({piece, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    piece.cancel()
                    raise leaving()
                try:
                    data = piece.result()
                except httpx.HTTPError as error:
                    self._target.healthy = False
                    raise Refused(
                        503, "the upstream server broke off; send the request again", outcome="server_error",
                        retry_after=1,
                    ) from error  # fmt: skip
                if data is None:
                    return
                yield data
        finally:
            stopped.cancel()

    async def close(self) -> None:
        """Gives the place back."""
        if self._stopped in self._upstream._sending:
            self._upstream._sending.discard(self._stopped)
            self._target.outstanding -= self._tokens
            await self.response.aclose()


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


def _weight(prefix: str, url: str) -> bytes:
    """Rendezvous hashing: a server that comes or goes moves only its own prefixes."""
    return hashlib.blake2b(f"{url}\0{prefix}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _tokens(document: dict[str, object]) -> int:
    """Tokens a request may cost, roughly: four characters each, and what it may generate."""
    most = next(
        (
            value
            for name in ("max_completion_tokens", "max_tokens", "max_output_tokens")
            if isinstance(value := document.get(name), int)
        ),
        512,
    )
    return len(json.dumps(document)) // 4 + most
