"""The server as a process: what it says, how it stops, and the other verbs of `lazycloud versionbase`."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from lazycloud.cli import run
from lazycloud.errors import BadInput
from lazycloud.versionbase import keys
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.storage import Storage
from lazycloud.versionbase.tending import Tending
from tests.postgres import ADMIN, Postgres
from tests.versionbase.looking import oldest
from tests.versionbase.talking import MESSAGE_PACK, Client, Refused
from tests.waiting import PATIENCE

SERVE = [sys.executable, "-m", "lazycloud", "versionbase", "serve"]


@contextmanager
def started(
    store: str, *words: str, listen: str = "127.0.0.1:0"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and the first line that it says."""
    command = [*SERVE, "--store", store, "--listen", listen, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process, pipe(process.stdout).readline().strip()
    finally:
        process.kill()
        process.communicate()


def pipe(of: IO[str] | None) -> IO[str]:
    assert of is not None
    return of


def port(line: str) -> int:
    found = re.fullmatch(r"versionbase listens at ws://127\.0\.0\.1:(\d+)/", line)
    assert found, line
    return int(found[1])


@asynccontextmanager
async def client_of(line: str, key: str, version: str = "production") -> AsyncIterator[Client]:
    url = f"ws://127.0.0.1:{port(line)}/"
    async with connect(url, subprotocols=[Subprotocol(MESSAGE_PACK)], close_timeout=0.5) as opened:
        client = Client(opened, MESSAGE_PACK)
        await client.ask("hello", version=version, key=key)
        yield client


def ended(process: subprocess.Popen[str]) -> tuple[int, float]:
    """Its exit code, and the seconds that it took to stop."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    return process.wait(PATIENCE), time.monotonic() - began


async def test_it_says_where_it_listens_and_no_key_and_stops_with_0(tmp_path: Path) -> None:
    store = tmp_path / "new" / "store.sqlite"
    with started(f"sqlite:///{store}") as (process, line):
        secret = keys.beside(store)
        async with client_of(line, secret.owner) as client:
            await client.ask("insert", collection="c", documents=[{}])
            code, took = await asyncio.to_thread(ended, process)
            assert (code, took < PATIENCE / 2) == (0, True)
            with pytest.raises(ConnectionClosed) as caught:
                await client.read()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1012
        assert (pipe(process.stdout).read(), pipe(process.stderr).read()) == ("", "")
    for path in store.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_where_the_disk_is_to_keep_more_free_nothing_is_written_and_all_is_read(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with started(f"sqlite:///{store}") as (_, line):
        async with client_of(line, keys.beside(store).owner) as client:
            await client.ask("insert", collection="c", documents=[{}], keys=["kept"])
    with started(f"sqlite:///{store}", "--keep-free", "1000000000") as (_, line):
        async with client_of(line, keys.beside(store).owner) as client:
            with pytest.raises(Refused, match="are kept free") as caught:
                await client.ask("insert", collection="c", documents=[{}])
            assert caught.value.kind == "full"
            assert await client.ask("get", collection="c", keys=["kept"]) == [{}]


async def test_it_stops_soon_whoever_has_not_said_anything_yet(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with (
        started(f"sqlite:///{store}") as (process, line),
        socket.create_connection(("127.0.0.1", port(line))),
    ):
        url = f"ws://127.0.0.1:{port(line)}/"
        async with connect(url, subprotocols=[Subprotocol(MESSAGE_PACK)]):
            code, took = await asyncio.to_thread(ended, process)
            assert (code, took < PATIENCE / 2) == (0, True)


async def test_it_tells_urls_with_keys_when_it_is_asked_to(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with started(f"sqlite:///{store}", "--print-url") as (process, line):
        lines = [pipe(process.stdout).readline().strip() for _ in range(2)]
        owner = keys.beside(store).owner
        assert lines[1] == f"VERSIONBASE_OWNER_URL=ws://:{owner}@127.0.0.1:{port(line)}/"
        mine = lines[0].removeprefix("VERSIONBASE_URL=ws://production:").partition("@")[0]
        assert mine != owner
        async with client_of(line, mine) as client:
            await client.ask("status")


async def test_a_stop_in_the_midst_of_commits_loses_none_that_was_acknowledged(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    acknowledged: set[str] = set()
    with started(f"sqlite:///{store}") as (process, line):
        async with client_of(line, keys.beside(store).owner) as client:
            sent: dict[int, str] = {}
            with pytest.raises(ConnectionClosed) as caught:
                for number in range(100_000):
                    key = f"k{number}"
                    sent[await client.begin("insert", collection="c", documents=[{"n": 1}], keys=[key])] = key
                    if number >= 200:
                        acknowledged.add(sent[(await client.read())["id"]])
                    if number == 1000:
                        process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                while True:
                    acknowledged.add(sent[(await client.read())["id"]])
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, await asyncio.to_thread(process.wait, 10)) == (1012, 0)
    assert len(acknowledged) > 500
    with started(f"sqlite:///{store}") as (_, line):
        async with client_of(line, keys.beside(store).owner) as client:
            found = {key for key, _ in (await client.list("find", collection="c", map="1"))[0]}
            assert found == acknowledged  # what had no answer was not begun


async def test_it_listens_on_a_unix_socket_of_this_user_alone(tmp_path: Path) -> None:
    store, path = tmp_path / "store.sqlite", tmp_path / "socket"
    for _ in range(2):  # the second time, what a killed one left is in the way
        with started(f"sqlite:///{store}", listen=f"unix:{path}") as (process, line):
            assert line == f"versionbase listens at ws+unix://{path}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            async with unix_connect(str(path), subprotocols=[Subprotocol(MESSAGE_PACK)]) as opened:
                await Client(opened, MESSAGE_PACK).ask(
                    "hello", version="production", key=keys.beside(store).owner
                )
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["--store", "sqlite:///{}/a", "--listen", "nowhere"], 2, "is no port"),
        (["--store", "sqlite:///{}/a", "--listen", "256.0.0.1:0"], 1, "Cannot listen on 256.0.0.1:0"),
        (["--store", "mongodb://x/y"], 2, "postgresql"),
        (["--store", "postgresql://localhost/x"], 2, "made of a secret"),
        (["--store", "sqlite:///{}/a", "--secret-file", "{}/none"], 2, "cannot be read"),
        (["--store", "sqlite:///{}"], 2, "is a folder, and a versionbase is kept in a file"),
        (["--store", "sqlite:///."], 2, "sqlite:///notes.db"),
        (["--store", "sqlite:///{}/text.db"], 1, "or one that is not there yet"),
        (["--store", "sqlite:////proc/a"], 2, "a folder to write in"),
        ([], 2, "--store"),
    ],
)
def test_what_cannot_be_served_is_said_in_words(
    tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    (tmp_path / "text.db").write_text("A list of what is to be bought.")
    told = [word.format(tmp_path) for word in words]
    done = subprocess.run([*SERVE, *told], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_server_of_a_store_is_refused(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'store.sqlite'}"
    with started(store):
        done = subprocess.run(
            [*SERVE, "--store", store], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    assert done.returncode == 1
    assert "open already" in done.stderr


# Other verbs


def test_verify_finds_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store.sqlite"
    store = f"sqlite:///{path}"
    engine = Engine(Storage(store))
    engine.open()
    engine.change(lambda: engine.storage.begin("production")).result(PATIENCE)
    documents = [{"text": "x" * 500} for _ in range(100)]
    engine.perform("production", lambda transaction: transaction.insert("c", documents)).result(PATIENCE)
    assert run(["versionbase", "verify", "--store", store]) == 1  # somebody has it
    assert "open already" in capsys.readouterr().err
    engine.close()
    assert run(["versionbase", "verify", "--store", store]) == 0
    assert "All is in order" in capsys.readouterr().out
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM versionbase_nodes WHERE number = 2")
    connection.close()
    assert run(["versionbase", "verify", "--store", store]) == 1
    told = capsys.readouterr()
    assert "ode 2" in told.out
    assert "1 problem" in told.err
    assert run(["versionbase", "verify", "--store", f"{store}.none"]) == 1
    assert [one.name for one in tmp_path.iterdir() if "none" in one.name] == []


@pytest.mark.parametrize("table", ["", "CREATE TABLE of_another_app (a)"])
def test_verify_leaves_a_strange_database_as_it_is(
    tmp_path: Path, table: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "shop.db"
    path.touch()
    with sqlite3.connect(path) as connection:
        connection.execute(table)
    connection.close()
    before = path.read_bytes()
    assert run(["versionbase", "verify", "--store", f"sqlite:///{path}"]) == 1
    assert "no versionbase in" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_verify_says_what_to_do_with_a_file_that_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "store.sqlite"
    storage = Storage(f"sqlite:///{path}")
    storage.open()
    storage.close()
    path.write_bytes(path.read_bytes()[:2048])
    assert run(["versionbase", "verify", "--store", f"sqlite:///{path}"]) == 1
    assert "put back a copy" in capsys.readouterr().err


def test_verify_makes_no_tables_in_postgres(postgres: Postgres, capsys: pytest.CaptureFixture[str]) -> None:
    with postgres.superuser() as superuser:
        superuser.execute(f"CREATE DATABASE strange OWNER {ADMIN}".encode())
        try:
            for _ in range(2):  # had the first made them, the second would find all in order
                assert run(["versionbase", "verify", "--store", postgres.url(database="strange")]) == 1
                assert "no versionbase in" in capsys.readouterr().err
        finally:
            superuser.execute("DROP DATABASE strange WITH (FORCE)")


@pytest.mark.parametrize("language, name", [("python", "versionbase.py"), ("javascript", "versionbase.mjs")])
def test_a_client_is_written_and_not_over_what_somebody_changed(
    tmp_path: Path, language: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["versionbase", "client", language, "--to", str(tmp_path)]
    path = tmp_path / name
    assert run(command) == 0
    assert run(command) == 0  # a newer one takes its place
    path.write_text(path.read_text() + " ")
    assert run(command) == 2
    assert "was changed" in capsys.readouterr().err
    assert run([*command, "--force"]) == 0
    assert run([*command[:-1], str(tmp_path / "none")]) == 2


def test_a_client_that_was_written_is_one(tmp_path: Path) -> None:
    assert run(["versionbase", "client", "python", "--to", str(tmp_path)]) == 0
    words = "import versionbase; versionbase.connect; versionbase.connect_sync"
    subprocess.run([sys.executable, "-c", words], cwd=tmp_path, check=True, timeout=PATIENCE)


# Keys


def test_the_secret_beside_a_store_is_made_once_and_is_this_users(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    made = [keys.beside(store) for _ in range(2)]
    assert made[0] == made[1]
    assert [path.name for path in tmp_path.iterdir()] == ["store.sqlite.secret"]
    path = tmp_path / "store.sqlite.secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(BadInput, match="Others may read"):
        keys.beside(store)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(BadInput, match="shorter than 32"):
        keys.beside(store)


def test_each_version_has_its_key_and_a_later_one_of_its_name_another() -> None:
    made = keys.made_of("x" * 32)
    several = {
        made.owner,
        made.version("a", "1"),
        made.version("a", "2"),
        made.version("b", "1"),
        keys.made_of("y" * 32).owner,
    }
    assert len(several) == 5
    assert made.opens(made.version("a", "1"), "a", "1")
    assert not made.opens(made.version("a", "1"), "a", "2")
    assert not made.opens("é\ud800", "a", "1")
    assert not made.is_owner("")
    assert made.owner not in repr(made)
    assert "xxx" not in repr(made)


# Tending, and Postgres


async def test_old_commits_are_forgotten_and_their_nodes_removed(tmp_path: Path) -> None:
    engine = Engine(Storage(f"sqlite:///{tmp_path / 'store.sqlite'}"))
    engine.open()
    engine.change(lambda: engine.storage.begin("production")).result(PATIENCE)
    for number in range(20):
        engine.perform(
            "production", lambda transaction, number=number: transaction.insert("c", [{"n": number}])
        ).result(PATIENCE)
    tending = Tending(engine, kept=3600, commits=5)
    tending.grace = 0.0
    assert await tending.round() >= 10
    assert oldest(engine.storage, "production") == 16
    assert await tending.round() == 0
    engine.close()


async def test_it_serves_what_is_in_postgres(postgres: Postgres, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 64)
    secret.chmod(0o600)
    with postgres.superuser() as superuser:
        superuser.execute(f"CREATE DATABASE served OWNER {ADMIN}".encode())
        try:
            with started(postgres.url(database="served"), "--secret-file", str(secret)) as (process, line):
                async with client_of(line, keys.from_file(secret).owner) as client:
                    await client.ask("insert", collection="c", documents=[{"n": 1}], keys=["k"])
                    assert await client.ask("get", collection="c", keys=["k"]) == [{"n": 1}]
                assert (await asyncio.to_thread(ended, process))[0] == 0
        finally:
            superuser.execute("DROP DATABASE served WITH (FORCE)")
