"""The compiled products of `native*.cpp`: built here once by g++, kept in the user's cache, trusted after a check.

One library for each level of instructions (`levels.py`). They are an extra: without a compiler, on another processor,
or with QTOOL_NATIVE=0 in the environment, torch's own operators do the same work. The source is part of the package;
nothing of a model is ever compiled.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from qtool.errors import CapacityError
from qtool.kernels.cpu.levels import COMMON_FLAGS, LEVELS, Level, chosen_level, lower_levels
from qtool.kernels.cpu.native_structures import refuse_other_sizes

SWITCH = "QTOOL_NATIVE"
_FOLDER = Path(__file__).parent
_HEADERS = ("native.h", "native_inputs.h")
_FLAGS = ("-std=c++17", "-O3", *COMMON_FLAGS, "-ffp-contract=off", "-fPIC", "-fopenmp")
_BUILD_SECONDS = 120
_PATIENCE_SECONDS = 3600  # a compiler that did not finish is not waited for again by every process of the next hour


class CompilerHangs(OSError):
    """g++ did not finish in time: a lower level would be waited for just as long."""


class Native(NamedTuple):
    """The loaded library and its level; None with the `reason` why there is none, or why it is a lower level's."""

    library: Any | None
    reason: str
    level: Level | None = None


@functools.lru_cache(maxsize=1)
def native() -> Native:
    """The compiled products of this machine, built at the first call; of a lower level where a higher cannot be built.

    Raises UsageError where the environment forces a level that there is not.
    """
    if os.environ.get(SWITCH, "1") == "0":
        return Native(None, f"switched off by {SWITCH}=0")
    choice = chosen_level()
    if choice.level is None:
        return Native(None, choice.reason)
    compiler, openmp = shutil.which("g++"), _loaded_openmp()
    if openmp is None:
        return Native(None, "torch brought no GNU OpenMP library")
    reason = ""
    for level in lower_levels(choice.level):
        try:
            return Native(_load(level, compiler, openmp), reason, level)
        except CompilerHangs as error:
            return Native(None, str(error))
        except (OSError, subprocess.SubprocessError, AttributeError) as error:
            reason = reason or str(error).splitlines()[0]
    return Native(None, reason)


def _load(level: Level, compiler: str | None, openmp: Path) -> Any:
    """The library out of the cache, or built into it; out of a folder that is gone at once where no cache can be."""
    kept = _kept(level, openmp)
    if kept.is_file() and _only_ours(kept):
        return _typed(ctypes.CDLL(str(kept)))
    if compiler is None:
        raise OSError("g++ was not found")
    given_up = _given_up(compiler)
    if given_up.is_file() and 0 <= time.time() - given_up.stat().st_mtime < _PATIENCE_SECONDS:
        raise CompilerHangs(f"g++ did not finish within the last hour; remove {given_up} to try it again")
    with tempfile.TemporaryDirectory() as folder:
        try:
            built = _build(level, compiler, openmp, Path(folder))
        except CompilerHangs as error:
            sys.stderr.write(f"qtool: {error}; torch's own operators do the work, more slowly\n")
            _write(given_up, b"")
            raise
        library = _typed(ctypes.CDLL(str(built)))
        _keep(built, kept)
    return library


def build_every_level() -> tuple[str, ...]:
    """Compiles the library of every level into the user's cache, for machines without a compiler; the levels' names.

    Raises CapacityError where one cannot be built.
    """
    compiler, openmp = shutil.which("g++"), _loaded_openmp()
    if compiler is None or openmp is None:
        raise CapacityError(f"{'g++' if compiler is None else 'GNU OpenMP of torch'}: not found; nothing was compiled")
    for level in LEVELS:
        kept = _kept(level, openmp)
        if kept.is_file() and _only_ours(kept):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                _keep(_build(level, compiler, openmp, Path(folder)), kept)
            except (OSError, subprocess.SubprocessError) as error:
                raise CapacityError(f"level {level.name} cannot be compiled: {error}") from error
        if not kept.is_file():
            raise CapacityError(f"{kept.parent}: cannot be written; set XDG_CACHE_HOME to a folder that can")
    return tuple(level.name for level in LEVELS)


