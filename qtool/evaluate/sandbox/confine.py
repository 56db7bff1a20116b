"""What judge and program take upon themselves before anything else: limits, another user, no way to more rights.

Stdlib only; it runs inside the sandbox, in the process that is about to run foreign code.
"""

import ctypes
import os
import resource
import struct
from typing import Any

_DENIED = {  # system calls that make namespaces, look into others, or reach rarely tested parts of the kernel
    "x86_64": (272, 308, 165, 166, 155, 161, 101, 310, 311, 250, 248, 249, 321, 298, 323, 425, 426, 427, 175, 313,
               176, 246, 320, 169, 428, 429, 430, 431, 432, 433, 442, 304, 303, 312, 438),
    "aarch64": (97, 268, 40, 39, 41, 51, 117, 270, 271, 219, 217, 218, 280, 241, 282, 425, 426, 427, 105, 273,
                106, 104, 294, 142, 428, 429, 430, 431, 432, 433, 442, 265, 264, 272, 438),
}  # fmt: skip
# unshare setns mount umount2 pivot_root chroot ptrace process_vm_readv process_vm_writev keyctl add_key request_key bpf
# perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register init_module finit_module delete_module
# kexec_load kexec_file_load reboot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
# open_by_handle_at name_to_handle_at kcmp pidfd_getfd
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone itself takes
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_EPERM, _ENOSYS = 1, 38
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2


def confine(limits: dict[str, int], drop_to: int | None) -> None:
    """Takes on `limits`, becomes user `drop_to` where given, and refuses itself what no program of ours needs."""
    _drop_root(drop_to)
    _filter_calls()
    os.environ.clear()
    for name, value in (
        ("RLIMIT_CPU", limits["cpu_seconds"]),
        ("RLIMIT_AS", limits["memory_bytes"]),
        ("RLIMIT_FSIZE", limits["file_bytes"]),
        ("RLIMIT_NOFILE", limits["open_files"]),
        ("RLIMIT_NPROC", limits["processes"]),
        ("RLIMIT_CORE", 0),
    ):
        hard = value + 1 if name == "RLIMIT_CPU" else value  # the soft limit ends it by SIGXCPU, which tells why
        resource.setrlimit(getattr(resource, name), (value, hard))


def silence() -> None:
    """Points stdout and stderr nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def _drop_root(drop_to: int | None) -> None:
    """Becomes user `drop_to`, which owns nothing; the kernel does not limit the number of root's processes."""
    if drop_to is None:
        return
    os.setgroups([])
    os.setresgid(drop_to, drop_to, drop_to)
    os.setresuid(drop_to, drop_to, drop_to)


def _filter_calls() -> None:
    """Refuses (EPERM) the calls of `_DENIED`, and threads or processes in namespaces of their own."""
    machine = os.uname().machine
    if machine not in _DENIED:
        return  # numbers of this processor are not known here; the namespaces around still hold
    program = _rules(machine)
    code = b"".join(struct.pack("HBBI", *rule) for rule in program)
    held = ctypes.create_string_buffer(code, len(code))

    class Filter(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("rules", ctypes.c_void_p))

    libc = ctypes.CDLL(None, use_errno=True)
    wanted = Filter(len(program), ctypes.addressof(held))
    refused = libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(wanted), 0, 0)
    if refused:
        raise OSError(ctypes.get_errno(), "seccomp")


def _rules(machine: str) -> list[tuple[int, int, int, int]]:
    """A classic BPF program over seccomp's record: number at 0, architecture at 4, first argument at 16."""
    rules: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, _ARCHITECTURE[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":  # the x32 interface has the same calls under other numbers
        rules += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE | _EPERM)]
    for number in _DENIED[machine]:
        rules += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE | _EPERM)]
    rules += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _REFUSE | _ENOSYS)]  # libc falls back to clone
    rules += [(_EQUAL, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, 16)]
    rules += [(_ANY_BIT, 0, 1, _NEW_NAMESPACES), (_RETURN, 0, 0, _REFUSE | _EPERM)]
    return [*rules, (_RETURN, 0, 0, _ALLOW)]


def start(peer: Any) -> dict[str, Any]:
    """The order that comes first on the channel, after it has been obeyed as far as limits go."""
    order: dict[str, Any] = peer.receive()
    confine(order["limits"], order["drop_to"])
    return order
