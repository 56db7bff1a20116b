"""What every request passes before any route sees it: the form of its head."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from qtool.serve.api.refusal import Refused
from qtool.serve.limits import Limits


class Door:
    """Refuses heads that are too long, of an unknown HTTP version, or with two lengths (request smuggling)."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a good request on; answers a bad one."""
        if scope["type"] == "http":
            refused = self._refusal(scope)
            if refused is not None:
                answer = JSONResponse(refused.body(), refused.status, {"connection": "close"})
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Refused | None:
        headers = Headers(scope=scope)
        if len(headers.raw) > self._limits.max_headers:
            return Refused(431, f"more than {self._limits.max_headers} headers")
        if sum(len(name) + len(value) for name, value in headers.raw) > self._limits.max_header_bytes:
            return Refused(431, f"the headers are larger than {self._limits.max_header_bytes:,} bytes")
        if scope["http_version"] not in ("1.0", "1.1"):
            return Refused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
        if "transfer-encoding" in headers and "content-length" in headers:
            return Refused(400, "the request has both content-length and transfer-encoding")
        return None
