"""The wall between workers' ports: a worker listens on its own, and reaches no other worker's.

Workers share the machine's network. Four programs of the kernel's own kind (BPF) hang on a worker's group in the v2
hierarchy and are asked at each bind and connect: some ten instructions, once for a connection and never for what is
sent over it. They are written here by hand, so that no compiler and no library is needed. Routers and control are
outside of these groups and reach all. To load them takes root's rights.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from lazycloud.findings import Finding, Weight
from lazycloud.walls.groups import Group, Groups
from lazycloud.workforce import Limits

CALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
"""The number of the system call bpf(2)."""

PROG_LOAD, PROG_ATTACH = 5, 8
CGROUP_SOCK_ADDR = 18  # the type of the programs
BIND4, BIND6, CONNECT4, CONNECT6 = 8, 9, 10, 11  # where they are attached
ALLOW_MULTI = 2  # beside those of others
IP4, IP6, PORT = 4, 8, 24  # offsets in struct bpf_sock_addr: what is bound or connected to, in network order
MOST_ADDRESSES = 64  # of the machine that a program knows: it grows with each
LOOPBACK6 = bytes(15) + b"\1"
MAPPED = struct.unpack("=I", b"\0\0\xff\xff")[0]  # the third word of ::ffff:0:0/96, addresses of IPv4 in IPv6
# Of the kernel where it allows no wall.
NO_RIGHT = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)


@dataclass(frozen=True)
class Wall:
    """`workers`: the ports of workers; `kept`: those on which the server itself listens.

    `networks`: where only workers are, which nobody behind the wall connects to, whatever the port.
    """

    workers: range
    kept: tuple[int, ...] = ()
    networks: tuple[IPv4Network, ...] = ()

    def attach(self, group: Group, own: int, reaches: Sequence[int] = ()) -> None:
        """From now on, what runs in the group may use only `own` of these ports; 0 for none. Raises OSError.

        It may connect, and only that, to those it `reaches`, too: of servers that are its own.
        """
        if group.unified is None:
            raise OSError(errno.ENOTSUP, "it is in no hierarchy of version 2")
        folder = os.open(group.unified, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for place, code in self.programs(own, addresses(), reaches):
                program = _load(place, code)
                try:
                    _attach(folder, program, place)
                finally:
                    os.close(program)
        finally:
            os.close(folder)

    def try_attach(self, group: Group, own: int, reaches: Sequence[int] = ()) -> str:
        """The same. Why the kernel allows no wall here, "" if it does; raises OSError for all else."""
        try:
            self.attach(group, own, reaches)
        except OSError as problem:
            if problem.errno not in NO_RIGHT:
                raise
            return str(problem.strerror)
        return ""

    def programs(
        self, own: int, local: Sequence[bytes], reaches: Sequence[int] = ()
    ) -> list[tuple[int, bytes]]:
        """What to attach where. `local`: addresses of this machine beside loopback, of 4 or 16 bytes."""
        four = [one for one in local if len(one) == 4][:MOST_ADDRESSES]
        six = [one for one in local if len(one) == 16][:MOST_ADDRESSES]
        bind = self._bind(own)
        return [
            (BIND4, bind),
            (BIND6, bind),
            (CONNECT4, self._connect((own, *reaches), Code.within4(self.networks), Code.ours4(four))),
            (CONNECT6, self._connect((own, *reaches), Code.within6(self.networks), Code.ours6(four, six))),
        ]

    def _bind(self, own: int) -> bytes:
        code = Code()
        code.port()
        code.equal(own, "allow")
        for port in self.kept:  # which others may share where SO_REUSEPORT is set
            code.equal(port, "refuse")
        code.outside(self.workers, "allow")
        return code.end("refuse")

    def _connect(self, allowed: Sequence[int], elsewhere: Code, ours: Code) -> bytes:
        code = Code()
        code.followed_by(elsewhere)
        code.port()
        for port in allowed:
            code.equal(port, "allow")
        code.outside(self.workers, "allow")
        return code.followed_by(ours).end("allow")


class Code:
    """A program in the making: instructions, and jumps to the two ends, which are filled in by `end`.

    Register 1 holds the question, 2 the port, 3 what is being compared.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, int, int, int | str, int]] = []  # code, to, from, offset or label, value
        self._labels: dict[str, int] = {}

    @classmethod
    def ours4(cls, local: Iterable[bytes]) -> Code:
        """Refuse if the address of IPv4 is this machine's."""
        code = cls()
        code._address4(IP4, local)
        return code

    @classmethod
    def ours6(cls, local4: Iterable[bytes], local6: Iterable[bytes]) -> Code:
        """The same of IPv6, and of IPv4 within it."""
        code = cls()
        for number, address in enumerate([LOOPBACK6, bytes(16), *local6]):
            for at, word in enumerate(struct.unpack("=4I", address)):
                code._load(IP6 + 4 * at)
                code._unequal(word, f"next {number}")
            code._jump("refuse")
            code._label(f"next {number}")
        code._unless_mapped("allow")
        code._address4(IP6 + 12, local4)
        return code

    @classmethod
    def within4(cls, networks: Iterable[IPv4Network]) -> Code:
        """Refuse if the address of IPv4 is of one of those."""
        code = cls()
        code._within(IP4, networks)
        return code

    @classmethod
    def within6(cls, networks: Iterable[IPv4Network]) -> Code:
        """The same of IPv4 within IPv6."""
        code = cls()
        code._unless_mapped("no IPv4")
        code._within(IP6 + 12, networks)
        code._label("no IPv4")
        return code

    def port(self) -> None:
        self._add(0x61, to=2, source=1, offset=PORT)
        self._add(0xDC, to=2, value=16)  # from network order

    def equal(self, port: int, label: str) -> None:
        self._add(0x16, to=2, offset=label, value=port)

    def outside(self, ports: range, label: str) -> None:
        self._add(0xA6, to=2, offset=label, value=ports.start)
        self._add(0x26, to=2, offset=label, value=ports.stop - 1)

    def followed_by(self, other: Code) -> Code:
        labels = {name: at + len(self._steps) for name, at in other._labels.items()}
        self._steps += other._steps
        self._labels |= labels
        return self

    def end(self, otherwise: str) -> bytes:
        """As the kernel takes it: returns 1 at "allow", and 0, which is EPERM, at "refuse"."""
        self._jump(otherwise)
        for label, answer in (("allow", 1), ("refuse", 0)):
            self._label(label)
            self._add(0xB7, value=answer)
            self._add(0x95)
        packed = []
        for at, (code, to, source, offset, value) in enumerate(self._steps):
            if isinstance(offset, str):
                offset = self._labels[offset] - at - 1
            signed = value - (1 << 32) if value >= 1 << 31 else value
            packed.append(struct.pack("=BBhi", code, source << 4 | to, offset, signed))
        return b"".join(packed)

    def _address4(self, offset: int, local: Iterable[bytes]) -> None:
        self._load(offset)
        for address in (bytes(4), *local):
            self._add(0x16, to=3, offset="refuse", value=struct.unpack("=I", address)[0])
        self._add(0x54, to=3, value=struct.unpack("=I", b"\xff\0\0\0")[0])
        self._add(0x16, to=3, offset="refuse", value=struct.unpack("=I", b"\x7f\0\0\0")[0])

    def _unless_mapped(self, label: str) -> None:
        """Go there if the address of IPv6 is none of IPv4 within it."""
        for at, word in enumerate((0, 0, MAPPED)):
            self._load(IP6 + 4 * at)
            self._unequal(word, label)

    def _within(self, offset: int, networks: Iterable[IPv4Network]) -> None:
        for one in networks:
            mask, network = (
                struct.unpack("=I", each.packed)[0] for each in (one.netmask, one.network_address)
            )
            self._load(offset)
            self._add(0x54, to=3, value=mask)
            self._add(0x16, to=3, offset="refuse", value=network)

    def _load(self, offset: int) -> None:
        self._add(0x61, to=3, source=1, offset=offset)

    def _unequal(self, word: int, label: str) -> None:
        self._add(0x56, to=3, offset=label, value=word)

    def _jump(self, label: str) -> None:
        self._add(0x05, offset=label)

    def _label(self, name: str) -> None:
        self._labels[name] = len(self._steps)

    def _add(self, code: int, to: int = 0, source: int = 0, offset: int | str = 0, value: int = 0) -> None:
        self._steps.append((code, to, source, offset, value))


