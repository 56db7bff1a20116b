"""The HTTP surface: routes, their description for clients, and their errors."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from qtool import __version__
from qtool.serve.admission.connections import quiet_exceptions
from qtool.serve.admission.door import Door
from qtool.serve.api import responses
from qtool.serve.api.body import read_document
from qtool.serve.api.call import refusal_response
from qtool.serve.api.chat_schema import ChatRequest
from qtool.serve.api.describe import describe
from qtool.serve.api.handler import complete
from qtool.serve.api.refusal import Refused, failed
from qtool.serve.api.schema import CompletionRequest, decode
from qtool.serve.api.tokens import detokenize, tokenize
from qtool.serve.routing.canary import ACTIONS
from qtool.serve.service import Service

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def build(service: Service, *, on_start: Callable[[], None] = lambda: None) -> FastAPI:
    """The application that serves `service`; `on_start` is called in the event loop once it runs."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        quiet_exceptions(loop)
        service.start(loop)
        on_start()
        yield
        service.close()

    app = FastAPI(
        title="qtool serve",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    for path, post in (
        ("/v1/completions", _completions),
        ("/v1/chat/completions", _chat_completions),
        ("/v1/responses", _responses),
        ("/tokenize", tokenize),
        ("/detokenize", detokenize),
    ):
        app.add_api_route(path, post, methods=["POST"], response_model=None)
    for path, answer in (
        ("/v1/models", _models),
        ("/v1/models/{name:path}", _model),
        ("/health", _health),
        ("/ready", _ready),
        ("/metrics", _metrics),
        ("/admin/canary", _canary),
        ("/admin/quality", _quality),
    ):
        app.add_api_route(path, answer, methods=["GET"], response_model=None)
        app.add_api_route(path, answer, methods=["HEAD"], response_model=None, include_in_schema=False)
    app.add_api_route("/admin/canary", _act_on_canary, methods=["POST"], response_model=None, include_in_schema=False)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(Door, limits=service.limits, keys=service.keys, admin_port=service.admin_port)
    app.openapi = lambda: describe(app, service)  # type: ignore[method-assign]
    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _completions(request: Request) -> Response:
    """Continues prompts."""
    return await complete(request, _service(request), lambda document: decode(CompletionRequest, document))


async def _chat_completions(request: Request) -> Response:
    """The next message of a conversation."""
    return await complete(request, _service(request), lambda document: decode(ChatRequest, document))


async def _responses(request: Request) -> Response:
    """The next message of a conversation, as a response object."""
    return await complete(request, _service(request), responses.read, responses.ResponsesShape)


def _described(service: Service) -> dict[str, object]:
    served = service.first
    return {
        "id": service.model,
        "object": "model",
        "created": served.created,
        "owned_by": "qtool",
        "root": served.variant,
        "system_fingerprint": served.fingerprint,
        "max_model_len": served.context_tokens,
    }


async def _models(request: Request) -> Response:
    """What is served, with the variant it is."""
    service = _service(request)
    return JSONResponse({"object": "list", "data": [_described(service)]}, headers=service.first.headers)


async def _model(request: Request) -> Response:
    """The model of that name."""
    service, name = _service(request), request.path_params["name"]
    if name != service.model:
        raise HTTPException(404, f"model: {name[:256]!r} is not served here; use {service.model!r}")
    return JSONResponse(_described(service), headers=service.first.headers)


async def _health(request: Request) -> Response:
    """200 while the engine does its rounds; load never makes it fail."""
    served = _service(request).first
    healthy, reason = served.healthy()
    return JSONResponse({"healthy": healthy, "reason": reason}, 200 if healthy else 503, served.headers)


async def _ready(request: Request) -> Response:
    """200 when requests are answered: files verified, golden prompts reproduced, warmed up, not draining."""
    served = _service(request).first
    silent = served.readiness.ready and not served.healthy()[0]
    ready = served.readiness.ready and not silent
    body = served.readiness.body()
    if silent:
        body = {"ready": False, "phase": "hung", "reason": served.healthy()[1]}
    return JSONResponse(body, 200 if ready else 503, served.headers)


async def _metrics(request: Request) -> Response:
    """Prometheus text format."""
    return Response(_service(request).text(), media_type=None, headers={"content-type": _METRICS_TYPE})


async def _quality(request: Request) -> Response:
    """Drift from the calibration, and what the reference says of the answers, for each variant."""
    return JSONResponse(_service(request).quality())


async def _canary(request: Request) -> Response:
    """How the second variant compares with the first."""
    service = _service(request)
    canary = service.router.canary
    if canary is None or service.router.candidate is None:
        raise HTTPException(404, "this server has no canary; start it with --canary BUNDLE")
    variants = {"incumbent": service.first.variant, "candidate": service.router.candidate.variant}
    breakers = {backend.variant: backend.breaker.state for backend in service.router.backends}
    return JSONResponse({**variants, **canary.body(), "breakers": breakers})


async def _act_on_canary(request: Request) -> Response:
    """A person's decision about the canary: {"action": "promote"}, withdraw, hold or resume."""
    service = _service(request)
    try:
        document = await read_document(
            request, service.limits, service.reading, decode=lambda document: document, executor=service.decoding
        )
    except Refused as refused:
        return refusal_response(refused, {})
    action = document.get("action")
    if action not in ACTIONS:
        return refusal_response(Refused(400, f"action: must be one of {', '.join(ACTIONS)}", param="action"), {})
    if service.router.canary is not None:
        service.router.canary.act(str(action))
    return await _canary(request)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # registered for it
    _service(request).first.metrics.ended("client_error")
    message = str(error.detail)
    if error.status_code == 404 and message == "Not Found":
        message = f"{request.url.path[:200]!r} is no route of this server; GET /openapi.json lists them"
    elif error.status_code == 405:
        message = f"{request.method} is not allowed here"
    return refusal_response(Refused(error.status_code, message), dict(error.headers or {}))


async def _unexpected(request: Request, error: Exception) -> Response:
    """500 without a word of what went wrong inside; the log has the traceback."""
    _service(request).first.metrics.ended("server_error")
    return refusal_response(failed("internal error; the server's log has the details"), {})
