"""Moments of live databases: every image is exactly what its app had committed then, or there is none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lazycloud.data import held as held_module
from lazycloud.data import image, wal
from lazycloud.data import line as line_module
from lazycloud.data.holding import COMMAND, PROGRAM, Holder
from lazycloud.data.line import Line, Marks
from lazycloud.errors import DiskFull, Unavailable
from lazycloud.walls import sandbox
from lazycloud.walls.sandbox import Sandbox
from lazycloud.walls.view import View
from tests.data.client import Client
from tests.data.numbered import Ledger, wrong
from tests.waiting import PATIENCE, until

FAULTY = str(Path(__file__).with_name("faulty_holder.py"))


@dataclass
class App:
    """A version's folder, and writers of its databases."""

    root: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ledgers: dict[str, Ledger] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        return self.root / "version"

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    def writes(self, name: str = "database.sqlite", *options: str) -> subprocess.Popen[bytes]:
        words = [
            sys.executable,
            "-m",
            "tests.data.numbered",
            str(self.place / name),
            str(self.ledger_place(name)),
        ]
        slot = str(len(self.running))
        self.running.append(subprocess.Popen([*words, "--slot", slot, "--seed", slot, *options]))
        return self.running[-1]

    def ledger_place(self, name: str) -> Path:
        return self.root / f"{name.replace('/', ' ')}.ledger"

    def ledger(self, name: str = "database.sqlite") -> Ledger:
        if name not in self.ledgers:
            self.ledgers[name] = Ledger(self.ledger_place(name))
        return self.ledgers[name]

    async def has_written(self, more: int = 20, name: str = "database.sqlite") -> None:
        before = self.ledger(name).done()
        await until(lambda: self.ledger(name).done() >= before + more)

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


@dataclass
class Moment:
    """A mark, and which commits its image may have as its last."""

    marks: Marks
    least: dict[str, int]
    most: dict[str, int]


def moment(line: Line, app: App) -> Moment:
    least = {name: app.ledger(name).done() for name in app.ledgers}
    marks = line.mark()
    return Moment(marks, least, {name: app.ledger(name).tried() for name in app.ledgers})


async def faults(line: Line, app: App, then: Moment) -> list[str]:
    """What is wrong with the image of a moment."""
    target = app.root / f"image {len(list(app.root.iterdir()))}"
    target.mkdir()
    await line.image(then.marks, target)
    found = []
    for name, least in then.least.items():
        checked = wrong, target / name, app.ledger(name), least, then.most[name]
        if fault := await asyncio.to_thread(*checked):
            found.append(f"{name} {fault}")
    shutil.rmtree(target)
    return found


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    made = App(tmp_path)
    (made.place / "files").mkdir(parents=True)
    image.empty(made.place / "database.sqlite")
    yield made
    made.stop()
    for ledger in made.ledgers.values():
        ledger.close()


Opens = Callable[..., Any]
NEVER = 10**9  # frames, or seconds, until a WAL is moved on without being asked to


@pytest.fixture
async def opened(app: App) -> AsyncIterator[Opens]:
    """Opens lines on the app's version, which are closed in the end."""
    lines: list[Line] = []

    async def opens(**options: Any) -> Line:
        lines.append(await Line.open(app.place, app.archive, **options))
        return lines[-1]

    yield opens
    for line in lines:
        await line.close()


async def test_images_are_what_was_committed_while_the_app_writes_on(app: App, opened: Opens) -> None:
    app.writes()
    await app.has_written()
    line = await opened()
    for _ in range(10):
        then = moment(line, app)
        await app.has_written(5)
        assert await faults(line, app, then) == []
    await settled(line)


async def test_a_moment_stays_what_it_was_when_the_wal_was_moved_on(app: App, opened: Opens) -> None:
    app.writes()
    await app.has_written()
    line = await opened()
    moments = []
    for _ in range(5):
        moments.append(moment(line, app))
        await app.has_written()
        assert await line.rotate()
    for then in moments:
        assert await faults(line, app, then) == []


async def test_the_wal_is_moved_on_without_the_app(app: App, opened: Opens) -> None:
    app.writes("database.sqlite", "--autocheckpoint", "0")
    await app.has_written()
    line = await opened()
    salts = {line.mark().databases[0].mark[:2]}
    await until(lambda: bool(salts.add(line.mark().databases[0].mark[:2])) or len(salts) > 2)
    assert (app.place / "database.sqlite").stat().st_size > 100_000


