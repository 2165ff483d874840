"""Who listens where, from the kernel: a port that accepts proves nothing about *whose* process accepts.

Asked by sock_diag (see sock_diag(7)), which looks up the listening sockets of one port: 15 to 30 microseconds, where
to read /proc/net/tcp took 2,400 on the same machine, as it goes through a table that grows with memory. That file is
read where the kernel has no sock_diag; it lists all listening sockets first, so a look ends at the first connection.
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

NET = Path("/proc/net")  # our network's
TABLES = ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6"))
LISTENING = "0A"
SOCK_DIAG, SOCK_DIAG_BY_FAMILY, DUMP = 4, 20, 0x301  # linux/netlink.h, linux/sock_diag.h
DONE, FAILED = 3, 2  # kinds of netlink messages
STATES = 1 << 10  # TCP_LISTEN
HEADER = struct.Struct("=IHHII")  # length, kind, flags, sequence, sender
QUESTION = struct.Struct("=BBBBI")  # family, protocol, extensions, -, states; then the socket
SOCKET = struct.Struct("!HH16s16s4s8s")  # port, peer's port, address, peer's, interface, cookie
AFTER = struct.Struct("=5I")  # expires, two queues, owner, inode
ANSWER_PATIENCE = 1.0  # seconds; the kernel answers before the question's call returns
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


def listeners(port: int = 0) -> list[Listener]:
    """The listening TCP sockets of this machine, of one port or of all; IPv4 before IPv6."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as kernel:
            kernel.settimeout(ANSWER_PATIENCE)
            return [one for family, _ in TABLES for one in _asked(kernel, family, port)]
    except OSError:
        return [one for one in listed() if port in (0, one.port)]


def _asked(kernel: socket.socket, family: socket.AddressFamily, port: int) -> Iterator[Listener]:
    nobody = SOCKET.pack(port, 0, b"", b"", b"", b"\xff" * 8)
    question = QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, STATES) + nobody
    kernel.send(HEADER.pack(HEADER.size + len(question), SOCK_DIAG_BY_FAMILY, DUMP, 0, 0) + question)
    while True:
        answer = memoryview(kernel.recv(1 << 16))
        while answer:
            length, kind, *_ = HEADER.unpack_from(answer)
            if kind == DONE:
                return
            if kind == FAILED:
                raise OSError("the kernel has no sock_diag for TCP")
            yield _listener(family, answer[HEADER.size : length])
            answer = answer[(length + 3) & ~3 :]


def _listener(family: socket.AddressFamily, told: memoryview) -> Listener:
    """From a struct inet_diag_msg."""
    port, _, host, *_ = SOCKET.unpack_from(told, 4)
    *_, inode = AFTER.unpack_from(told, 4 + SOCKET.size)
    return Listener(_address(host[:4] if family is socket.AF_INET else host), port, inode)


def listed(net: Path = NET) -> Iterator[Listener]:
    """As the tables of a network list them: of ours, or of a process's. Raises OSError if they may not be read."""
    for _, table in TABLES:
        with contextlib.suppress(FileNotFoundError), (net / table).open() as lines:  # no IPv6: no table
            next(lines, None)
            for line in lines:
                fields = line.split()
                if fields[3] != LISTENING:
                    break
                host, port = fields[1].split(":")
                yield Listener(_host(host), int(port, 16), int(fields[9]))


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process began, and those that they began; not those that it lost. In no order.

    Some microseconds each, where a look through all of /proc takes milliseconds.
    """
    waiting = [pid]
    while waiting:
        with contextlib.suppress(OSError):  # gone meanwhile
            for thread in os.scandir(f"/proc/{waiting.pop()}/task"):
                with contextlib.suppress(OSError):
                    children = [int(word) for word in Path(thread.path, "children").read_text().split()]
                    waiting += children
                    yield from children


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


def _host(text: str) -> Address:
    """/proc prints an address as 32-bit words in the machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return _address(struct.pack(f"={len(words)}I", *words))


def _address(packed: bytes) -> Address:
    if len(packed) == 4:
        return ipaddress.IPv4Address(packed)
    wide = ipaddress.IPv6Address(packed)
    return wide.ipv4_mapped or wide
