"""Levels of x86 instructions: which the compiled products of this machine are built for, and why."""

import functools
import os
import platform
from pathlib import Path
from typing import NamedTuple

from qtool.errors import UsageError

FORCED = "QTOOL_CPU"
_COMMON = ("native.cpp", "native_avx2.cpp", "native_attention.cpp", "native_decoder.cpp")
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni")


class Level(NamedTuple):
    """What a level needs of the processor (names of /proc/cpuinfo), and how its library is built: flags for all
    sources, and those `own` to the level with their flags."""

    name: str
    needs: frozenset[str]
    defines: tuple[str, ...]
    sources: tuple[str, ...]
    own: tuple[str, ...]
    own_flags: tuple[str, ...]
    remark: str


_AVX512_NEEDS = frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"})
LEVELS = (
    Level(
        "amx",
        _AVX512_NEEDS | {"amx_tile", "amx_int8", "amx_bf16"},
        ("-DQTOOL_AVX512",),
        _COMMON,
        ("native_avx512.cpp",),
        _AVX512,
        "AVX512 with VNNI for few rows; torch's operators, which use AMX tiles, for many",
    ),
    Level(
        "avx512",
        _AVX512_NEEDS,
        ("-DQTOOL_AVX512",),
        _COMMON,
        ("native_avx512.cpp",),
        _AVX512,
        "512-bit vectors with VNNI",
    ),
    Level("avx2", frozenset({"avx2", "fma"}), (), _COMMON, (), (), "256-bit vectors with FMA"),
)
COMMON_FLAGS = _AVX2


class Choice(NamedTuple):
    """The level to use, None with the `reason` why there is none; or why it is not the processor's best."""

    level: Level | None
    reason: str


def chosen_level() -> Choice:
    """The highest level that processor and system allow, or the lower one that the environment forces.

    Raises UsageError for a forced level that does not exist or that this processor lacks.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return Choice(None, "they are written for Linux on x86-64")
    flags = processor_flags()
    possible = [level for level in LEVELS if level.needs <= flags]
    forced = os.environ.get(FORCED, "")
    if forced:
        names = [level.name for level in LEVELS]
        if forced not in names:
            raise UsageError(f"{FORCED}={forced}: there is no such level; use one of {', '.join(names)}")
        found = next((level for level in possible if level.name == forced), None)
        if found is None:
            missing = next(level for level in LEVELS if level.name == forced).needs - flags
            raise UsageError(f"{FORCED}={forced}: this processor has no {', no '.join(sorted(missing))}; unset it")
        return Choice(found, f"forced by {FORCED}")
    if not possible:
        return Choice(None, f"the processor has no {' and no '.join(sorted(LEVELS[-1].needs - flags))}")
    return Choice(possible[0], "")


def lower_levels(level: Level) -> tuple[Level, ...]:
    """This level and those below it, best first."""
    return LEVELS[LEVELS.index(level) :]


@functools.lru_cache(maxsize=1)
def processor_flags() -> frozenset[str]:
    """What the system says this processor can do. Linux lists an instruction only where it saves its registers."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split() for line in lines if line.startswith(("flags", "Features"))), ()))
