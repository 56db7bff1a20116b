"""The OpenAPI document: bodies as they are checked, answers as they are given, errors as they look."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from qtool.serve.api.chat_schema import ChatRequest
from qtool.serve.api.responses import ResponsesRequest
from qtool.serve.api.schema import CompletionRequest, Strict
from qtool.serve.api.tokens import DetokenizeRequest, TokenizeRequest
from qtool.serve.service import Service

_BODIES: dict[str, type[Strict]] = {
    "/v1/completions": CompletionRequest,
    "/v1/chat/completions": ChatRequest,
    "/v1/responses": ResponsesRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
_JSON = "application/json"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "status"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
                "status": {"type": "integer"},
                "retry_after": {"type": "integer"},
            },
        }
    },
}
_ERRORS = {
    400: "The request is wrong; the message names the field.",
    401: "No or an unknown API key.",
    403: "The key is not for this.",
    404: "The model or route is not served here.",
    405: "The method is not allowed here.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "The key's own limit is reached.",
    431: "Too many headers.",
    500: "The engine could not answer.",
    503: "No room, not ready, or the engine was lost; retry-after says when to come again.",
    504: "Not complete within the deadline.",
    505: "Not HTTP/1.0 or 1.1.",
}


def describe(app: FastAPI, service: Service) -> dict[str, Any]:
    """The OpenAPI document of `app`, with this server's own limits and model name in it."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                operation["responses"] = _responses(path, method)
                if path in _BODIES and method == "post":
                    content = {_JSON: {"schema": _body(_BODIES[path], service)}}
                    operation["requestBody"] = {"required": True, "content": content}
                if path.startswith("/v1/models/"):
                    operation["parameters"] = [
                        {"name": "name", "in": "path", "required": True, "schema": {"enum": [service.model]}}
                    ]
        app.openapi_schema = document
    return app.openapi_schema


def _responses(path: str, method: str) -> dict[str, Any]:
    error = {"content": {_JSON: {"schema": _ERROR}}} if method != "head" else {}
    responses: dict[str, Any] = {str(code): {"description": about, **error} for code, about in _ERRORS.items()}
    kinds = {"/metrics": ("text/plain",)}.get(path, (_JSON, "text/event-stream") if path in _BODIES else (_JSON,))
    good: dict[str, Any] = {"description": "The answer."}
    if method != "head":
        good["content"] = {kind: {} for kind in kinds}
    responses["200"] = good
    if path in ("/health", "/ready"):
        responses["503"] = {**good, "description": "Not healthy or not ready; the body says why."}
    return responses


def _body(kind: type[Strict], service: Service) -> object:
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    fields = schema["properties"]
    fields["model"] = {"type": "string", "enum": [service.model]}
    if "n" in fields:
        fields["n"]["maximum"] = service.limits.max_choices
    if "messages" in fields:
        fields["messages"]["maxItems"] = service.limits.max_messages
    required = set(schema.get("required", ()))
    for name, field in fields.items():
        if name not in required and "anyOf" not in field:
            fields[name] = {"anyOf": [field, {"type": "null"}]}
    return _inline(schema, parts)


def _inline(schema: object, parts: dict[str, object]) -> object:
    """`schema` with references replaced by what they name: none of these schemas refers to itself."""
    if isinstance(schema, dict):
        name = str(schema.get("$ref", "")).removeprefix("#/components/schemas/")
        if name in parts:
            return _inline(parts[name], parts)
        return {key: _inline(value, parts) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inline(value, parts) for value in schema]
    return schema
