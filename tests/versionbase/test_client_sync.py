"""The client without await: from many threads, after a fork, and at the end of a process."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from lazycloud.versionbase import client
from lazycloud.versionbase.client import (
    BadInput,
    Conflict,
    ConnectionLost,
    ReadOnly,
    SyncDatabase,
    TimedOut,
    connect_sync,
)
from tests.versionbase.peer import Frame, Line, Peer
from tests.versionbase.test_client import (
    a_transaction,
    change,
    dying,
    echo,
    stream_of,
    with_credits,
    writing,
)
from tests.waiting import PATIENCE

T = TypeVar("T")


class Aside:
    """A peer whose loop is in a thread of its own, for tests that block."""

    def __init__(self) -> None:
        self.peer = Peer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.do(self.peer.open())

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

    def until(self, holds: Callable[[], bool]) -> None:
        self.do(self.peer.until(holds))

    def close(self) -> None:
        self.do(self.peer.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def aside() -> Iterator[Aside]:
    made = Aside()
    yield made
    made.close()


@pytest.fixture
def server(aside: Aside) -> Peer:
    return aside.peer


@pytest.fixture
def db(server: Peer) -> Iterator[SyncDatabase]:
    with connect_sync(server.url) as opened:
        yield opened


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (client.Database, client.SyncDatabase),
        (client.Collection, client.SyncCollection),
        (client.Writer, client.SyncWriter),
        (client.Reader, client.SyncReader),
        (client.PastReader, client.SyncPastReader),
        (client.View, client.SyncView),
        (client.Transaction, client.SyncTransaction),
        (client.Find, client.SyncFind),
        (client.Results, client.SyncResults),
        (client.Owner, client.SyncOwner),
    ],
)
def test_it_has_all_that_the_other_one_has(one: type, other: type) -> None:
    def shape(kind: type) -> dict[str, list[str]]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {
            name: [f"{p.name} {p.kind} {p.default}" for p in inspect.signature(method).parameters.values()]
            for name, method in methods
            if not name.startswith("_")
        }

    assert shape(one) == shape(other)


def test_the_past_is_read_only(server: Peer, db: SyncDatabase) -> None:
    for do in writing():
        with pytest.raises(ReadOnly, match="past is read-only"):
            getattr(db.at("s").collection("a"), do)()
    assert server.frames == []


def test_requests_return_what_they_are_answered(server: Peer, db: SyncDatabase) -> None:
    posts = db.collection("posts")
    echo(
        server,
        get=[{"a": 1}],
        insert=["k"],
        replace=None,
        update={"a": 2},
        delete=1,
        count=5,
        status={"sequence": 3},
    )
    assert posts.insert({"a": 1}) == "k"
    found = posts.get("k")
    assert (found, found and found.key) == ({"a": 1}, "k")
    posts.replace("k", {"a": 3})
    assert posts.update("k", {"a": 2}) == {"a": 2}
    assert posts.delete("k") is True
    assert posts.count() == 5
    assert db.sequence() == 3


def test_a_find_is_a_loop(server: Peer, db: SyncDatabase) -> None:
    server.answer = with_credits(stream_of(*([[str(n), {"n": n}]] for n in range(50))))
    assert [document["n"] for document in db.collection("a").find()] == list(range(50))
    assert len(db.collection("a").find().to_list()) == 50
    assert db.collection("a").find().first() == {"n": 0}


def test_a_loop_that_is_left_cancels_its_find(aside: Aside, server: Peer, db: SyncDatabase) -> None:
    server.answer = with_credits(stream_of(*([[str(n), {"n": n}]] for n in range(50))))
    for _ in db.collection("a").find():
        break
    aside.until(lambda: bool(server.asked("cancel")))


def test_many_threads_share_a_connection(server: Peer, db: SyncDatabase) -> None:
    async def get(line: Line, frame: Frame) -> None:
        await line.ok(frame, [{"n": key} for key in frame["keys"]])

    echo(server, get=get)
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda n: db.collection("a").get(str(n)), range(200)))
    assert found == [{"n": str(n)} for n in range(200)]
    assert len(server.lines) == 1


def test_transactions_commit_or_are_given_up(aside: Aside, server: Peer, db: SyncDatabase) -> None:
    a_transaction(server, insert=["k"])
    with db.transaction() as tx:
        assert tx.collection("a").insert({}) == "k"
    assert [(frame["do"], frame.get("in")) for frame in server.frames] == [
        ("begin", None),
        ("insert", 5),
        ("commit", 5),
    ]
    with pytest.raises(ZeroDivisionError), db.transaction():
        raise ZeroDivisionError
    aside.until(lambda: bool(server.asked("abort")))


def test_run_tries_again_after_a_conflict(server: Peer, db: SyncDatabase) -> None:
    refusals = 3

    async def commit(line: Line, frame: Frame) -> None:
        nonlocal refusals
        refusals -= 1
        await (line.error(frame, "conflict") if refusals >= 0 else line.ok(frame, {"sequence": 10}))

    a_transaction(server, commit=commit)
    with pytest.raises(Conflict), db.transaction():
        pass
    assert db.run(lambda tx: tx.sequence) == 9
    assert len(server.asked("begin")) == 4


def test_a_watch_ends_from_another_thread(aside: Aside, server: Peer, db: SyncDatabase) -> None:
    echo(server, status={"sequence": 7}, watch=lambda line, frame: line.part(frame, change(8, "k")))
    watching = db.watch("a")
    came = []
    thread = threading.Thread(target=lambda: came.extend(watching))
    thread.start()
    aside.until(lambda: bool(server.asked("watch")))
    watching.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    aside.until(lambda: bool(server.asked("cancel")))


def test_reads_do_not_notice_a_server_that_is_replaced(server: Peer, db: SyncDatabase) -> None:
    dying(server, 2, get=[{"a": 1}])
    assert db.collection("a").get("k") == {"a": 1}


def test_deadlines_hold(server: Peer, db: SyncDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "GRACE", 0.0)
    with pytest.raises(TimedOut):
        db.collection("a").get("k", timeout=0.05)


def test_the_timeout_is_one_of_all_of_connecting() -> None:
    began = time.monotonic()
    with (
        pytest.raises(ConnectionLost, match=r"no versionbase at ws://127\.0\.0\.1:1/"),
        connect_sync("ws://v:k@127.0.0.1:1/", timeout=0.3),
    ):
        pass
    assert 0.2 < time.monotonic() - began < client.CONNECTING


def test_what_an_owner_exports_from_one_database_is_loaded_into_another(
    server: Peer, db: SyncDatabase
) -> None:
    items = [{"collection": "a", "key": str(n), "document": {}} for n in range(10)]
    echo(server, **{"import": None, "export": stream_of(items[:5], items[5:])})
    assert db.owner.load("new", db.export()) == 10
    assert [item for frame in server.asked("import") for item in frame["documents"]] == items


def in_a_fork(work: Callable[[], str]) -> str:
    """What `work` says in a child of this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = work()
        except BaseException as failure:
            said = f"{type(failure).__name__}: {failure}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said_there:
        told = said_there.read().decode()
    os.waitpid(pid, 0)
    return told


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_has_its_own_connection_and_the_parent_keeps_its(server: Peer, db: SyncDatabase) -> None:
    async def get(line: Line, frame: Frame) -> None:
        await line.ok(frame, [{"line": server.lines.index(line)}])

    echo(server, get=get)
    posts = db.collection("posts")
    assert posts.get("k") == {"line": 0}

    def twice() -> str:
        return str([found["line"] for found in posts.get_many(["k"]) + posts.get_many(["k"]) if found])

    assert in_a_fork(twice) == "[1, 1]"
    assert in_a_fork(twice) == "[2, 2]"
    assert posts.get("k") == {"line": 0}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_transaction_stays_in_the_process_that_began_it(server: Peer, db: SyncDatabase) -> None:
    a_transaction(server, get=[None])
    with db.transaction() as tx:
        told = in_a_fork(lambda: str(tx.collection("a").get("k")))
    assert "the process that this one was forked from" in told


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_connection_ends_with_the_parent_though_a_fork_lives_on(aside: Aside, server: Peer) -> None:
    database = connect_sync(server.url).open()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writing)
        os.read(reading, 1)  # until the parent's end of it is closed
        os._exit(0)
    os.close(reading)
    link = database._database._link
    assert link._wire is not None
    client._process.background().loop.call_soon_threadsafe(link._wire._socket.transport.abort)
    aside.until(lambda: server.lines[0].socket.close_code is not None)
    os.close(writing)
    os.waitpid(pid, 0)
    database.close()


