"""Who listens where, from /proc: a port that accepts proves nothing about *whose* process accepts.

/proc/net/tcp lists all listening sockets before any connection (see the kernel's proc_net_tcp.rst), so a
look costs the same on a machine with a hundred thousand connections: it ends at the first of them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TABLES = ((socket.AF_INET, Path("/proc/net/tcp")), (socket.AF_INET6, Path("/proc/net/tcp6")))
LISTENING = "0A"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Listener:
    """A socket that listens; `inode` is its number in the kernel, by which its owners are found."""

    host: Address
    port: int
    inode: int

    @property
    def dial(self) -> str | None:
        """Where to connect from this machine, "127.0.0.1:21733"; None if it is not on loopback."""
        if self.host.is_unspecified:
            return f"127.0.0.1:{self.port}" if self.host.version == 4 else f"[::1]:{self.port}"
        return str(self) if self.host.is_loopback else None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.host.version == 4 else f"[{self.host}]:{self.port}"


def listeners() -> Iterator[Listener]:
    """All listening TCP sockets of this machine, IPv4 before IPv6."""
    for family, table in TABLES:
        with contextlib.suppress(FileNotFoundError), table.open() as lines:  # no IPv6: no table
            next(lines, None)
            for line in lines:
                fields = line.split()
                if fields[3] != LISTENING:
                    break
                host, port = fields[1].split(":")
                yield Listener(_host(family, host), int(port, 16), int(fields[9]))


def owned_by(pids: Iterable[int]) -> set[int]:
    """The inodes of the sockets that these processes have open."""
    return {inode for pid in pids for inode in _sockets(pid)}


def _sockets(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):  # gone, or another user's
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)  # noqa: PTH115 - a thousand of them at each look
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _host(family: socket.AddressFamily, text: str) -> Address:
    """The kernel prints an address as 32-bit words in the machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if family is socket.AF_INET:
        return ipaddress.IPv4Address(packed)
    wide = ipaddress.IPv6Address(packed)
    return wide.ipv4_mapped or wide
