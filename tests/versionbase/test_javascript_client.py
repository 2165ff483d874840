"""The client for JavaScript, in Node with the package `ws`, against the same peer as the one for Python."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lazycloud.versionbase import client
from tests.tools import needs
from tests.versionbase.peer import Frame, Line, Peer, peer
from tests.versionbase.talking import serving
from tests.versionbase.test_client import a_transaction, dying, echo, stream_of, with_credits
from tests.waiting import PATIENCE

pytestmark = [needs("node", "npm"), pytest.mark.registry]

FILE = Path(client.__file__).parent / "clients" / "versionbase.mjs"
BEGIN = """
import assert from "node:assert/strict"
import * as vb from "./versionbase.mjs"
const { connect } = vb
const db = process.env.VERSIONBASE_URL ? await connect() : null
const posts = db?.collection("posts")
"""
END = "\nawait db?.close()\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file as an app has it."""
    made = tmp_path_factory.mktemp("app")
    (made / "package.json").write_text("{}")
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "ws@8"], cwd=made, check=True)
    (made / "versionbase.mjs").write_text(FILE.read_text())
    return made


@pytest.fixture
async def server() -> AsyncIterator[Peer]:
    async with peer() as made:
        yield made


async def node(folder: Path, script: str, url: str = "", options: str = "") -> str:
    """What the script prints."""
    environment = {"PATH": os.environ["PATH"], "VERSIONBASE_URL": url, "NODE_OPTIONS": options}
    process = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "--eval", BEGIN + script + END,
        cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        said, wrong = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, wrong.decode()
    return said.decode()


async def test_without_a_url_it_says_how_to_have_one(folder: Path) -> None:
    await node(
        folder,
        """
        await assert.rejects(connect(), { kind: "not-configured", message: /VERSIONBASE_URL is not set.*serve/ })
        await assert.rejects(connect("http://v:k@h/"), { kind: "bad-input", message: /ws:..VERSION:KEY@HOST:PORT/ })
        await assert.rejects(connect("ws://v@h/"), { kind: "bad-input", message: /has no key/ })
        """,
    )


