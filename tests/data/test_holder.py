"""The process that speaks SQLite: what it holds, what it never does, and how it leaves."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lazycloud.data import holder, image, wal
from lazycloud.data.holding import COMMAND, PROGRAM, Holder, HolderLost
from lazycloud.walls import sandbox
from lazycloud.walls.sandbox import Sandbox
from lazycloud.walls.view import View
from tests.data.client import Client
from tests.waiting import PATIENCE

FOLDER = Path(holder.__file__).parent


class Talk:
    """The holder, spoken to in lines."""

    def __init__(self, words: tuple[str, ...] = (), environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*words, *COMMAND],
            env=environment or {},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, do: str, key: str = "a", **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"id": 1, "key": key, "do": do, **arguments}) + "\n")
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        assert answer.pop("id") == 1
        return answer

    def opens(self, database: Path) -> dict[str, Any]:
        return self.ask("open", path=str(database), inode=inode(database), seconds=1)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()


def inode(place: Path) -> list[int]:
    return [place.stat().st_dev, place.stat().st_ino]


@pytest.fixture
def talk() -> Iterator[Talk]:
    talking = Talk()
    yield talking
    talking.end()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    image.empty(tmp_path / "a.db")
    return tmp_path / "a.db"


@pytest.fixture
def client(database: Path) -> Iterator[Client]:
    with Client(database) as made:
        assert made.run("CREATE TABLE rows (a)") == "None"
        yield made


def state(database: Path) -> wal.State:
    descriptor = os.open(f"{database}-shm", os.O_RDONLY)
    try:
        return wal.state(descriptor)
    finally:
        os.close(descriptor)


def turned(talk: Talk, database: Path) -> dict[str, Any]:
    """Hold it from where all of its WAL is in the file."""
    assert talk.opens(database) == {"mode": "wal"}
    assert talk.ask("hold", seconds=1) == {"held": 1}
    assert talk.ask("bar", seconds=1, lasts=PATIENCE) == {}
    return talk.ask("turn")


def test_nothing_is_written_to_a_database_that_is_held(talk: Talk, database: Path, client: Client) -> None:
    assert turned(talk, database)["complete"]
    before = database.read_bytes()
    client.run("INSERT INTO rows VALUES (1)", "PRAGMA wal_checkpoint(PASSIVE)")
    assert database.read_bytes() == before
    assert state(database).backfilled == 0


def test_a_second_reader_lets_the_wal_be_written_to_the_file_up_to_it(
    talk: Talk, database: Path, client: Client
) -> None:
    turned(talk, database)
    client.run("INSERT INTO rows VALUES (1)")
    assert talk.ask("hold", seconds=1) == {"held": 2}
    until = state(database).mark.frame
    assert talk.ask("release") == {"held": 1}
    client.run("INSERT INTO rows VALUES (2)", "PRAGMA wal_checkpoint(PASSIVE)")
    assert talk.ask("checkpoint")["checkpointed"] == until
    assert state(database).backfilled == until < state(database).mark.frame


def test_the_barrier_keeps_writers_out_and_falls_by_itself(
    talk: Talk, database: Path, client: Client
) -> None:
    turned(talk, database)
    assert talk.ask("bar", seconds=1, lasts=2) == {}
    assert "locked" in client.run("INSERT INTO rows VALUES (1)")
    while "locked" in client.run("INSERT INTO rows VALUES (1)"):
        pass
    assert talk.ask("turn")["error"] == "late"


def test_a_writer_at_work_makes_it_answer_that_it_is_busy(talk: Talk, database: Path, client: Client) -> None:
    turned(talk, database)
    client.run("BEGIN IMMEDIATE")
    assert talk.ask("bar", seconds=0.05, lasts=1)["error"] == "busy"
    client.run("COMMIT")
    assert talk.ask("bar", seconds=0.05, lasts=1) == {}


def test_a_reader_of_an_earlier_moment_keeps_it_from_being_complete(
    talk: Talk, database: Path, client: Client
) -> None:
    with Client(database) as reader:
        reader.run("BEGIN", "SELECT * FROM rows")
        client.run("INSERT INTO rows VALUES (1)")
        assert not turned(talk, database)["complete"]
        assert talk.ask("checkpoint")["checkpointed"] < state(database).mark.frame


def test_no_checkpoint_is_made_while_nothing_is_held(talk: Talk, database: Path) -> None:
    talk.opens(database)
    assert talk.ask("checkpoint")["error"] == "order"
    assert talk.ask("release")["error"] == "order"
    assert talk.ask("turn")["error"] == "late"
    assert talk.ask("__init__")["error"] == "order"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None])
def test_it_leaves_without_writing_or_removing_anything(
    talk: Talk, database: Path, client: Client, number: signal.Signals | None
) -> None:
    turned(talk, database)
    client.run("INSERT INTO rows VALUES (1)")
    client.kill()
    before = database.read_bytes(), Path(f"{database}-wal").read_bytes()
    if number:
        talk.process.send_signal(number)
    assert talk.process.stdin
    talk.process.stdin.close()
    talk.process.wait(PATIENCE)
    assert (database.read_bytes(), Path(f"{database}-wal").read_bytes()) == before
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT a FROM rows").fetchall() == [(1,)]


def test_the_last_connection_of_an_app_removes_no_wal(talk: Talk, database: Path) -> None:
    turned(talk, database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE rows (a)")
    assert Path(f"{database}-wal").stat().st_size > 0


def test_a_database_that_became_another_file_is_refused(talk: Talk, database: Path) -> None:
    meant = inode(database)
    image.empty(database.with_name("other"))
    database.with_name("other").replace(database)
    assert talk.ask("open", path=str(database), inode=meant, seconds=1)["error"] == "gone"
    assert not Path(f"{database}-shm").exists()


def test_what_is_no_database_or_not_there_is_told(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, but long enough to be looked at as if it were one" * 20)
    assert talk.opens(tmp_path / "text")["error"] == "damaged"
    assert talk.ask("open", path=str(tmp_path / "none"), inode=[0, 0], seconds=1)["error"] == "gone"


def test_a_copy_of_a_database_in_delete_mode(talk: Talk, tmp_path: Path) -> None:
    place, target = tmp_path / "old.db", tmp_path / "copy"
    with Client(place) as client:
        client.run("CREATE TABLE rows (a)", "INSERT INTO rows VALUES (7)", "BEGIN EXCLUSIVE")
        asked: dict[str, Any] = {"path": str(place), "inode": inode(place), "target": str(target)}
        assert talk.ask("copy", **asked, seconds=0.1)["error"] == "busy"
        client.run("ROLLBACK")
        assert talk.ask("copy", **asked, seconds=1) == {}
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT a FROM rows").fetchall() == [(7,)]


def test_a_database_with_a_wal_is_not_copied(talk: Talk, database: Path, client: Client) -> None:
    asked = {"path": str(database), "inode": inode(database), "target": f"{database}.copy"}
    assert talk.ask("copy", **asked, seconds=1)["error"] == "mode"
    client.kill()
    assert Path(f"{database}-wal").exists()


def test_one_database_does_not_wait_for_another(talk: Talk, database: Path, client: Client) -> None:
    turned(talk, database)
    client.run("BEGIN IMMEDIATE")
    assert talk.process.stdin
    talk.process.stdin.write('{"id": 2, "key": "a", "do": "bar", "seconds": 60, "lasts": 1}\n')
    other = database.with_name("b.db")
    image.empty(other)
    assert talk.ask("open", key="b", path=str(other), inode=inode(other), seconds=1) == {"mode": "wal"}


@pytest.mark.skipif(bool(sandbox.missing()), reason="walls cannot be made here")
def test_behind_walls_it_sees_the_version_and_nothing_else(tmp_path: Path, database: Path) -> None:
    place = tmp_path / "version"
    place.mkdir()
    database.rename(place / "a.db")
    secret = tmp_path / "secret.db"
    image.empty(secret)
    view = View(tmp_path, read=(PROGRAM.parent, Path(sys.base_prefix), Path(sys.prefix)), write=(place,))
    enclosed = Sandbox(tmp_path, dict(os.environ)).enclose(view, Path("/"), {})
    talk = Talk(enclosed.words, dict(enclosed.environment))
    try:
        assert turned(talk, place / "a.db")["complete"]
        assert talk.ask("open", key="b", path=str(secret), inode=inode(secret), seconds=1)["error"] == "gone"
        (place / "led").symlink_to(secret)
        assert (
            talk.ask("open", key="c", path=str(place / "led"), inode=inode(secret), seconds=1)["error"]
            == "gone"
        )
    finally:
        talk.end()


def test_it_opens_no_file_by_itself_and_imports_nothing_of_ours() -> None:
    """Closing any descriptor of a database drops all locks that the process has on it."""
    opening = {"open", "os.open", "io.open", "os.fdopen", "Path", "pathlib", "shutil", "mmap", "subprocess"}
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                assert not {name.split(".")[0] for name in names} & (opening | {"lazycloud"}), path
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in opening, ast.unparse(node)


@pytest.mark.parametrize("name", ["wal", "image", "blocks", "archive", "held", "line", "holding"])
def test_what_reads_the_files_raw_speaks_no_sqlite(name: str) -> None:
    tree = ast.parse((FOLDER.parent / f"{name}.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names} | {
        node.module for node in imports if isinstance(node, ast.ImportFrom)
    }
    assert not {one for one in names if one and "sqlite" in one}


def test_it_opens_nothing_but_by_sqlite(tmp_path: Path, database: Path, client: Client) -> None:
    """Python itself says what is opened."""
    script = tmp_path / "audited.py"
    script.write_text(
        "import sys, runpy\n"
        f"FOLDER = {str(database.parent)!r}\n"
        "def see(event, arguments):\n"
        "    if event == 'open' and FOLDER in str(arguments[0]) or event in ('os.link', 'os.rename'):\n"
        "        sys.stderr.write(f'{event} {arguments}')\n"
        "sys.addaudithook(see)\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
    )
    asked = [
        {"do": "open", "path": str(database), "inode": inode(database), "seconds": 1},
        {"do": "hold", "seconds": 1},
        {"do": "bar", "seconds": 1, "lasts": 5},
        {"do": "turn"},
        {"do": "hold", "seconds": 1},
        {"do": "release"},
        {"do": "checkpoint"},
        {"do": "mend"},
        {"do": "forget"},
    ]
    process = subprocess.Popen(
        [sys.executable, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    for command in asked:
        process.stdin.write(json.dumps({"id": 0, "key": "a", **command}) + "\n")
        process.stdin.flush()
        assert "error" not in process.stdout.readline()
    assert process.communicate()[1] == ""


async def test_who_started_it_is_told_when_it_is_gone() -> None:
    one = await Holder.start()
    await one.demand_alive()
    os.kill(one.pid, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        await one.lost.wait()
    with pytest.raises(HolderLost):
        await one.demand_alive()
    await one.close()
    with pytest.raises(HolderLost):
        await Holder.start(command=("/nowhere/python",))


async def test_one_that_hangs_is_killed_and_counts_as_gone() -> None:
    one = await Holder.start()
    await one.demand_alive()
    os.kill(one.pid, signal.SIGSTOP)
    with pytest.raises(HolderLost):
        await one.ask("a", "mode", 0.05)
    await one.close()
    assert not Path(f"/proc/{one.pid}").exists()
