"""What may be asked for: each request of docs/versionbase-protocol.md, in the order of its tables.

A request is begun when it arrives. It comes to its result at once; or to a `Later`, which waits for the disk; a
`Stream`, which is read in turns; or a coroutine.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazycloud.errors import BadInput, NotFound
from lazycloud.versionbase import past, upkeep, verification
from lazycloud.versionbase.problems import Denied
from lazycloud.versionbase.protocol import LARGEST_ID, Encoded, Request, demand_fits
from lazycloud.versionbase.queries import Query
from lazycloud.versionbase.storage import OWNERS, Branch
from lazycloud.versionbase.streams import Stream
from lazycloud.versionbase.transactions import Transaction
from lazycloud.versionbase.verification import Checked
from lazycloud.versionbase.watching import Watching, moment

if TYPE_CHECKING:
    from lazycloud.versionbase.connection import Connection, Opened

KEYS = 10_000  # that are read or deleted at once, at most
SNAPSHOTS = (
    1000  # of a version, beyond which it is given no further one by its own key: they are told at once
)
BACKGROUND = 256 << 10  # bytes of a request whose work is done in another thread: it takes more than a turn
EACH = 2 << 10  # bytes that each document of it counts besides: with indexes, the least takes a while
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,127}")
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True)
class Later:
    """A result that somebody else has, in time; it cannot be given up. `weight`: bytes that it takes meanwhile."""

    future: Future[Any]
    shape: Callable[[Any], Any] = lambda result: result
    weight: int = 0

    @property
    def result(self) -> Any:
        """Once the future is done. Raises what that raises."""
        return self.shape(self.future.result())


@dataclass(frozen=True)
class Aside:
    """What is done in another thread, while no more is read of what its client sends."""

    work: Callable[[], Any]


Begin = Callable[["Connection", Request], Any]


@dataclass(frozen=True)
class Kind:
    begin: Begin
    members: frozenset[str]
    of_owner: bool


KINDS: dict[str, Kind] = {}


def request(members: str = "", of_owner: bool = False) -> Callable[[Begin], Begin]:
    """Named as the function is. `members` are all that a frame of it may have."""

    def known(begin: Begin) -> Begin:
        KINDS[begin.__name__.rstrip("_")] = Kind(begin, frozenset(members.split()), of_owner)
        return begin

    return known


def begin(connection: Connection, asked: Request) -> Any:
    """Raises LazycloudError for what cannot be."""
    kind = KINDS.get(asked.do)
    if kind is None:
        raise BadInput(
            f"There is no request {asked.do[:80]!r}.", "docs/versionbase-protocol.md has all of them."
        )
    if kind.of_owner:
        connection.demand_owner(asked.do)
    asked.demand_known(kind.members)
    return kind.begin(connection, asked)


def not_for_versions(do: str) -> Denied:
    return Denied(
        f"`{do[:80]}` of this is for the owner of the versionbase alone.",
        "A version's key opens that version only.",
    )


# What many of them have


def _reading(connection: Connection, asked: Request) -> tuple[Transaction, Callable[[], None]]:
    """The transaction to read in, and what ends it: nothing, if it is the client's own."""
    if asked.members.get("in") is not None:
        if asked.members.get("at") is not None:
            raise BadInput(f"`{asked.do}`: `at` is said where a transaction begins, not in it.")
        return connection.opened(asked.whole("in", 1, LARGEST_ID)).transaction, lambda: None
    transaction = _transaction(connection, *_place(connection, asked.text("at", "")))
    return transaction, lambda: connection.engine.close_transaction(transaction)


def _transaction(connection: Connection, version: str, at: str, write: bool = False) -> Transaction:
    """Raises Gone, NotFound."""
    birth = connection.birth if version == connection.version else ""
    return connection.engine.transaction(version, at, write, birth)


def _read(connection: Connection, asked: Request, work: Callable[[Transaction], Any]) -> Any:
    transaction, end = _reading(connection, asked)
    try:
        return work(transaction)
    finally:
        end()