async def test_the_timeout_is_one_of_all_of_connecting(folder: Path) -> None:
    """And nothing of it keeps Node from ending."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = await node(
            folder,
            f"""
            const began = performance.now()
            for (const port of [1, {port}]) {{
              const where = `127.0.0.1:${{port}}/`
              const lost = {{ message: new RegExp(`no versionbase at ws://${{where}}: .*Is the server running`) }}
              await assert.rejects(connect(`ws://v:k@${{where}}`, {{ timeout: 0.3 }}), lost)
            }}
            process.on("exit", () => console.log(performance.now() - began))
            """,
        )
    assert 400 < float(began) < 9000


async def test_the_past_is_read_only(folder: Path, server: Peer) -> None:
    await node(
        folder,
        """
        const past = db.at("s").collection("a")
        const reading = ["history", "watch", "indexes", "schema", "described", "constructor"]
        const names = [...Object.getOwnPropertyNames(Object.getPrototypeOf(posts)),
          ...Object.getOwnPropertyNames(Object.getPrototypeOf(Object.getPrototypeOf(posts)))]
        assert(names.includes("insert") && names.includes("drop"))
        for (const name of names.filter((name) => !reading.includes(name)))
          await assert.rejects(past[name]("k"), { kind: "read-only", message: /past is read-only/ }, name)
        """,
        server.url,
    )
    assert server.frames == []


PLACES = {
    "db": client.Database,
    "db.owner": client.Owner,
    "posts": client.Collection,
    'db.at("s")': client.View,
    'db.at("s").collection("a")': client.PastReader,
    "posts.find()": client.Find,
}


async def test_what_the_one_for_python_has_is_there(folder: Path, server: Peer) -> None:
    wanted = {
        place: [_camel(name) for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")]
        for place, kind in PLACES.items()
    }
    script = "\n".join(
        f'for (const name of {json.dumps(names)}) assert.equal(typeof ({place})[name], "function", name)'
        for place, names in wanted.items()
    )
    await node(folder, script, server.url)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


async def test_an_owner_looks_after_versions_of_a_real_server(folder: Path, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await node(
            folder,
            """
            await posts.insertMany([{ n: 1 }, { n: 2 }], { keys: ["a", "b"] })
            const { owner } = db
            await owner.fork("v1")
            const taken = await owner.snapshot("v1", "before")
            assert(taken.name === "before" && taken.at instanceof Date)
            assert.deepEqual(await owner.snapshots("v1"), [taken])
            assert.deepEqual(await owner.snapshots("production"), [])
            const other = await connect(undefined, { version: "v1" })
            await other.collection("posts").delete("a")
            const now = await owner.export("v1").toList()
            const then = await owner.export("v1", { collection: "posts", at: taken }).toList()
            assert.deepEqual([now.length, then.length], [2, 3]) // what the collection has besides comes first
            assert(await owner.restore("v1", taken) > taken.sequence)
            assert.equal(await other.collection("posts").count(), 2)
            await other.close()
            assert.equal(await owner.dropSnapshot("v1", taken), true)
            assert.equal(await owner.drop("v1"), true)
            await owner.limit(5_000_000)
            const told = await owner.verify()
            assert(told.nodes > 0 && told.entries > 0)
            assert.deepEqual(told.problems, [])
            assert.equal(typeof (await owner.collect()), "number")
            """,
            f"ws://production:{served.owner}@127.0.0.1:{served.port}/",
        )


async def test_problems_are_told_with_what_comes_last(folder: Path, server: Peer) -> None:
    async def verify(line: Line, frame: Frame) -> None:
        await line.part(frame, *({"problem": f"node {n}"} for n in range(999)))
        await line.part(frame, {"problem": "node 999"}, {"problem": "node 1000"})
        await line.ok(frame, {"nodes": 5, "entries": 2})

    echo(server, verify=verify)
    await node(
        folder,
        """
        const { problems, ...told } = await db.owner.verify()
        assert.deepEqual(told, { nodes: 5, entries: 2 })
        assert.equal(problems.length, 1000)
        assert.equal(problems[999], "node 999")
        """,
        server.url,
    )


async def test_a_filter_outside_of_the_options_is_shown_its_place(folder: Path, server: Peer) -> None:
    await node(
        folder,
        """
        assert.throws(() => posts.find('doc.n == "a"'), { kind: "bad-input", message: /find\\(\\{ filter: "doc.n/ })
        await assert.rejects(posts.count("doc.n"), { kind: "bad-input", message: /count\\(\\{ filter: "doc.n"/ })
        """,
        server.url,
    )


async def test_values_come_back_as_they_went(folder: Path, server: Peer) -> None:
    sent: list[Any] = []

    async def answer(line: Line, frame: Frame) -> None:
        if frame["do"] == "insert":
            sent.extend(frame["documents"])
            await line.ok(frame, ["k"])
        else:
            await line.ok(frame, sent)

    server.answer = answer
    await node(
        folder,
        """
        const at = new Date("2026-01-31T12:00:00.001Z")
        const document = {
          none: null, bools: [true, false], ints: [0, -1, 2 ** 53 - 1, 2n ** 53n, -(2n ** 63n), 2n ** 64n - 1n],
          floats: [0.1, -1e300, 5e-324], text: 'häßlich ✓ \\u0000 "12345678901234567890"',
          bytes: new Uint8Array([0, 255]), at, early: new Date("0001-01-01T00:00:00Z"),
          price: new vb.Decimal("1.10"), deep: { a: [{ b: [] }], "": {} }, $bytes: "no bytes",
          tags: [{ $bytes: "x" }, { $datetime: 1 }, { $$x: { $y: 2 } }, { $a: 1, b: 2 }, { $integer: "1" }],
          ["__proto__"]: { $__proto__: 1 },
        }
        await posts.insert(document)
        const found = await posts.get("k")
        assert.deepEqual(found, document)
        assert.equal(String(found.price), "1.10")
        """,
        server.url,
    )
    (document,) = sent
    assert document["bytes"] == {"$bytes": "AP8="}
    assert document["at"] == {"$datetime": "2026-01-31T12:00:00.001000Z"}
    assert document["price"] == {"$decimal": "1.10"}
    assert document["ints"] == [0, -1, 2**53 - 1, 2**53, -(2**63), 2**64 - 1]
    assert document["tags"][0] == {"$$bytes": "x"}


async def test_microseconds_of_others_are_kept(folder: Path, server: Peer) -> None:
    at = {"$datetime": "2026-01-31T12:00:00.001007Z"}
    echo(server, get=[{"at": at}], insert=["k"])
    script = """
        const found = await posts.get("k")
        assert.equal(found.at.getTime(), Date.parse("2026-01-31T12:00:00.001Z"))
        assert.equal(found.at.microseconds, 7)
        await posts.insert(found)
    """
    await node(folder, script, server.url)
    assert server.asked("insert")[0]["documents"] == [{"at": at}]


async def test_large_texts_with_large_numbers_beside_them_are_read(folder: Path, server: Peer) -> None:
    echo(server, get=[{"text": 'x"\\' * 2_000_000, "n": 2**63, "f": 0.12345678901234567}])
    script = """
        const found = await posts.get("k")
        assert.equal(found.text.length, 6_000_000)
        assert.equal(found.n, 2n ** 63n)
        assert.equal(found.f, 0.12345678901234567)
    """
    await node(folder, script, server.url)


async def test_what_would_not_come_back_is_refused_before_it_is_sent(folder: Path, server: Peer) -> None:
    await node(
        folder,
        """
        const round = {}
        round.self = round
        for (const [value, why] of [
          [NaN, /`documents\\[0\\]\\.a\\.b\\[1\\]` is NaN/], [undefined, /is undefined/],
          [new Map(), /is a Map/], [() => 1, /a function/],
          [2n ** 64n, /integers go from/], ["\\ud800", /surrogate/], [new Date(NaN), /no date/],
          [new Date("+012026-01-01T00:00:00Z"), /years 1 to 9999/], [round, /deeper than 100/],
        ]) await assert.rejects(posts.insert({ a: { b: [0, value] } }), { kind: "bad-input", message: why })
        assert.throws(() => new vb.Decimal("x"), { kind: "bad-input" })
        """,
        server.url,
    )
    assert not server.frames


async def test_with_a_websocket_of_its_own_node_needs_no_package(tmp_path: Path, server: Peer) -> None:
    (tmp_path / "versionbase.mjs").write_text(FILE.read_text())
    dying(server, 1, get=[{"a": 1}], find=stream_of([["k", {}]]))
    script = """
        assert.deepEqual(await posts.get("k"), { a: 1 })
        assert.deepEqual(await posts.find().toList(), [["k", {}]])
    """
    await node(
        tmp_path, script, server.url, "--experimental-websocket"
    )  # as it is without a word from Node 22 on


async def test_requests_have_the_protocols_form(folder: Path, server: Peer) -> None:
    echo(
        server, get=[{"a": 1}, None], insert=["k"], replace=None, update={"a": 2}, delete=1, count=5,
        explain={"scan": "key"}, set_schema=None, drop_index=True, key="secret",
    )  # fmt: skip
    await node(
        folder,
        """
        assert.deepEqual(await posts.getMany(["k", "l"]), [{ a: 1 }, null])
        assert.equal(await posts.insert({ a: 1, gone: undefined }, { key: "k" }), "k")
        await posts.replace("k", { a: 3 }, { create: true })
        assert.deepEqual(await posts.update("k", { a: 2 }, { remove: ["b"] }), { a: 2 })
        assert.equal(await posts.delete("k"), true)
        assert.equal(await posts.count({ filter: "doc.a > n", params: { n: 1 } }), 5)
        assert.deepEqual(await posts.find({ order: "a desc" }).explain(), { scan: "key" })
        await posts.setSchema(null)
        assert.equal(await posts.dropIndex("a"), true)
        assert.equal(await db.owner.key("new"), "secret")
        """,
        server.url,
    )
    sent = [
        {name: value for name, value in frame.items() if name not in ("id", "deadline")}
        for frame in server.frames
    ]
    assert sent == [
        {"do": "get", "collection": "posts", "keys": ["k", "l"]},
        {"do": "insert", "collection": "posts", "documents": [{"a": 1}], "keys": ["k"]},
        {"do": "replace", "collection": "posts", "key": "k", "document": {"a": 3}, "create": True},
        {"do": "update", "collection": "posts", "key": "k", "set": {"a": 2}, "remove": ["b"]},
        {"do": "delete", "collection": "posts", "keys": ["k"]},
        {"do": "count", "collection": "posts", "filter": "doc.a > n", "params": {"n": 1}},
        {"do": "explain", "collection": "posts", "order": "a desc"},
        {"do": "set_schema", "collection": "posts", "schema": None, "check": True},
        {"do": "drop_index", "collection": "posts", "name": "a"},
        {"do": "key", "version": "new"},
    ]
    (hello,) = {json.dumps(line.frames[0]["key"]) for line in server.lines}
    assert hello == '"key/1"'


async def test_a_slow_reader_stops_the_server_and_one_that_leaves_cancels(folder: Path, server: Peer) -> None:
    server.answer = with_credits(stream_of(*([[str(n), {"n": n}]] for n in range(50))))
    said = await node(
        folder,
        """
        const keys = []
        for await (const [key, { n }] of posts.find()) keys.push([key, n])
        assert.deepEqual(keys[49], ["49", 49])
        assert.equal((await posts.find().toList()).length, 50)
        for await (const [key] of posts.find()) {
          if (key === "4") await new Promise((resolve) => setTimeout(resolve, 100))
          if (key === "5") break
        }
        """,
        server.url,
    )
    assert not said
    (left,) = server.asked("cancel")
    assert left["id"] == server.asked("find")[2]["id"]
    assert sum(frame["more"] for frame in server.frames if frame["id"] == left["id"] and "more" in frame) <= 6


async def test_errors_have_their_kinds_and_classes(folder: Path, server: Peer) -> None:
    async def refuse(line: Line, frame: Frame) -> None:
        await line.error(frame, frame["keys"][0], "It cannot be.", "Do otherwise.")

    echo(server, get=refuse)
    kinds = json.dumps({kind: known.__name__ for kind, known in client.KINDS.items()})
    await node(
        folder,
        f"""
        for (const [kind, name] of Object.entries({kinds})) {{
          const failure = await posts.get(kind).catch((failure) => failure)
          assert.ok(failure instanceof vb[name] && failure instanceof vb.VersionbaseError)
          assert.deepEqual([failure.kind, failure.name, failure.message], [kind, name, "It cannot be. Do otherwise."])
        }}
        assert.equal((await posts.get("tired").catch((failure) => failure)).kind, "tired")
        """,
        server.url,
    )


async def test_many_requests_share_a_connection(folder: Path, server: Peer) -> None:
    server.limits["requests"] = 3
    waiting: list[Frame] = []
    most = 0

    async def get(line: Line, frame: Frame) -> None:
        nonlocal most
        waiting.append(frame)
        most = max(most, len(waiting))
        await asyncio.sleep(0.001)
        waiting.remove(frame)
        await line.ok(frame, [{"n": frame["keys"][0]}])

    echo(server, get=get)
    script = """
        const keys = Array.from({ length: 50 }, (_, n) => String(n))
        const found = await Promise.all(keys.map((key) => posts.get(key)))
        assert.deepEqual(found.map(({ n }) => n), keys)
    """
    await node(folder, script, server.url)
    assert (most, len(server.lines)) == (3, 1)


async def test_reads_are_repeated_and_writes_are_not(folder: Path, server: Peer) -> None:
    async def half(line: Line, frame: Frame) -> None:
        await line.part(frame, ["k", {}])
        if len(server.asked("find")) < 2:
            line.drop()
        else:
            await line.ok(frame, 1)

    dying(server, 2, get=[{"a": 1}], insert=lambda line, frame: _drop(line), find=half)
    await node(
        folder,
        """
        assert.deepEqual(await posts.get("k"), { a: 1 })
        await assert.rejects(posts.insert({}), { kind: "connection-lost", unknown: true })
        assert.deepEqual(await posts.find().toList(), [["k", {}]])
        """,
        server.url,
    )
    assert len(server.asked("get")) == 3
    assert len(server.asked("insert")) == 1


async def test_what_a_server_that_is_replaced_has_not_begun_is_sent_again(folder: Path, server: Peer) -> None:
    async def replaced(line: Line, frame: Frame) -> None:
        if len(server.asked(frame["do"])) == 1:
            await line.socket.close(1012, "the server is replaced")
        elif frame["do"] == "insert":
            await line.ok(frame, ["k"])
        else:
            await stream_of([["k", {}]])(line, frame)

    echo(server, insert=replaced, find=replaced)
    script = """
        assert.equal(await posts.insert({}), "k")
        assert.deepEqual(await posts.find().toList(), [["k", {}]])
    """
    await node(folder, script, server.url)
    assert len(server.asked("insert")) == 2


async def _drop(line: Line) -> None:
    line.drop()


async def test_transactions_commit_conflict_and_are_run_again(folder: Path, server: Peer) -> None:
    refusals = 3

    async def commit(line: Line, frame: Frame) -> None:
        nonlocal refusals
        refusals -= 1
        await (line.error(frame, "conflict") if refusals >= 0 else line.ok(frame, {"sequence": 10}))

    a_transaction(server, commit=commit, insert=["k"])
    await node(
        folder,
        """
        await assert.rejects(db.transaction(async (tx) => tx.collection("posts").insert({})), { kind: "conflict" })
        let calls = 0
        assert.equal(await db.run(async (tx) => (calls++, tx.sequence)), 9)
        assert.equal(calls, 3)
        await assert.rejects(db.transaction(async () => { throw new RangeError() }), RangeError)
        let kept
        await db.transaction(async (tx) => { kept = tx }, { at: "before", write: false })
        await assert.rejects(kept.collection("posts").get("k"), { message: /is over/ })
        """,
        server.url,
    )
    assert [frame["in"] for frame in server.asked("insert")] == [5]
    assert len(server.asked("begin")) == 6
    assert len(server.asked("commit")) == 4
    assert len(server.asked("abort")) == 2


async def test_watch_resumes_amid_a_commit(folder: Path, server: Peer) -> None:
    def change(sequence: int, key: str) -> Frame:
        return {"sequence": sequence, "at": 0, "collection": "a", "key": key, "old": None, "new": {}}

    log = [change(8, "a"), change(8, "b"), change(8, "c"), change(9, "d"), {"sequence": 9}]

    async def watch(line: Line, frame: Frame) -> None:
        after = [told for told in log if told["sequence"] > frame["since"]]
        cut = {1: 2, 2: 3, 3: 4}.get(len(server.lines))
        await line.part(frame, *after[:cut])
        if cut:
            line.drop()

    echo(server, status={"sequence": 7}, watch=watch)
    await node(
        folder,
        """
        const keys = []
        for await (const { key } of db.watch("a")) if (keys.push(key) === 4) break
        assert.deepEqual(keys, ["a", "b", "c", "d"])
        """,
        server.url,
    )


async def test_deadlines_and_signals_cancel(folder: Path, server: Peer) -> None:
    echo(server, find=lambda line, frame: line.part(frame, ["k", {}]))
    await node(
        folder,
        """
        await assert.rejects(posts.get("k", { timeout: 0.05 }), { kind: "deadline" })
        await assert.rejects(posts.get("k", { signal: AbortSignal.timeout(50) }), { name: "TimeoutError" })
        const leaving = new AbortController()
        await assert.rejects(async () => {
          for await (const _ of posts.find({ signal: leaving.signal })) leaving.abort()
        }, { name: "AbortError" })
        """,
        server.url,
    )
    asked = [frame["id"] for frame in server.frames if frame["do"] in ("get", "find")]
    assert [frame["id"] for frame in server.asked("cancel")] == asked


async def test_what_is_closed_lets_node_end(folder: Path, server: Peer) -> None:
    echo(server, status={"sequence": 7}, watch=lambda line, frame: line.part(frame, {"sequence": 7}))
    script = """
        const waiting = (async () => { for await (const _ of db.watch()); })()
        await new Promise((resolve) => setTimeout(resolve, 50))
        await db.close()
        await assert.rejects(waiting, { message: /closed by its program/ })
        await assert.rejects(posts.get("k"), { message: /closed by its program/ })
    """
    await node(folder, script, server.url)
