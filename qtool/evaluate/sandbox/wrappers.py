"""The command lines of the sandboxes: what each is told so that nothing but a read-only system and /tmp is there."""

import functools
import itertools
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_NOBODY = 65534
_USERS = 256  # user ids of one process of ours, taken in turn
_counter = itertools.count()
_SHARED = ("confine", "wire")
_OWN = {"judge": ("remote",), "program": ()}
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use. CPU time is what ends a loop; wall time is generous, for machines that are busy."""

    wall_seconds: float = 30.0
    cpu_seconds: int = 5
    memory_bytes: int = 512 << 20
    file_bytes: int = 8 << 20
    tmp_bytes: int = 16 << 20
    open_files: int = 32
    processes: int = 8


USUAL = Limits()


def bubblewrap(root: str, limits: Limits) -> list[str]:
    """bwrap; as root it keeps the right to become another user, which `confine.py` does at once."""
    binds, links = _system()
    argv = ["bwrap", "--die-with-parent", "--new-session", "--clearenv", "--unshare-ipc", "--unshare-pid"]
    argv += ["--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    argv += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if os.geteuid() == 0 else ["--unshare-user"]
    for path in binds:
        for above in reversed(Path(path).parents[:-1]):  # bwrap makes them unreadable to all but root
            argv += ["--perms", "0755", "--dir", str(above)]
        argv += ["--ro-bind", path, path]
    for link, target in links.items():
        argv += ["--symlink", target, link]
    argv += ["--dev", "/dev", "--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", "/tmp"]
    return [*argv, "--chdir", "/tmp"]


def nsjail(root: str, limits: Limits) -> list[str]:
    """nsjail, which makes every namespace, drops every capability and the environment unless told otherwise.

    Its own limits are put aside ("def": as they are), since `confine.py` sets ours.
    """
    binds, links = _system()
    outside = unprivileged() if os.geteuid() == 0 else os.geteuid()
    group = unprivileged() if os.geteuid() == 0 else os.getegid()
    argv = ["nsjail", "-Mo", "--quiet", "--disable_proc", "--iface_no_lo", "--cwd", "/tmp"]
    argv += ["--user", f"{_NOBODY}:{outside}:1", "--group", f"{_NOBODY}:{group}:1"]
    argv += ["--time_limit", str(math.ceil(limits.wall_seconds) + 5)]  # ours ends it before, and knows why
    for name in ("as", "cpu", "fsize", "nofile", "nproc"):
        argv += [f"--rlimit_{name}", "def"]
    for path in binds:
        argv += ["--bindmount_ro", path]
    for device in _DEVICES:
        argv += ["--bindmount", device]
    for link, target in links.items():
        argv += ["--symlink", f"{target}:{link}"]
    return [*argv, "--mount", f"none:/tmp:tmpfs:size={limits.tmp_bytes},mode=1777", "--"]


def namespaces(root: str, limits: Limits) -> list[str]:
    """Our own launcher, which asks the kernel directly."""
    binds, links = _system()
    order = {
        "root": root,
        "binds": [*binds, *_DEVICES],
        "links": links,
        "tmp_bytes": limits.tmp_bytes,
        "drop_to": unprivileged() if os.geteuid() == 0 else None,
    }
    return [sys.executable, "-I", "-S", "-c", source("launcher.py"), json.dumps(order)]


def python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(sys.executable)


def unprivileged() -> int:
    """A user id that owns nothing, another at each call, so that limits on processes do not add up."""
    with open("/proc/self/uid_map", encoding="ascii") as stream:
        _, _, count = stream.readline().split()
    own = (os.getpid() % (1 << 21)) * _USERS + next(_counter) % _USERS
    return _NOBODY if int(count) < 1 << 31 else 1_000_000_000 + own


def source(name: str) -> str:
    """The text of a program of this folder, to be started with `python -c`."""
    return (_HERE / name).read_text(encoding="utf-8")


@functools.cache
def side(name: str) -> str:
    """A text for `python -c` that runs the `main` of a module here, with those it imports: no file of ours is there."""
    package = __name__.rpartition(".")[0]
    modules = {f"{package}.{each}": source(f"{each}.py") for each in (*_SHARED, *_OWN[name], name)}
    lines = [
        "import sys, types",
        f"for name, text in {modules!r}.items():",
        "    module = sys.modules[name] = types.ModuleType(name)",
        "    exec(compile(text, name, 'exec'), module.__dict__)",
        "module.main()",
    ]
    return "\n".join(lines)


def _system() -> tuple[list[str], dict[str, str]]:
    """Folders a Python needs to start, and the links among the top-level folders that lead to them."""
    binds, links = ["/usr"], {}
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        if os.path.islink(name):
            links[name] = os.readlink(name)
        elif os.path.isdir(name):
            binds.append(name)
    for prefix in {os.path.realpath(sys.base_prefix), str(Path(python()).parent)}:
        if not any(prefix == path or prefix.startswith(path + "/") for path in binds):
            binds.append(prefix)
    if os.path.isfile("/etc/ld.so.cache"):
        binds.append("/etc/ld.so.cache")
    return binds, links
