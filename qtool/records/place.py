"""Where a model is: a folder on this machine, or a server behind an address. Decided once, where a user's words
come in; from there on the type says which it is, so that no address is ever opened as a folder."""

from dataclasses import dataclass
from pathlib import Path

_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Server:
    """The address of a server that speaks OpenAI's API, with or without `/v1` at its end."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def root(self) -> str:
        """The address without a slash or `/v1` at its end: what `/v1/models` and `/version` are added to."""
        return self.url.rstrip("/").removesuffix("/v1")

    @property
    def name(self) -> str:
        """The address as a file name: `http://host:8000/v1` is `host-8000`."""
        address = self.root.partition("://")[2]
        return "".join(letter if letter.isalnum() or letter in ".-" else "-" for letter in address)


Folder = Path
Place = Folder | Server


def server_at(text: str) -> Server | None:
    """The server where `text` is an address, None where it is anything else."""
    return Server(text) if text.startswith(_SCHEMES) else None