async def test_a_moment_that_nobody_refers_to_any_more_is_unavailable_and_takes_no_room(
    app: App, opened: Opens
) -> None:
    app.writes()
    await app.has_written()
    line = await opened()
    text = line.mark().as_json()
    await app.has_written()
    await line.rotate()
    await app.has_written()
    await line.rotate()
    with pytest.raises(Unavailable):
        await line.image(Marks.from_json(text), app.root)
    assert list(app.archive.rglob("base")) == []


async def test_what_is_kept_outlives_the_line_and_is_removed_when_forgotten(app: App, opened: Opens) -> None:
    app.writes()
    await app.has_written()
    line = await opened()
    then = moment(line, app)
    await line.keep(then.marks)
    then.marks = Marks.from_json(then.marks.as_json())
    await app.has_written()
    await line.rotate()
    await line.close()
    await app.has_written(300)
    again = await opened()
    assert await faults(again, app, then) == []
    await again.forget(then.marks)
    with pytest.raises(Unavailable):
        await faults(again, app, then)
    assert list(app.archive.rglob("base")) == []


async def test_a_line_that_cannot_have_a_holder_says_so(app: App, opened: Opens, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No process could be started"):
        await opened(command=("/nowhere/python",))
    with pytest.raises(Unavailable, match="holder ended"):
        await opened(command=(sys.executable, FAULTY, str(PROGRAM), "hold", "after", "1"))


async def test_a_holder_that_dies_while_a_line_opens_is_replaced(
    app: App, opened: Opens, tmp_path: Path
) -> None:
    once = tmp_path / "once.sh"
    dying = f"{sys.executable} {FAULTY} {PROGRAM} hold after 1"
    once.write_text(
        f"test -e {tmp_path}/died && exec {shlex.join(COMMAND)}\ntouch {tmp_path}/died\nexec {dying}\n"
    )
    line = await opened(command=("/bin/sh", str(once)))
    assert line.mark().databases
    assert line.troubles == {}


async def test_a_killed_holder_costs_moments_but_none_is_wrong(app: App, opened: Opens) -> None:
    app.writes()
    await app.has_written()
    line = await opened()
    then, pid = moment(line, app), line.holder_pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: line.holder_pid not in (None, pid) and line.troubles == {})
    await app.has_written(400)
    with pytest.raises(Unavailable):
        await faults(line, app, then)
    await line.rotate()
    assert await faults(line, app, moment(line, app)) == []


async def test_several_databases_are_of_one_moment(app: App, opened: Opens) -> None:
    names = ("database.sqlite", "files/one.db", "files/two.db")
    for name in names:
        app.writes(name)
        await app.has_written(5, name)
    line = await opened()
    then = moment(line, app)
    assert {at.name for at in then.marks.databases} == set(names)
    await app.has_written()
    await line.rotate()
    assert await faults(line, app, then) == []


async def test_a_database_that_appears_is_held_and_one_that_goes_is_let_go(app: App, opened: Opens) -> None:
    line = await opened()
    app.writes("files/late.db")
    await app.has_written(5, "files/late.db")
    await line.adopt()
    assert await faults(line, app, moment(line, app)) == []
    app.stop()
    for place in (app.place / "files").iterdir():
        place.unlink()
    with pytest.raises(Unavailable, match="deleted"):
        line.mark()
    await line.adopt()
    assert {at.name for at in line.mark().databases} == {"database.sqlite"}


async def test_a_database_that_is_replaced_is_noticed(app: App, opened: Opens) -> None:
    line = await opened()
    then = line.mark()
    other = app.root / "other"
    image.empty(other)
    other.replace(app.place / "database.sqlite")
    with pytest.raises(Unavailable):
        await line.image(then, app.root)
    await line.adopt()
    app.writes()
    await app.has_written(5)
    assert await faults(line, app, moment(line, app)) == []


async def test_a_database_in_no_wal_mode_is_copied_as_it_is_and_said_so(app: App, opened: Opens) -> None:
    app.writes("files/old.db", "--mode", "delete")
    await app.has_written(5, "files/old.db")
    line = await opened()
    then = moment(line, app)
    assert "files/old.db is in no WAL mode" in then.marks.note
    target = app.root / "image"
    target.mkdir()
    note = await line.image(then.marks, target)
    assert "files/old.db is in no WAL mode" in note
    ledger = app.ledger("files/old.db")
    assert wrong(target / "files/old.db", ledger, then.least["files/old.db"], ledger.tried()) == ""