def _load(place: int, code: bytes) -> int:
    text = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"MIT")
    fields = struct.pack(
        "=IIQQIIQII16sII",
        CGROUP_SOCK_ADDR,
        len(code) // 8,
        ctypes.addressof(text),
        ctypes.addressof(licence),
        0, 0, 0, 0, 0,
        b"lazycloud_port",
        0,
        place,
    )  # fmt: skip
    return _bpf(PROG_LOAD, fields)


def _attach(folder: int, program: int, place: int) -> None:
    _bpf(PROG_ATTACH, struct.pack("=IIII", folder, program, place, ALLOW_MULTI))


def _bpf(command: int, fields: bytes) -> int:
    number = CALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"lazycloud does not know bpf(2) of {platform.machine()}")
    room = ctypes.create_string_buffer(fields, len(fields))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(ctypes.c_long(number), ctypes.c_int(command), room, ctypes.c_uint(len(fields))))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def addresses(net: Path = Path("/proc/net")) -> list[bytes]:
    """The machine's own addresses beside 127.0.0.0/8 and ::1; a worker on all of them is reached by each."""
    found: dict[bytes, None] = {}
    with contextlib.suppress(OSError, ValueError):
        last = ""
        for line in (net / "fib_trie").read_text().splitlines():
            words = line.split()
            if "/32 host LOCAL" in line:
                found[socket.inet_aton(last)] = None
            elif words and words[0] == "|--":
                last = words[1]
    with contextlib.suppress(OSError, ValueError):
        for line in (net / "if_inet6").read_text().splitlines():
            found[bytes.fromhex(line.split()[0])] = None
    return [one for one in found if one[:1] != b"\x7f" and one != LOOPBACK6]


def missing(groups: Groups) -> str:
    """Why there can be no such wall here; "" if there can."""
    try:
        group = groups.make("trial of the wall", Limits())
        if group is None:
            return "no control groups can be made here"
        try:
            Wall(range(20_000, 30_000)).attach(group, 20_000)
        finally:
            groups.drop(group)
    except OSError as problem:
        return problem.strerror or str(problem)
    return ""


def findings(home: Path) -> list[Finding]:
    """Whether workers are kept from each other's ports on this machine."""
    groups = Groups(home, purpose="doctor")
    try:
        why = missing(groups)
    finally:
        groups.close()
    if not why:
        return [
            Finding(Weight.FINE, "port wall", "A worker can neither listen on another's port nor reach it.")
        ]
    return [
        Finding(
            Weight.UNSAFE,
            "port wall",
            f"Workers can reach each other's ports, and listen on them while they are free ({why}).",
            "The kernel lets only root keep them apart, where control groups of version 2 are mounted.",
        )
    ]
