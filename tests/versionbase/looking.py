"""What tests want to know of a store that nobody else asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lazycloud.versionbase.nodes import Inner, Node, Nodes
from lazycloud.versionbase.storage import Storage
from lazycloud.versionbase.tree import EMPTY


def oldest(storage: Storage, name: str) -> int:
    """The least sequence that is kept: who has seen what was then may be told all that came after it."""
    return storage.commits(name, -1, 1)[0].sequence


def reach(nodes: Nodes, root: int, is_known: Callable[[int], bool]) -> Iterator[tuple[int, Node]]:
    """Every node below a root, itself too, but for those below one that `is_known`, which is asked once of each."""
    stack = [root] if root != EMPTY else []
    while stack:
        number = stack.pop()
        if is_known(number):
            continue
        node = nodes.read(number)
        yield number, node
        if isinstance(node, Inner):
            stack.extend(reversed(node.children))