async def test_an_app_that_locks_its_database_for_itself_is_told_of(
    app: App, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "PATIENCE", 0.25)
    with Client(app.place / "database.sqlite") as client:
        client.run("PRAGMA locking_mode=EXCLUSIVE", "CREATE TABLE mine (a)")
        line = await opened()
        assert "locked by its app" in line.troubles["database.sqlite"]
        assert "locked by its app" in line.mark().note
    await line.adopt()
    await settled(line)


@pytest.mark.parametrize("page_size", [512, 1024, 65536])
async def test_pages_of_any_size(app: App, opened: Opens, page_size: int) -> None:
    (app.place / "database.sqlite").unlink()
    app.writes("database.sqlite", "--page-size", str(page_size))
    await app.has_written()
    line = await opened()
    then = moment(line, app)
    await app.has_written()
    await line.rotate()
    assert await faults(line, app, then) == []
    assert await faults(line, app, moment(line, app)) == []


async def test_apps_that_checkpoint_themselves_vacuum_and_open_anew_for_each_request(
    app: App, opened: Opens
) -> None:
    app.writes("database.sqlite", "--autocheckpoint", "1", "--reopen", "1")
    app.writes("database.sqlite", "--autocheckpoint", "0", "--vacuum", "20", "--synchronous", "OFF")
    await app.has_written()
    line = await opened()
    for _ in range(10):
        then = moment(line, app)
        await app.has_written()
        assert await faults(line, app, then) == []


async def test_a_reader_that_stays_makes_the_wal_grow_but_no_image_wrong(app: App, opened: Opens) -> None:
    app.writes()
    await app.has_written()
    line = await opened()
    await app.has_written()
    with Client(app.place / "database.sqlite") as reader:
        reader.run("BEGIN", "SELECT count(*) FROM log")
        await app.has_written()
        then = moment(line, app)
        assert not await line.rotate()
        assert "read transaction open for long" in line.troubles["database.sqlite"]
        await app.has_written()
        assert await faults(line, app, then) == []
        assert await faults(line, app, moment(line, app)) == []
    async with asyncio.timeout(PATIENCE):
        while not await line.rotate():  # its writer may be in the way just then
            pass
    await settled(line)


