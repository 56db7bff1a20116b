"""A bundle onto the Hugging Face Hub, or onto any server of its interface."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from qtool.errors import StoreError, UsageError
from qtool.records.bundle import Bundle
from qtool.records.presentation import Presented

_REASONS = {
    401: "it does not know you; log in with `hf auth login`, or set HF_TOKEN",
    403: "your token may not write there; use one that may, or another name",
    404: "it has no such place; check the name, which is OWNER/NAME",
}


@dataclass(frozen=True, slots=True, repr=False)
class Pushed(Presented):
    """Where a bundle lies now, and the commit that put it there."""

    SHOWN: ClassVar[tuple[str, ...]] = ("repo", "url", "commit")

    repo: str
    url: str
    commit: str
    files: int
    bytes: int

    def table(self) -> str:
        """Where it is, and how another machine gets and checks it."""
        return (
            f"{self.url}: {self.files} files, {self.bytes:,} bytes, commit {self.commit[:12]}\n"
            f"get and check it: hf download {self.repo} --local-dir bundle && qtool verify bundle"
        )


def push(folder: Path, bundle: Bundle, repo: str, *, private: bool, revision: str | None) -> Pushed:
    """Uploads every listed file of the bundle and its sums in one commit. Raises UsageError where the hub refuses,
    StoreError where it cannot be reached; a failed upload leaves no commit."""
    from huggingface_hub import CommitInfo, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # httpx's or httpx2's

    files = [entry.path for entry in bundle.files]
    others = [path.name for path in folder.iterdir() if path.is_file() and path.name not in files]
    api = HfApi(library_name="qtool")
    try:
        place = api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=place.repo_id,
            folder_path=folder,
            allow_patterns=[*files, *others],
            revision=revision,
            commit_message=f"{bundle.name}, made by qtool {bundle.qtool_version}",
        )
    except HFValidationError as error:
        raise UsageError(f"{repo!r}: no name of a repository; write it as OWNER/NAME") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise UsageError(f"{repo}: the hub refused: {_REASONS.get(status, f'status {status}; try again')}") from error
    except (OfflineModeIsEnabled, TransportError, OSError) as error:
        raise StoreError(f"{repo}: the hub cannot be reached; nothing was written there") from error
    assert isinstance(commit, CommitInfo)
    size = sum((folder / name).stat().st_size for name in [*files, *others])
    return Pushed(place.repo_id, str(place), commit.oid, len(files) + len(others), size)
