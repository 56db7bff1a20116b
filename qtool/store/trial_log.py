"""Numbers that take long to find, a line each in a file: a killed call finds them there and does not measure again."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from qtool import __version__
from qtool.store.run_directory import explained, write_text


class TrialLog:
    """The numbers found so far for one set of `inputs`; with a path they are kept in that file.

    A file of other inputs, or of another version of qtool, is begun anew. A line that a killed process left half
    written is measured again.
    """

    def __init__(self, path: Path | None, inputs: str) -> None:
        self._path = path
        self._found: dict[str, float] = {}
        if path is None:
            return
        head = json.dumps({"inputs": inputs, "qtool": __version__})
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        if lines[:1] == [head]:
            for line in lines[1:-1]:  # what follows the last line end is empty or half written
                trial = json.loads(line)
                self._found["\n".join(trial["trial"])] = trial["value"]
        kept = [json.dumps({"trial": name.split("\n"), "value": value}) for name, value in self._found.items()]
        write_text(path, "\n".join([head, *kept]) + "\n")

    def once(self, trial: Sequence[str], measure: Callable[[], float]) -> float:
        """The number of `trial`, measured now unless it is known."""
        name = "\n".join(trial)
        if name not in self._found:
            self._found[name] = measure()
            if self._path is not None:
                with explained(self._path), self._path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"trial": list(trial), "value": self._found[name]}) + "\n")
        return self._found[name]