async def test_a_long_transaction_only_delays(
    app: App, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.writes("database.sqlite", "--commits", "50")
    await app.has_written(50)
    line = await opened()
    monkeypatch.setattr(held_module, "PATIENCE", 0.25)
    with Client(app.place / "database.sqlite") as writer:
        writer.run("BEGIN IMMEDIATE", "CREATE TABLE more (a)")
        then = moment(line, app)
        assert not await line.rotate()
        assert "long transaction" in line.troubles["database.sqlite"]
        assert await faults(line, app, then) == []
        assert writer.run("COMMIT") == "None"
    assert await line.rotate()
    assert await faults(line, app, moment(line, app)) == []


@pytest.mark.parametrize("together", [64, 1])
async def test_a_large_base_is_not_archived_each_time_but_the_wals_are_folded_into_it(
    app: App, opened: Opens, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(held_module, "SMALL", 0)
    monkeypatch.setattr("lazycloud.data.image.TOGETHER", together)
    app.writes("database.sqlite", "--cells", "1", "--size", "30000")
    await app.has_written(500)
    line = await opened()
    moments = []
    for _ in range(4):
        then = moment(line, app)
        await line.keep(then.marks)
        then.marks = Marks.from_json(then.marks.as_json())
        moments.append(then)
        await app.has_written()
        assert await line.rotate()
    assert len(list(app.archive.rglob("base"))) < len(moments)
    for then in moments:
        assert await faults(line, app, then) == []
    await line.close()
    again = await opened()
    for then in moments:
        assert await faults(again, app, then) == []


async def test_a_full_disk_does_not_stop_the_wal_from_moving_on(
    app: App, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "ROTATE_AT", NEVER)
    app.writes()
    await app.has_written()
    line = await opened()

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr("lazycloud.data.blocks.give", full)
        then = moment(line, app)
        with pytest.raises(DiskFull):
            await line.keep(then.marks)
        await app.has_written(5)
        assert await line.rotate()
        assert "could not be archived" in line.troubles["database.sqlite"]
    with pytest.raises(Unavailable):
        await faults(line, app, then)
    assert await faults(line, app, moment(line, app)) == []


async def test_a_reader_at_the_end_lets_the_same_wal_go_on_over_a_frozen_file(
    app: App, opened: Opens
) -> None:
    app.writes("database.sqlite", "--commits", "50")
    await app.has_written(50)
    line = await opened()
    app.writes("database.sqlite", "--commits", "30")
    await app.has_written(30)
    then = [moment(line, app)]
    await line.keep(then[0].marks)
    with Client(app.place / "database.sqlite") as reader:
        reader.run("BEGIN", "SELECT count(*) FROM log")
        assert await line.rotate()
        then.append(moment(line, app))
        app.writes("database.sqlite", "--commits", "30")
        await app.has_written(30)
        then.append(moment(line, app))
        marks = [one.marks.databases[0].mark for one in then]
        assert marks[0][:2] == marks[1][:2] == marks[2][:2]  # the WAL has not started over
        for one in then:
            assert await faults(line, app, one) == []
        await line.rotate()
        for one in then:
            assert await faults(line, app, one) == []


async def test_a_base_is_not_used_for_what_was_before_it_in_the_same_wal(app: App, opened: Opens) -> None:
    app.writes("database.sqlite", "--commits", "50")
    await app.has_written(50)
    line = await opened()
    app.writes("database.sqlite", "--commits", "30")
    await app.has_written(30)
    earlier = Marks.from_json(line.mark().as_json())  # nobody keeps it
    app.writes("database.sqlite", "--commits", "30")
    await app.has_written(30)
    with Client(app.place / "database.sqlite") as reader:
        reader.run("BEGIN", "SELECT count(*) FROM log")
        assert await line.rotate()
        await line.keep(line.mark())
        app.writes("database.sqlite", "--commits", "30")
        await app.has_written(30)
        last = moment(line, app)
        await line.keep(last.marks)
        salts = {one.databases[0].mark[:2] for one in (earlier, last.marks)}
        assert len(salts) == 1
        with pytest.raises(Unavailable):
            await line.image(earlier, app.root)
        assert await faults(line, app, last) == []
        await line.rotate()
        with pytest.raises(Unavailable):
            await line.image(earlier, app.root)
        assert await faults(line, app, last) == []


async def test_any_moment_of_the_last_seconds_can_be_had(app: App, opened: Opens) -> None:
    app.writes()
    await app.has_written()
    line = await opened(keep_for=60)
    moments = []
    for _ in range(5):
        then = moment(line, app)
        then.marks = Marks.from_json(then.marks.as_json())
        moments.append(then)
        await app.has_written(5)
        await line.rotate()
    for then in moments:
        assert await faults(line, app, then) == []


async def test_an_index_that_was_left_half_written_is_mended(
    app: App, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "PATIENCE", 0.02)
    app.writes()
    await app.has_written()
    line = await opened()
    app.stop()
    index = app.place / "database.sqlite-shm"
    with index.open("r+b") as file:
        file.seek(16)
        file.write(b"half")
    with pytest.raises(Unavailable):
        line.mark()
    await settled(line)
    assert await faults(line, app, moment(line, app)) == []


async def settled(line: Line) -> None:
    """All is held as it should be."""
    try:
        await until(lambda: line.troubles == {} and can_mark(line))
    except AssertionError:
        raise AssertionError(f"{line!r}: {line.troubles}") from None


def can_mark(line: Line) -> bool:
    with contextlib.suppress(Unavailable):
        return bool(line.mark())
    return False


@pytest.mark.parametrize("kind", ["FULL", "RESTART", "TRUNCATE"])
async def test_an_app_that_waits_for_its_own_checkpoint_gets_it(app: App, opened: Opens, kind: str) -> None:
    app.writes("database.sqlite", "--commits", "50")
    await app.has_written(50)
    line = await opened()
    app.writes("database.sqlite", "--commits", "30")
    await app.has_written(30)
    then = moment(line, app)
    with Client(app.place / "database.sqlite") as client:
        client.run("PRAGMA busy_timeout=20000")
        done = await asyncio.to_thread(client.run, f"PRAGMA wal_checkpoint({kind})")
        assert done.startswith("(0,")
    app.writes("database.sqlite", "--commits", "30")
    await app.has_written(30)
    await settled(line)
    assert await faults(line, app, then) == []
    assert await faults(line, app, moment(line, app)) == []


async def test_what_writers_wait_for_is_left_to_the_holder_when_we_are_slow(
    app: App, opened: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "ROTATE_AT", NEVER)
    monkeypatch.setattr(held_module, "RETRY", (float(NEVER), float(NEVER)))
    ask = Holder.ask

    async def ask_slowly(holder: Holder, key: str, do: str, *told: Any, **arguments: Any) -> Any:
        if do == "turn":
            await app.has_written(1)  # so the barrier has fallen
        return await ask(holder, key, do, *told, **arguments)

    app.writes()
    await app.has_written()
    line = await opened()
    with monkeypatch.context() as patched:
        patched.setattr(held_module, "BARRED", 0.0)
        patched.setattr(Holder, "ask", ask_slowly)
        assert not await line.rotate()
    assert "fallen" in line.troubles["database.sqlite"]
    then = moment(line, app)
    await app.has_written(5)
    assert await faults(line, app, then) == []
    del then
    await app.has_written(5)
    assert await line.rotate()
    for _ in range(3):
        then = moment(line, app)
        await app.has_written(5)
        assert await faults(line, app, then) == []


async def test_a_moment_taken_while_the_wal_is_moved_on_is_there(app: App, opened: Opens) -> None:
    app.writes()
    await app.has_written()
    line = await opened()
    for _ in range(5):
        moving = asyncio.create_task(line.rotate())
        moments = []
        while not moving.done():
            moments.append(moment(line, app))
            await asyncio.sleep(0.001)
        await app.has_written(5)
        for then in moments[:: max(1, len(moments) // 5)]:
            assert await faults(line, app, then) == []


async def test_a_line_that_is_closed_leaves_the_app_alone_and_no_process(app: App, opened: Opens) -> None:
    app.writes()
    await app.has_written()
    line = await opened()
    pid = line.holder_pid
    assert pid
    await line.close()
    await line.close()
    assert not Path(f"/proc/{pid}").exists()
    await app.has_written(200)


@pytest.mark.skipif(bool(sandbox.missing()), reason="walls cannot be made here")
async def test_behind_walls_the_holder_does_all_the_same(app: App, opened: Opens) -> None:
    app.writes()
    app.writes("files/old.db", "--mode", "delete")
    await app.has_written()
    await app.has_written(5, "files/old.db")
    copies = app.archive / "copies"
    copies.mkdir(parents=True)
    machine = (PROGRAM.parent, Path(sys.base_prefix), Path(sys.prefix))
    view = View(app.root / "home", read=machine, write=(app.place, copies), network=False)
    line = await opened(enclose=Sandbox(app.root / "home", dict(os.environ)).enclose(view, Path("/"), {}))
    for _ in range(3):
        then = moment(line, app)
        then.most["files/old.db"] = 10**9  # as it is when it is copied
        await app.has_written()
        await line.rotate()
        assert await faults(line, app, then) == []
    pid = line.holder_pid
    await line.close()
    assert not Path(f"/proc/{pid}").exists()


async def test_a_link_that_leads_out_is_not_followed(app: App, opened: Opens) -> None:
    outside = app.root / "outside.db"
    image.empty(outside)
    (app.place / "files/led.db").symlink_to(outside)
    (app.place / "files/more").symlink_to(app.root)
    line = await opened()
    assert line.databases == {"database.sqlite"}
    (app.place / "database.sqlite").unlink()
    (app.place / "database.sqlite").symlink_to(outside)
    await line.adopt()
    assert line.databases == set()


async def test_a_holder_that_hangs_is_killed_when_the_line_is_closed(app: App, opened: Opens) -> None:
    line = await opened()
    pid = line.holder_pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE):
        await line.close()
    assert not Path(f"/proc/{pid}").exists()


def test_marks_are_written_and_read() -> None:
    marks = Marks((line_module.At("files/a.db", "1-2", image_mark()),), ("files/b.db",), "A note.")
    again = Marks.from_json(marks.as_json())
    assert (again.databases, again.plain, again.note) == (marks.databases, marks.plain, marks.note)
    assert again.id == marks.id
    with contextlib.suppress(ValueError):
        json.loads(marks.as_json())


def image_mark() -> line_module.Mark:
    return line_module.Mark(1, 2, 3, 4, 5, 6, 4096)
