"""`qtool.init`: a first plan for a model."""

from pathlib import Path
from typing import TYPE_CHECKING

from qtool.errors import StoreError, UsageError
from qtool.front_door.paths import PathLike
from qtool.progress import chosen_progress

if TYPE_CHECKING:
    from qtool.pipeline.propose import Proposal


def init(
    model: str, *, output: PathLike = "plan.toml", minutes: float = 60.0, replace: bool = False, quiet: bool = False
) -> "Proposal":
    """Writes a commented plan for `model` to the file `output`: variants, tasks with items and margins from the time
    there is and from what that many items can show, prices. The plan is checked before it is written."""
    import tempfile

    from qtool.pipeline.plan import read_plan
    from qtool.pipeline.propose import plan_text, propose
    from qtool.store.run_directory import explained, write_text

    target = Path(output)
    if target.suffix != ".toml":
        raise UsageError(f"{target}: a plan is a .toml file; give the output this ending")
    if target.exists() and not replace:
        raise StoreError(f"{target}: already exists; give another -o, or --replace")
    if minutes <= 0:
        raise UsageError(f"minutes is {minutes:g}; give more than 0")
    with chosen_progress(quiet).track("init", None, "steps"):
        found = propose(model, minutes=minutes, name=target.stem)
    text = plan_text(found)
    with tempfile.TemporaryDirectory() as place:
        draft = Path(place) / target.name
        draft.write_text(text, encoding="utf-8")
        read_plan(draft)
    with explained(target):
        write_text(target, text)
    return found
