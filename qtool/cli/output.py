"""How every command prints: results on stdout, as text or as one JSON object; progress on stderr."""

import sys

from qtool.progress import Progress, chosen_progress


def show(record: object, as_json: bool, text: str) -> None:
    """Prints `record` as one JSON object when `as_json` is set, otherwise `text`, on stdout."""
    from qtool.store.codec import to_json

    sys.stdout.write(to_json(record) if as_json else text.rstrip("\n") + "\n")
    sys.stdout.flush()


def stage_progress(quiet: bool) -> Progress:
    """Bars on stderr, or nothing when `quiet` is set."""
    return chosen_progress(quiet)
