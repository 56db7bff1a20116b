"""The compiled products of `native*.cpp`: built here once by g++, kept in the user's cache, trusted after a check.

They are an extra: without a compiler, on another processor, or with QTOOL_NATIVE=0 in the environment, torch's own
operators do the same work. The source is part of the package; nothing of a model is ever compiled.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

SWITCH = "QTOOL_NATIVE"
_SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("native.cpp", "native_attention.cpp", "native_decoder.cpp")
)
_HEADER = Path(__file__).with_name("native.h")
_FLAGS = ("-std=c++17", "-O3", "-mavx2", "-mfma", "-ffp-contract=off", "-fPIC", "-fopenmp")
_BUILD_SECONDS = 120


class Native(NamedTuple):
    """The loaded library; None with the `reason` why there is none."""

    library: Any | None
    reason: str


@functools.lru_cache(maxsize=1)
def native() -> Native:
    """The compiled products of this machine, built at the first call."""
    if os.environ.get(SWITCH, "1") == "0":
        return Native(None, f"switched off by {SWITCH}=0")
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return Native(None, "they are written for Linux on x86-64")
    missing = {"avx2", "fma"} - _processor_flags()
    if missing:
        return Native(None, f"the processor has no {' and no '.join(sorted(missing))}")
    compiler, openmp = shutil.which("g++"), _loaded_openmp()
    if openmp is None:
        return Native(None, "torch brought no GNU OpenMP library")
    try:
        return Native(_load(compiler, openmp), "")
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        return Native(None, str(error).splitlines()[0])


def _load(compiler: str | None, openmp: Path) -> Any:
    """The library out of the cache, or built into it; out of a folder that is gone at once where no cache can be."""
    sources = b"".join(source.read_bytes() for source in (*_SOURCES, _HEADER))
    digest = hashlib.sha256(sources + repr((_FLAGS, openmp)).encode()).hexdigest()[:24]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qtool" / "native"
    kept = cache / f"{digest}.so"
    if kept.is_file() and _only_ours(kept):
        return _typed(ctypes.CDLL(str(kept)))
    if compiler is None:
        raise OSError("g++ was not found")
    with tempfile.TemporaryDirectory() as folder:
        built = _build(compiler, openmp, Path(folder))
        library = _typed(ctypes.CDLL(str(built)))
        _keep(built, kept)
    return library


def _keep(built: Path, kept: Path) -> None:
    """Puts the library where the next process finds it; a cache that cannot be written costs a build each time."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as target:
            target.write(built.read_bytes())
        os.replace(target.name, kept)
    except OSError:
        return


def _build(compiler: str, openmp: Path, folder: Path) -> Path:
    """The shared library, linked to the very OpenMP that torch uses: two of them would fight for the cores."""
    built, compiled = folder / "native.so", [folder / f"{source.stem}.o" for source in _SOURCES]
    if sys.stderr.isatty():  # who waits is told why; a log is not
        sys.stderr.write("qtool: compiling its products for this processor, once: about ten seconds\n")
    _run([[compiler, *_FLAGS, "-c", str(s), "-o", str(o)] for s, o in zip(_SOURCES, compiled, strict=True)])
    _run([[compiler, "-shared", *map(str, compiled), str(openmp), "-o", str(built)]])
    return built


def _run(commands: list[list[str]]) -> None:
    """Runs commands side by side. Raises OSError with what the first that failed said."""
    with ThreadPoolExecutor(len(commands)) as pool:
        for done in pool.map(_finished, commands):
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
                raise OSError(f"g++ failed: {said}")


def _finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)


def _typed(library: Any) -> Any:
    library.qtool_scratch.argtypes = [ctypes.c_int64] * 3
    library.qtool_scratch.restype = ctypes.c_int64
    library.qtool_product.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    library.qtool_product.restype = ctypes.c_int
    return library


def _only_ours(path: Path) -> bool:
    """Whether nobody else could have written the file: code is loaded from it."""
    loose = stat.S_IWGRP | stat.S_IWOTH
    return all(found.st_uid == os.getuid() and not found.st_mode & loose for found in (path.stat(), path.parent.stat()))


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _loaded_openmp() -> Path | None:
    """The GNU OpenMP library that torch has loaded into this process."""
    import torch  # noqa: F401  (loads it)

    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    return next((Path(line[line.index("/") :]) for line in lines if "libgomp" in line and "/" in line), None)
