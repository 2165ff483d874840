"""The client for Python against a peer that does what servers do seldom: dies, keeps silent, sends too much."""

from __future__ import annotations

import ast
import asyncio
import copy
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import serve

from lazycloud.versionbase import client
from lazycloud.versionbase.client import (
    BadInput,
    Change,
    Conflict,
    ConnectionLost,
    Database,
    Denied,
    Document,
    Exists,
    Invalid,
    NotConfigured,
    ReadOnly,
    TimedOut,
    TooLarge,
    VersionbaseError,
    connect,
)
from tests.versionbase.peer import JSON, MSGPACK, Frame, Line, Peer, peer
from tests.waiting import PATIENCE, until

NOON = datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC)


@pytest.fixture
async def server() -> AsyncIterator[Peer]:
    async with peer() as made:
        yield made


@pytest.fixture
async def db(server: Peer) -> AsyncIterator[Database]:
    async with connect(server.url) as opened:
        yield opened


def echo(server: Peer, **answers: Any) -> None:
    """Each request is answered as `answers` says by its name: a result, an error's kind after a !, or a function."""

    async def answer(line: Line, frame: Frame) -> None:
        found = answers.get(frame.get("do", ""))
        if callable(found):
            await found(line, frame)
        elif isinstance(found, str) and found.startswith("!"):
            await line.error(frame, found[1:])
        elif frame.get("do") in answers:
            await line.ok(frame, found)

    server.answer = answer


# The connection


async def test_the_first_frame_says_who_it_is(server: Peer) -> None:
    async with connect(server.url, timeout=PATIENCE):
        (hello,) = server.lines[0].frames
    assert (hello["do"], hello["id"], hello["version"], hello["key"]) == ("hello", 0, "abc123", "key/1")
    assert hello["client"].startswith("python/")
    assert server.lines[0].socket.subprotocol == MSGPACK


@pytest.mark.parametrize(
    ("url", "version", "commit", "expected"),
    [
        ("ws://abc:k@h/", None, "fff", "abc"),
        ("ws://abc:k@h/", "def", "fff", "def"),
        ("ws://:k@h/", None, "fff", "fff"),
        ("ws://:k@h/", None, None, "production"),
        ("ws://a%2Fb:k@h/", None, None, "a/b"),
    ],
)
def test_the_version_is_the_urls_or_the_commits(
    monkeypatch: pytest.MonkeyPatch, url: str, version: str | None, commit: str | None, expected: str
) -> None:
    monkeypatch.delenv("COMMIT_ID", raising=False)
    if commit:
        monkeypatch.setenv("COMMIT_ID", commit)
    monkeypatch.setenv("VERSIONBASE_URL", url)
    assert connect(version=version).version == expected


def test_without_a_url_it_says_how_to_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERSIONBASE_URL", raising=False)
    with pytest.raises(NotConfigured, match=r"VERSIONBASE_URL is not set.*lazycloud versionbase serve"):
        connect()


@pytest.mark.parametrize(
    "url",
    ["http://v:k@h/", "ws://h/", "ws://v@h/", "ws:///", "ws://v:k@h:99999/", "ws://v:k@[h/", "nonsense"],
)
def test_a_url_that_is_none_says_what_one_looks_like(url: str) -> None:
    with pytest.raises(BadInput, match=r"ws://VERSION:KEY@HOST:PORT/"):
        connect(url)


async def test_a_wrong_key_is_denied_at_once(server: Peer) -> None:
    async def refuse(line: Line, hello: Frame) -> None:
        await line.error(hello, "denied", "The key does not fit.", "Ask for one.")

    server.greet = refuse
    with pytest.raises(Denied, match=r"The key does not fit\. Ask for one\.") as denied:
        async with connect(server.url):
            pass
    assert (denied.value.kind, denied.value.sentence, denied.value.hint) == (
        "denied",
        "The key does not fit.",
        "Ask for one.",
    )
    assert len(server.lines) == 1


async def test_where_no_server_is_it_says_so_in_time() -> None:
    with pytest.raises(ConnectionLost, match=r"no versionbase at ws://127\.0\.0\.1:1/") as lost:
        await connect("ws://v:k@127.0.0.1:1/").open(timeout=0.2)
    assert not lost.value.unknown


