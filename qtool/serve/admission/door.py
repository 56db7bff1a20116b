"""What every request passes before any route sees it: the form of its head, its key, and where it may go."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from qtool.serve.admission.keys import Keys
from qtool.serve.api.refusal import Refused
from qtool.serve.limits import Limits

_PROBES = ("/health", "/ready")


class Door:
    """Refuses heads that are too long, of an unknown HTTP version, or with two lengths (request smuggling); requests
    without a key where keys are required; and what belongs to another port."""

    def __init__(self, app: ASGIApp, limits: Limits, keys: Keys | None = None, admin_port: int | None = None) -> None:
        self._app = app
        self._limits = limits
        self._keys = keys or Keys()
        self._admin_port = admin_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a good request on; answers a bad one."""
        if scope["type"] == "http":
            refused = self._refusal(scope)
            if refused is not None:
                headers = {"connection": "close"}
                if refused.status == 401:
                    headers["www-authenticate"] = "Bearer"
                answer = JSONResponse(refused.body(), refused.status, headers)
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
        return self._key_refusal(scope, headers)

    def _key_refusal(self, scope: Scope, headers: Headers) -> Refused | None:
        """Probes need no key. Metrics and administration have their own port, where that was asked for."""
        path = scope["path"]
        if path in _PROBES:
            return None
        private = path == "/metrics" or path.startswith("/admin")
        if self._admin_port is not None:
            here = scope["server"][1] if scope["server"] else None
            if private != (here == self._admin_port):
                return Refused(404, f"{path[:200]!r} is not served on this port")
            if private:
                return None
        try:
            key = self._keys.find(headers.get("authorization"))
        except Refused as refused:
            return refused
        if private and key is not None and not key.admin:
            return Refused(403, "this key is not for administration")
        if key is not None:
            scope.setdefault("state", {})["key"] = key
        return None
