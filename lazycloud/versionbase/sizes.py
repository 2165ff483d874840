"""How much of a tree is its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lazycloud.versionbase.nodes import Inner, Nodes, encode
from lazycloud.versionbase.tree import EMPTY, height

SAMPLE = 500  # nodes of one level that are read; if there are more, these stand for the others


def size_of(nodes: Nodes, root: int, besides: Iterable[int] = ()) -> int:
    """Bytes of the nodes that a tree has and none of the others has, as they are encoded; about, if they are many.

    Level by level: a node is equally far from its leaves in each tree that has it, and all below it is shared with
    it. So of the others only what differs is read, and no leaf.
    """
    others = [other for other in besides if other != EMPTY]
    begun = [(height(nodes, other), other) for other in others]
    top = height(nodes, root) if root != EMPTY else -1
    ours: set[int] = set()
    theirs: set[int] = set()
    total, stands_for = 0.0, 1.0
    for level in range(max([top, *(level for level, _ in begun)], default=-1), -1, -1):
        ours |= {root} if level == top else set()
        theirs |= {other for begins, other in begun if begins == level}
        ours, theirs = ours - theirs, theirs - ours
        looked = sorted(ours)[:: -(-len(ours) // SAMPLE) or 1]
        stands_for *= len(ours) / len(looked) if looked else 1
        read = [nodes.read(number) for number in looked]
        total += stands_for * sum(len(encode(node)) for node in read)
        ours = {child for node in read if isinstance(node, Inner) for child in node.children}
        theirs = _below(nodes, theirs) if level and (ours or level > top) else set()
    return round(total)


def _below(nodes: Nodes, numbers: Iterable[int]) -> set[int]:
    read: Sequence[object] = [nodes.read(number) for number in numbers]
    return {child for node in read if isinstance(node, Inner) for child in node.children}
