"""`qtool.push` and `reproduce`: a bundle for others, and what it takes to make it again."""

from pathlib import Path
from typing import TYPE_CHECKING

from qtool.front_door.paths import PathLike, optional_path
from qtool.progress import chosen_progress

if TYPE_CHECKING:
    from qtool.bundle.publish import Pushed
    from qtool.pipeline.reproduce import Reproduction


def push(
    bundle: PathLike, repo: str, *, public: bool = False, revision: str | None = None, quiet: bool = False
) -> "Pushed":
    """Puts a bundle onto the Hugging Face Hub as OWNER/NAME, private unless `public`, after checking every file of it.

    HF_ENDPOINT names another server, HF_TOKEN or `hf auth login` say who you are.
    """
    from qtool.bundle.publish import push as upload
    from qtool.serve.supervision.gate import read_bundle, verify_files

    folder = Path(bundle)
    manifest = read_bundle(folder)
    with chosen_progress(quiet).track("push", 2, "steps") as advance:
        verify_files(folder, manifest)
        advance(1)
        done = upload(folder, manifest, repo, private=not public, revision=revision)
        advance(1)
    return done


def reproduce(
    bundle: PathLike,
    *,
    model: str | None = None,
    sets_dir: PathLike | None = None,
    threads: int | None = None,
    quiet: bool = False,
) -> "Reproduction":
    """Makes the variant of a bundle again from the plan lock inside it, and compares every tensor; where they differ,
    `moved` names the input that is not what it was. `model` is where the base lies, `threads` as many as made it."""
    import torch

    from qtool.machine.threads import computing_with
    from qtool.pipeline.reproduce import reproduce as repeat
    from qtool.serve.supervision.gate import read_bundle

    folder = Path(bundle)
    made = read_bundle(folder).variant
    with computing_with(threads or made.threads):
        used = torch.get_num_threads()
        return repeat(
            folder, model=model, sets_dir=optional_path(sets_dir), progress=chosen_progress(quiet), threads=used
        )