SCRIPT = """
import threading
from lazycloud.versionbase.client import connect_sync
db = connect_sync({url!r})
posts = db.collection("a")
threading.Thread(target=lambda: list(db.watch("a")), daemon=True).start()
print(posts.get("k"))
found = iter(posts.find())
print(next(found))
"""


def test_a_process_ends_in_silence_whatever_is_open(aside: Aside, server: Peer) -> None:
    echo(
        server, get=[{"a": 1}], status={"sequence": 7}, watch=lambda line, frame: line.part(frame, {"sequence": 7}),
        find=lambda line, frame: line.part(frame, ["k", {}]),
    )  # fmt: skip
    began = time.monotonic()
    told = subprocess.run(
        [sys.executable, "-X", "dev", "-c", SCRIPT.format(url=server.url)],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert (told.returncode, told.stdout.splitlines()) == (
        0,
        ["Document({'a': 1}, key='k')", "Document({}, key='k')"],
    )
    slow = [line for line in told.stderr.splitlines() if line.startswith("Executing <")]  # of a busy machine
    assert told.stderr.splitlines() == slow
    assert time.monotonic() - began < PATIENCE / 2


def test_ctrl_c_ends_a_wait(aside: Aside, server: Peer) -> None:
    script = f"from lazycloud.versionbase import *; connect_sync({server.url!r}).collection('a').get('k')"
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    aside.until(lambda: bool(server.asked("get")))
    process.send_signal(2)
    _, said = process.communicate(timeout=PATIENCE)
    assert said.rstrip().endswith("KeyboardInterrupt")
    aside.until(lambda: server.lines[0].socket.close_code is not None)


def test_the_thread_that_does_the_work_is_not_asked_to_wait(server: Peer, db: SyncDatabase) -> None:
    async def inside() -> None:
        with pytest.raises(BadInput, match="cannot wait in the thread"):
            db.collection("a").get("k")

    client._wait(inside())


def test_closed_is_closed(server: Peer) -> None:
    with connect_sync(server.url) as database:
        pass
    with pytest.raises(ConnectionLost, match="closed by its program"):
        database.collection("a").get("k")
