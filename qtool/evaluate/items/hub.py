"""Rows of a public set from the hub at its pinned revision, or from the hub's local cache; never by its own code."""

import contextlib
import logging
from collections.abc import Iterator

from qtool import catalog
from qtool.errors import DataError
from qtool.evaluate.items.rows import Row
from qtool.records.task import HubSource


def rows(source: HubSource, *, task: str) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) of the split. Raises DataError that says how to give a local file instead."""
    datasets = catalog.require("datasets", needed_by=f"task {task}", extra="data")
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        with _quiet():
            loaded = datasets.load_dataset(
                source.repository, source.config, split=source.split, revision=source.revision
            )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"task {task}: {source.repository} (revision {source.revision[:12]}) cannot be had from the hub: {reason}; "
            "download the file where there is a network and give it with --data FILE"
        ) from error
    for number, row in enumerate(loaded, start=1):
        yield number, dict(row)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the hub's own lines on every try that failed: what it comes to is told in one."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
