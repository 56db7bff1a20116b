"""Folders that are finished or do not exist: written aside, manifest last, committed by one atomic rename."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from qtool.errors import StoreError
from qtool.store.codec import to_json

_PARTIAL_SUFFIX = ".partial"
_LOCK_NAME = ".lock"
_LONGEST_NAME = 240  # 255 for the file system, less what the lock and the partial folder add


@contextlib.contextmanager
def new_folder(target: Path, *, resume: bool = False, replace: bool = False) -> Iterator[Path]:
    """Yields a working folder beside `target`; on success it becomes `target`, on failure `target` is untouched.

    With `resume`, work that an earlier killed run left is kept and handed out again, and a failure keeps it too;
    otherwise each run starts empty and a failure leaves nothing. The caller writes its manifest last, inside. An
    existing `target` is refused unless `replace` is set. Raises StoreError when the disk is full, read-only, or another
    process is writing the same folder.
    """
    refuse_output(target, replace=replace)
    partial = target.with_name(target.name + _PARTIAL_SUFFIX)
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock"), holds=str(target)):
        if partial.exists() and not resume:
            with explained(partial):
                shutil.rmtree(partial)
        with explained(target):
            partial.mkdir(exist_ok=True)
        try:
            with explained(target):
                yield partial
                _sync_tree(partial)
                _swap(partial, target)
        except BaseException:
            if not resume:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def refuse_output(target: Path, *, replace: bool = False) -> None:
    """Raises StoreError where nothing can be written to `target`: for the time before any work is done."""
    with explained(target):
        if target.is_symlink() and not target.exists():
            raise StoreError(f"{target}: is a link to nowhere; remove it or choose another output folder")
        if target.exists() and not replace:
            raise StoreError(f"{target}: already exists; choose another output folder or remove it first")
        above = next((folder for folder in target.absolute().parents if folder.exists()), Path("/"))
        if not above.is_dir():
            raise StoreError(f"{target}: {above} is a file, so no folder can be made in it")
        if not os.access(above, os.W_OK):
            raise StoreError(f"{target}: {above} cannot be written to; choose another output folder")
        if len(target.name.encode()) > _LONGEST_NAME:
            raise StoreError(f"{target}: the name is longer than {_LONGEST_NAME} bytes; choose a shorter one")


@contextlib.contextmanager
def locked(path: Path, *, holds: str) -> Iterator[None]:
    """Holds an exclusive lock file for the duration; the lock dies with the process, however it dies.

    Raises StoreError naming `holds` when another process has it.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+")
    try:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{holds}: another qtool process is writing here; wait for it or stop it") from error
        if not path.exists() or path.stat().st_ino != os.fstat(stream.fileno()).st_ino:
            # the holder we raced with removed the file between our open and our lock
            raise StoreError(f"{holds}: another qtool process has just finished here; run the same command again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        stream.close()


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text` atomically: a reader sees the old or the new file, never a part."""
    partial = path.with_name(path.name + _PARTIAL_SUFFIX)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)


def write_record(path: Path, record: object) -> None:
    """Replaces `path` by the canonical JSON of `record`, atomically."""
    write_text(path, to_json(record))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns operating-system errors inside into one StoreError about `path` that says what to do."""
    try:
        yield
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full; free some space and run the same command again",
            errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
            errno.EROFS: "the file system is read-only; choose another output folder",
            errno.EACCES: "permission denied; choose a folder you may write to",
            errno.EPERM: "permission denied; choose a folder you may write to",
        }.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
        raise StoreError(f"{path}: {advice}") from error


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(0o644)  # safetensors and transformers write 0600, which a server's own user cannot read
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _swap(partial: Path, target: Path) -> None:
    if target.exists():
        retired = target.with_name(target.name + ".retired")
        shutil.rmtree(retired, ignore_errors=True)
        target.rename(retired)
        partial.rename(target)
        shutil.rmtree(retired)
    else:
        partial.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
