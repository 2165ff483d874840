"""The filter of system calls that a walled process runs under: a program for the kernel (seccomp(2)), made by hand.

It refuses what Docker's profile refuses to a container without rights, and what has been a way out of one: mounting,
namespaces of one's own, modules, the kernel's keys, io_uring. All else is allowed, up to the newest call known here:
one that is invented later is not there. It stays a list of some seventy lines, so that no library has to be
found at run time; libseccomp's own Python binding is not on PyPI, and those that are come without the library.

ptrace stays: debuggers and profilers need it, and the process namespace has nobody else in it. Of 32-bit programs
every call is refused: theirs have other numbers.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

INSTRUCTION = struct.Struct("=HBBI")  # linux/filter.h: code, jump if true, jump if false, value
LOAD, EQUAL, GREATER, ANY_BIT, RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = (
    0,
    4,
    16,
)  # offsets in struct seccomp_data; an argument has 8 bytes, low ones first
ALLOW, REFUSE = 0x7FFF0000, 0x00050000

NEWEST = 469  # file_setattr of Linux 6.17; from 424 on numbers are the same everywhere
NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, -CGROUP, -UTS, -IPC, -USER, -PID, -NET
NEW_PROCESSES = 0x20000000  # CLONE_NEWPID
TO_ENTER = frozenset({"mount", "setns"})  # without rights they do nothing, and nobody gets rights by himself
# With what a fork, which has rights for a moment, may mount on its way in: nothing becomes writable by these.
# MS_RDONLY | NOSUID | NODEV | NOEXEC, MS_BIND, and MS_REMOUNT | MS_BIND with the first.
TO_MOUNT = (0xF, 0x1000, 0x102F)
NEW_TIME = 0x80  # CLONE_NEWTIME, of unshare only: to clone it is a part of a signal's number
VSOCK = 40  # the sockets between a virtual machine and its host
TO_TERMINAL = (0x5412, 0x541C)  # TIOCSTI and TIOCLINUX: to type into a terminal for its user
PERSONALITIES = (
    0x0,
    0x8,
    0x20000,
    0x20008,
    0xFFFFFFFF,
)  # Linux, with old names of it; the last one only asks

EVERYWHERE = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}
X86_64 = {
    "syslog": 103, "uselib": 134, "ustat": 136, "sysfs": 139, "vhangup": 153, "pivot_root": 155, "_sysctl": 156,
    "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168,
    "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172, "ioperm": 173, "create_module": 174,
    "init_module": 175, "delete_module": 176, "get_kernel_syms": 177, "query_module": 178, "quotactl": 179,
    "nfsservctl": 180, "lookup_dcookie": 212, "clock_settime": 227, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "perf_event_open": 298, "fanotify_init": 300, "open_by_handle_at": 304,
    "setns": 308, "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip
AARCH64 = {
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51,
    "vhangup": 58, "quotactl": 60, "acct": 89, "kexec_load": 104, "init_module": 105, "delete_module": 106,
    "clock_settime": 112, "syslog": 116, "reboot": 142, "sethostname": 161, "setdomainname": 162,
    "settimeofday": 170, "add_key": 217, "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225,
    "perf_event_open": 241, "fanotify_init": 262, "open_by_handle_at": 265, "setns": 268, "finit_module": 273,
    "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """`token` is what the kernel calls it (linux/audit.h); the calls are numbers. `refused` are refused always."""

    token: int
    refused: Mapping[str, int]
    clone: int
    unshare: int
    ioctl: int
    personality: int
    socket: int
    clone3: int = 435


MACHINES = {
    "x86_64": Machine(0xC000003E, EVERYWHERE | X86_64, 56, 272, 16, 135, 41),
    "aarch64": Machine(0xC00000B7, EVERYWHERE | AARCH64, 220, 97, 29, 92, 198),
}


def program(machine: str = platform.machine(), entering: bool = False) -> bytes:
    """The filter for a machine as `uname -m` calls it; b"" for one whose numbers are not known here.

    `entering`: one whose forks go behind walls of their own, if they are given them. What it has imported may be
    hostile, and use the rights that such a fork has.
    """
    if machine not in MACHINES:
        return b""
    one = MACHINES[machine]
    refused = {call: number for call, number in one.refused.items() if not (entering and call in TO_ENTER)}
    return b"".join(
        [
            _do(LOAD, ARCHITECTURE),
            _do(EQUAL, one.token, 1, 0),
            _refuse(errno.ENOSYS),
            _do(LOAD, NUMBER),
            _do(GREATER, NEWEST, 0, 1),
            _refuse(errno.ENOSYS),
            *(_of(number, [_refuse(errno.EPERM)]) for number in sorted(refused.values())),
            _of(
                one.clone3, [_refuse(errno.ENOSYS)]
            ),  # its flags cannot be looked at: libc falls back to clone
            _of(one.clone, _unless_any(0, NEW_NAMESPACES)),
            _of(
                one.unshare, _unless_any(0, (NEW_NAMESPACES | NEW_TIME) & ~(NEW_PROCESSES if entering else 0))
            ),
            _of(one.ioctl, _unless_one(1, TO_TERMINAL)),
            _of(one.socket, _unless_one(0, (VSOCK,))),
            *((_of(one.refused["mount"], _if_one(3, TO_MOUNT)),) if entering else ()),
            _of(one.personality, _if_one(0, PERSONALITIES)),
            _do(RETURN, ALLOW),
        ]
    )


def _do(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return INSTRUCTION.pack(code, if_true, if_false, value)


def _refuse(problem: int) -> bytes:
    return _do(RETURN, REFUSE | problem)


def _of(number: int, then: Iterable[bytes]) -> bytes:
    """What is to be done of one call; it ends with a decision."""
    steps = list(then)
    return _do(EQUAL, number, 0, len(steps)) + b"".join(steps)


def _argument(index: int) -> bytes:
    return _do(LOAD, ARGUMENTS + 8 * index)


def _unless_any(index: int, bits: int) -> list[bytes]:
    return [_argument(index), _do(ANY_BIT, bits, 0, 1), _refuse(errno.EPERM), _do(RETURN, ALLOW)]


def _unless_one(index: int, values: tuple[int, ...]) -> list[bytes]:
    tests = [_do(EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [_argument(index), *tests, _do(RETURN, ALLOW), _refuse(errno.EPERM)]


def _if_one(index: int, values: tuple[int, ...]) -> list[bytes]:
    tests = [_do(EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)]
    return [_argument(index), *tests, _refuse(errno.EPERM), _do(RETURN, ALLOW)]