def _write(
    connection: Connection, asked: Request, work: Callable[[Transaction], Any], documents: int = 1
) -> Any:
    """In the client's transaction, or in one of its own."""
    size = asked.size + documents * EACH
    if asked.members.get("in") is not None:
        transaction = connection.opened(asked.whole("in", 1, LARGEST_ID)).transaction
        connection.server.demand_memory(connection.version, asked.size)
        return Aside(lambda: work(transaction)) if size > BACKGROUND else work(transaction)
    return _perform(connection, connection.version, work, size)


def _perform(connection: Connection, version: str, work: Callable[[Transaction], Any], size: int) -> Later:
    birth = connection.branch().birth if version == connection.version else ""
    if size > BACKGROUND:
        return _perform_behind(connection, version, work, birth)
    return Later(connection.engine.perform(version, work, birth), lambda done: done[0])


def _perform_behind(
    connection: Connection, version: str, work: Callable[[Transaction], Any], birth: str
) -> Later:
    """In another thread, as far as that goes."""
    performed: Future[tuple[Any, int]] = Future()

    def hand_on(done: Future[tuple[Any, int]]) -> None:
        if problem := done.exception():
            performed.set_exception(problem)
        else:
            performed.set_result(done.result())

    def perform() -> None:
        connection.engine.perform(version, work, birth).add_done_callback(hand_on)

    asyncio.get_running_loop().run_in_executor(None, perform)
    return Later(performed, lambda done: done[0])


def _change(
    connection: Connection, what: Callable[[], Any], shape: Callable[[Any], Any], *changed: str
) -> Later:
    """Of branches as a whole; who watches those that change is told. Raises Gone if the client's own is no more."""

    def work() -> Any:
        connection.branch()
        result = what()
        for version in changed:
            connection.engine.notify(version)
        return result

    return Later(connection.engine.change(work), shape)


def _place(connection: Connection, at: str) -> tuple[str, str]:
    """A version and a snapshot of it, or "" for it as it is now. Raises NotFound, Gone, Denied."""
    connection.branch()
    if not at or not connection.is_owner:
        return connection.version, at
    version, parted, snapshot = at.partition("@")
    if parted:
        return version, snapshot
    try:
        connection.engine.storage.at(connection.version, at)
    except NotFound:
        connection.engine.storage.branch(at)
        return at, ""
    return connection.version, at


def _version(connection: Connection, asked: Request) -> str:
    """The one that is named; the connection's if none is. Raises Denied, NotFound."""
    named = asked.text("version", connection.version)
    if named != connection.version:
        connection.demand_owner(asked.do)
        connection.engine.storage.branch(named)
    else:
        connection.branch()
    return named


def _query(asked: Request) -> Query:
    return Query(
        asked.text("filter", ""),
        asked.mapping("params", {}),
        asked.text("map", ""),
        asked.text("order", ""),
        asked.whole_or_none("limit", 0, LARGEST_ID),
        asked.whole("skip", 0, LARGEST_ID, 0),
    )


# Documents


@request("collection keys in at")
def get(connection: Connection, asked: Request) -> Any:
    collection, keys = asked.text("collection"), _keys(asked)
    transaction, end = _reading(connection, asked)
    found: list[bytes] = []
    reading = Stream(
        _encoded(connection, transaction, collection, keys, found),
        lambda stream: Encoded(connection.encoding.listed(found)),
        end,
        told=False,
    )
    if asked.members.get("in") is None:
        return reading
    for _ in reading.items:  # before what its client asks next of the transaction
        pass
    return reading.result


def _keys(asked: Request) -> list[str]:
    keys = asked.texts("keys")
    if len(keys) > KEYS:
        raise BadInput(f"`{asked.do}` takes {KEYS:,} keys at once.", "Ask several times.")
    return keys


