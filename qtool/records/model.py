"""Which model something was made from or measured on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What makes two model folders the same: content digests, not paths.

    `weights_digest` covers config.json and every safetensors shard, `tokenizer_digest` the tokenizer files and the chat
    template. `licence` is what the folder's own card names, None where it names none. `parameters` counts scalars of
    the unquantized model; `bytes` is the size of the weight files on disk.
    """

    name: str
    source: str
    revision: str | None
    architecture: str
    weights_digest: str
    tokenizer_digest: str
    dtype: str
    parameters: int
    bytes: int
    licence: str | None = None


def same_base(first: ModelIdentity, second: ModelIdentity) -> bool:
    """Whether two models are the same by their contents: weights, configuration and tokenizer."""
    return (first.weights_digest, first.tokenizer_digest) == (second.weights_digest, second.tokenizer_digest)
