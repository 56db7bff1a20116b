"""One file in two folders without a second copy, where that changes nothing about the first."""

import os
import shutil
from pathlib import Path

_LINKABLE_MODE = 0o644  # what a finished folder's files get: a link of another mode would change the original's


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, or a copy of it where a link is not possible or would change it."""
    real = source.resolve()
    status = real.stat()
    target.unlink(missing_ok=True)
    if status.st_mode & 0o777 == _LINKABLE_MODE and status.st_uid == os.geteuid():
        try:
            os.link(real, target)
            return
        except OSError:
            pass  # another file system, or one without hard links: copy
    shutil.copyfile(real, target)