def _encoded(
    connection: Connection, transaction: Transaction, collection: str, keys: list[str], found: list[bytes]
) -> Iterator[None]:
    """Each document into `found`. Raises TooLarge when they are more than an answer holds."""
    transaction.get(collection, [])
    size = 0
    for key in keys:
        (document,) = transaction.get(collection, [key])
        data = connection.encoding.value(document)
        size += len(data)
        demand_fits(size)
        found.append(data)
        yield None


@request("collection documents keys in")
def insert(connection: Connection, asked: Request) -> Any:
    collection, documents, keys = (
        asked.text("collection"),
        asked.mappings("documents"),
        asked.texts_or_none("keys"),
    )
    return _write(
        connection, asked, lambda transaction: transaction.insert(collection, documents, keys), len(documents)
    )


@request("collection key document create in")
def replace(connection: Connection, asked: Request) -> Any:
    collection, key, document = asked.text("collection"), asked.text("key"), asked.mapping("document")
    create = asked.flag("create", False)
    return _write(
        connection, asked, lambda transaction: transaction.replace(collection, key, document, create)
    )


@request("collection key set remove in")
def update(connection: Connection, asked: Request) -> Any:
    collection, key, members = asked.text("collection"), asked.text("key"), asked.mapping("set", {})
    remove = asked.texts("remove", [])
    weight = [0]

    def work(transaction: Transaction) -> Encoded:
        """What is too large to be told is not done either."""
        data = connection.encoding.value(transaction.update(collection, key, members, remove))
        demand_fits(len(data))
        weight[0] = len(data)
        return Encoded(data)

    answer = _write(connection, asked, work)
    return dataclasses.replace(answer, weight=weight[0]) if isinstance(answer, Later) else answer


@request("collection keys in")
def delete(connection: Connection, asked: Request) -> Any:
    collection, keys = asked.text("collection"), _keys(asked)
    return _write(connection, asked, lambda transaction: transaction.delete(collection, keys), len(keys))


@request("collection filter params map order limit skip in at window")
def find(connection: Connection, asked: Request) -> Stream:
    transaction, end = _reading(connection, asked)
    try:
        found = transaction.find(asked.text("collection"), _query(asked))
    except BaseException:
        end()
        raise
    return Stream(found, lambda stream: stream.count, end)


@request("collection filter params in at")
def count(connection: Connection, asked: Request) -> Stream:
    transaction, end = _reading(connection, asked)
    try:
        counted = transaction.count(asked.text("collection"), _query(asked))
    except BaseException:
        end()
        raise
    return Stream(counted, lambda stream: stream.last, end, told=False)


@request("collection filter params map order limit skip in at window")
def explain(connection: Connection, asked: Request) -> Any:
    collection, query = asked.text("collection"), _query(asked)
    return _read(connection, asked, lambda transaction: transaction.explain(collection, query))


# Transactions


@request("write at")
def begin_(connection: Connection, asked: Request) -> Any:
    connection.demand_room()
    version, at = _place(connection, asked.text("at", ""))
    write = asked.flag("write", True) and version == connection.version
    transaction = _transaction(connection, version, at, write)
    return {"in": connection.begin_transaction(transaction), "sequence": transaction.begun.sequence}


@request("in")
def commit(connection: Connection, asked: Request) -> Any:
    """What still reads in it is waited for: the reads of a transaction count when it is committed."""
    number = asked.whole("in", 1, LARGEST_ID)
    opened = connection.opened(number)
    opened.is_ending = True
    if opened.reading:
        return _commit_when_read(connection, number, opened)
    return _commit(connection, number, opened.transaction)


def _commit(connection: Connection, number: int, transaction: Transaction) -> Later:
    try:
        connection.branch()
        future = connection.engine.commit(transaction)
    except BaseException:
        connection.end_transaction(number)
        raise
    connection.forget_transaction(number)
    future.add_done_callback(lambda _: connection.engine.close_transaction(transaction))
    return Later(future, lambda sequence: {"sequence": sequence})


async def _commit_when_read(connection: Connection, number: int, opened: Opened) -> Later:
    try:
        while tasks := [running.task for running in opened.reading if running.task is not None]:
            await asyncio.wait(tasks)
    except BaseException:
        connection.end_transaction(number)
        raise
    return _commit(connection, number, opened.transaction)


