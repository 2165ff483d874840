"""A store beside a model of it that is plain dicts: whatever is done, in whatever order, they agree.

The rules are those of `Storage`, and what befalls one: that it dies and is opened again, that its database refuses a
change, or takes it and cannot say so. Nodes are small, so that few keys make a deep tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError

from lazycloud.errors import Conflict, LazycloudError, NotFound
from lazycloud.versionbase import tables, tree, verification
from lazycloud.versionbase.problems import Exists
from lazycloud.versionbase.storage import Branch, Storage, Wish
from lazycloud.versionbase.tree import EMPTY, count, differences, get, scan
from lazycloud.versionbase.verification import verify
from tests.versionbase.looking import oldest, reach

NAMES = st.sampled_from(["production", "abc", "def", "ghi"])
KEYS = st.integers(0, 400).map(lambda number: b"%03d" % number)
ENDS = st.one_of(st.none(), KEYS)
VALUES = st.one_of(st.none(), st.integers(0, 120).map(lambda number: b"v" * number))
CHANGES = st.one_of(
    st.dictionaries(KEYS, VALUES, max_size=4),
    st.dictionaries(KEYS, VALUES, min_size=20, max_size=60),
)
PLACES = st.integers(0, 1000)  # in whatever there is, modulo how much that is
Content = dict[bytes, bytes]


@dataclass
class Modelled:
    """A branch: `commits` are what it was at each sequence that is kept."""

    content: Content
    sequence: int
    birth: str
    commits: dict[int, Content] = field(default_factory=dict)
    snapshots: dict[str, tuple[str, Content, int]] = field(default_factory=dict)

    def move(self, content: Content) -> None:
        self.content, self.sequence = content, self.sequence + 1
        self.commits[self.sequence] = content


@contextmanager
def small_nodes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (tree, verification):
            patch.setattr(module, "SIZE", 300)
        patch.setattr(tree, "SMALL", 80)
        yield


class Machine(RuleBasedStateMachine):
    """Of a store at `url`, which is empty."""

    make_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.url = type(self).make_url()
        self.model: dict[str, Modelled] = {}
        self.pinned: list[tuple[int, Content]] = []  # what readers hold
        self.collecting: Iterator[int] | None = None
        self.snapshots = 0
        self.storage = self.opened()

    def opened(self) -> Storage:
        storage = Storage(self.url)
        storage.open()
        return storage

    @initialize()
    def begin_production(self) -> None:
        self.begin("production")

    @rule(name=NAMES)
    def begin(self, name: str) -> None:
        if name in self.model:
            with pytest.raises(Exists):
                self.storage.begin(name)
            return
        self.note(name, self.storage.begin(name), {})

    @rule(name=NAMES, source=NAMES, place=st.one_of(st.none(), PLACES))
    def fork(self, name: str, source: str, place: int | None) -> None:
        snapshot, content = self.a_snapshot(source, place)
        if source not in self.model:
            with pytest.raises(NotFound):
                self.storage.fork(name, source, snapshot)
        elif name in self.model:
            with pytest.raises(Exists):
                self.storage.fork(name, source, snapshot)
        else:
            self.note(name, self.storage.fork(name, source, snapshot), content)

    def note(self, name: str, made: Branch, content: Content) -> None:
        self.model[name] = Modelled(content, made.sequence, made.birth, {made.sequence: content})

    def a_snapshot(self, name: str, place: int | None) -> tuple[str, Content]:
        """One of a branch's, or "" and what it is now."""
        branch = self.model.get(name)
        if branch is None or place is None or not branch.snapshots:
            return "", branch.content if branch else {}
        snapshot, (label, content, _) = list(branch.snapshots.items())[place % len(branch.snapshots)]
        return (label if label and place % 2 else snapshot), content

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        assert self.storage.drop(name) == (name in self.model)
        self.model.pop(name, None)

    @rule(name=NAMES, label=st.sampled_from(["", "first", "second"]))
    def snapshot(self, name: str, label: str) -> None:
        self.snapshots += 1
        snapshot = f"s{self.snapshots}"
        branch = self.model.get(name)
        if branch is None:
            with pytest.raises(NotFound):
                self.storage.snapshot(name, snapshot, label)
        elif label and any(label == known for known, _, _ in branch.snapshots.values()):
            with pytest.raises(Exists):
                self.storage.snapshot(name, snapshot, label)
        else:
            row = self.storage.snapshot(name, snapshot, label)
            assert (row.id, row.name, row.sequence) == (snapshot, label, branch.sequence)
            branch.snapshots[snapshot] = (label, branch.content, branch.sequence)

    @rule(name=NAMES, place=PLACES)
    def drop_snapshot(self, name: str, place: int) -> None:
        branch = self.model.get(name)
        if branch and branch.snapshots:
            snapshot = list(branch.snapshots)[place % len(branch.snapshots)]
            assert self.storage.drop_snapshot(name, snapshot)
            del branch.snapshots[snapshot]

    @rule(name=NAMES, place=PLACES)
    def restore(self, name: str, place: int) -> None:
        branch = self.model.get(name)
        snapshot, content = self.a_snapshot(name, place)
        if branch and snapshot:
            self.storage.restore(name, snapshot)
            branch.move(content)

    @rule(one=NAMES, other=NAMES)
    def swap(self, one: str, other: str) -> None:
        if one not in self.model or other not in self.model:
            with pytest.raises(NotFound):
                self.storage.swap(one, other)
            return
        self.storage.swap(one, other)
        if one != other:
            ours, theirs = self.model[one], self.model[other]
            mine, yours = ours.content, theirs.content
            ours.move(yours)
            theirs.move(mine)

    @rule(
        wishes=st.lists(
            st.tuples(
                NAMES, CHANGES, st.lists(st.tuples(KEYS, ENDS), max_size=1), st.booleans(), st.booleans()
            ),
            min_size=1,
            max_size=4,
        ),
        outcome=st.sampled_from(["well"] * 6 + ["refused", "unheard"]),
    )
    def commit(self, wishes: list[tuple[str, Any, Any, bool, bool]], outcome: str) -> None:
        """`is_stale`: another has committed since it read; then `holds` decides. Several are written at once."""
        asked, expected = [], []
        after = {name: replace(branch, commits=dict(branch.commits)) for name, branch in self.model.items()}
        for name, changes, cuts, is_stale, holds in wishes:
            root = self.storage.branch(name).root if name in self.model else EMPTY
            read_at = -1 if is_stale else root
            asked.append(Wish(name, read_at, sorted(changes.items()), self.holding(holds), cuts))
            branch = after.get(name)
            if branch is None:
                expected.append(NotFound)
                continue
            has_moved = is_stale or branch.content is not self.model[name].content
            if has_moved and not holds and self.is_moved(branch, name, is_stale):
                expected.append(Conflict)
                continue
            kept = without(branch.content, cuts)
            content = {key: value for key, value in {**kept, **changes}.items() if value is not None}
            if branch.content != kept or kept != content:  # what is cut is changed, even if put back
                branch.move(content)
            expected.append(Branch)
        if outcome == "refused" and any(
            branch.sequence != self.model[name].sequence for name, branch in after.items()
        ):
            with failing(self.storage, "refused"), pytest.raises(LazycloudError, match="Nothing was changed"):
                self.storage.commit(asked)
            return
        with failing(self.storage, outcome):
            results = self.storage.commit(asked)
        assert [type(result) for result in results] == expected
        self.model = after

    def is_moved(self, branch: Modelled, name: str, is_stale: bool) -> bool:
        return is_stale or branch.sequence != self.model[name].sequence

    def holding(self, answer: bool) -> Callable[[int], bool]:
        def holds(root: int) -> bool:
            for _ in scan(self.storage, root):  # one that is not committed can be read
                pass
            return answer

        return holds

    def points(self) -> list[tuple[int, Content]]:
        """All there is to be read: roots, and what is there."""
        points = list(self.pinned)
        for name, branch in self.model.items():
            points.append((self.storage.branch(name).root, branch.content))
            for snapshot, (_, content, _) in branch.snapshots.items():
                points.append((self.storage.at(name, snapshot).root, content))
            told = self.storage.commits(name, -1, 10_000)
            assert [commit.sequence for commit in told] == sorted(branch.commits)
            assert oldest(self.storage, name) == min(branch.commits)
            points += [(commit.root, branch.commits[commit.sequence]) for commit in told]
        return points or [(EMPTY, {})]

    @rule(place=PLACES, key=KEYS, begin=KEYS, end=ENDS)
    def read(self, place: int, key: bytes, begin: bytes, end: bytes | None) -> None:
        points = self.points()
        root, content = points[place % len(points)]
        assert get(self.storage, root, key) == content.get(key)
        part = sorted(item for item in content.items() if is_within(item[0], begin, end))
        assert list(scan(self.storage, root, begin, end)) == part
        assert list(scan(self.storage, root, begin, end, backwards=True)) == part[::-1]
        assert count(self.storage, root, begin, end) == len(part)

    @rule(place=PLACES, other_place=PLACES, begin=KEYS, end=ENDS)
    def compare(self, place: int, other_place: int, begin: bytes, end: bytes | None) -> None:
        points = self.points()
        (one, was), (other, now) = points[place % len(points)], points[other_place % len(points)]
        told = list(differences(self.storage, one, other, begin, end))
        assert told == [
            (key, was.get(key), now.get(key))
            for key in sorted(was.keys() | now)
            if was.get(key) != now.get(key) and is_within(key, begin, end)
        ]
        assert (self.storage.size(one, [other]) == 0) == (one in {other, EMPTY} or self.is_part(one, other))

    def is_part(self, one: int, other: int) -> bool:
        below = {number for number, _ in reach(self.storage, other, lambda number: False)}
        return one in below

    @rule(place=PLACES)
    def hold(self, place: int) -> None:
        points = self.points()
        self.pinned.append(points[place % len(points)])

    @precondition(lambda self: self.pinned)
    @rule(place=PLACES)
    def let_go(self, place: int) -> None:
        self.pinned.pop(place % len(self.pinned))

    @rule(keep=st.integers(1, 5), before=st.sampled_from([0.0, 0.0, float("inf")]))
    def expire(self, keep: int, before: float) -> None:
        for _ in self.storage.expire(before, keep):
            pass
        for branch in self.model.values():
            least = branch.sequence if before else branch.sequence - keep + 1
            branch.commits = {
                sequence: content for sequence, content in branch.commits.items() if sequence >= least
            }

    @rule(steps=st.integers(1, 50))
    def collect(self, steps: int) -> None:
        """Some steps; it goes on when this is asked for again."""
        if self.collecting is None:
            self.collecting = self.storage.collect(lambda: [root for root, _ in self.pinned], grace=0)
        for _ in range(steps):
            if next(self.collecting, None) is None:
                self.collecting = None
                return

    @rule()
    def die(self) -> None:
        """What it has in memory is gone, and so are its readers."""
        abandon(self.storage)
        self.storage, self.collecting, self.pinned = self.opened(), None, []

    @rule()
    def look(self) -> None:
        """At what all is, by what it says of itself."""
        assert {row.name: row.sequence for row in self.storage.branches()} == {
            name: branch.sequence for name, branch in self.model.items()
        }
        for name, branch in self.model.items():
            now = self.storage.branch(name)
            assert (now.sequence, now.birth) == (branch.sequence, branch.birth)
            assert {row.id: (row.name, row.sequence) for row in self.storage.snapshots(name)} == {
                snapshot: (label, sequence) for snapshot, (label, _, sequence) in branch.snapshots.items()
            }
        assert [found for found in verify(self.storage) if isinstance(found, str)] == []

    def teardown(self) -> None:
        """All that is to be there is, and after a collection nothing else."""
        try:
            self.look()
            for root, content in self.points():
                assert dict(scan(self.storage, root)) == content
            self.pinned, self.collecting = [], None
            for _ in self.storage.expire():
                pass
            for _ in self.storage.collect(grace=0):
                pass
            self.look()
            known: set[int] = set()
            for root, content in self.points():
                known |= {number for number, _ in reach(self.storage, root, known.__contains__)}
                assert dict(scan(self.storage, root)) == content
            stored = self.storage.database.read(select(func.count()).select_from(tables.nodes)).scalar()
            assert stored == len(known)
        finally:
            self.storage.close()


def is_within(key: bytes, begin: bytes, end: bytes | None) -> bool:
    return begin <= key and (end is None or key < end)


def without(content: Content, cuts: list[Any]) -> Content:
    return {
        key: value
        for key, value in content.items()
        if not any(is_within(key, begin, end) for begin, end in cuts)
    }


@contextmanager
def failing(storage: Storage, outcome: str) -> Iterator[None]:
    """`refused`: its database does not take the next change; `unheard`: it does, and cannot say so any more."""
    change = storage.database.change

    def fail(work: Callable[[Connection], object], is_done: Callable[[Connection], bool]) -> None:
        def broken(connection: Connection) -> None:
            work(connection)
            if outcome == "unheard":
                connection.exec_driver_sql("COMMIT")
            raise OperationalError("a change", {}, Exception("it is not well"))

        change(broken, is_done)

    with pytest.MonkeyPatch.context() as patch:
        if outcome != "well":
            patch.setattr(storage.database, "change", fail)
        yield


def abandon(storage: Storage) -> None:
    """As if its process had been killed: nobody says goodbye."""
    database = storage.database
    for connection in [*database._readers, database._writer]:
        if connection is not None:
            connection.invalidate()
    if database._lock is not None:
        os.close(database._lock)
        database._lock = None
