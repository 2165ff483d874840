"""Both clients against a server as it is run: what the page for app developers says, restarts, many at once."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import lazycloud
from lazycloud.versionbase import connect, connect_sync
from lazycloud.versionbase.client import BadInput, Conflict, Database, Exists, Gone, Invalid, Transaction
from tests.tools import needs
from tests.versionbase.test_javascript_client import FILE
from tests.waiting import PATIENCE

PAGE = Path(lazycloud.__file__).parent.parent / "docs" / "versionbase.md"


class Served:
    """`lazycloud versionbase serve`, which may be killed and started again at the same place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listen = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None
        self.url = self.owner = ""

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "lazycloud", "versionbase", "serve", "--print-url",
                "--store", f"sqlite:///{self._folder / 'store.db'}", "--listen", self._listen,
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        said = [self._process.stdout.readline() for _ in range(3)]
        urls = dict(line.strip().split("=", 1) for line in said[1:])
        self.url, self.owner = urls["VERSIONBASE_URL"], urls["VERSIONBASE_OWNER_URL"]
        self._listen = self.url.rpartition("@")[2].rstrip("/")

    def end(self, by: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(by)
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    made.start()
    yield made
    made.end(signal.SIGTERM)


@pytest.fixture
async def db(served: Served) -> AsyncIterator[Database]:
    async with connect(served.url) as opened:
        yield opened


# The page


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


async def test_what_the_page_says_in_python_works(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VERSIONBASE_URL", served.url)
    (first,) = blocks("python")
    source = first + textwrap.indent("\n".join(blocks("python more")), "    ")
    text = (
        f"async def main():\n{textwrap.indent(source.replace(LAST_OF_FIRST, LAST_OF_FIRST + AGAIN), '    ')}"
    )
    there: dict[str, Any] = {}
    exec(compile(text, str(PAGE), "exec"), there)
    await there["main"]()
    assert capsys.readouterr().out.splitlines()[0].endswith(" hi")
    async with connect() as database:
        assert await database.collection("accounts").get("ada") == {"balance": 9}


LAST_OF_FIRST = "    await posts.delete(key)\n"
AGAIN = '    key = await posts.insert({"title": "again", "at": datetime.now(UTC)})\n'


def test_what_the_page_says_in_plain_code_works(served: Served) -> None:
    (source,) = blocks("python sync")
    environment = {**os.environ, "VERSIONBASE_URL": served.url}
    said = subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=True
    )
    assert len(said.stdout.strip()) == 36
    assert not said.stderr


async def test_what_the_page_says_of_watching_works(db: Database) -> None:
    for source in blocks("python watch"):
        there: dict[str, Any] = {}
        exec(f"async def main(db, print):\n{textwrap.indent(source, '    ')}", there)
        told: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.create_task(there["main"](db, lambda *what, told=told: told.put_nowait(what)))
        await asyncio.wait_for(_write_until(db, told), PATIENCE)
        task.cancel()


async def _write_until(db: Database, told: asyncio.Queue[Any]) -> None:
    """Documents until the first of them was told."""
    while told.empty():
        await db.collection("posts").insert({"title": "x"})


@needs("node", "npm")
@pytest.mark.registry
def test_what_the_page_says_in_javascript_works(served: Served, tmp_path: Path) -> None:
    (source,) = blocks("javascript")
    subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "ws@8"], cwd=tmp_path, check=True
    )
    (tmp_path / "versionbase.mjs").write_text(FILE.read_text())
    (tmp_path / "page.mjs").write_text(source)
    environment = {"PATH": os.environ["PATH"], "VERSIONBASE_URL": served.url}
    said = subprocess.run(
        ["node", "page.mjs"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert said.stdout.endswith(" hi\n")
    with connect_sync(served.url) as database:
        post = database.collection("posts").find().first()
        assert post == {"title": "hi", "at": post["at"], "seen": True}


# What is kept


@pytest.mark.parametrize("plain_json", [False, True])
async def test_values_come_back_as_they_went(served: Served, plain_json: bool) -> None:
    document = {
        "none": None,
        "bools": [True, False],
        "ints": [0, -(2**63), 2**64 - 1],
        "floats": [0.1, -1e300],
        "text": "häßlich ✓ \x00",
        "bytes": b"\x00\xff",
        "at": datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC),
        "price": Decimal("1.10"),
        "deep": {"a": [{"b": []}], "": {}},
        "tags": [{"$bytes": "x"}, {"$$x": {"$y": 2}}, {"$a": 1, "b": 2}],
    }
    async with connect(served.url, plain_json=plain_json) as database:
        key = await database.collection("a").insert(document)
        found = await database.collection("a").get(key)
        assert found == document
        assert found is not None
        assert str(found["price"]) == "1.10"
        assert isinstance(found["ints"][0], int)


async def test_a_million_bytes_of_documents_come_while_others_ask(db: Database) -> None:
    many = db.collection("many")
    await many.insert_many([{"n": n, "text": "x" * 1000} for n in range(5000)])
    seen = 0
    async for document in many.find(order="n"):
        assert document["n"] == seen
        seen += 1
        if seen % 1000 == 0:
            assert await many.count(timeout=PATIENCE) == 5000
    assert seen == 5000


async def test_concurrent_transactions_lose_no_update(db: Database) -> None:
    counters = db.collection("counters")
    await counters.insert({"n": 0}, "a")

    async def more(tx: Transaction) -> None:
        counter = await tx.collection("counters").get("a")
        assert counter is not None
        await tx.collection("counters").update("a", {"n": counter["n"] + 1})

    await asyncio.gather(*(db.run(more) for _ in range(40)))
    assert await counters.get("a") == {"n": 40}
    with pytest.raises(Conflict):
        async with db.transaction() as one:
            await one.collection("counters").get("a")
            await db.run(more)
            await one.collection("counters").update("a", {"n": 0})


async def test_refusals_of_a_server_are_told(served: Served, db: Database) -> None:
    posts = db.collection("posts")
    key = await posts.insert({"n": 1})
    with pytest.raises(Exists):
        await posts.insert({}, key)
    with pytest.raises(Invalid, match="n"):
        await posts.set_schema({"properties": {"n": {"type": "string"}}})
    with pytest.raises(BadInput, match='Did you mean "properties"'):
        await posts.set_schema({"propertys": {"n": {"type": "string"}}}, check=False)
    await posts.set_schema({"propertys": {"n": {"type": "string"}}}, strict=False)
    await posts.set_schema(None)
    await posts.create_index("n", unique=True)
    with pytest.raises(Exists):
        await posts.insert({"n": 1})
    with pytest.raises(Gone, match=r"production is at sequence .* of other data"):
        await anext(aiter(db.watch(since=10**9)))
    wrong: Any = [1]
    with pytest.raises(BadInput, match=r"`documents\[1\]` is of type list; it is an object"):
        await posts.insert_many([{}, wrong])
    with pytest.raises(BadInput, match=r"`keys\[0\]` is of 5; it is a text"):
        await posts.get(5)  # type: ignore[arg-type]


async def test_versions_are_apart_and_swapped_by_their_owner(served: Served, db: Database) -> None:
    await db.collection("posts").insert({"n": 1}, "k")
    async with connect(served.owner, version="abc1234") as fork:
        assert await fork.collection("posts").get("k") == {"n": 1}
        await fork.collection("posts").update("k", {"n": 2})
        assert [version["name"] for version in await fork.owner.versions()] == ["abc1234", "production"]
        await fork.owner.swap("abc1234", "production")
        exported = await fork.export().to_list()
    assert await db.collection("posts").get("k") == {"n": 2}
    assert exported[-1] == {"collection": "posts", "key": "k", "document": {"n": 1}}


# Restarts


async def test_reads_and_watches_do_not_notice_a_restart(served: Served, db: Database) -> None:
    posts = db.collection("posts")
    await posts.insert({"n": 0}, "k")
    changes = aiter(db.watch("posts", since=await db.sequence()))
    stop = asyncio.Event()

    async def read() -> int:
        reads = 0
        while not stop.is_set():
            assert await posts.get("k") is not None
            assert len(await posts.find().to_list()) == 1
            reads += 1
        return reads

    reading = [asyncio.create_task(read()) for _ in range(4)]
    told = []
    for n, by in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
        await posts.update("k", {"n": n})
        change = await asyncio.wait_for(anext(changes), PATIENCE)
        told.append(change.new and change.new["n"])
        await asyncio.to_thread(served.end, by)
        await asyncio.to_thread(served.start)
    await posts.update("k", {"n": 3})
    change = await asyncio.wait_for(anext(changes), PATIENCE)
    told.append(change.new and change.new["n"])
    stop.set()
    assert min(await asyncio.gather(*reading)) > 0
    assert told == [1, 2, 3]
    await changes.aclose()


@pytest.mark.slow
async def test_writes_do_not_notice_a_server_that_ends_in_good_order(served: Served, db: Database) -> None:
    stop = asyncio.Event()
    numbers = iter(range(10**9))

    async def write() -> list[int]:
        written = []
        while not stop.is_set():
            number = next(numbers)
            text = "x" * (
                300_000 if number % 10 == 0 else 10
            )  # large ones are read and done in other threads
            await db.collection("a").insert({"n": number, "text": text})
            written.append(number)
        return written

    writing = [asyncio.create_task(write()) for _ in range(8)]
    for _ in range(2):
        before = await db.sequence()
        while await db.sequence() < before + 20:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(served.end, signal.SIGTERM)
        await asyncio.to_thread(served.start)
    stop.set()
    written = sorted(number for each in await asyncio.gather(*writing) for number in each)
    there = await db.collection("a").find(map="doc.n").to_list()
    assert sorted(there) == written == list(range(len(written)))


# Forks


APP = """
from lazycloud.versionbase import connect_sync

db = connect_sync()
posts = db.collection("posts")
posts.insert({"n": 0}, "k")  # before gunicorn forks: a connection that the forks must leave alone

def app(environ, start_response):
    found = db.run(lambda tx: more(tx.collection("posts")))
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(found["n"]).encode()]

def more(posts):
    return posts.update("k", {"n": posts.get("k")["n"] + 1})
"""


def test_workers_that_gunicorn_forks_from_a_loaded_app_each_have_a_connection(
    served: Served, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(APP)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [
            sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--worker-class", "gthread",
            "--threads", "4", "--bind", f"fd://{listening.fileno()}", "--chdir", str(tmp_path),
            "--log-level", "error", "app:app",
        ]  # fmt: skip
        environment = {**os.environ, "VERSIONBASE_URL": served.url}
        gunicorn = subprocess.Popen(command, env=environment, pass_fds=[listening.fileno()])
        try:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            with ThreadPoolExecutor(12) as threads:
                told = list(threads.map(lambda _: int(_get(url)), range(60)))
        finally:
            gunicorn.terminate()
            gunicorn.wait(PATIENCE)
    assert sorted(told) == list(range(1, 61))


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        body: bytes = answer.read()
        return body