@request("in")
def abort(connection: Connection, asked: Request) -> None:
    number = asked.whole("in", 1, LARGEST_ID)
    connection.opened(number)
    connection.end_transaction(number)


# Collections


@request("in at")
def collections(connection: Connection, asked: Request) -> Any:
    return _read(
        connection,
        asked,
        lambda transaction: [transaction.shown(collection) for collection in transaction.collections()],
    )


@request("collection in")
def drop_collection(connection: Connection, asked: Request) -> Any:
    collection = asked.text("collection")
    return _write(connection, asked, lambda transaction: transaction.drop_collection(collection))


@request("collection path unique name window")
def create_index(connection: Connection, asked: Request) -> Stream:
    """Who gives it up leaves it to the server, which builds it on."""
    connection.branch()
    collection = asked.text("collection")
    steps = upkeep.create_index(
        connection.engine,
        connection.version,
        collection,
        asked.text("path"),
        asked.flag("unique", False),
        asked.text("name", ""),
        connection.birth,
    )
    return Stream(
        connection.server.behind(_returning(steps)),
        lambda stream: stream.last.shown(),
        connection.server.building.asked(connection.birth, collection),
        told=False,
    )


def _returning(steps: Iterator[Any]) -> Iterator[Any]:
    """What the last step's future has is the last item."""
    last: Future[Any] | None = None
    for step in steps:
        if step is not None:
            last = step
        yield step
    if last is not None:
        yield last.result()[0]


@request("collection name in")
def drop_index(connection: Connection, asked: Request) -> Any:
    collection, name = asked.text("collection"), asked.text("name")
    return _write(connection, asked, lambda transaction: transaction.drop_index(collection, name))


@request("collection schema check strict window")
def set_schema(connection: Connection, asked: Request) -> Stream:
    connection.branch()
    steps = upkeep.set_schema(
        connection.engine,
        connection.version,
        asked.text("collection"),
        asked.mapping_or_none("schema"),
        asked.flag("check", True),
        connection.birth,
        asked.flag("strict", True),
    )
    return Stream(connection.server.behind(steps), told=False)


# What was, and what comes


@request("collection since filter params window")
def watch(connection: Connection, asked: Request) -> Any:
    connection.branch()
    return Watching(
        connection.engine,
        connection.version,
        asked.whole_or_none("since", 0, LARGEST_ID),
        asked.text("collection", ""),
        asked.text("filter", ""),
        asked.mapping("params", {}),
    )


@request("collection key limit window")
def history(connection: Connection, asked: Request) -> Stream:
    connection.branch()
    limit = asked.whole_or_none("limit", 0, LARGEST_ID)
    return Stream(
        _timed(
            past.history(
                connection.engine,
                connection.version,
                asked.text("collection"),
                asked.text("key"),
                limit,
                connection.birth,
            )
        ),
        lambda stream: stream.count,
    )


@request("name version")
def snapshot(connection: Connection, asked: Request) -> Any:
    version, name = _version(connection, asked), asked.text("name", "")
    if name and not _SNAPSHOT.fullmatch(name):
        raise BadInput(f"{name[:80]!r} is no name of a snapshot: letters, digits and . _ + - are.")
    whose = OWNERS if connection.is_owner else ""
    known = f"{whose}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
    storage = connection.engine.storage

    def take() -> Any:
        if not connection.is_owner and len(storage.snapshots(version)) >= SNAPSHOTS:
            raise BadInput(f"{version[:80]} has {SNAPSHOTS:,} snapshots or more.", "Drop some of them.")
        return storage.snapshot(version, known, name)

    return _change(connection, take, _shown_snapshot)


@request("version")
def snapshots(connection: Connection, asked: Request) -> Any:
    return [_shown_snapshot(row) for row in connection.engine.storage.snapshots(_version(connection, asked))]


