"""What a variant is and, layer by layer, how it was made: `variant.json`, the ledger."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from qtool.records.model import ModelIdentity
from qtool.records.presentation import Presented

SchemeName = Literal["base", "w4a16", "w8a16", "w8a8", "fp8", "gguf", "nf4", "int8"]
Activations = Literal["none", "dynamic", "static"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What was asked of `quantize`; equal recipes on equal inputs give equal bytes.

    `group_size` is the number of input columns that share a scale, -1 the whole row (per channel). `overrides` gives
    layers a scheme of their own, (layer name, scheme) each; "base" leaves the layer as it is.
    """

    scheme: SchemeName
    method: str = "rtn"
    group_size: int = -1
    symmetric: bool = True
    activations: Activations = "none"
    observer: str | None = None
    skip: tuple[str, ...] = ("lm_head",)
    format: str = "compressed-tensors"
    options: tuple[tuple[str, str], ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One linear layer: what was asked, what was done, what it cost, and why where the two differ.

    `weight_error` is ||W - Q(W)|| / ||W|| (Frobenius, a ratio); `output_error` the same for the layer's output on
    held-out activations where the method had any.
    """

    layer: str
    rows: int
    columns: int
    scheme_asked: str
    scheme_used: str
    method_asked: str
    method_used: str
    group_size: int
    weight_error: float
    clipped_share: float
    dead_columns: int
    tokens_seen: int
    bytes: int
    output_error: float | None = None
    damping: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HeldOutChange:
    """What quantizing did to `tokens` tokens of calibration text that no method learnt from: the mean KL divergence
    from the base in nats a token, its standard error, and the share of places with the same most likely token."""

    tokens: int
    kl_divergence: float
    kl_error: float
    same_token_share: float


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared when the variant was opened again from disk before it was called done.

    `logits_prompts` is 0 where no logits were compared with transformers' own. `problem` says what was found wrong:
    such a variant is kept to be looked at, and is refused where it would be used. `engine_tokens` is how many tokens
    the engine generated with it.
    """

    tensors_compared: int
    tensors_bit_identical: int
    logits_prompts: int
    logits_max_difference: float
    bytes_expected: int
    bytes_on_disk: int
    lint: tuple[str, ...] = ()
    engine_tokens: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Variant(Presented):
    """The manifest `variant.json` of a finished variant folder; `recipe.scheme == "base"` is the baseline.

    `threads` is how many computed it: another number may add in another order and end in other bytes. `notes` are what
    whoever uses the variant must know: how to load it, and what its calibration was too small for.
    """

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "recipe.scheme", "recipe.method", "bytes", "fallbacks")

    format_version: int
    name: str
    base: ModelIdentity
    recipe: Recipe
    weights_digest: str
    tokenizer_digest: str
    calibration_digest: str | None
    layers: tuple[LedgerRow, ...]
    verification: Verification | None
    fallbacks: int
    bytes: int
    seconds: float
    peak_memory_bytes: int
    qtool_version: str
    held_out: HeldOutChange | None = None
    threads: int | None = None
    notes: tuple[str, ...] = ()
