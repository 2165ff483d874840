"""A tree that a transaction changes for itself: what it wrote, over what was there before; and what it read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from lazycloud.versionbase import tree
from lazycloud.versionbase.catalogue import Span
from lazycloud.versionbase.nodes import Node, Nodes
from lazycloud.versionbase.problems import TooLarge
from lazycloud.versionbase.tree import Change

MOST = 64 << 20  # bytes that one transaction may write
POINTS = 1000  # reads of single keys beyond which two trees are compared instead of asked for each


class Scratch:
    """`root` is that of the tree in `nodes` at which it reads. What it writes stays in memory."""

    def __init__(self, nodes: Nodes, root: int) -> None:
        self._nodes = nodes
        self.root = root
        self._own = _Own(nodes)
        self._top = root  # of the tree with what was written, as far as that was needed
        self._written: dict[bytes, bytes | None] = {}
        self._pending: dict[bytes, bytes | None] = {}  # of that, what is not in the tree yet
        self._step: dict[bytes, bytes | None] = {}  # what a step has written that is not done yet
        self._cuts: list[Span] = []
        self.size = 0  # bytes written, of all that was
        self._points: dict[bytes, None] = {}
        self._spans: list[list[bytes | None]] = []

    def get(self, key: bytes) -> bytes | None:
        """As it is now, written or not. The transaction holds only as long as this is so."""
        for written in (self._step, self._pending):
            if key in written:
                return written[key]
        self._points[key] = None
        return tree.get(self._own, self._top, key)

    def view(self) -> View:
        """Of what is there now, written or not: what is written later is not in it."""
        if self._pending:
            self._top = tree.apply(self._own, self._top, sorted(self._pending.items()))
            self._pending.clear()
        self._own.keeps = True
        return View(self._own, self._top, self._points, self._spans)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """All that is put meanwhile is, or nothing where it raises."""
        size = self.size
        try:
            yield
        except BaseException:
            self.size = size
            raise
        else:
            self._written |= self._step
            self._pending |= self._step
        finally:
            self._step = {}

    def put(self, key: bytes, value: bytes | None) -> None:
        """In a step. None removes it. Raises TooLarge."""
        self.size += len(key) + len(value or b"")
        if self.size > MOST:
            raise TooLarge(f"A transaction writes {MOST >> 20} MB at most.", "Make several of it.")
        self._step[key] = value

    def cut(self, span: Span) -> None:
        """Remove all between two keys, which need not have been read. Not in a step."""
        self.view()
        begin, end = span
        for key in [key for key in self._written if begin <= key < end]:
            del self._written[key]
        self._cuts.append(span)
        self._top = tree.cut(self._own, self._top, begin, end)

    @property
    def is_changed(self) -> bool:
        return bool(self._written or self._cuts)

    @property
    def changes(self) -> list[Change]:
        """Sorted by key; to be made after the cuts."""
        return sorted(self._written.items())

    @property
    def cuts(self) -> list[Span]:
        return list(self._cuts)

    def holds(self, root: int) -> bool:
        """Whether at another root all that was read is as it was."""
        if root == self.root:
            return True
        if len(self._points) <= POINTS:
            if any(not self._is_same(key, root) for key in self._points):
                return False
        elif any(
            key in self._points
            for key, _, _ in tree.differences(
                self._nodes, self.root, root, min(self._points), max(self._points) + b"\0"
            )
        ):
            return False
        return not any(self._differs(begin, end, root) for begin, end in self._spans)

    def _is_same(self, key: bytes, root: int) -> bool:
        return tree.get(self._nodes, root, key) == tree.get(self._nodes, self.root, key)

    def _differs(self, begin: bytes | None, end: bytes | None, root: int) -> bool:
        if begin is None or begin == end:
            return False
        return any(True for _ in tree.differences(self._nodes, self.root, root, begin, end))


class View:
    """A tree at one moment. What is read of it is noted for the transaction, unless it is not to be."""

    def __init__(
        self, nodes: Nodes, root: int, points: dict[bytes, None], spans: list[list[bytes | None]]
    ) -> None:
        self._nodes = nodes
        self._root = root
        self._points = points
        self._spans = spans

    def get(self, key: bytes) -> bytes | None:
        self._points[key] = None
        return tree.get(self._nodes, self._root, key)

    def scan(self, begin: bytes, end: bytes | None, backwards: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """As `tree.scan`. What is noted is what has been taken."""
        span: list[bytes | None] = [end, end] if backwards else [begin, begin]
        self._spans.append(span)
        for entry in tree.scan(self._nodes, self._root, begin, end, backwards):
            if backwards:
                span[0] = entry[0]
            else:
                span[1] = entry[0] + b"\0"
            yield entry
        span[:] = [begin, end]

    def count(self, begin: bytes, end: bytes | None, noted: bool = True) -> int:
        if noted:
            self._spans.append([begin, end])
        return tree.count(self._nodes, self._root, begin, end)


class _Own:
    """Nodes that are read from another's, and made in memory, with numbers below 0."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._made: dict[int, Node] = {}
        self._last = 0
        self.keeps = False  # somebody may be reading what is replaced

    def read(self, number: int) -> Node:
        return self._made[number] if number < 0 else self._nodes.read(number)

    def fetch(self, numbers: Sequence[int]) -> int:
        return self._nodes.fetch([number for number in numbers if number > 0])

    def make(self, node: Node) -> int:
        self._last -= 1
        self._made[self._last] = node
        return self._last

    def discard(self, number: int) -> None:
        if number < 0 and not self.keeps:
            del self._made[number]
