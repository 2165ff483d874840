"""Nodes, branches and snapshots in a database of SQLAlchemy's: SQLite, or Postgres.

A branch is a row with the root of its tree, and each of its commits another; a snapshot is a row with a root. What a
commit has made is written with its row in one transaction: what is acknowledged is on the disk.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import make_url

from lazycloud.errors import Conflict, LazycloudError, NotFound
from lazycloud.versionbase.nodes import Inner, Node, decode, encode, size
from lazycloud.versionbase.tree import EMPTY, Change, apply

CACHE = 64 << 20  # bytes of nodes that are kept decoded, about
SWEPT = 1000  # nodes that are removed in one transaction
MARKED = 1000  # nodes that are looked at in one step of a collection

_Number = BigInteger().with_variant(Integer(), "sqlite")  # the rowid, there

metadata = MetaData()

nodes = Table(
    "versionbase_nodes",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)

branches = Table(
    "versionbase_branches",
    metadata,
    Column("name", String, primary_key=True),
    Column("root", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),  # of its last commit; a fork goes on from its source
    Column("source", String, nullable=False),  # "": it began empty
    Column("made", Float, nullable=False),
)

commits = Table(  # of late: for who watches, and for what was
    "versionbase_commits",
    metadata,
    Column("branch", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("root", BigInteger, nullable=False),
    Column("at", Float, nullable=False, index=True),
)

snapshots = Table(
    "versionbase_snapshots",
    metadata,
    Column("branch", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("root", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
)


@dataclass(frozen=True)
class Branch:
    """Where a branch stands: the root of its tree after its commit `sequence`."""

    name: str
    root: int
    sequence: int


@dataclass(frozen=True)
class Wish:
    """Changes of one transaction, sorted by key. `holds` tells whether what it read is still so at another root."""

    branch: str
    root: int  # at which it read
    changes: Sequence[Change]
    holds: Callable[[int], bool]


class Storage:
    """The nodes of all trees of a store (it is a `nodes.Nodes`), and its branches.

    One thread at a time changes; others read meanwhile, whatever has been committed.
    """

    def __init__(self, url: str, relaxed: bool = False) -> None:
        """`relaxed`: the last commits, of some seconds, may be lost with the machine; none is half there."""
        self._url = make_url(url)
        self._relaxed = relaxed
        self._engine: Engine = create_engine(self._url)
        if self._url.get_backend_name() == "sqlite":
            event.listen(self._engine, "connect", self._prepare_sqlite)
        self._reading = threading.local()
        self._readers: list[Connection] = []
        self._changing = threading.RLock()
        self._cache: OrderedDict[int, tuple[Node, int]] = OrderedDict()
        self._cached = 0
        self._caching = threading.Lock()
        self._fresh: dict[int, Node] = {}
        self._next = 1
        self._known: dict[str, Branch] = {}

    def open(self) -> None:
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        metadata.create_all(self._engine)
        with self._engine.connect() as connection:
            self._next = (connection.execute(select(func.max(nodes.c.number))).scalar() or 0) + 1

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        self._engine.dispose()

    # Nodes

    def read(self, number: int) -> Node:
        if (fresh := self._fresh.get(number)) is not None:
            return fresh
        with self._caching:
            if (found := self._cache.get(number)) is not None:
                self._cache.move_to_end(number)
                return found[0]
        node = decode(self._load(number))
        self._keep(number, node)
        return node

    def make(self, node: Node) -> int:
        number, self._next = self._next, self._next + 1
        self._fresh[number] = node
        return number

    def discard(self, number: int) -> None:
        self._fresh.pop(number, None)

    def _load(self, number: int) -> bytes:
        row = self._reader().exec_driver_sql(_SELECT[self._engine.dialect.name], (number,)).first()
        if row is None:
            raise KeyError(f"node {number} of {self._url.render_as_string()} is not there")
        return bytes(row[0])

    def _reader(self) -> Connection:
        """Of this thread. Nodes never change, so that it need not begin a transaction for each."""
        connection: Connection | None = getattr(self._reading, "connection", None)
        if connection is None:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._reading.connection = connection
            self._readers.append(connection)
        return connection

    def _keep(self, number: int, node: Node) -> None:
        with self._caching:
            taken = size(node) + 200
            if number not in self._cache:
                self._cached += taken
            self._cache[number] = node, taken
            while self._cached > CACHE and len(self._cache) > 1:
                _, (_, freed) = self._cache.popitem(last=False)
                self._cached -= freed

    # Branches

    def branch(self, name: str) -> Branch:
        """Where it stands. Raises NotFound."""
        if found := self._known.get(name):
            return found
        with self._changing, self._engine.connect() as connection:
            row = connection.execute(select(branches).where(branches.c.name == name)).first()
            if row is None:
                raise NotFound(f"There is no version {name[:80]} in this versionbase.")
            found = self._known[name] = Branch(row.name, row.root, row.sequence)
            return found

    def begin(self, name: str) -> Branch:
        """An empty branch. Raises Conflict if there is one of that name."""
        return self._make_branch(name, Branch("", EMPTY, 0))

    def fork(self, name: str, source: str, snapshot: str = "") -> Branch:
        """A branch that begins as another is now, or was at a snapshot. Raises NotFound, Conflict."""
        with self._changing:
            return self._make_branch(name, self.at(source, snapshot))

    def at(self, name: str, snapshot: str = "") -> Branch:
        """Where a branch was at a snapshot; where it is now without one. Raises NotFound."""
        if not snapshot:
            return self.branch(name)
        with self._engine.connect() as connection:
            wanted = (snapshots.c.branch == name) & (snapshots.c.id == snapshot)
            row = connection.execute(select(snapshots).where(wanted)).first()
        if row is None:
            raise NotFound(f"{name[:80]} has no snapshot {snapshot[:80]} in this versionbase.")
        return Branch(name, row.root, row.sequence)

    def _make_branch(self, name: str, origin: Branch) -> Branch:
        with self._changing, self._engine.begin() as connection:
            if connection.execute(select(branches.c.name).where(branches.c.name == name)).first():
                raise Conflict(f"There is a version {name[:80]} in this versionbase already.")
            row = {"name": name, "root": origin.root, "sequence": origin.sequence}
            connection.execute(insert(branches).values(**row, source=origin.name, made=time.time()))
        made = self._known[name] = replace(origin, name=name)
        return made

    def snapshot(self, name: str, snapshot: str) -> Branch:
        """Keep where a branch is now under an id of its own, for good. Raises NotFound."""
        with self._changing, self._engine.begin() as connection:
            now = self.branch(name)
            row = {
                "branch": name,
                "id": snapshot,
                "root": now.root,
                "sequence": now.sequence,
                "at": time.time(),
            }
            connection.execute(insert(snapshots).values(**row))
        return now

    def drop_snapshot(self, name: str, snapshot: str) -> None:
        """Nothing happens if there is none."""
        with self._changing, self._engine.begin() as connection:
            wanted = (snapshots.c.branch == name) & (snapshots.c.id == snapshot)
            connection.execute(delete(snapshots).where(wanted))

    def drop(self, name: str) -> None:
        """A branch, its commits and its snapshots; nothing happens if it is not there. Its nodes are collected."""
        with self._changing, self._engine.begin() as connection:
            connection.execute(delete(branches).where(branches.c.name == name))
            connection.execute(delete(commits).where(commits.c.branch == name))
            connection.execute(delete(snapshots).where(snapshots.c.branch == name))
            self._known.pop(name, None)

    def restore(self, name: str, snapshot: str) -> Branch:
        """A commit that makes a branch what it was at a snapshot. Raises NotFound."""
        with self._changing:
            now, then = self.branch(name), self.at(name, snapshot)
            restored = Branch(name, then.root, now.sequence + 1)
            self._write([restored])
            return restored

    def commit(self, wishes: Sequence[Wish]) -> list[Branch | LazycloudError]:
        """Several transactions, one after the other, in one write to the disk: where each left its branch.

        One whose reads do not hold any more, or whose branch is gone, has a Conflict or NotFound instead, and changes
        nothing. Raises what the database raises: then none of them has changed anything.
        """
        with self._changing:
            stands: dict[str, Branch] = {}
            results: list[Branch | LazycloudError] = []
            written: list[Branch] = []
            try:
                for wish in wishes:
                    result = self._stage(wish, stands)
                    results.append(result)
                    if isinstance(result, Branch) and wish.changes:
                        written.append(result)
                self._write(written)
            finally:
                self._fresh.clear()
            return results

    def _stage(self, wish: Wish, stands: dict[str, Branch]) -> Branch | LazycloudError:
        try:
            now = stands.get(wish.branch) or self.branch(wish.branch)
            if now.root != wish.root and not wish.holds(now.root):
                return Conflict("What this transaction read has been changed meanwhile.", "Do it again.")
        except NotFound as problem:
            return problem
        if not wish.changes:
            return now
        root = apply(self, now.root, wish.changes)
        stands[wish.branch] = Branch(wish.branch, root, now.sequence + 1)
        return stands[wish.branch]

    def _write(self, written: Sequence[Branch]) -> None:
        if not written:
            return
        at, last = time.time(), {branch.name: branch for branch in written}
        with self._engine.begin() as connection:
            if self._fresh:
                rows = [{"number": number, "data": encode(node)} for number, node in self._fresh.items()]
                connection.execute(insert(nodes), rows)
            connection.execute(
                insert(commits),
                [
                    {"branch": one.name, "sequence": one.sequence, "root": one.root, "at": at}
                    for one in written
                ],
            )
            connection.execute(
                update(branches).where(branches.c.name == bindparam("of")),
                [{"of": one.name, "root": one.root, "sequence": one.sequence} for one in last.values()],
            )
        for number, node in self._fresh.items():
            self._keep(number, node)
        self._known |= last

    # Collection

    def expire(self, before: float) -> None:
        """Forget commits before that time (unix), but for the last of each branch: nobody can watch from there."""
        with self._changing, self._engine.begin() as connection:
            connection.execute(delete(commits).where(commits.c.at < before))

    def collect(self, pinned: Callable[[], Sequence[int]] = tuple) -> Iterator[int]:
        """Remove nodes that no branch, commit or snapshot reaches, in small steps: how many each has removed.

        Others read and change between the steps. `pinned` are roots that readers hold. Nodes that were made since it
        began stay; whatever is reached later is reached from there, or was reachable when it began.
        """
        with self._changing, self._engine.connect() as connection:
            last = self._next - 1
            tables = (branches, commits, snapshots)
            roots = {
                row[0] for table in tables for row in connection.execute(select(table.c.root).distinct())
            }
            roots |= set(pinned())
        reached = bytearray(last // 8 + 1)
        for root in sorted(roots - {EMPTY}):
            yield from self._mark(root, reached)
        yield from self._sweep(reached, last)

    def _mark(self, root: int, reached: bytearray) -> Iterator[int]:
        """Leaves are not read: they refer to nothing."""
        height, node = 0, self.read(root)
        while isinstance(node, Inner):
            height, node = height + 1, self.read(node.children[0])
        stack, looked = [(root, height)], 0
        while stack:
            number, above = stack.pop()
            if number >> 3 < len(reached):
                if reached[number >> 3] & (1 << (number & 7)):
                    continue
                reached[number >> 3] |= 1 << (number & 7)
            if above:
                node = self.read(number)
                assert isinstance(node, Inner)
                stack += [(child, above - 1) for child in node.children]
                looked += 1
                if looked % MARKED == 0:
                    yield 0

    def _sweep(self, reached: bytearray, last: int) -> Iterator[int]:
        seen = 0
        while seen < last:
            with self._changing, self._engine.begin() as connection:
                part = select(nodes.c.number).where(nodes.c.number > seen, nodes.c.number <= last)
                numbers = [row[0] for row in connection.execute(part.order_by(nodes.c.number).limit(SWEPT))]
                gone = [number for number in numbers if not reached[number >> 3] & (1 << (number & 7))]
                if gone:
                    connection.execute(
                        delete(nodes).where(nodes.c.number == bindparam("gone")),
                        [{"gone": one} for one in gone],
                    )
            with self._caching:
                for number in gone:
                    _, freed = self._cache.pop(number, (None, 0))
                    self._cached -= freed
            if not numbers:
                return
            seen = numbers[-1]
            yield len(gone)

    def _prepare_sqlite(self, connection: object, _: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={'NORMAL' if self._relaxed else 'FULL'}")
        cursor.execute("PRAGMA busy_timeout=10000")
        cursor.close()


_SELECT = {
    "sqlite": "SELECT data FROM versionbase_nodes WHERE number = ?",
    "postgresql": "SELECT data FROM versionbase_nodes WHERE number = %s",
}
