"""Nodes, branches and snapshots in a database of SQLAlchemy's: SQLite, or Postgres.

A branch is a row with the root of its tree, and each of its commits another; a snapshot is a row with a root. What a
commit has made is written with its row in one transaction: what is acknowledged is on the disk.

One thread at a time changes. Others read meanwhile what has been committed, and only that: they get roots from
`branch` and the like, which tell of a commit once the database has it; numbers of nodes are given once, so what was
made for a commit that failed is never taken for something else.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, bindparam, delete, func, insert, literal, null, select, union_all

from lazycloud.errors import Conflict, LazycloudError, NotFound
from lazycloud.versionbase.database import Database
from lazycloud.versionbase.nodes import Damaged, Inner, Node, decode, encode, size
from lazycloud.versionbase.problems import Exists, Gone
from lazycloud.versionbase.sizes import size_of
from lazycloud.versionbase.stored import ROW, Look, Stored, writer
from lazycloud.versionbase.tables import branches, commits, nodes, snapshots
from lazycloud.versionbase.tree import EMPTY, Change, apply, cut, height

CACHE = 64 << 20  # bytes of nodes that are kept decoded, about
KNOWN = 10_000  # branches that are kept in memory
SWEPT = 100  # nodes that are removed in one transaction, at first; more where the disk is quick
AT_ONCE = 500  # nodes that are fetched by one query
MARKED = 1000  # rows that are read at once for a collection
STEP = 0.003  # seconds that a step of a collection takes, about
GRACE = 30.0  # seconds in which who got a root has to pin it
OWNERS = "owner-"  # how the id of a snapshot begins that the owner took


@dataclass(frozen=True)
class Branch:
    """Where a branch stands: the root of its tree after its commit `sequence`.

    `birth` is random, and another one's if there was a branch of that name before.
    """

    name: str
    root: int
    sequence: int
    birth: str = ""


class BranchRow(NamedTuple):
    """`source`: what it was forked from, "" if it began empty. `made`, `changed`: unix time."""

    name: str
    root: int
    sequence: int
    source: str
    made: float
    changed: float
    birth: str


class SnapshotRow(NamedTuple):
    """`name` is "" if it has its id only; `at`: unix time."""

    id: str
    name: str
    root: int
    sequence: int
    at: float


class Commit(NamedTuple):
    """What a branch was after its commit `sequence`. `at`: unix time."""

    sequence: int
    root: int
    at: float


class Wishing(Protocol):
    """What one transaction wishes. `holds` is asked first, if the branch has moved on; then the others are read."""

    @property
    def branch(self) -> str: ...

    @property
    def birth(self) -> str:
        """Of the branch; "" if it may be any of that name."""

    @property
    def root(self) -> int:
        """At which it read."""

    @property
    def changes(self) -> Sequence[Change]:
        """Sorted by key, each key once."""

    @property
    def cuts(self) -> Sequence[tuple[bytes, bytes | None]]:
        """Ranges that are emptied before; to before the second one."""

    @property
    def holds(self) -> Callable[[int], bool]:
        """Whether what it read is still so at another root, which may be one that is not committed yet."""


@dataclass(frozen=True)
class Wish:
    """A `Wishing` that knows beforehand."""

    branch: str
    root: int
    changes: Sequence[Change]
    holds: Callable[[int], bool]
    cuts: Sequence[tuple[bytes, bytes | None]] = ()
    birth: str = ""


class Storage:
    """The nodes of all trees of a store (it is a `nodes.Nodes`), and its branches.

    Errors of the database are LazycloudErrors (DiskFull for a full disk): then nothing has changed, here or there.
    """

    def __init__(self, url: str, relaxed: bool = False) -> None:
        """`relaxed`: the last commits may be lost with the machine (SQLite: those since the last checkpoint, of 4 MB;
        Postgres: of the last 0.6 s), but not with this process; none is half there, and none without those before it.
        """
        self.database = Database(url, relaxed)
        self._select_node, self._insert_nodes, self._insert_commits = map(
            self.database.in_its_words, (_SELECT_NODE, _INSERT_NODES, _INSERT_COMMITS)
        )
        self._changing = threading.RLock()
        self._cache: OrderedDict[int, tuple[Node, int]] = OrderedDict()
        self._cached = 0
        self._caching = threading.Lock()
        self._fresh: dict[int, Node] = {}  # made since the last commit, for transactions that are done
        self._making: dict[int, Node] = {}  # for the one that is being done
        self._makers: list[tuple[int, int]] = []  # of what is fresh, in its order: who made how many
        self.stored = Stored()
        self._next = 1
        self._known: dict[str, Branch] = {}
        self._publishing = threading.Lock()
        self._lately: deque[tuple[float, int]] = deque()  # when a root left the tables, and which
        self._held: list[Set[int]] = []
        self._published = 0  # how often what is known has changed

    def open(self, make: bool = True) -> None:
        """Raises Conflict if another process has this store, BadInput for a format of tomorrow, LazycloudError;
        without `make` NotFound if there is none.
        """
        self.database.open(make)
        self._next = (self.database.read(select(func.max(nodes.c.number))).scalar() or 0) + 1

    def close(self) -> None:
        with self._changing:
            self.database.close()

    @contextmanager
    def holding(self, roots: Set[int]) -> Iterator[None]:
        """Keep what is below these roots, which were in the tables just now, whatever is dropped meanwhile."""
        with self._changing:
            self._held.append(roots)
        try:
            yield
        finally:
            with self._changing:
                self._held.remove(roots)

    # Nodes

    @property
    def last(self) -> int:
        """The number of the last node that was made."""
        return self._next - 1

    def read(self, number: int) -> Node:
        with self._caching:
            if (found := self._cache.get(number)) is not None:
                self._cache.move_to_end(number)
                return found[0]
        fresh = self._making.get(number) or self._fresh.get(number)
        if fresh is not None:
            return fresh
        node = self.load(number)
        self._keep(number, node, size(node))
        return node

    def fetch(self, numbers: Sequence[int]) -> int:
        """One query for many: each by itself takes as long as it takes to decode three."""
        with self._caching:
            missing = [number for number in numbers if number not in self._cache]
        missing = [number for number in missing if number not in self._fresh and number not in self._making]
        for first in range(0, len(missing), AT_ONCE):
            some = missing[first : first + AT_ONCE]
            places = ",".join("?" * len(some))
            statement = self.database.in_its_words(f"{_SELECT_NODES} ({places})")
            for number, data in self.database.find_all(statement, some):
                with suppress(Damaged):
                    self._keep(number, decode(data), len(data))
        return len(missing)

    def make(self, node: Node) -> int:
        number, self._next = self._next, self._next + 1
        self._making[number] = node
        return number

    def discard(self, number: int) -> None:
        """What an earlier transaction made stays, even if it is not written yet: its commit has a row of its own."""
        self._making.pop(number, None)

    def load(self, number: int) -> Node:
        row = self.database.find(self._select_node, number)
        if row is None:
            raise Damaged(f"Node {number} of {self.database} is not there.", _ADVICE)
        try:
            return decode(row[0])
        except Damaged as problem:
            raise Damaged(
                f"Node {number} of {self.database} is damaged. {problem.sentence}", _ADVICE
            ) from None

    def _keep(self, number: int, node: Node, taken: int) -> None:
        """`taken`: bytes of it, when it is encoded."""
        with self._caching:
            taken += 200
            if number not in self._cache:
                self._cached += taken
            self._cache[number] = node, taken
            while self._cached > CACHE and len(self._cache) > 1:
                _, (_, freed) = self._cache.popitem(last=False)
                self._cached -= freed

    def size(self, root: int, besides: Iterable[int] = ()) -> int:
        """Bytes of the nodes that a tree has and none of the others has, about: a large one is only sampled."""
        return size_of(self, root, besides)

    # Branches

    def branch(self, name: str) -> Branch:
        """Where it stands. Waits for nobody. Raises NotFound."""
        if found := self._known.get(name):
            return found
        published = self._published
        row = self.database.read(_STANDS.where(branches.c.name == name)).first()
        if row is None:
            raise NotFound(f"There is no version {name[:80]} in this versionbase.")
        found = Branch(row.name, row.root, row.sequence, row.birth)
        with self._publishing:
            if self._published == published:  # else it may have moved on since it was read
                self._know(found)
        return found

    def branches(self) -> list[BranchRow]:
        """By name."""
        rows = self.database.read(_STANDS.order_by(branches.c.name)).all()
        return [BranchRow._make(row) for row in rows]

    def snapshots(self, name: str) -> list[SnapshotRow]:
        """Of a branch, the oldest first. Raises NotFound."""
        columns = [snapshots.c[name] for name in SnapshotRow._fields]
        wanted = select(*columns).where(snapshots.c.birth == self.branch(name).birth)
        rows = self.database.read(wanted.order_by(snapshots.c.at, snapshots.c.sequence)).all()
        return [SnapshotRow._make(row) for row in rows]

    def every_snapshot(self) -> list[tuple[str, SnapshotRow]]:
        """Of all branches, each with the birth of its branch."""
        columns = [snapshots.c[name] for name in SnapshotRow._fields]
        rows = self.database.read(select(snapshots.c.birth, *columns)).all()
        return [(row[0], SnapshotRow._make(row[1:])) for row in rows]

    def commits(self, name: str, after: int, limit: int) -> list[Commit]:
        """The next ones that are kept after a sequence; so the state at `since` is the first one after `since - 1`.

        The first one that a branch ever has is where it began. Raises NotFound.
        """
        return self._commits(name, commits.c.sequence > after, commits.c.sequence, limit)

    def commits_until(self, name: str, until: int, limit: int) -> list[Commit]:
        """Those that are kept up to a sequence, the latest first. Raises NotFound."""
        return self._commits(name, commits.c.sequence <= until, commits.c.sequence.desc(), limit)

    def _commits(self, name: str, which: Any, order: Any, limit: int) -> list[Commit]:
        columns = [commits.c[name] for name in Commit._fields]
        wanted = select(*columns).where(commits.c.birth == self.branch(name).birth, which)
        rows = self.database.read(wanted.order_by(order).limit(limit)).all()
        return [Commit._make(row) for row in rows]

    def at(self, name: str, snapshot: str = "") -> Branch:
        """Where a branch was at a snapshot (its id, or its name); where it is now without one. Raises NotFound."""
        now = self.branch(name)
        if not snapshot:
            return now
        named = (snapshots.c.id == snapshot) | (snapshots.c.name == snapshot)
        wanted = select(snapshots).where((snapshots.c.birth == now.birth) & named)
        rows = self.database.read(wanted).all()
        if not rows:
            raise NotFound(f"{name[:80]} has no snapshot {snapshot[:80]} in this versionbase.")
        row = next((row for row in rows if row.id == snapshot), rows[0])
        return replace(now, root=row.root, sequence=row.sequence)

    def begin(self, name: str) -> Branch:
        """An empty branch. Raises Exists if there is one of that name."""
        return self._make_branch(name, Branch("", EMPTY, 0))

    def fork(self, name: str, source: str, snapshot: str = "") -> Branch:
        """A branch that begins as another is now, or was at a snapshot. Raises NotFound, Exists."""
        with self._changed():
            return self._make_branch(name, self.at(source, snapshot))

    def _make_branch(self, name: str, origin: Branch) -> Branch:
        made = replace(origin, name=name, birth=secrets.token_hex(8))
        at = time.time()
        row = {"name": name, "birth": made.birth, "source": origin.name, "made": at}

        def work(connection: Connection) -> None:
            connection.execute(insert(branches).values(**row))
            connection.exec_driver_sql(self._insert_commits, [_commit_row(made, at)])

        with self._changed():
            if self._is_there(name):
                raise Exists(f"There is a version {name[:80]} in this versionbase already.")
            self.database.change(work, _is(made))
            self._publish(made)
        return made

    def _is_there(self, name: str) -> bool:
        try:
            return bool(self.branch(name))
        except NotFound:
            return False

    def snapshot(self, name: str, snapshot: str, label: str = "") -> SnapshotRow:
        """Keep where a branch is now under an id of its own, and a name if it is given one, for good.

        Raises NotFound; Exists if the branch has one of this id or name.
        """
        with self._changed():
            now = self.branch(name)
            row = SnapshotRow(snapshot, label, now.root, now.sequence, time.time())
            same = (snapshots.c.id == snapshot) | ((snapshots.c.name == label) & (snapshots.c.name != ""))
            if self.database.read(select(snapshots.c.id).where(snapshots.c.birth == now.birth, same)).first():
                raise Exists(f"{name[:80]} has a snapshot {(label or snapshot)[:80]} already.")
            mine = (snapshots.c.birth == now.birth) & (snapshots.c.id == snapshot)
            self.database.change(
                lambda connection: connection.execute(
                    insert(snapshots).values(birth=now.birth, **row._asdict())
                ),
                lambda connection: connection.execute(select(snapshots.c.id).where(mine)).first() is not None,
            )
            return row

    def drop_snapshot(self, name: str, snapshot: str) -> bool:
        """By its id. Whether it was there. Raises NotFound if there is no such branch."""
        with self._changed():
            mine = (snapshots.c.birth == self.branch(name).birth) & (snapshots.c.id == snapshot)
            gone = self.database.read(select(snapshots.c.root).where(mine)).scalars().all()
            if not gone:
                return False
            self.database.change(lambda connection: connection.execute(delete(snapshots).where(mine)), _never)
            self._left(gone)
            self.stored.wrote(writer(self.branch(name).birth), ROW)
            return True

    def drop(self, name: str) -> bool:
        """A branch and its snapshots; its commits and its nodes are collected. Whether it was there."""
        with self._changed():
            if not self._is_there(name):
                return False
            gone = self.branch(name)

            def work(connection: Connection) -> None:
                connection.execute(delete(branches).where(branches.c.name == name))
                connection.execute(delete(snapshots).where(snapshots.c.birth == gone.birth))

            theirs = select(snapshots.c.root).where(snapshots.c.birth == gone.birth)
            roots = self.database.read(theirs).scalars().all()
            self.database.change(work, _never)
            self._left([gone.root, *roots])
            with self._publishing:
                self._published += 1
                self._known.pop(name, None)
            return True

    def restore(self, name: str, snapshot: str) -> Branch:
        """A commit that makes a branch what it was at a snapshot. Raises NotFound."""
        with self._changed():
            now, then = self.branch(name), self.at(name, snapshot)
            restored = replace(now, root=then.root, sequence=now.sequence + 1)
            self._write([restored])
            return restored

    def swap(self, one: str, other: str) -> tuple[Branch, Branch]:
        """Each is what the other was, by a commit of each: who watches a branch sees it change into the other one.

        Name, birth, snapshots and commits so far stay, so that a sequence means what it meant. Raises NotFound.
        """
        with self._changed():
            ours, theirs = self.branch(one), self.branch(other)
            swapped = (
                replace(ours, root=theirs.root, sequence=ours.sequence + 1),
                replace(theirs, root=ours.root, sequence=theirs.sequence + 1),
            )
            if one != other:
                self._write(swapped)
            return swapped if one != other else (ours, ours)

    def commit(self, wishes: Sequence[Wishing]) -> list[Branch | LazycloudError]:
        """Several transactions, one after the other, in one write to the disk: where each left its branch.

        One whose reads do not hold any more, or whose branch is gone, has a Conflict or NotFound instead, or the
        error that its `holds` raised, and changes nothing. Raises what the database raises: then none of them has
        changed anything, unless the error says that this is not known yet.
        """
        with self._changed():
            stands: dict[str, Branch] = {}
            results: list[Branch | LazycloudError] = []
            written: list[Branch] = []
            for wish in wishes:
                try:
                    now = stands.get(wish.branch) or self.branch(wish.branch)
                    result = self._stage(wish, now)
                except LazycloudError as problem:
                    results.append(problem)
                    continue
                finally:
                    self._making.clear()
                results.append(result)
                if result is not now:
                    written.append(result)
                    stands[wish.branch] = result
            self._write(written)
            return results

    def _stage(self, wish: Wishing, now: Branch) -> Branch:
        """What a wish makes of a branch; the same object if nothing. Raises Gone, Conflict, what `holds` raises."""
        if wish.birth not in ("", now.birth):
            raise Gone(f"The version {now.name[:80]} was removed; there is another one of its name.")
        if now.root != wish.root and not wish.holds(now.root):
            raise Conflict("What this transaction read has been changed meanwhile.", "Do it again.")
        root = now.root
        for begin, end in wish.cuts:
            root = cut(self, root, begin, end)
        root = apply(self, root, wish.changes)
        self._fresh |= self._making
        self._makers.append((writer(now.birth), len(self._making)))
        return replace(now, root=root, sequence=now.sequence + 1) if root != now.root else now

    def _write(self, written: Sequence[Branch]) -> None:
        if not written:
            return
        at = time.time()
        made, sizes = self._encoded()
        moved = [_commit_row(branch, at) for branch in written]

        def work(connection: Connection) -> None:
            if made:
                connection.exec_driver_sql(self._insert_nodes, made)
            connection.exec_driver_sql(self._insert_commits, moved)

        self.database.change(work, _is(written[-1]))
        for (number, _, data), node in zip(made, self._fresh.values(), strict=True):
            self._keep(number, node, len(data))
        for maker, taken in sizes:
            self.stored.wrote(maker, taken)
        self._publish(*written)

    def _encoded(self) -> tuple[list[tuple[int, int, bytes]], list[tuple[int, int]]]:
        """Rows of what is fresh; and who has written how many bytes, a commit's row among them."""
        made: list[tuple[int, int, bytes]] = []
        sizes: list[tuple[int, int]] = []
        fresh = iter(self._fresh.items())
        for maker, many in self._makers:
            rows = [(number, maker, encode(node)) for number, node in islice(fresh, many)]
            made += rows
            sizes.append((maker, sum([len(data) for _, _, data in rows], ROW)))
        return made, sizes

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """One thread at a time; nothing that it made is left behind."""
        with self._changing:
            if not self.database.ready():  # a change of which nobody was told may have taken place after all
                with self._publishing:
                    self._published += 1
                    self._known.clear()
            try:
                yield
            finally:
                self._making.clear()
                self._fresh.clear()
                self._makers.clear()

    def _publish(self, *moved: Branch) -> None:
        with self._publishing:
            self._published += 1
            self._know(*moved)

    def _know(self, *found: Branch) -> None:
        self._known |= {branch.name: branch for branch in found}
        while len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]

    # Collection

    def expire(self, before: float = 0.0, keep: int | None = None) -> Iterator[int]:
        """Forget commits before that time (unix), and all but `keep` of each branch: nobody can watch from there.

        The last one of each stays, with which the branch stands where it stands. In small steps: how many each has
        removed. Those of branches that are gone go, too.
        """
        birth = ""
        while True:
            row = self.database.read(select(func.min(commits.c.birth)).where(commits.c.birth > birth)).first()
            if row is None or row[0] is None:
                return
            birth = row[0]
            yield from self._expire(birth, before, keep)

    def expire_of(self, birth: str, before: float) -> Iterator[int]:
        """The same of one branch, whatever their number."""
        yield from self._expire(birth, before, None)

    def has_past(self, birth: str) -> bool:
        """Whether more is kept of a branch than where it stands."""
        mine = select(commits.c.sequence).where(commits.c.birth == birth).limit(2)
        return len(self.database.read(mine).all()) > 1

    def crowded(self) -> list[str]:
        """Births of the branches that have about as much of their own as they may."""
        if not self.stored.limit:
            return []
        births = self.database.read(select(branches.c.birth)).scalars().all()
        return [birth for birth in births if self.stored.is_crowded(birth)]

    def _expire(self, birth: str, before: float, keep: int | None) -> Iterator[int]:
        of_branch = select(branches.c.name).where(branches.c.birth == birth)
        mine = select(commits).where(commits.c.birth == birth).order_by(commits.c.sequence).limit(MARKED)
        while True:
            with self._changed():
                name = self.database.read(of_branch).scalar()  # None: it is gone
                last = None if name is None else self.branch(name).sequence
                rows: Sequence[Any] = self.database.read(mine).all()
                if last is not None:
                    rows = _expired(rows, last, before, 0 if keep is None else last - keep + 1)
                if rows:
                    self._forget_commits(birth, rows[-1].sequence)
                    self._left(row.root for row in rows)
            if rows:
                yield len(rows)
            if len(rows) < MARKED:
                return

    def _forget_commits(self, birth: str, through: int) -> None:
        expired = delete(commits).where(commits.c.birth == birth, commits.c.sequence <= through)
        self.database.clear(lambda connection: connection.execute(expired))

    def collect(self, pinned: Callable[[], Iterable[int]] = tuple, grace: float = GRACE) -> Iterator[int]:
        """Remove nodes that no branch, commit or snapshot reaches, in small steps: how many each has removed.

        Others read and change between the steps, and during those that only look, which are of some ms. `pinned` are
        the roots that readers hold; who gets a root from here has `grace` seconds to hold it.

        Why nothing is taken that is needed: let all roots be those of one moment, at which nobody changes. What
        is reached later is reached from a root, and that is one of these, or made from them: then whatever of it is
        older than the moment is below one of these. Newer nodes stay. A reader holds a root that was handed out: at
        that moment it is in a table, or is pinned, or has left the tables less than `grace` ago, which is remembered.
        A crash leaves some nodes to the next collection; numbers are not given again while anybody can know them.

        What each branch has of its own is counted on the way, where there is a limit (`stored`).
        """
        with self.database.beside() as connection:
            with self._changed():
                last = self.last
                rows = connection.execute(_ROOTS)  # as they are now, however long it takes to fetch them
                found = {row[0] for row in rows.fetchmany(MARKED)}
                since = time.monotonic() - grace
                found |= {root for left, root in self._lately if left > since}.union(pinned(), *self._held)
                own = self._own_roots()
                marks = {maker: bytearray(last // 8 + 1) for maker in own}
                look = self.stored.begin_look(marks) if self.stored.limit else None
            while some := rows.fetchmany(MARKED):
                found |= {row[0] for row in some}
                yield 0
        reached = bytearray(last // 8 + 1)
        for maker, roots in own.items():
            for root in sorted(roots - {EMPTY}):
                yield from self._mark(root, marks[maker])
            _join(reached, marks[maker])
        for root in sorted(found - {EMPTY}):
            yield from self._mark(root, reached)
        yield from self._sweep(reached, last, look)
        if look is not None:
            self.stored.end_look(look)

    def _own_roots(self) -> dict[int, set[int]]:
        """By writer, of branches that may have written about as much as they may. The owner's snapshots are none."""
        if not self.stored.limit:
            return {}
        births = self.database.read(select(branches.c.birth)).scalars().all()
        own: dict[int, set[int]] = {}
        for birth in births:
            if self.stored.may_be_crowded(birth):
                kept = select(commits.c.root).where(commits.c.birth == birth)
                taken = select(snapshots.c.root).where(
                    snapshots.c.birth == birth, snapshots.c.id.not_like(f"{OWNERS}%")
                )
                own[writer(birth)] = set(self.database.read(union_all(kept, taken)).scalars())
        return own

    def _left(self, roots: Iterable[int]) -> None:
        """Remember for a while what is in no table any more."""
        now = time.monotonic()
        self._lately += [(now, root) for root in roots]
        while self._lately and self._lately[0][0] < now - GRACE:
            self._lately.popleft()

    def _mark(self, root: int, reached: bytearray) -> Iterator[int]:
        """Leaves are not read: they refer to nothing."""
        if _is_marked(reached, root):
            return
        stack, since = [(root, height(self, root))], time.monotonic()
        while stack:
            number, above = stack.pop()
            if _is_marked(reached, number):
                continue
            reached[number >> 3] |= 1 << (number & 7)
            if above:
                node = self.read(number)
                assert isinstance(node, Inner)
                stack += [(child, above - 1) for child in node.children]
                if time.monotonic() - since > STEP:
                    yield 0
                    since = time.monotonic()

    def _sweep(self, reached: bytearray, last: int, look: Look | None) -> Iterator[int]:
        seen, at_once = 0, SWEPT
        told: tuple[Any, Any] = (
            (null(), literal(0)) if look is None else (nodes.c.writer, func.length(nodes.c.data))
        )
        while seen < last:
            part = select(nodes.c.number, *told).where(nodes.c.number > seen, nodes.c.number <= last)
            rows: Sequence[Any] = self.database.read(part.order_by(nodes.c.number).limit(MARKED)).all()
            if not rows:
                return
            gone = []
            for number, maker, taken in rows:
                if not _is_marked(reached, number):
                    gone.append(number)
                elif look is not None:
                    look.add(number, maker, taken)
            while gone:
                since = time.monotonic()
                self._remove(gone[:at_once])
                took = time.monotonic() - since
                yield len(gone[:at_once])
                gone = gone[at_once:]
                at_once = max(10, at_once // 2) if took > STEP * 2 else min(MARKED, at_once * 2)
            seen = rows[-1][0]
            self.database.settle()
            yield 0

    def _remove(self, gone: Sequence[int]) -> None:
        swept = delete(nodes).where(nodes.c.number == bindparam("gone"))
        rows = [{"gone": one} for one in gone]
        with self._changed():
            self.database.clear(lambda connection: connection.execute(swept, rows))
        with self._caching:
            for number in gone:
                _, freed = self._cache.pop(number, (None, 0))
                self._cached -= freed


def _commit_row(branch: Branch, at: float) -> tuple[str, int, int, float]:
    return branch.birth, branch.sequence, branch.root, at


def _is(branch: Branch) -> Callable[[Connection], bool]:
    """Whether a branch is where a transaction was to leave it. No other one leaves it there."""

    def is_done(connection: Connection) -> bool:
        mine = (commits.c.birth == branch.birth) & (commits.c.sequence == branch.sequence)
        return connection.execute(select(commits.c.root).where(mine)).scalar() == branch.root

    return is_done


def _expired(rows: Sequence[Any], last: int, before: float, least: int) -> Sequence[Any]:
    """The first ones, until one is to be kept."""
    kept = (
        at
        for at, row in enumerate(rows)
        if row.sequence >= last or (row.sequence >= least and row.at >= before)
    )
    return rows[: next(kept, len(rows))]


def _never(connection: Connection) -> bool:
    """Of what may as well be done twice."""
    return False


def _join(marks: bytearray, others: bytearray) -> None:
    """Mark what is marked there, too."""
    both = int.from_bytes(marks) | int.from_bytes(others)
    marks[:] = both.to_bytes(len(marks))


def _is_marked(reached: bytearray, number: int) -> bool:
    return bool(reached[number >> 3] & (1 << (number & 7)))


_ROOTS = union_all(*(select(table.c.root) for table in (snapshots, commits)))

_LAST = (
    select(func.max(commits.c.sequence))
    .where(commits.c.birth == branches.c.birth)
    .correlate(branches)
    .scalar_subquery()
)
_STANDS = select(  # the columns of BranchRow
    branches.c.name,
    commits.c.root,
    commits.c.sequence,
    branches.c.source,
    branches.c.made,
    commits.c.at.label("changed"),
    branches.c.birth,
).join(commits, (commits.c.birth == branches.c.birth) & (commits.c.sequence == _LAST))

_ADVICE = "`lazycloud versionbase verify` tells what else is; a backup may have it."

# Of each commit and each look at a node: SQLAlchemy would take longer than the database.
_SELECT_NODES = "SELECT number, data FROM versionbase_nodes WHERE number IN"
_SELECT_NODE = "SELECT data FROM versionbase_nodes WHERE number = ?"
_INSERT_NODES = "INSERT INTO versionbase_nodes (number, writer, data) VALUES (?, ?, ?)"
_INSERT_COMMITS = "INSERT INTO versionbase_commits (birth, sequence, root, at) VALUES (?, ?, ?, ?)"