@pytest.fixture
def silent() -> Iterator[str]:
    """Of one who takes a connection, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"ws://v:k@127.0.0.1:{listening.getsockname()[1]}/"


DEAD = "ws://v:k@127.0.0.1:1/"
"""Where nobody is."""


@pytest.mark.parametrize("is_there", [False, True])
async def test_the_timeout_is_one_of_all_of_connecting(silent: str, is_there: bool) -> None:
    url = silent if is_there else DEAD
    where = url.partition("@")[2].rstrip("/")
    for opening in (lambda: connect(url, timeout=0.3), lambda: connect(url, timeout=0.3).open()):
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match=f"no versionbase at ws://{where}/: .*Is the server running"):
            await opening()
        assert 0.2 < time.monotonic() - began < client.CONNECTING


async def test_of_a_connection_that_did_not_come_about_nothing_is_left(silent: str) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(ConnectionLost):
        async with connect(silent, timeout=0.1):
            pass
    with pytest.raises(ConnectionLost):
        await connect(silent, timeout=0.1)
    assert asyncio.all_tasks() == before


async def test_another_server_is_told_from_a_versionbase() -> None:
    async def other(socket: Any) -> None:
        await socket.wait_closed()

    async with serve(other, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(BadInput, match="is no versionbase"):
            await connect(f"ws://v:k@127.0.0.1:{port}/").open()


async def test_it_waits_for_a_server_that_is_being_started(server: Peer) -> None:
    echo(server, count=3)
    await server.close()
    async with asyncio.TaskGroup() as tasks:
        database = connect(server.url)
        counting = tasks.create_task(database.collection("a").count())
        await until(lambda: database._link._failures > 0)
        await server.open()
        assert await counting == 3
    await database.close()


async def test_what_was_closed_stays_closed(server: Peer) -> None:
    async with connect(server.url) as database:
        pass
    with pytest.raises(ConnectionLost, match="closed by its program"):
        await database.collection("a").get("k")
    with pytest.raises(ConnectionLost, match="closed by its program"):
        await database.collection("a").find().to_list()


def test_each_event_loop_has_a_connection_of_its_own() -> None:
    async def read() -> None:
        async with peer() as server:
            echo(server, get=[{"a": 1}])
            database._place = database._link._place = client._Place.of(server.url, None, None, False)
            assert await database.collection("a").get("k") == {"a": 1}

            def elsewhere() -> None:
                asyncio.run(database.collection("a").count())

            with pytest.raises(BadInput, match="belongs to another event loop"):
                await asyncio.to_thread(elsewhere)

    database = connect("ws://v:k@h/")
    asyncio.run(read())
    asyncio.run(read())


# Values


@pytest.mark.parametrize("plain_json", [False, True])
async def test_values_come_back_as_they_went(server: Peer, plain_json: bool) -> None:
    document = {
        "none": None,
        "bools": [True, False],
        "ints": [0, -(2**63), 2**64 - 1],
        "floats": [0.1, -1e300],
        "text": "häßlich ✓ \x00",
        "bytes": b"\x00\xff",
        "at": NOON,
        "early": datetime(1, 1, 1, tzinfo=UTC),
        "price": Decimal("1.10"),
        "large": Decimal("12345678901234567890.123456789"),
        "deep": {"a": [{"b": []}], "": {}},
        "$bytes": "no bytes",
        "tags": [{"$bytes": "x"}, {"$datetime": 1}, {"$$x": {"$y": 2}}, {"$a": 1, "b": 2}],
    }
    inserted: list[Any] = []

    async def answer(line: Line, frame: Frame) -> None:
        found = frame["documents"][0] if frame["do"] == "insert" else inserted[0]
        inserted.append(found)
        await line.ok(frame, ["k"] if frame["do"] == "insert" else [found])

    server.answer = answer
    async with connect(server.url, plain_json=plain_json) as database:
        assert server.lines[0].socket.subprotocol == (JSON if plain_json else MSGPACK)
        await database.collection("a").insert(document)
        found = await database.collection("a").get("k")
    assert found == document
    assert found is not None
    assert str(found["price"]) == "1.10"
    assert found["at"].tzinfo is UTC
    assert isinstance(found["bools"][0], bool)


async def test_in_json_they_are_what_the_protocol_says(server: Peer) -> None:
    echo(server, insert=["k"])
    async with connect(server.url, plain_json=True) as database:
        await database.collection("a").insert(
            {
                "bytes": b"hello",
                "at": NOON,
                "price": Decimal("1.10"),
                "tag": {"$bytes": "x"},
                "two": {"$a": 1, "b": 2},
            }
        )
    (frame,) = server.asked("insert")
    assert frame["documents"] == [
        {
            "bytes": {"$bytes": "aGVsbG8="},
            "at": {"$datetime": "2026-01-31T12:00:00.000001Z"},
            "price": {"$decimal": "1.10"},
            "tag": {"$$bytes": "x"},
            "two": {"$a": 1, "b": 2},
        }
    ]


async def test_moments_of_other_zones_are_kept_in_utc(server: Peer, db: Database) -> None:
    echo(server, insert=["k"])
    zone = timezone(timedelta(hours=5, minutes=30))
    await db.collection("a").insert({"at": NOON.astimezone(zone), "pair": (1, 2), "buffer": bytearray(b"x")})
    (frame,) = server.asked("insert")
    assert frame["documents"] == [{"at": NOON, "pair": [1, 2], "buffer": b"x"}]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (datetime(2026, 1, 1), r"`documents\[0\]\.a\.b\[1\]` is a datetime without a zone"),
        (date(2026, 1, 1), "is a date, and documents hold"),
        ({1}, "is a set"),
        (float("nan"), "is nan"),
        (float("-inf"), "is -inf"),
        (Decimal("NaN"), "is NaN"),
        (2**64, r"integers go from"),
        (-(2**63) - 1, r"integers go from"),
        ({1: 2}, "has a name that is a int"),
        ("\ud800", "surrogate"),
        (object(), "is a object"),
    ],
)
@pytest.mark.parametrize("plain_json", [False, True])
async def test_what_would_not_come_back_is_refused_before_it_is_sent(
    server: Peer, value: Any, why: str, plain_json: bool
) -> None:
    async with connect(server.url, plain_json=plain_json) as database:
        with pytest.raises(BadInput, match=why):
            await database.collection("a").insert({"a": {"b": [0, value]}})
    assert not server.frames


async def test_what_is_too_deep_or_its_own_part_is_refused(server: Peer, db: Database) -> None:
    round_and_round: dict[str, Any] = {}
    round_and_round["self"] = round_and_round
    with pytest.raises(BadInput, match="is deeper than 100"):
        await db.collection("a").insert(round_and_round)


async def test_a_frame_beyond_the_servers_limit_is_not_sent(server: Peer) -> None:
    server.limits["frame"] = 10_000
    echo(server, insert=["k"])
    async with connect(server.url) as database:
        with pytest.raises(TooLarge, match="Send fewer documents at a time"):
            await database.collection("a").insert_many([{"text": "x" * 6000}, {"text": "y" * 6000}])
        assert await database.collection("a").insert({"text": "x" * 6000}) == "k"
    assert len(server.frames) == 1


def test_a_document_is_a_dict_with_a_key() -> None:
    document = Document({"a": 1}, "k")
    assert document == {"a": 1}
    assert repr(document) == "Document({'a': 1}, key='k')"
    for other in (copy.copy(document), copy.deepcopy(document), pickle.loads(pickle.dumps(document))):
        assert (other, other.key, type(other)) == (document, "k", Document)


# Requests


async def test_requests_of_documents_have_the_protocols_form(server: Peer, db: Database) -> None:
    posts = db.collection("posts")
    echo(
        server, get=[{"a": 1}, None], insert=["k", "l"], replace=None, update={"a": 2}, delete=1, count=5,
        explain={"scan": "key"},
    )  # fmt: skip
    found = await posts.get_many(["k", "l"])
    assert (found, found[0] and found[0].key) == ([{"a": 1}, None], "k")
    assert await posts.insert_many([{"a": 1}, {"b": 2}], keys=["k", "l"]) == ["k", "l"]
    await posts.replace("k", {"a": 3}, create=True)
    changed = await posts.update("k", {"a": 2}, remove=["b"])
    assert (changed, changed.key) == ({"a": 2}, "k")
    assert await posts.delete("k") is True
    assert await posts.count("doc.a > n", params={"n": 1}) == 5
    assert await posts.find(order="a desc").explain() == {"scan": "key"}
    sent = [
        {name: value for name, value in frame.items() if name not in ("id", "deadline")}
        for frame in server.frames
    ]
    assert sent == [
        {"do": "get", "collection": "posts", "keys": ["k", "l"]},
        {"do": "insert", "collection": "posts", "documents": [{"a": 1}, {"b": 2}], "keys": ["k", "l"]},
        {"do": "replace", "collection": "posts", "key": "k", "document": {"a": 3}, "create": True},
        {"do": "update", "collection": "posts", "key": "k", "set": {"a": 2}, "remove": ["b"]},
        {"do": "delete", "collection": "posts", "keys": ["k"]},
        {"do": "count", "collection": "posts", "filter": "doc.a > n", "params": {"n": 1}},
        {"do": "explain", "collection": "posts", "order": "a desc"},
    ]
    assert len({frame["id"] for frame in server.frames}) == len(server.frames)


async def test_answers_find_who_asked_whatever_their_order(server: Peer, db: Database) -> None:
    waiting: list[tuple[Line, Frame]] = []

    async def turned_round(line: Line, frame: Frame) -> None:
        waiting.append((line, frame))
        if len(waiting) == 40:
            for where, asked in reversed(waiting):
                await where.ok(asked, [{"n": asked["keys"][0]}])

    server.answer = turned_round
    found = await asyncio.gather(*(db.collection("a").get(str(n)) for n in range(40)))
    assert found == [{"n": str(n)} for n in range(40)]
    assert len(server.lines) == 1


async def test_no_more_are_under_way_than_the_server_reads(server: Peer) -> None:
    server.limits["requests"] = 3
    waiting: list[Frame] = []

    async def collect(line: Line, frame: Frame) -> None:
        waiting.append(frame)
        assert len(waiting) <= 3
        await asyncio.sleep(0.001)
        waiting.remove(frame)
        await line.ok(frame, [None])

    server.answer = collect
    async with connect(server.url) as database:
        await asyncio.gather(*(database.collection("a").get(str(n)) for n in range(20)))
    assert len(server.frames) == 20


@pytest.mark.parametrize("kind", sorted(client.KINDS))
async def test_each_kind_of_error_has_its_class(server: Peer, db: Database, kind: str) -> None:
    echo(server, get=f"!{kind}")
    with pytest.raises(client.KINDS[kind], match="No") as raised:
        await db.collection("a").get("k")
    assert raised.value.kind == kind


async def test_an_error_that_is_not_known_yet_keeps_its_word(server: Peer, db: Database) -> None:
    echo(server, get="!tired")
    with pytest.raises(VersionbaseError) as raised:
        await db.collection("a").get("k")
    assert raised.value.kind == "tired"


def test_errors_are_what_python_calls_such_things() -> None:
    assert issubclass(TimedOut, TimeoutError)
    assert issubclass(ConnectionLost, ConnectionError)
    assert issubclass(Invalid, BadInput)
    assert not issubclass(Exists, Conflict)
    lost = pickle.loads(pickle.dumps(ConnectionLost("It went.", "Try again.", unknown=True)))
    assert (str(lost), lost.unknown) == ("It went. Try again.", True)


async def test_a_deadline_is_told_and_kept(
    server: Peer, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "GRACE", 0.0)
    with pytest.raises(TimedOut, match="not known") as late:
        await db.collection("a").get("k", timeout=1)
    assert late.value.unknown
    await server.until(lambda: len(server.frames) == 2)
    asked, cancelled = server.frames
    assert 0 < asked["deadline"] <= 1
    assert cancelled == {"id": asked["id"], "do": "cancel"}


async def test_a_task_that_is_cancelled_cancels_its_request(server: Peer, db: Database) -> None:
    task = asyncio.create_task(db.collection("a").get("k"))
    await server.until(lambda: len(server.frames) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await server.until(lambda: len(server.frames) == 2)
    assert server.frames[1] == {"id": server.frames[0]["id"], "do": "cancel"}
    await server.lines[0].error(
        server.frames[0], "cancelled"
    )  # nobody is left to hear it, and nothing breaks
    echo(server, get=[None])
    assert await db.collection("a").get("k") is None


# Streams


def stream_of(*parts: list[Any]) -> Any:
    """Parts that are sent as the client asks for them, four ahead."""

    async def answer(line: Line, frame: Frame) -> None:
        line.credit = 4  # type: ignore[attr-defined]
        for part in parts:
            while not line.credit:  # type: ignore[attr-defined]
                await asyncio.sleep(0.001)
            line.credit -= 1  # type: ignore[attr-defined]
            await line.part(frame, *part)
        await line.ok(frame, sum(len(part) for part in parts))

    return answer


def with_credits(answer: Any, kind: str = "find") -> Any:
    async def take(line: Line, frame: Frame) -> None:
        if "more" in frame:
            line.credit += frame["more"]  # type: ignore[attr-defined]
        elif frame.get("do") == kind:
            await answer(line, frame)

    return take


async def test_find_brings_documents_with_their_keys(server: Peer, db: Database) -> None:
    server.answer = with_credits(stream_of([["k", {"a": 1}], ["l", {"a": 2}]], [["m", 3]]))
    posts = db.collection("posts")
    found = await posts.find("doc.a > n", params={"n": 0}, map="doc", order="a", limit=9, skip=1).to_list()
    assert found == [{"a": 1}, {"a": 2}, 3]
    assert [document.key for document in found[:2]] == ["k", "l"]
    asked = server.frames[0]
    del asked["id"], asked["deadline"]
    assert asked == {
        "do": "find", "collection": "posts", "filter": "doc.a > n", "params": {"n": 0}, "map": "doc",
        "order": "a", "limit": 9, "skip": 1,
    }  # fmt: skip
    assert await posts.find().first() == {"a": 1}
    assert server.asked("find")[1]["limit"] == 1


async def test_a_slow_reader_stops_the_server(server: Peer, db: Database) -> None:
    streaming = with_credits(stream_of(*([[str(n), {"n": n}]] for n in range(50))))

    async def answer(line: Line, frame: Frame) -> None:
        await (line.ok(frame, [None]) if frame.get("do") == "get" else streaming(line, frame))

    server.answer = answer
    sent = 0
    async for document in db.collection("a").find():
        if document["n"] == 10:
            await db.collection("a").get("k")  # by its answer all has come that was said before
            sent = sum(frame.get("more", 0) for frame in server.frames) + 4
    assert sent <= 16
    assert document["n"] == 49


async def test_a_loop_that_is_left_cancels_its_find(server: Peer, db: Database) -> None:
    server.answer = with_credits(stream_of(*([[str(n), {"n": n}]] for n in range(50))))
    async for _ in db.collection("a").find():
        break
    await server.until(lambda: bool(server.asked("cancel")))
    assert server.asked("cancel")[0]["id"] == server.asked("find")[0]["id"]


async def test_a_server_that_sends_more_than_was_asked_for_is_left(server: Peer, db: Database) -> None:
    async def flood(line: Line, frame: Frame) -> None:
        if frame.get("do") == "find":
            for n in range(100):
                await line.part(frame, [str(n), {}])

    server.answer = flood
    with pytest.raises(ConnectionLost) as lost:
        async for _ in db.collection("a").find():
            await until(lambda: db._link._wire is None or not db._link._wire.is_open)
    assert "more than it was asked for" in str(lost.value.__cause__)


async def test_many_streams_take_further_connections_and_give_them_back(
    server: Peer, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STREAMS", 2)
    echo(server, get=[None], find=lambda line, frame: line.part(frame, ["k", {}]))
    finds = [aiter(db.collection("a").find()) for _ in range(5)]
    assert [await anext(find) for find in finds] == [{}] * 5
    assert len(server.lines) == 3
    assert await db.collection("a").get("k") is None
    for find in finds:
        await find.aclose()
    await server.until(lambda: len([line for line in server.lines if line.socket.close_code]) == 2)


# Lost connections


def dying(server: Peer, times: int, **answers: Any) -> None:
    """The first requests, `times` of them, find a server that dies of them."""
    left = [times]
    echo(server, **answers)
    live = server.answer

    async def answer(line: Line, frame: Frame) -> None:
        if left[0]:
            left[0] -= 1
            line.drop()
        else:
            await live(line, frame)

    server.answer = answer


async def test_reads_do_not_notice_a_server_that_is_replaced(server: Peer, db: Database) -> None:
    dying(server, 2, get=[{"a": 1}])
    assert await db.collection("a").get("k") == {"a": 1}
    assert len(server.lines) == 3
    dying(server, 2, find=stream_of([["k", {"a": 1}]]))
    assert await db.collection("a").find().to_list() == [{"a": 1}]


async def test_reads_go_on_while_the_server_is_away(server: Peer, db: Database) -> None:
    echo(server, get=[{"a": 1}])
    posts = db.collection("posts")
    assert await posts.get("k") == {"a": 1}
    await server.close()
    reading = [asyncio.create_task(posts.get("k")) for _ in range(10)]
    await until(lambda: db._link._failures > 0)
    await server.open()
    assert await asyncio.gather(*reading) == [{"a": 1}] * 10


async def test_a_write_on_its_way_is_not_done_twice(server: Peer, db: Database) -> None:
    dying(server, 1, insert=["k"])
    with pytest.raises(ConnectionLost, match="not known") as lost:
        await db.collection("a").insert({})
    assert lost.value.unknown
    assert len(server.asked("insert")) == 1
    assert await db.collection("a").insert({}) == "k"


async def test_a_write_that_was_not_sent_waits_for_the_server(server: Peer, db: Database) -> None:
    echo(server, insert=["k"])
    await server.close()
    await server.until(lambda: True)
    inserting = asyncio.create_task(db.collection("a").insert({}))
    await until(lambda: db._link._failures > 0 or inserting.done())
    await server.open()
    try:
        assert await inserting == "k"
    except ConnectionLost as lost:  # it went into the socket of the dead server before that was known
        assert lost.unknown


@pytest.mark.parametrize("do", ["insert", "find", "commit"])
async def test_what_a_server_that_is_replaced_has_not_begun_is_sent_again(
    server: Peer, db: Database, do: str
) -> None:
    a_transaction(server, insert=["k"], find=stream_of([["k", {}]]))
    live = server.answer

    async def answer(line: Line, frame: Frame) -> None:
        if frame.get("do") == do and len(server.asked(do)) == 1:
            await line.socket.close(1012, "the server is replaced")
        else:
            await live(line, frame)

    server.answer = answer

    async def work(tx: client.Transaction) -> None:
        await tx.collection("a").insert({})

    if do == "commit":
        await db.run(work)
    elif do == "find":
        assert await db.collection("a").find().to_list() == [{}]
    else:
        assert await db.collection("a").insert({}) == "k"
    assert len(server.asked(do)) == 2


async def test_results_of_two_moments_are_not_mixed(server: Peer, db: Database) -> None:
    async def half(line: Line, frame: Frame) -> None:
        await line.part(frame, ["k", {}])
        line.drop()

    echo(server, find=half)
    with pytest.raises(ConnectionLost, match="amid these results"):
        async for _ in db.collection("a").find():
            await server.until(lambda: bool(server.lines[0].socket.close_code))


async def test_a_list_is_read_again_from_its_beginning(server: Peer, db: Database) -> None:
    async def half(line: Line, frame: Frame) -> None:
        await line.part(frame, ["k", {}])
        if len(server.lines) < 3:
            line.drop()
        else:
            await line.ok(frame, 1)

    echo(server, find=half)
    assert await db.collection("a").find().to_list() == [{}]
    assert len(server.lines) == 3


async def test_a_read_that_every_server_dies_of_is_given_up(server: Peer, db: Database) -> None:
    dying(server, 1000)
    with pytest.raises(ConnectionLost):
        await db.collection("a").get("k")
    assert len(server.lines) <= client.TRIES


async def test_an_answer_that_cannot_be_read_ends_the_connection(server: Peer, db: Database) -> None:
    async def nonsense(line: Line, frame: Frame) -> None:
        if len(server.lines) == 1:
            await line.socket.send(b"\xc1")
        else:
            await line.ok(frame, [None])

    echo(server, get=nonsense)
    assert await db.collection("a").get("k") is None
    assert len(server.lines) == 2


# Transactions


def a_transaction(server: Peer, **answers: Any) -> None:
    echo(server, **{"begin": {"in": 5, "sequence": 9}, "commit": {"sequence": 10}, "abort": None} | answers)


async def test_a_transaction_commits_at_the_end_of_its_block(server: Peer, db: Database) -> None:
    a_transaction(server, get=[None], insert=["k"], find=stream_of([["k", {}]]))
    async with db.transaction() as tx:
        assert tx.sequence == 9
        posts = tx.collection("posts")
        assert await posts.get("k") is None
        assert await posts.insert({}) == "k"
        assert await posts.find().to_list() == [{}]
    said = [(frame["do"], frame.get("in")) for frame in server.frames]
    assert said == [("begin", None), ("get", 5), ("insert", 5), ("find", 5), ("commit", 5)]
    with pytest.raises(BadInput, match="is over"):
        await posts.get("k")


async def test_a_block_that_raises_gives_its_transaction_up(server: Peer, db: Database) -> None:
    a_transaction(server)
    with pytest.raises(ZeroDivisionError):
        async with db.transaction(at="before", write=False):
            raise ZeroDivisionError
    await server.until(lambda: bool(server.asked("abort")))
    begin, abort = server.frames
    assert (begin["at"], begin["write"], abort["in"]) == ("before", False, 5)


async def test_a_conflict_is_raised_from_a_block_and_tried_again_by_run(server: Peer, db: Database) -> None:
    refusals = 3

    async def commit(line: Line, frame: Frame) -> None:
        nonlocal refusals
        refusals -= 1
        await (line.error(frame, "conflict") if refusals >= 0 else line.ok(frame, {"sequence": 10}))

    a_transaction(server, commit=commit)
    with pytest.raises(Conflict):
        async with db.transaction():
            pass
    calls = []

    async def work(tx: client.Transaction) -> str:
        calls.append(tx)
        return "done"

    assert await db.run(work) == "done"
    assert len(calls) == 3
    assert not server.asked("abort")


async def test_run_gives_up_in_time(server: Peer, db: Database) -> None:
    a_transaction(server, commit="!conflict")

    async def work(tx: client.Transaction) -> None: ...

    for timeout in (1.0, 1.2):  # in a pause, or in the midst of another try
        with pytest.raises(Conflict):
            await db.run(work, timeout=timeout)


async def test_what_is_no_conflict_is_not_tried_again(server: Peer, db: Database) -> None:
    a_transaction(server, insert="!exists")

    async def work(tx: client.Transaction) -> None:
        await tx.collection("a").insert({}, "k")

    with pytest.raises(Exists):
        await db.run(work)
    assert len(server.asked("begin")) == 1


async def test_a_transaction_dies_with_its_connection_and_run_does_it_again(
    server: Peer, db: Database
) -> None:
    async def get(line: Line, frame: Frame) -> None:
        if len(server.lines) == 1:
            line.drop()
        else:
            await line.ok(frame, [{"n": 1}])

    a_transaction(server, get=get)
    with pytest.raises(ConnectionLost, match="nothing of it was done") as lost:
        async with db.transaction() as tx:
            await tx.collection("a").get("k")
    assert not lost.value.unknown
    server.lines.clear()
    await db.close()
    async with connect(server.url) as other:

        async def work(tx: client.Transaction) -> Any:
            return await tx.collection("a").get("k")

        assert await other.run(work) == {"n": 1}


async def test_nobody_knows_of_a_commit_whose_answer_is_lost(server: Peer, db: Database) -> None:
    async def die(line: Line, frame: Frame) -> None:
        line.drop()

    a_transaction(server, commit=die)

    async def work(tx: client.Transaction) -> None: ...

    with pytest.raises(ConnectionLost, match="not known") as lost:
        await db.run(work)
    assert lost.value.unknown
    assert len(server.asked("begin")) == 1


async def test_transactions_wait_for_their_turn(server: Peer) -> None:
    server.limits["transactions"] = 2
    a_transaction(server)
    open_ones = most = 0

    async def one(database: Database) -> None:
        nonlocal open_ones, most
        async with database.transaction():
            open_ones += 1
            most = max(most, open_ones)
            await asyncio.sleep(0.005)
            open_ones -= 1

    async with connect(server.url) as database:
        await asyncio.gather(*(one(database) for _ in range(10)))
    assert most == 2


# Watch


def change(sequence: int, key: str) -> Frame:
    return {
        "sequence": sequence,
        "at": NOON,
        "collection": "a",
        "key": key,
        "old": None,
        "new": {"n": sequence},
    }


async def test_watch_brings_changes_from_now_on(server: Peer, db: Database) -> None:
    async def watch(line: Line, frame: Frame) -> None:
        await line.part(frame, {"sequence": 7}, change(8, "k"))
        await line.part(frame, change(9, "l"), {"sequence": 9})

    echo(server, status={"sequence": 7}, watch=watch)
    watching = db.watch("a", filter="doc.n > 1", params={})
    changes = aiter(watching)
    assert await anext(changes) == Change(8, NOON, "a", "k", None, Document({"n": 8}, "k"))
    second = await anext(changes)
    assert (second.sequence, second.new and second.new.key) == (9, "l")
    (asked,) = server.asked("watch")
    assert (asked["since"], asked["filter"], "deadline" in asked) == (7, "doc.n > 1", False)
    await changes.aclose()


async def test_watch_resumes_amid_a_commit_without_a_gap_or_a_repetition(server: Peer, db: Database) -> None:
    log = [change(8, "a"), change(8, "b"), change(8, "c"), change(9, "d"), {"sequence": 9}]

    async def watch(line: Line, frame: Frame) -> None:
        after = [told for told in log if told["sequence"] > frame["since"]]
        cut = {1: 2, 2: 3, 3: 4}.get(len(server.lines))
        await line.part(frame, *after[:cut])
        if cut:
            line.drop()

    echo(server, status={"sequence": 7}, watch=watch)
    keys = []
    async for told in db.watch():
        keys.append(told.key)
        if told.key == "d":
            break
    assert keys == ["a", "b", "c", "d"]
    assert [frame["since"] for frame in server.asked("watch")][:3] == [7, 7, 7]


async def test_watch_says_how_far_it_is(server: Peer, db: Database) -> None:
    echo(server, watch=lambda line, frame: line.part(frame, change(8, "a"), {"sequence": 12}))
    watching = db.watch(since=7)
    changes = aiter(watching)
    await anext(changes)
    assert watching.sequence == 12
    await changes.aclose()


async def test_watch_ends_where_the_past_is_gone(server: Peer, db: Database) -> None:
    echo(server, watch="!gone")
    with pytest.raises(client.Gone):
        await anext(aiter(db.watch(since=1)))


# Snapshots, owners


async def test_snapshots_are_named_by_their_id(server: Peer, db: Database) -> None:
    told = {"id": "s1", "name": "before", "sequence": 7, "at": NOON}
    echo(
        server, snapshot=told, snapshots=[told], restore={"sequence": 8}, drop_snapshot=True, get=[None],
        collections=[],
        diff=stream_of([{"collection": "a", "key": "k", "old": None, "new": {}}]),
    )  # fmt: skip
    snapshot = await db.snapshot("before")
    assert (snapshot.id, snapshot.name, snapshot.sequence, snapshot.at) == ("s1", "before", 7, NOON)
    assert await db.snapshots() == [snapshot]
    assert await db.restore(snapshot) == 8
    (difference,) = await db.diff(snapshot).to_list()
    assert (difference.key, difference.old, difference.new) == ("k", None, {})
    past = db.at(snapshot)
    await past.collection("a").get("k")
    await past.collections()
    assert await db.drop_snapshot(snapshot) is True
    assert server.asked("get")[0]["at"] == server.asked("collections")[0]["at"] == "s1"
    assert server.asked("diff")[0]["from"] == "s1"


READING = {"history", "watch", "indexes", "schema"}
"""What a collection of now has more than one of the past, and that writes nothing."""


def writing() -> list[str]:
    """The methods of a collection that write."""
    names = set(vars(client.Collection)) | set(vars(client.Writer))
    return sorted(name for name in names - READING if not name.startswith("_"))


async def test_the_past_is_read_only(server: Peer, db: Database) -> None:
    for do in writing():
        with pytest.raises(ReadOnly, match="past is read-only"):
            await getattr(db.at("s").collection("a"), do)()
    assert server.frames == []


async def test_an_owner_names_versions(server: Peer, db: Database) -> None:
    version = {"name": "new", "source": None, "sequence": 1, "made": NOON.timestamp(), "changed": NOON}
    echo(server, versions=[version], fork=None, drop=None, swap=None, key="k", size=5)
    owner = db.owner
    assert await owner.versions() == [{**version, "made": NOON}]
    await owner.fork("new", "production", "s1")
    await owner.swap("new", "production")
    assert await owner.key("new") == "k"
    assert await owner.size("new") == 5
    await owner.drop("new")
    (forked,) = server.asked("fork")
    assert (forked["version"], forked["source"], forked["snapshot"]) == ("new", "production", "s1")


async def test_verify_and_collect_tell_what_comes_last(server: Peer, db: Database) -> None:
    async def verify(line: Line, frame: Frame) -> None:
        await line.part(frame, {"problem": "a node is not there"})
        await line.ok(frame, {"nodes": 5, "documents": 2})

    async def collect(line: Line, frame: Frame) -> None:
        await line.part(frame, 3)
        await line.ok(frame, 10)

    echo(server, verify=verify, collect=collect)
    told = await db.owner.verify()
    assert told == {"nodes": 5, "documents": 2, "problems": ["a node is not there"]}
    assert await db.owner.collect() == 10


async def test_what_was_exported_is_loaded_by_the_mebibyte(server: Peer, db: Database) -> None:
    echo(server, **{"import": None})
    items = [{"collection": "a", "key": str(n), "document": {"text": "x" * 300_000}} for n in range(10)]
    assert await db.owner.load("new", items) == 10
    sent = server.asked("import")
    assert [len(frame["documents"]) for frame in sent] == [3, 3, 3, 1]
    assert [item for frame in sent for item in frame["documents"]] == items


# The file


def test_the_file_stands_alone(tmp_path: Path) -> None:
    source = Path(client.__file__).read_text()
    for node in ast.walk(ast.parse(source)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            assert module.split(".")[0] in {*sys.stdlib_module_names, "websockets", "msgspec"}, module
    (tmp_path / "versionbase.py").write_text(source)
    look = "import sys, versionbase; print('lazycloud' in sys.modules, versionbase.connect('ws://v:k@h/').version)"
    told = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["False", "v"]


def test_without_msgspec_frames_are_json(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise ImportError")
    (tmp_path / "versionbase.py").write_text(Path(client.__file__).read_text())
    look = (
        "import versionbase; print([c.subprotocol for c in versionbase.connect('ws://v:k@h/')._place.codecs])"
    )
    told = subprocess.run(
        [sys.executable, "-c", look], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "['versionbase.1.json']"


def test_the_package_imports_the_client_alone() -> None:
    look = "import sys; from lazycloud.versionbase import connect; print([m for m in sys.modules if 'sqla' in m])"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
