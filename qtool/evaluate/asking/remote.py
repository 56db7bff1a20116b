"""A model behind the URL of an OpenAI-compatible server: who it is, and its engine.

A server takes and gives token ids, or gives text, in which case its answers are encoded here. Its tokenizer is read
from a local folder of the same model. What a server cannot do for every such API, log-probabilities of given text, is
not asked of it: no teacher forcing, no divergence from the baseline.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from qtool.engine.contract import Engine
from qtool.errors import CapacityError, RequestError, UsageError
from qtool.evaluate.asking.model import Settings, Subject, identify
from qtool.evaluate.contract import Language
from qtool.store.digest import record_digest

_LIST_SECONDS = 30.0


def name_of(url: Path | str) -> str:
    """The server's address as a file name: `http://host:8000/v1` is `host-8000`."""
    address = str(url).partition(":/")[2].strip("/").removesuffix("/v1")
    return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in address)


def identify_remote(url: Path, settings: Settings) -> Subject:
    """Who answers at `url`, as far as a server says: its address and the model it lists first.

    Raises UsageError without a tokenizer folder, CapacityError where no such server answers.
    """
    folder = _tokenizer_folder(url, settings)
    served, server = _served_model(_address(url)), _server_software(_address(url))
    tokenizer = identify(folder)
    return Subject(
        folder=url,
        name=name_of(url),
        weights_digest=record_digest({"url": str(url), "model": served} | ({"server": server} if server else {})),
        tokenizer_digest=tokenizer.tokenizer_digest,
        is_base=False,
        weight_error=None,
        remote=True,
        has_chat=tokenizer.has_chat,
        server=server,
    )


def remote_language(url: Path, settings: Settings) -> Language:
    """The language of the tokenizer folder that stands for the server's own."""
    from qtool.evaluate.asking.language import load_language

    return load_language(_tokenizer_folder(url, settings))


def open_remote(url: Path, settings: Settings) -> tuple[Engine, Language]:
    """The engine that sends to `url`, and the language of the tokenizer folder."""
    from qtool.engine.load import open_engine
    from qtool.evaluate.asking.language import load_language

    language = load_language(_tokenizer_folder(url, settings))

    def encode(text: str) -> Sequence[int]:
        ids = language.encode(text, bos=False)
        if language.decode(ids) != text:
            raise RequestError("the server sends text without token ids, and its text cannot be turned into ids")
        return ids

    engine = open_engine(
        url, backend="openai", slots=settings.in_flight, context_tokens=settings.context_tokens, encode=encode
    )
    return engine, language


def _tokenizer_folder(url: Path, settings: Settings) -> Path:
    if settings.tokenizer is None:
        raise UsageError(
            f"{_address(url)}: a server gives no tokenizer; name a folder of the same model with --tokenizer"
        )
    return settings.tokenizer


def _address(url: Path) -> str:
    return str(url).replace(":/", "://", 1)


def _server_software(url: str) -> str:
    """What the server says of its own version, at /version as vLLM and SGLang do; empty where it says nothing.

    Another version may give other answers, so none that an older one gave are used again.
    """
    import httpx

    try:
        response = httpx.get(f"{url.rstrip('/').removesuffix('/v1')}/version", timeout=_LIST_SECONDS)
        said = response.json() if response.is_success else {}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return ""  # not every server has it, and /v1/models has told already whether one is there
    version = said.get("version") if isinstance(said, dict) else said
    return version[:200] if isinstance(version, str) else ""


def _served_model(url: str) -> str:
    import httpx

    key = os.environ.get("OPENAI_API_KEY")
    try:
        response = httpx.get(
            f"{url.rstrip('/').removesuffix('/v1')}/v1/models",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_LIST_SECONDS,
        )
        response.raise_for_status()
        return str(response.json()["data"][0]["id"])
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, IndexError, TypeError, ValueError) as error:
        raise CapacityError(f"{url}: does not answer as an OpenAI server at /v1/models: {error}") from error
