"""The nodes of a tree: immutable, known by an integer, kept by whoever has a `Nodes`.

A leaf has keys and their values; an inner node has children, each with the least key that may be below it (the first
child's is not looked at) and how many entries are below it. Encoded as MessagePack, [0, keys, values] or
[1, keys, children, counts], after the CRC-32 of that in four bytes, so that no bit of it changes unnoticed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

import msgspec

from lazycloud.errors import LazycloudError

SIZE = 2048  # bytes of an encoded node, at most, unless it has one entry only
SMALL = 512  # bytes below which it is joined with a neighbour
OVERHEAD = 6  # bytes that an entry takes beside its key and value, about
REFERENCE = 8  # bytes of a child's number and count, about


class Leaf(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    keys: list[bytes]
    values: list[bytes]


class Inner(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    keys: list[bytes]
    children: list[int]
    counts: list[int]


class Damaged(LazycloudError):
    """A node that is not there, or is not as it was written. What does not need it goes on."""


Node = Leaf | Inner

_decoder: msgspec.msgpack.Decoder[Node] = msgspec.msgpack.Decoder(Leaf | Inner)
_encoder = msgspec.msgpack.Encoder()


class Nodes(Protocol):
    """Where nodes are read from, and made. A node that was made can be read at once."""

    def read(self, number: int) -> Node:
        """Raises Damaged for one that is not there (it was collected, or the database lost it) or cannot be read."""

    def fetch(self, numbers: Sequence[int]) -> int:
        """Have ready what will be read soon; how many had to be fetched. What cannot be is left to `read`."""

    def make(self, node: Node) -> int: ...

    def discard(self, number: int) -> None:
        """A node is not needed if it was made since the last commit: nobody else can know it."""


def encode(node: Node) -> bytes:
    data = _encoder.encode(node)
    return zlib.crc32(data).to_bytes(4, "little") + data


def decode(data: bytes) -> Node:
    """Raises Damaged for what `encode` did not make."""
    content = memoryview(data)[4:]
    if len(data) < 5 or zlib.crc32(content) != int.from_bytes(data[:4], "little"):
        raise Damaged("It is not as it was written: its checksum is another.")
    try:
        return _decoder.decode(content)
    except msgspec.MsgspecError as error:
        raise Damaged(f"It is no node of a tree: {error}.") from error


def leaf_size(key: bytes, value: bytes) -> int:
    """Bytes that an entry takes in a leaf, about."""
    return len(key) + len(value) + OVERHEAD


def child_size(key: bytes) -> int:
    """The same in an inner node."""
    return len(key) + OVERHEAD + REFERENCE


def size(node: Node) -> int:
    """Bytes of a node once it is encoded, about."""
    if isinstance(node, Leaf):
        return sum(map(len, node.keys)) + sum(map(len, node.values)) + OVERHEAD * len(node.keys)
    return sum(map(len, node.keys)) + (OVERHEAD + REFERENCE) * len(node.keys)
