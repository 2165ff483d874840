"""The nodes of a tree: immutable, known by an integer, kept by whoever has a `Nodes`.

A leaf has keys and their values; an inner node has children, each with the least key that may be below it (the first
child's is not looked at). Encoded as MessagePack: [0, keys, values] or [1, keys, children].
"""

from __future__ import annotations

from typing import Protocol

import msgspec

SIZE = 4096  # bytes of an encoded node, at most, unless it has one entry only
SMALL = 1024  # bytes below which it is joined with a neighbour
OVERHEAD = 6  # bytes that an entry takes beside its key and value, about


class Leaf(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    keys: list[bytes]
    values: list[bytes]


class Inner(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    keys: list[bytes]
    children: list[int]


Node = Leaf | Inner

_decoder: msgspec.msgpack.Decoder[Node] = msgspec.msgpack.Decoder(Leaf | Inner)
_encoder = msgspec.msgpack.Encoder()


class Nodes(Protocol):
    """Where nodes are read from, and made. A node that was made can be read at once."""

    def read(self, number: int) -> Node:
        """Raises KeyError for one that is not there: what refers to it is damaged, or was collected."""

    def make(self, node: Node) -> int: ...

    def discard(self, number: int) -> None:
        """A node is not needed if it was made since the last commit: nobody else can know it."""


def encode(node: Node) -> bytes:
    return _encoder.encode(node)


def decode(data: bytes) -> Node:
    """Raises msgspec.DecodeError, msgspec.ValidationError for what `encode` did not make."""
    return _decoder.decode(data)


def leaf_size(key: bytes, value: bytes) -> int:
    """Bytes that an entry takes in a leaf, about."""
    return len(key) + len(value) + OVERHEAD


def child_size(key: bytes) -> int:
    """The same in an inner node."""
    return len(key) + OVERHEAD + 5


def size(node: Node) -> int:
    """Bytes of a node once it is encoded, about."""
    if isinstance(node, Leaf):
        return sum(map(len, node.keys)) + sum(map(len, node.values)) + OVERHEAD * len(node.keys)
    return sum(map(len, node.keys)) + (OVERHEAD + 5) * len(node.keys)
