"""Tasks are processes: behind walls, bounded, and gone with who asked."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from lazycloud.data.tools import difference, process, schema_of, summary
from lazycloud.data.tools.process import Limits
from lazycloud.errors import StepFailed
from lazycloud.walls import sandbox
from lazycloud.walls.sandbox import Sandbox
from tests.waiting import until

from .folders import version


@pytest.fixture(params=["walled", "plain"])
def walls(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox | None:
    if request.param == "plain":
        return None
    if why := sandbox.missing():
        pytest.skip(why)
    (tmp_path / "home").mkdir()
    return Sandbox(tmp_path / "home", {})


async def test_a_task_answers_behind_walls_and_without(tmp_path: Path, walls: Sandbox | None) -> None:
    one = version(tmp_path / "a", "CREATE TABLE t (a)")
    other = version(tmp_path / "b", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    found = await difference(one, other, walls=walls, rows=1)
    assert found.databases[0].tables[0].rows[0].after == {"a": 1}
    assert (await difference(one, one, walls=walls)).same
    assert (await summary(other, walls=walls)).databases[0].tables[0].rows == 1
    assert (await schema_of(other, walls=walls)).text == "CREATE TABLE t (a);"
    for place in (one, other):
        assert sorted(entry.name for entry in place.iterdir()) == ["database.sqlite", "files"]


async def test_a_task_sees_no_more_than_its_folders(tmp_path: Path) -> None:
    if why := sandbox.missing():
        pytest.skip(why)
    (tmp_path / "home").mkdir()
    one, secret = (
        version(tmp_path / "home" / "a"),
        version(tmp_path / "home" / "secret", "CREATE TABLE s (a)"),
    )
    told = await process.run(
        "sum up",
        {"folder": str(secret), "sizes": False, "rows": False},
        one,
        (one,),
        Sandbox(tmp_path / "home", {}),
        Limits(),
    )
    assert told["databases"] == []


@pytest.mark.usefixtures("hanging")
async def test_a_task_that_takes_too_long_is_ended(tmp_path: Path, walls: Sandbox | None) -> None:
    one = version(tmp_path / "a")
    asking = asyncio.create_task(summary(one, walls=walls, limits=Limits(seconds=2)))
    with pytest.raises(StepFailed, match="To sum up the data took more than 2 s"):
        await asking
    await until(lambda: not tasks(tmp_path))
    assert sorted(entry.name for entry in one.iterdir()) == ["database.sqlite", "files"]


@pytest.mark.usefixtures("hanging")
async def test_a_task_ends_with_who_asked(tmp_path: Path, walls: Sandbox | None) -> None:
    asking = asyncio.create_task(summary(version(tmp_path / "a"), walls=walls))
    await begun(tmp_path)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: not tasks(tmp_path))


@pytest.mark.usefixtures("hanging")
async def test_a_task_that_dies_is_told_as_such(tmp_path: Path) -> None:
    asking = asyncio.create_task(summary(version(tmp_path / "a")))
    for pid in await begun(tmp_path):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(StepFailed, match="The process that was to sum up the data ended by signal 9"):
        await asking


async def test_a_task_does_not_outlive_a_control_that_was_killed(tmp_path: Path) -> None:
    version(tmp_path / "a")
    script = f"""
        import asyncio, pathlib
        from lazycloud.data.tools import process, summary
        from tests.data.tools.test_tasks import hangs
        process._command = hangs(process._command)
        asyncio.run(summary(pathlib.Path({str(tmp_path / "a")!r})))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)]) as control:  # noqa: ASYNC220 - quick
        found = await begun(tmp_path)
        control.kill()
    for pid in found:
        os.kill(pid, signal.SIGCONT)
    await until(lambda: not tasks(tmp_path))


async def test_more_memory_than_allowed_is_refused_and_not_taken(tmp_path: Path) -> None:
    places = [version(tmp_path / name, "CREATE TABLE t (id PRIMARY KEY, a) WITHOUT ROWID") for name in "ab"]
    for at, place in enumerate(places):
        with closing(sqlite3.connect(place / "database.sqlite")) as connection:
            connection.execute("INSERT INTO t VALUES (?, zeroblob(150000000))", (at,))
            connection.commit()
    found = await difference(*places, rows=1, limits=Limits(memory=300_000_000))
    (table,) = found.databases[0].tables
    assert "It could not be read" in table.note
    assert not found.same


def tasks(folder: Path) -> list[int]:
    """The processes of tasks whose scratch is below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if (
                    process.MODULE.encode() in words
                    and str(folder).encode() in (entry / "environ").read_bytes()
                ):
                    found.append(int(entry.name))
    return found


def hangs(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same, but the process stops itself before it does anything."""

    def stopped(*told: Any) -> tuple[list[str], Mapping[str, str]]:
        words, environment = command(*told)
        own = words.index(process.MODULE) - 3  # the interpreter and its flags
        stopping = ["/bin/sh", "-c", 'kill -STOP $$; exec "$@"', "sh"]
        return [*words[:own], *stopping, *words[own:]], environment

    return stopped


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_command", hangs(process._command))


async def begun(folder: Path) -> list[int]:
    """Those of a task that has stopped itself."""

    def stopped(pid: int) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        return False

    await until(lambda: any(map(stopped, tasks(folder))))
    return tasks(folder)
