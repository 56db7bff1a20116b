"""The base model itself, as a variant like any other, so that every difference can be paired against it.

What it does: puts the base model's files into a variant folder, as hard links where the disk allows, else as copies.

When to use it: always; every run has exactly one, and all comparisons are made against it.

What it costs: no time, and no disk where hard links work.

When it fails: only when the disk is full or read-only.
"""

from qtool.models.checkpoint import INDEX_NAME, open_checkpoint, tokenizer_files
from qtool.quantize.contract import FolderResult, FolderWork, Needs
from qtool.quantize.output.ledger import kept_row
from qtool.quantize.output.linking import link_or_copy
from qtool.records.variant import Recipe

NEEDS = Needs(scope="folder", schemes=("base",), formats=("none",))


def check(recipe: Recipe) -> tuple[str, ...]:
    """Nothing can be wrong: the baseline has no options."""
    return ()


def quantize(work: FolderWork) -> FolderResult:
    """Links every file of the model; the ledger says of each layer that it is as it was."""
    checkpoint = open_checkpoint(work.source)
    names = {"config.json", "generation_config.json", *checkpoint.shards, *tokenizer_files(work.source)}
    if len(checkpoint.shards) > 1 or (work.source / INDEX_NAME).is_file():
        names.add(INDEX_NAME)
    for name in sorted(names):
        if (work.source / name).is_file():
            link_or_copy(work.source / name, work.target / name)
    rows = []
    for layer in work.architecture.linears:
        size = checkpoint.tensor_bytes(layer.weight) if layer.weight in checkpoint.names else 0
        rows.append(kept_row(layer, work.recipe, stored_bytes=size, reason="baseline"))
    return FolderResult(tuple(rows))
