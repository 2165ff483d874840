"""What /proc and `ps` tell of this process: the memory into which the kernel wrote its arguments and variables.

A fork shows those of its parent there, whatever it sets later; so they are written over, as setproctitle does,
after `os.environ` has been built anew elsewhere. lazycloud, too, knows processes by /proc/PID/environ.
"""

from __future__ import annotations

import ctypes
import os

PR_SET_NAME, PR_SET_MM, PR_SET_MM_MAP = 15, 35, 14
# Of /proc/self/stat, counted from the field after the name.
START_CODE, END_CODE, START_STACK, START_DATA, END_DATA, START_BRK = 23, 24, 25, 42, 43, 44
ARG_START, ARG_END, ENV_START, ENV_END = 45, 46, 47, 48


class _Map(ctypes.Structure):
    """struct prctl_mm_map; `auxv_size` 0 and `exe_fd` -1 leave those alone."""

    _fields_ = [
        *(
            (name, ctypes.c_uint64)
            for name in (
                "start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack",
                "arg_start", "arg_end", "env_start", "env_end", "auxv",
            )
        ),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    ]  # fmt: skip


class Room:
    """The room there is, which only the start of the process decides."""

    def __init__(self) -> None:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        self._at = [int(field) for field in fields[1:]]
        self._at.insert(0, 0)  # the state, a letter
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.sbrk.restype = ctypes.c_void_p

    def fits(self, arguments: bytes, variables: bytes) -> bool:
        at = self._at
        return (
            0 < len(arguments) <= at[ARG_END] - at[ARG_START]
            and len(variables) <= at[ENV_END] - at[ENV_START]
            and at[ARG_START] > 0
        )

    def write(self, arguments: bytes, variables: bytes, name: str) -> None:
        """Both are NUL-terminated strings that fit; `name` is what the kernel calls the process, 15 bytes of it."""
        at = self._at
        for start, end, text in (
            (at[ARG_START], at[ARG_END], arguments),
            (at[ENV_START], at[ENV_END], variables),
        ):
            ctypes.memset(start, 0, end - start)
            ctypes.memmove(start, text, len(text))
        self._cut(at[ARG_START] + len(arguments), at[ENV_START] + len(variables))
        self._libc.prctl(PR_SET_NAME, os.fsencode(name)[:15], 0, 0, 0)

    def _cut(self, arg_end: int, env_end: int) -> None:
        """Tell the kernel that they are shorter now. Where it does not listen, NULs follow them."""
        at = self._at
        new = _Map(
            start_code=at[START_CODE],
            end_code=at[END_CODE],
            start_data=at[START_DATA],
            end_data=at[END_DATA],
            start_brk=at[START_BRK],
            brk=self._libc.sbrk(0),
            start_stack=at[START_STACK],
            arg_start=at[ARG_START],
            arg_end=arg_end,
            env_start=at[ENV_START],
            env_end=env_end,
            auxv_size=0,
            exe_fd=0xFFFFFFFF,
        )
        self._libc.prctl(
            PR_SET_MM, ctypes.c_ulong(PR_SET_MM_MAP), ctypes.byref(new), ctypes.c_ulong(ctypes.sizeof(new)), 0
        )


def strings(texts: list[str]) -> bytes:
    return b"".join(os.fsencode(text) + b"\0" for text in texts)