@request("snapshot version")
def drop_snapshot(connection: Connection, asked: Request) -> Any:
    version, wanted = _version(connection, asked), asked.text("snapshot")
    storage = connection.engine.storage

    def drop() -> bool:
        rows = storage.snapshots(version)
        found = [row.id for row in rows if row.id == wanted] or [
            row.id for row in rows if wanted and row.name == wanted
        ]
        if found and found[0].startswith(OWNERS) and not connection.is_owner:
            raise Denied(f"The snapshot {wanted[:80]} is the owner's.", "Only who took it may drop it.")
        return bool(found) and storage.drop_snapshot(version, found[0])

    return _change(connection, drop, bool)


@request("snapshot version")
def restore(connection: Connection, asked: Request) -> Any:
    version, wanted = _version(connection, asked), asked.text("snapshot")
    if not wanted:
        raise BadInput("`restore`: `snapshot` is empty.")
    return _change(
        connection,
        lambda: connection.engine.storage.restore(version, wanted),
        lambda branch: {"sequence": branch.sequence},
        version,
    )


def _pinned(connection: Connection, at: str) -> Branch:
    version, snapshot = _place(connection, at)
    birth = connection.birth if version == connection.version else ""
    return connection.engine.pinned_at(version, snapshot, birth)


@request("from to collection window")
def diff(connection: Connection, asked: Request) -> Stream:
    engine, only = connection.engine, asked.text("collection", "")
    one = _pinned(connection, asked.text("from"))
    try:
        other = _pinned(connection, asked.text("to", ""))
    except BaseException:
        engine.unpin(one.root)
        raise

    def end() -> None:
        engine.unpin(one.root)
        engine.unpin(other.root)

    try:
        found = past.differences(engine, one, other, only)
    except BaseException:
        end()
        raise
    return Stream((change and change.shown() for change in found), lambda stream: stream.count, end)


@request("collection at version window")
def export(connection: Connection, asked: Request) -> Stream:
    version, at, only = _version(connection, asked), asked.text("at", ""), asked.text("collection", "")
    if version == connection.version:
        version, at = _place(connection, at)
    transaction = _transaction(connection, version, at)
    return Stream(
        _exported(transaction, only),
        lambda stream: stream.count,
        lambda: connection.engine.close_transaction(transaction),
    )


def _exported(transaction: Transaction, only: str) -> Iterator[Any]:
    for collection in transaction.collections():
        if only and collection.name != only:
            continue
        shown = transaction.shown(collection)
        yield {"collection": collection.name, "indexes": shown["indexes"], "schema": shown["schema"]}
        for found in transaction.find(collection.name, Query()):
            yield found and {"collection": collection.name, "key": found[0], "document": found[1]}


@request()
def status(connection: Connection, asked: Request) -> Any:
    branch = connection.branch()

    def told(transaction: Transaction) -> Any:
        every = transaction.collections()
        documents = sum(transaction.documents(collection.name) for collection in every)
        return {
            "version": branch.name,
            "sequence": branch.sequence,
            "collections": len(every),
            "documents": documents,
            **connection.server.figures(None if connection.is_owner else connection.version),
        }

    return _read(connection, asked, told)


# The owner's


@request(of_owner=True)
def versions(connection: Connection, asked: Request) -> Any:
    return [
        {
            "name": row.name,
            "source": row.source,
            "sequence": row.sequence,
            "made": moment(row.made),
            "changed": moment(row.changed),
        }
        for row in connection.engine.storage.branches()
    ]


@request("version source snapshot", of_owner=True)
def fork(connection: Connection, asked: Request) -> Any:
    version, source, at = (
        check_version(asked.text("version")),
        asked.text("source", "production"),
        asked.text("snapshot", ""),
    )
    return Later(connection.server.make(version, source, at), lambda branch: {"sequence": branch.sequence})


@request("version", of_owner=True)
def drop(connection: Connection, asked: Request) -> Any:
    version = asked.text("version")
    return _change(connection, lambda: connection.engine.storage.drop(version), bool, version)


