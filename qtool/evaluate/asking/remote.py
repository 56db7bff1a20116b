"""A model behind the URL of an OpenAI-compatible server: who it is, and its engine.

A server takes and gives token ids, or gives text, in which case its answers are encoded here. Its tokenizer is read
from a local folder of the same model. What a server cannot do for every such API, log-probabilities of given text, is
not asked of it: no teacher forcing, no divergence from the baseline.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from qtool.engine.contract import Engine
from qtool.errors import CapacityError, RequestError, UsageError
from qtool.evaluate.asking.language import load_language
from qtool.evaluate.asking.local import identify_folder
from qtool.evaluate.asking.subject import Settings, Subject
from qtool.evaluate.contract import Language
from qtool.evaluate.items.wording import PROBE
from qtool.records.place import Server
from qtool.store.digest import record_digest

_LIST_SECONDS = 30.0


def identify_server(server: Server, settings: Settings) -> Subject:
    """Who answers at `server`, as far as a server says: its address and the model it lists first.

    Raises UsageError without a tokenizer folder, CapacityError where no such server answers.
    """
    folder = _tokenizer_folder(server, settings)
    (model, context), software = _served_model(server), _server_software(server)
    tokenizer = identify_folder(folder)
    template = _server_template(server, model, load_language(folder)) if tokenizer.has_chat else ""
    return Subject(
        place=server,
        name=server.name,
        weights_digest=record_digest({"url": server.root, "model": model} | ({"server": software} if software else {})),
        tokenizer_digest=tokenizer.tokenizer_digest,
        is_base=False,
        weight_error=None,
        has_chat=tokenizer.has_chat,
        server=software,
        server_template=template,
        context_tokens=context,
    )


def server_language(server: Server, settings: Settings) -> Language:
    """The language of the tokenizer folder that stands for the server's own."""
    return load_language(_tokenizer_folder(server, settings))


def open_server(server: Server, settings: Settings) -> tuple[Engine, Language]:
    """The engine that sends to `server`, and the language of the tokenizer folder."""
    from qtool.engine.load import open_engine

    language = load_language(_tokenizer_folder(server, settings))

    def encode(text: str) -> Sequence[int]:
        ids = language.encode(text, bos=False)
        if language.decode(ids) != text:
            raise RequestError("the server sends text without token ids, and its text cannot be turned into ids")
        return ids

    engine = open_engine(server, slots=settings.in_flight, context_tokens=settings.context_tokens, encode=encode)
    return engine, language


def _tokenizer_folder(server: Server, settings: Settings) -> Path:
    if settings.tokenizer is None:
        raise UsageError(f"{server}: a server gives no tokenizer; name a folder of the same model with --tokenizer")
    return settings.tokenizer


def _server_software(server: Server) -> str:
    """What the server says of its own version, at /version as vLLM and SGLang do; empty where it says nothing.

    Another version may give other answers, so none that an older one gave are used again.
    """
    import httpx

    try:
        response = httpx.get(f"{server.root}/version", timeout=_LIST_SECONDS)
        said = response.json() if response.is_success else {}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return ""  # not every server has it, and /v1/models has told already whether one is there
    version = said.get("version") if isinstance(said, dict) else said
    return version[:200] if isinstance(version, str) else ""


def _server_template(server: Server, model: str, language: Language) -> Literal["same", "other", "not told"]:
    """Whether the server makes the same tokens of a chat message as the tokenizer's template does, by /tokenize as vLLM
    and qtool have it. Questions are rendered here; a user of the server's chat API gets the server's own."""
    import httpx

    body = {"model": model, "messages": [{"role": "user", "content": PROBE}]}
    try:
        response = httpx.post(f"{server.root}/tokenize", json=body, headers=_headers(), timeout=_LIST_SECONDS)
        said = response.json().get("tokens") if response.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError):
        return "not told"
    if not isinstance(said, list) or not said:
        return "not told"
    return "same" if tuple(said) == language.encode(language.chat(PROBE)) else "other"


def _headers() -> dict[str, str]:
    key = os.environ.get("OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _served_model(server: Server) -> tuple[str, int | None]:
    """The model that the server lists first, and the longest context it states for it."""
    import httpx

    try:
        response = httpx.get(f"{server.root}/v1/models", headers=_headers(), timeout=_LIST_SECONDS)
        response.raise_for_status()
        listed = response.json()["data"][0]
        context = listed.get("max_model_len")
        return str(listed["id"]), context if isinstance(context, int) and context > 0 else None
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise CapacityError(f"{server}: does not answer as an OpenAI server at /v1/models: {error}") from error
