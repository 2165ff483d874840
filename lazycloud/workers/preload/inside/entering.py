"""A fork goes behind walls of its own, which control had bwrap make and left empty.

Three processes come of it. The fork that is called enters all namespaces but that of processes, which nobody can
enter who is not its child; so it makes one, waits for the worker, and ends as that does. The first process of
that namespace only reaps, and ends it when the fork is gone. The worker is the second, and gives up all rights.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from lazycloud.workers.preload.inside.title import Room, strings
else:
    from title import Room, strings

CLONE_NEWPID = 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
PLAIN = MS_NOSUID | MS_NODEV | MS_NOEXEC
PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 24, 38, 47
SECCOMP_MODE_FILTER, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
CAPABILITIES = struct.pack("=Ii6I", 0x20080522, 0, *([0] * 6))  # version 3, this process; none of any kind
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446
SCOPES = struct.pack("=3Q", 0, 0, 3)  # no rules for files and the network; no signals, no abstract sockets
REAPER = "/bin/cat"  # waits for the end of its input, and leaves the dead, whom it ignores, to the kernel

_libc = ctypes.CDLL(None, use_errno=True)


class Walls:
    """What a process that has entered still has to do to itself: see Sandbox.entering."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._filter = bytes.fromhex(told["filter"])
        self._read_only: list[str] = told["read_only"]
        self._empty_files: list[str] = told["empty_files"]
        self._empty_folders: list[str] = told["empty_folders"]

    def enter(self, outer: list[int], inner: list[int], room: Room) -> None:
        """Returns in the worker only. `outer`: namespaces whose mounts may still be changed; `inner`: the last ones.

        Raises OSError, in whichever process.
        """
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
        os.setsid()
        room.write(strings(["lazycloud: waits for a worker"]), b"", "waits")
        for namespace in outer:
            _call("setns", namespace, 0)
        _drop_bounding_set()  # so that the first process has no rights either
        _call("unshare", CLONE_NEWPID)
        hold = _begin_reaper()
        worker = os.fork()
        if worker:
            _wait_for(worker, [number for number in descriptors if number > 2])
        os.close(hold)
        self._show_processes()
        for namespace in inner:
            _call("setns", namespace, 0)
        self._give_up_rights()

    def _show_processes(self) -> None:
        """A /proc of the new namespace, with what bwrap covers of one."""
        _mount("proc", "/proc", "proc", MS_RDONLY | PLAIN)  # the parent's filter allows no other
        covers = [(place, place) for place in self._read_only]
        # A device that may not be opened there.
        covers += [("/dev/null", place) for place in self._empty_files]
        for source, place in covers:
            if os.path.exists(place):
                _mount(source, place, "", MS_BIND)
                _mount("none", place, "", MS_BIND | MS_REMOUNT | MS_RDONLY | PLAIN)
        for place in filter(os.path.exists, self._empty_folders):
            _mount("tmpfs", place, "tmpfs", MS_RDONLY | PLAIN)

    def _give_up_rights(self) -> None:
        _drop_bounding_set()
        _call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        _call("capset", CAPABILITIES[:8], CAPABILITIES[8:])
        _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Who had rights for a moment could else not read his own /proc/self/environ.
        _call("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)
        rules = _libc.syscall(
            ctypes.c_long(LANDLOCK_CREATE_RULESET), SCOPES, ctypes.c_size_t(len(SCOPES)), ctypes.c_uint32(0)
        )
        if rules >= 0:  # else this kernel has none, or knows no scopes
            _call("syscall", LANDLOCK_RESTRICT_SELF, rules, 0)
            os.close(rules)
        if self._filter:
            text = ctypes.create_string_buffer(self._filter, len(self._filter))
            program = struct.pack("@HP", len(self._filter) // 8, ctypes.addressof(text))
            _call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def _begin_reaper() -> int:
    """The first process of the namespace. It ends when what is returned is closed."""
    readable, hold = os.pipe()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # stays so in a program that says nothing else
    try:
        os.posix_spawn(REAPER, ["cat"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, readable, 0)])
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(readable)
    return hold


def _wait_for(worker: int, unneeded: list[int]) -> NoReturn:
    """As the parent of the worker, end as it does: our own parent tells how."""
    for number in unneeded:
        try:
            os.close(number)
        except OSError:
            pass  # it was for the look at which there are
    _, status = os.waitpid(worker, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _drop_bounding_set() -> None:
    number = 0
    while _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) == 0:
        number += 1


def _mount(source: str, place: str, kind: str, flags: int) -> None:
    _call("mount", os.fsencode(source), os.fsencode(place), kind.encode() or None, flags, None)


def _call(name: str, *arguments: Any) -> None:
    """Numbers as the kernel takes them, in whole registers. Raises OSError."""
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if getattr(_libc, name)(*given) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} in {name}")
