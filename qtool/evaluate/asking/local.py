"""A model in a folder: who it is, read from its files, and its engine."""

import math
from pathlib import Path

from qtool.engine.contract import Engine
from qtool.evaluate.asking.subject import DEFAULTS, Settings, Subject
from qtool.evaluate.contract import Language
from qtool.models.tokenizer import has_chat_template
from qtool.records.place import Server
from qtool.records.unverified import refuse_unverified
from qtool.records.variant import Variant
from qtool.store import layout
from qtool.store.codec import read_json


def identify_folder(folder: Path, settings: Settings = DEFAULTS) -> Subject:
    """Who the model in `folder` is, from `variant.json` where it has one.

    Raises ModelError where it is no model, UnverifiedVariant where it was found wrong when it was made.
    """
    manifest = folder / layout.VARIANT
    if manifest.is_file():
        variant = read_json(Variant, manifest)
        refuse_unverified(variant, folder, allowed=settings.allow_unverified)
        return Subject(
            place=folder,
            name=variant.name,
            weights_digest=variant.weights_digest,
            tokenizer_digest=variant.tokenizer_digest,
            is_base=variant.recipe.scheme == "base",
            weight_error=_weight_error(variant),
            has_chat=has_chat_template(folder),
            base_digest=variant.base.weights_digest,
        )
    from qtool.models.checkpoint import is_of_unknown_base
    from qtool.models.identity import identify

    identity = identify(folder)
    return Subject(
        place=folder,
        name=identity.name,
        weights_digest=identity.weights_digest,
        tokenizer_digest=identity.tokenizer_digest,
        is_base=True,
        weight_error=None,
        has_chat=has_chat_template(folder),
        base_digest="" if is_of_unknown_base(folder) else identity.weights_digest,
    )


def open_folder(folder: Path, settings: Settings) -> tuple[Engine, Language]:
    """The engine and language of the model in `folder`, ready to answer."""
    from qtool.engine.load import open_engine
    from qtool.evaluate.asking.language import load_language

    language = load_language(folder)
    engine = open_engine(
        folder,
        backend=settings.backend,
        dtype=settings.dtype,
        device=settings.device,
        slots=settings.in_flight,
        context_tokens=settings.context_tokens,
        frugal=True,
    )
    return engine, language


def computed_in(subject: Subject, settings: Settings) -> str:
    """The number type the engine computes in, "auto" resolved as it is on this machine; a server's is its own."""
    if isinstance(subject.place, Server) or not (subject.place / "config.json").is_file():
        return settings.dtype
    from qtool.machine.device import choose_device, choose_dtype
    from qtool.models.checkpoint import read_config

    dtype = choose_dtype(settings.dtype, read_config(subject.place), choose_device(settings.device))
    return str(dtype).removeprefix("torch.")


def _weight_error(variant: Variant) -> float | None:
    """Root mean square over all weights in the ledger, those outside of the blocks apart; a layer of the blocks that
    was left as it is counts with no error."""
    layers = [layer for layer in variant.layers if layer.layer not in variant.recipe.skip]
    weights = sum(layer.rows * layer.columns for layer in layers)
    squares = sum(layer.rows * layer.columns * layer.weight_error**2 for layer in layers)
    return math.sqrt(squares / weights) if weights else None
