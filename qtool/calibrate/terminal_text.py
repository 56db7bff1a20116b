"""A shard of a calibration in words, for the terminal."""

from pathlib import Path

from qtool.calibrate.passes.shards import Shard


def shard_text(shard: Shard, folder: Path) -> str:
    """What a shard is and what comes next."""
    return (
        f"{folder}: shard {shard.number}/{shard.count} of set {shard.task.set_name!r} for {shard.task.model.name}, "
        f"{shard.seconds:.1f} s\n  join all {shard.count} with: qtool calibrate merge SHARD... -o DIR"
    )