@request("version other", of_owner=True)
def swap(connection: Connection, asked: Request) -> Any:
    one, other = _version(connection, asked), asked.text("other")
    return _change(connection, lambda: connection.engine.storage.swap(one, other), lambda _: None, one, other)


@request("version", of_owner=True)
def key(connection: Connection, asked: Request) -> Any:
    branch = connection.engine.storage.branch(asked.text("version", connection.version))
    return connection.server.keys.version(branch.name, branch.birth)


@request("version snapshot whole", of_owner=True)
def size(connection: Connection, asked: Request) -> Stream:
    """Beside all other versions, and all snapshots but that one; or with what it shares with them."""
    whole = asked.flag("whole", False)
    storage, version, wanted = (
        connection.engine.storage,
        _version(connection, asked),
        asked.text("snapshot", ""),
    )
    mine = connection.engine.pinned_at(version, wanted)

    def others() -> Iterator[int]:
        for row in storage.branches():
            if wanted or row.birth != mine.birth:
                yield row.root
        for birth, one in storage.every_snapshot():
            if birth != mine.birth or not wanted or wanted not in (one.id, one.name):
                yield one.root

    def measured() -> Iterator[int]:
        besides = set() if whole else set(others())
        with storage.holding(besides):
            yield storage.size(mine.root, besides)

    def end() -> None:
        connection.engine.unpin(mine.root)

    return Stream(connection.server.behind(measured()), lambda stream: stream.last, end, told=False)


@request("bytes", of_owner=True)
def limit(connection: Connection, asked: Request) -> None:
    """What each version may have of its own, from now on."""
    connection.engine.storage.stored.limit = asked.whole("bytes", 0, LARGEST_ID)
    connection.engine.ask_for_look()


@request("window", of_owner=True)
def collect(connection: Connection, asked: Request) -> Stream:
    removed = [0]

    def counted() -> Iterator[int]:
        for number in connection.engine.storage.collect(connection.engine.pinned):
            removed[0] += number
            yield number

    return Stream(connection.server.behind(counted()), lambda stream: removed[0])


@request("window", of_owner=True)
def verify(connection: Connection, asked: Request) -> Stream:
    looked: list[Checked] = [Checked(0, 0, 0)]

    def problems() -> Iterator[dict[str, str] | None]:
        for found in verification.verify(connection.engine.storage, contents=True):
            if isinstance(found, Checked):
                looked[0] = found
                yield None
            else:
                yield {"problem": found}

    def result(_: Stream) -> dict[str, int]:
        return {"nodes": looked[0].nodes, "entries": looked[0].entries}

    return Stream(connection.server.behind(problems()), result)


@request("documents version")
def import_(connection: Connection, asked: Request) -> Any:
    """As `export` has them; a document that is there is replaced."""
    version, documents = _version(connection, asked), asked.mappings("documents")
    wanted = [
        (_member(one, "collection", str), _member(one, "key", str), _member(one, "document", dict))
        for one in documents
    ]

    def work(transaction: Transaction) -> int:
        for collection, key, document in wanted:
            transaction.replace(collection, key, document, create=True)
        return len(wanted)

    return _perform(connection, version, work, asked.size + len(wanted) * EACH)


def _member(of: dict[str, Any], name: str, wanted: type) -> Any:
    value = of.get(name)
    if not isinstance(value, wanted):
        raise BadInput(
            f"`import`: each of `documents` has `collection`, `key` and `document`; in one {name} is wrong."
        )
    return value


def check_version(name: str) -> str:
    """Raises BadInput for what a version cannot be called."""
    if not _VERSION.fullmatch(name):
        raise BadInput(f"{name[:80]!r} is no name of a version: letters, digits and . _ / + - are.")
    return name


def _shown_snapshot(row: Any) -> dict[str, Any]:
    return {"id": row.id, "name": row.name, "sequence": row.sequence, "at": moment(row.at)}


def _timed(items: Iterator[Any]) -> Iterator[Any]:
    """With times as datetimes."""
    return (item and {**item, "at": moment(item["at"])} for item in items)
