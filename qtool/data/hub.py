"""Rows of a public set on the hub, streamed; a revision is always pinned."""

from collections.abc import Iterator

from qtool import catalog
from qtool.data.files import Row
from qtool.errors import DataError

_WINDOW = 10_000  # rows held to choose the next one from


def hub_rows(repository: str, *, config: str | None, split: str, revision: str | None, seed: int) -> Iterator[Row]:
    """Rows of one split of `repository`, shuffled within a window, without downloading more than is read.

    Raises DataError when the hub cannot be reached or has no such set, MissingPackage without `datasets`.
    """
    catalog.require("datasets", needed_by=f"the hub set {repository}", extra="data")
    import datasets
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # httpx's or httpx2's

    try:
        rows = datasets.load_dataset(repository, config, split=split, revision=revision, streaming=True)
        rows = rows.shuffle(seed=seed, buffer_size=_WINDOW)
        for number, row in enumerate(rows, start=1):
            yield Row(f"{repository} {split}: row {number}", row)
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError) as error:
        raise DataError(f"{repository}: the hub cannot be reached; use a local file or a generated set") from error
    except (HfHubHTTPError, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{repository}: cannot be read from the hub: {reason}") from error
    except TransportError as error:  # of which the hub's own errors are a kind
        raise DataError(f"{repository}: the hub cannot be reached; use a local file or a generated set") from error
