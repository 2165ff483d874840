"""Who says something on a socket, as the kernel tells: a pid as we count, whatever namespace the other is in."""

from __future__ import annotations

import asyncio
import socket
import struct

_CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, user, group


def pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    """Ours, which does not block and is told who speaks, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs


def receive(ours: socket.socket, size: int) -> tuple[bytes, int]:
    """What was said, b"" at the end, and the pid of who said it. Raises OSError, BlockingIOError if it is nothing."""
    said, told, _, _ = ours.recvmsg(size, socket.CMSG_SPACE(_CREDENTIALS.size))
    for level, kind, data in told:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return said, int(_CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0])
    return said, 0


async def readable(ours: socket.socket) -> None:
    """Wait until something is said."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(ours.fileno(), event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(ours.fileno())