def _kept(level: Level, openmp: Path) -> Path:
    """Where the library of `level` is kept, by the digest of all it is made of."""
    names = (*level.sources, *level.own, *_HEADERS)
    sources = b"".join((_FOLDER / name).read_bytes() for name in names)
    digest = hashlib.sha256(sources + repr((_FLAGS, level.defines, level.own_flags, openmp)).encode()).hexdigest()[:24]
    return _cache() / f"{digest}.so"


def _given_up(compiler: str) -> Path:
    """What stands in the cache where this very compiler did not finish: another path or version is tried at once."""
    found = Path(compiler).stat()
    digest = hashlib.sha256(repr((compiler, found.st_size, found.st_mtime_ns)).encode()).hexdigest()[:24]
    return _cache() / f"{digest}.gave-up"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qtool" / "native"


def _keep(built: Path, kept: Path) -> None:
    """Puts the library where the next process finds it; a cache that cannot be written costs a build each time."""
    _write(kept, built.read_bytes())


def _write(kept: Path, content: bytes) -> None:
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as target:
            target.write(content)
        os.replace(target.name, kept)
    except OSError:
        return


def _build(level: Level, compiler: str, openmp: Path, folder: Path) -> Path:
    """The shared library, linked to the very OpenMP that torch uses: two of them would fight for the cores."""
    built = folder / "native.so"
    if sys.stderr.isatty():  # who waits is told why; a log is not
        sys.stderr.write("qtool: compiling its products for this processor, once: about ten seconds\n")
    flags = {name: () for name in level.sources} | dict.fromkeys(level.own, level.own_flags)
    objects = {name: folder / f"{name}.o" for name in flags}
    _run(
        [
            [compiler, *_FLAGS, *level.defines, *own, "-c", str(_FOLDER / name), "-o", str(objects[name])]
            for name, own in flags.items()
        ]
    )
    _run([[compiler, "-shared", *map(str, objects.values()), str(openmp), "-o", str(built)]])
    return built


def _run(commands: list[list[str]]) -> None:
    """Runs commands side by side. Raises OSError with what the first that failed said."""
    with ThreadPoolExecutor(len(commands)) as pool:
        for done in pool.map(_finished, commands):
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
                raise OSError(f"g++ failed: {said}")


def _finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    """One command, ended with all it has started where it takes too long: g++ is a driver of other programs."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            said, complaint = process.communicate(timeout=_BUILD_SECONDS)
        except subprocess.TimeoutExpired:
            for one in (*psutil.Process(process.pid).children(recursive=True), process):
                one.kill()
            raise CompilerHangs(f"g++ did not finish in {_BUILD_SECONDS} seconds") from None
    return subprocess.CompletedProcess(command, process.returncode, said, complaint)


def _typed(library: Any) -> Any:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.qtool_scratch.argtypes = [number] * 3
    library.qtool_scratch.restype = number
    library.qtool_product.argtypes = [pointer, ctypes.c_int, ctypes.c_int]
    library.qtool_product.restype = ctypes.c_int
    library.qtool_widen.argtypes = [pointer, ctypes.c_int, ctypes.c_int, number, number, pointer, number]
    library.qtool_widen.restype = ctypes.c_int
    library.qtool_attend.argtypes = [pointer]
    library.qtool_attend.restype = None
    library.qtool_store.argtypes = [
        pointer, number, number, pointer, pointer, pointer, pointer, number, number, number, ctypes.c_int32
    ]  # fmt: skip
    library.qtool_store.restype = None
    library.qtool_decoder_room.argtypes = [pointer, number]
    library.qtool_decoder_room.restype = number
    library.qtool_decode.argtypes = [pointer, pointer]
    library.qtool_decode.restype = None
    library.qtool_sizes.argtypes = [pointer]
    library.qtool_sizes.restype = None
    refuse_other_sizes(library)
    return library


def _only_ours(path: Path) -> bool:
    """Whether nobody else could have written the file: code is loaded from it."""
    loose = stat.S_IWGRP | stat.S_IWOTH
    return all(found.st_uid == os.getuid() and not found.st_mode & loose for found in (path.stat(), path.parent.stat()))


def _loaded_openmp() -> Path | None:
    """The GNU OpenMP library that torch has loaded into this process."""
    import torch  # noqa: F401  (loads it)

    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    return next((Path(line[line.index("/") :]) for line in lines if "libgomp" in line and "/" in line), None)
