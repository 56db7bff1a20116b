"""/tokenize and /detokenize, as vLLM has them: what the served tokenizer makes of text, messages or ids."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from qtool.serve.api.body import read_document
from qtool.serve.api.call import refusal_response, request_id
from qtool.serve.api.chat_schema import Message
from qtool.serve.api.fields import TokenId
from qtool.serve.api.refusal import Disconnected, Refused
from qtool.serve.api.schema import Asked, Strict, decode
from qtool.serve.service import Service
from qtool.serve.text.prompts import chat_text, check_length


class TokenizeRequest(Strict):
    """Body of POST /tokenize: a prompt, or the messages of a chat."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    prompt: str | None = None
    messages: Annotated[list[Message], Field(default_factory=list)]
    return_token_strs: bool = False


class DetokenizeRequest(Strict):
    """Body of POST /detokenize."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    tokens: list[TokenId]


async def tokenize(request: Request) -> Response:
    """Token ids of a prompt or of a chat, with the special tokens that a completion would have."""

    def answer(asked: TokenizeRequest, service: Service) -> dict[str, object]:
        deployment = service.deployment
        vocabulary, capacity = deployment.vocabulary, deployment.capacity
        if (asked.prompt is None) == (not asked.messages):
            raise Refused(400, "prompt: give either prompt or messages", param="prompt")
        text = asked.prompt if asked.prompt is not None else chat_text(asked.messages, (), vocabulary, capacity)
        check_length(len(text), "prompt", vocabulary, capacity)
        ids = vocabulary.encode(text)
        found: dict[str, object] = {"count": len(ids), "max_model_len": capacity.context_tokens, "tokens": list(ids)}
        if asked.return_token_strs:
            found["token_strs"] = [vocabulary.token_text(token) for token in ids]
        return found

    return await _answered(request, TokenizeRequest, answer)


async def detokenize(request: Request) -> Response:
    """The text of token ids, without special tokens."""

    def answer(asked: DetokenizeRequest, service: Service) -> dict[str, object]:
        vocabulary, capacity = service.deployment.vocabulary, service.deployment.capacity
        highest = max(asked.tokens, default=0)
        if highest >= capacity.vocabulary:
            raise Refused(400, f"tokens: id {highest} is not below {capacity.vocabulary}", param="tokens")
        return {"prompt": vocabulary.decode(asked.tokens)}

    return await _answered(request, DetokenizeRequest, answer)


async def _answered(
    request: Request, kind: type[Asked], answer: Callable[[Asked, Service], dict[str, object]]
) -> Response:
    service: Service = request.app.state.service
    headers = dict(service.first.headers)
    try:
        deployment = service.deployment
        headers["x-request-id"] = request_id(request)
        asked = await read_document(
            request,
            service.limits,
            service.reading,
            decode=lambda document: decode(kind, document),
            executor=service.decoding,
        )
        model = str(getattr(asked, "model"))  # noqa: B009 - every body of this module has it
        if model != service.model:
            raise Refused(404, f"model: {model!r} is not served here; use {service.model!r}", param="model")
        found = await asyncio.get_running_loop().run_in_executor(deployment.preparing, answer, asked, service)
        return JSONResponse(found, headers=headers)
    except Refused as refused:
        service.first.metrics.ended(refused.outcome)
        return refusal_response(refused, headers)
    except Disconnected:
        service.first.metrics.ended("aborted")
        return Response(status_code=499, headers=headers)
