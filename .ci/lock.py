"""What pip resolved, as constraints: `pip install --dry-run --report - ... | python .ci/lock.py`, in `make lock`."""

import json
import re
import sys

OLDEST = (3, 11)
HEAD = """\
# Versions that `make demo`, `make test` and .ci/run install: made by `make lock`, not by hand. Constraints only: what
# a platform does not need is not installed there, and what only another platform needs is not constrained.
"""


def main() -> None:
    """Writes a line a package to stdout. A version that the oldest Python can have is one that newer ones have too."""
    if sys.version_info[:2] != OLDEST:
        sys.exit(f"make lock: run it with Python {'.'.join(map(str, OLDEST))}: make lock PYTHON=python3.11")
    report = json.load(sys.stdin)
    pins = {}
    for package in report["install"]:
        name = re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower()
        pins[name] = package["metadata"]["version"].partition("+")[0]  # torch's local version is of one index only
    del pins["qtool"]
    pins["pip"] = report["pip_version"]
    sys.stdout.write(HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items())))


if __name__ == "__main__":
    main()
