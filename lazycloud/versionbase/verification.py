"""Whether a store is as it should be: each node that is reached, and each row that refers to one."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy import String, cast, literal, select, union_all

from lazycloud.versionbase.consistency import check
from lazycloud.versionbase.nodes import SIZE, Damaged, Inner, Leaf, Node, size
from lazycloud.versionbase.storage import Storage
from lazycloud.versionbase.tables import branches, commits, snapshots
from lazycloud.versionbase.tree import EMPTY

_COMMIT = "commit"
STEP = 0.05  # seconds between two words of progress, about
PAGE = 1000  # rows that are read at once


class Checked(NamedTuple):
    """How far it is."""

    roots: int
    nodes: int
    entries: int


class _Place(NamedTuple):
    """A node, and what its parent says of it: keys are from `low` to before `high`; `entries` None: of a root."""

    number: int
    low: bytes
    high: bytes | None
    entries: int | None
    height: int


def verify(storage: Storage, contents: bool = False) -> Iterator[str | Checked]:
    """Problems, as sentences, and every now and then how far it is; at the end once more.

    `contents`: what trees hold is looked at as well, collections and documents and indexes (see `consistency`).

    It reads what is in the database, whatever is in memory. Others read, change and collect meanwhile; what comes
    to be after it has begun is not looked at. Takes 8 bytes of memory for each node that was ever made.
    """
    yield from _rows(storage)
    roots: dict[int, str] = {}  # and where each is found first
    lasting: set[int] = set()  # of snapshots
    last: dict[str, tuple[int, int]] = {}  # sequence and root of each version as it is now
    with storage.database.beside() as connection:
        rows = connection.execute(_ROOTS)
        while some := rows.fetchmany(PAGE):
            for root, kind, of, which in some:
                if kind == _COMMIT:
                    last[of] = max((int(which), root), last.get(of, (-1, EMPTY)))
                else:
                    lasting.add(root)
                roots.setdefault(root, f"{kind} {which} of {of}")
            yield Checked(0, 0, 0)
    with storage.holding(roots.keys()):
        verification = _Verification(storage, storage.last)
        yield from verification.run(roots)
        if contents:
            lasting |= {root for _, root in last.values()}
            yield from verification.contents(
                {root: where for root, where in roots.items() if root in lasting}
            )


class _Verification:
    def __init__(self, storage: Storage, last: int) -> None:
        self._storage = storage
        self._seen = array(
            "q", bytes(8 * (last + 1))
        )  # of each node, a hash of what a parent says of it and is so
        self._roots = self._nodes = self._entries = 0

    def run(self, roots: dict[int, str]) -> Iterator[str | Checked]:
        since = time.monotonic()
        for root, where in roots.items():
            self._roots += 1
            if not EMPTY <= root < len(self._seen):
                yield f"{where} refers to node {root}, which was never made."
                continue
            for problem in self._look(root):
                if problem:
                    yield f"{problem} (found below {where})"
                if time.monotonic() - since > STEP:
                    yield self.checked
                    since = time.monotonic()
        yield self.checked

    def contents(self, roots: dict[int, str]) -> Iterator[str | Checked]:
        """Of versions and snapshots, what they hold; each is compared with one that is in order."""
        known, since = EMPTY, time.monotonic()
        for root, where in roots.items():
            is_good = True
            try:
                for problem in check(self._storage, root, known):
                    if problem:
                        is_good = False
                        yield f"{problem} (in {where})"
                    if time.monotonic() - since > STEP:
                        yield self.checked
                        since = time.monotonic()
            except (Damaged, UnicodeDecodeError, IndexError):
                is_good = False  # it was told of above
            known = root if is_good else known
        yield self.checked

    @property
    def checked(self) -> Checked:
        return Checked(self._roots, self._nodes, self._entries)

    def _look(self, root: int) -> Iterator[str]:
        """Every node below a root that has not been looked at as it is here. "": nothing, yet."""
        if root == EMPTY:
            return
        try:
            stack = [_Place(root, b"", None, None, self._height(root))]
        except Damaged as problem:
            yield problem.sentence
            return
        while stack:
            place = stack.pop()
            known = hash(place[1:]) or 1
            if self._seen[place.number] == known:
                continue
            is_new = self._seen[place.number] == 0
            self._seen[place.number] = known
            try:
                node = self._storage.load(place.number)
            except Damaged as problem:
                yield problem.sentence
                continue
            self._nodes += is_new
            self._entries += len(node.keys) if is_new and isinstance(node, Leaf) else 0
            found = _trouble(node, place)
            yield f"Node {place.number}: {found}" if found else ""
            if isinstance(node, Inner) and place.height > 0:
                for child in _children(node, place):
                    if 0 < child.number < len(self._seen):
                        stack.append(child)
                    else:
                        yield f"Node {place.number} refers to node {child.number}, which was never made."

    def _height(self, root: int) -> int:
        height, node = 0, self._storage.load(root)
        while isinstance(node, Inner) and node.children and height < 100:
            height, node = height + 1, self._storage.load(node.children[0])
        return height


def _children(node: Inner, place: _Place) -> Iterator[_Place]:
    highs = [*node.keys[1:], place.high]
    lows = [place.low, *node.keys[1:]]
    for child, low, high, count in zip(node.children, lows, highs, node.counts, strict=False):
        yield _Place(child, low, high, count, place.height - 1)


def _trouble(node: Node, place: _Place) -> str:
    """What is wrong with a node in its place; "" if nothing is."""
    if isinstance(node, Leaf) != (place.height == 0):
        return "it is not as deep as the leaves beside it."
    columns = (node.values,) if isinstance(node, Leaf) else (node.children, node.counts)
    if not node.keys or any(len(column) != len(node.keys) for column in columns):
        return "it has not as many keys as it has of what they are for."
    keys = node.keys if isinstance(node, Leaf) else node.keys[1:]
    if any(one >= other for one, other in pairwise(keys)):
        return "its keys do not ascend."
    if keys and (keys[0] < place.low or (place.high is not None and keys[-1] >= place.high)):
        return "its keys are outside of what its parent says."
    count = len(node.keys) if isinstance(node, Leaf) else sum(node.counts)
    if place.entries not in (None, count):
        return f"{count} entries are below it; its parent says {place.entries}."
    if size(node) > SIZE and len(node.keys) > (1 if isinstance(node, Leaf) else 3):
        return f"it is larger than a node may be: {size(node)} bytes, about."
    return ""


def _rows(storage: Storage) -> Iterator[str]:
    """What rows say of each other."""
    lost = select(branches.c.name).outerjoin(commits, commits.c.birth == branches.c.birth)
    for name in storage.database.read(lost.where(commits.c.birth.is_(None))).scalars().all():
        yield f"Version {name} has no commit: it is not known what was in it."
    lost = select(snapshots.c.id).outerjoin(branches, branches.c.birth == snapshots.c.birth)
    for snapshot in storage.database.read(lost.where(branches.c.name.is_(None))).scalars().all():
        yield f"Snapshot {snapshot} is of no version that there is."


_ROOTS = union_all(
    select(snapshots.c.root, literal("snapshot"), branches.c.name, snapshots.c.id).join(
        branches, branches.c.birth == snapshots.c.birth
    ),
    select(commits.c.root, literal(_COMMIT), branches.c.name, cast(commits.c.sequence, String)).join(
        branches, branches.c.birth == commits.c.birth
    ),
)
