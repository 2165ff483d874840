"""The versionbase of an app: its server behind walls, a branch for each version, and what control does with them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from lazycloud.data import documents
from lazycloud.data.names import PRODUCTION, new_snapshot
from lazycloud.data.versionbase import Note, Versionbase, notes
from lazycloud.deployments.hosting import EngineHosting, Hosted
from lazycloud.errors import StepFailed, TooLarge
from lazycloud.versionbase.client import ConnectionLost, Database, Denied, Full, Owner, connect
from lazycloud.workers.engine import Engine
from lazycloud.workforce import Limits
from tests.waiting import PATIENCE, until

from .contents import COMMIT, OTHER

DOCUMENT = {
    "title": "hello",
    "at": datetime(2026, 1, 31, tzinfo=UTC),
    "price": Decimal("1.10"),
    "picture": b"\xff",
}


def served(tmp_path: Path, engine: Engine) -> Versionbase:
    return Versionbase(tmp_path / "apps" / "shop" / "versionbase", EngineHosting(engine, tmp_path, Limits()))


@pytest.fixture
async def versionbase(tmp_path: Path, engine: Engine) -> AsyncIterator[Versionbase]:
    made = served(tmp_path, engine)
    await made.open()
    yield made
    await made.close()


async def put(versionbase: Versionbase, version: str, key: str, title: str = "hello") -> None:
    """As a worker of that version does."""
    url = (await versionbase.environment(version))["VERSIONBASE_URL"]
    async with connect(url) as database:
        await database.collection("posts").replace(key, DOCUMENT | {"title": title}, create=True)


async def titles(versionbase: Versionbase, version: str) -> dict[str, str]:
    url = (await versionbase.environment(version))["VERSIONBASE_URL"]
    async with connect(url) as database:
        return {post.key: post["title"] async for post in database.collection("posts").find()}


def never() -> bool:
    return False


async def test_each_version_has_its_own_documents(versionbase: Versionbase) -> None:
    assert not await versionbase.exists(PRODUCTION) and await versionbase.size(PRODUCTION) == 0
    assert await versionbase.fork(PRODUCTION, None) == "an empty versionbase"
    await put(versionbase, PRODUCTION, "a")
    assert "as of" in await versionbase.fork(COMMIT, PRODUCTION)
    assert await versionbase.fork(COMMIT, PRODUCTION) == ""  # there it is
    assert await versionbase.size(PRODUCTION) > 0
    assert await versionbase.size(COMMIT) == 0  # what both have counts once
    await put(versionbase, COMMIT, "a", "mine")
    await put(versionbase, COMMIT, "b")
    assert await titles(versionbase, PRODUCTION) == {"a": "hello"}
    assert await titles(versionbase, COMMIT) == {"a": "mine", "b": "hello"}
    assert await versionbase.exists(COMMIT) and not await versionbase.exists(OTHER)
    await versionbase.drop(COMMIT)
    await versionbase.drop(COMMIT)
    assert not await versionbase.exists(COMMIT)
    await versionbase.fork(COMMIT, None)
    assert await titles(versionbase, COMMIT) == {}


async def test_versions_that_begin_at_once_are_all_remembered(
    versionbase: Versionbase, tmp_path: Path
) -> None:
    await versionbase.fork(PRODUCTION, None)
    versions = [f"{number:040x}" for number in range(20)]
    for version in versions:
        await versionbase.fork(version, PRODUCTION)
    await asyncio.gather(*(versionbase.environment(version) for version in versions))
    assert Note.read(tmp_path / "apps/shop/versionbase").users == tuple(versions)


async def test_the_key_of_a_version_opens_no_other(versionbase: Versionbase) -> None:
    await versionbase.fork(PRODUCTION, None)
    await versionbase.fork(COMMIT, PRODUCTION)
    await versionbase.environment(PRODUCTION)  # so that it runs on without the other
    url = (await versionbase.environment(COMMIT))["VERSIONBASE_URL"]
    with pytest.raises(Denied):
        async with connect(url.replace(COMMIT, PRODUCTION)) as database:
            await database.collections()
    async with connect(url) as database:
        with pytest.raises(Denied):
            await database.owner.versions()
    await versionbase.drop(COMMIT)
    await versionbase.fork(COMMIT, PRODUCTION)
    with pytest.raises(Denied):
        async with connect(url) as database:
            await database.collections()


async def test_a_snapshot_is_forked_from_and_dropped(versionbase: Versionbase) -> None:
    await versionbase.fork(PRODUCTION, None)
    await put(versionbase, PRODUCTION, "a")
    snapshot = new_snapshot()
    await versionbase.snapshot(PRODUCTION, snapshot)
    await versionbase.snapshot(PRODUCTION, snapshot)  # idempotent
    await put(versionbase, PRODUCTION, "a", "later")
    assert await versionbase.fork(COMMIT, PRODUCTION, snapshot) == "as of its snapshot"
    assert await titles(versionbase, COMMIT) == {"a": "hello"}
    await versionbase.drop_snapshot(PRODUCTION, snapshot)
    await versionbase.drop_snapshot(PRODUCTION, snapshot)
    with pytest.raises(StepFailed):
        await versionbase.fork(OTHER, PRODUCTION, snapshot)


async def test_a_swap_is_taken_back_unless_it_holds(
    versionbase: Versionbase, tmp_path: Path, engine: Engine
) -> None:
    await versionbase.fork(PRODUCTION, None)
    await put(versionbase, PRODUCTION, "a", "old")
    await versionbase.fork(COMMIT, PRODUCTION)
    await put(versionbase, COMMIT, "a", "new")
    await versionbase.swap(PRODUCTION, COMMIT)
    assert await titles(versionbase, PRODUCTION) == {"a": "new"}
    await versionbase.close()  # as after a crash
    again = served(tmp_path, engine)
    try:
        await again.undo_swap(PRODUCTION)
        await again.undo_swap(PRODUCTION)
        assert (await titles(again, PRODUCTION), await titles(again, COMMIT)) == ({"a": "old"}, {"a": "new"})
        await again.swap(PRODUCTION, COMMIT)
        await again.swapped(PRODUCTION)
        await again.undo_swap(PRODUCTION)
        assert (await titles(again, PRODUCTION), await titles(again, COMMIT)) == ({"a": "new"}, {"a": "old"})
        await again.swap(PRODUCTION, OTHER)  # which has none
        assert await titles(again, PRODUCTION) == {}
    finally:
        await again.close()


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_swap_that_is_taken_back_twice_is_taken_back_once(
    versionbase: Versionbase, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """The first try is cut off just before the swap back, or just after it."""
    await versionbase.fork(PRODUCTION, None)
    await put(versionbase, PRODUCTION, "a", "old")
    await versionbase.fork(COMMIT, PRODUCTION)
    await put(versionbase, COMMIT, "a", "new")
    await versionbase.swap(PRODUCTION, COMMIT)
    swap = Owner.swap

    async def dying(self: Owner, version: str, other: str) -> None:
        if cut == "after":
            await swap(self, version, other)
        raise OSError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(Owner, "swap", dying)
        with pytest.raises(OSError, match="cut off"):
            await versionbase.undo_swap(PRODUCTION)
    await versionbase.undo_swap(PRODUCTION)
    await versionbase.undo_swap(PRODUCTION)
    assert (await titles(versionbase, PRODUCTION), await titles(versionbase, COMMIT)) == (
        {"a": "old"},
        {"a": "new"},
    )


BROKEN = (
    b"{}",
    b"7",
    b'"key"',
    b"\xff",
    b"[" * 100_000,
    b'{"a":' * 200 + b"0" + b"}" * 200,
    b'{"collection": 7, "key": "a", "document": {}}',
    b'{"collection": "posts", "key": "a", "document": []}',
    b'{"collection": "posts", "indexes": [7], "schema": null}',
    b'{"collection": "posts", "indexes": [{"path": 7, "unique": true, "name": "a"}], "schema": null}',
    b'{"collection": "posts", "indexes": [], "schema": 7}',
)


async def test_contents_are_lines_of_json_and_are_loaded_whole_or_not(
    versionbase: Versionbase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await versionbase.fork(PRODUCTION, None)
    await put(versionbase, PRODUCTION, "a")
    async with connect((await versionbase.environment(PRODUCTION))["VERSIONBASE_URL"]) as database:
        await database.collection("posts").create_index("title", unique=True)
        await database.collection("posts").set_schema({"required": ["title"]})
    snapshot = new_snapshot()
    await versionbase.snapshot(PRODUCTION, snapshot)
    await put(versionbase, PRODUCTION, "b", "later")
    await versionbase.unfold(PRODUCTION, None, tmp_path / "now")
    await versionbase.unfold(PRODUCTION, snapshot, tmp_path / "then")
    lines = [json.loads(line) for line in (tmp_path / "now").read_text().splitlines()]
    assert [line.get("key") for line in lines] == [None, "a", "b"]
    assert lines[1]["document"]["picture"] == {"$bytes": "/w=="}
    await versionbase.load(COMMIT, tmp_path / "then")
    async with connect((await versionbase.environment(COMMIT))["VERSIONBASE_URL"]) as database:
        assert [post async for post in database.collection("posts").find()] == [DOCUMENT]
        (collection,) = await database.collections()
        assert [index["path"] for index in collection["indexes"]] == ["title"]
        assert collection["schema"] == {"required": ["title"]}
    assert await versionbase.outline(PRODUCTION, None, tmp_path / "none") == {"posts": 2}
    async with versionbase.talk() as database:
        await database.owner.fork("loading-0", "")  # by a control that was killed meanwhile
    now = (tmp_path / "now").read_bytes()
    for number, line in enumerate(BROKEN):
        broken = tmp_path / f"broken{number}"
        broken.write_bytes(now + line + b"\n")
        with pytest.raises(StepFailed, match="Line 4 is none"):
            await versionbase.load(COMMIT, broken)
    monkeypatch.setattr("lazycloud.data.versionbase.LINE", 20)
    with pytest.raises(StepFailed, match="Line 1 has more than"):
        await versionbase.load(COMMIT, tmp_path / "now")
    assert await titles(versionbase, COMMIT) == {"a": "hello"}
    assert not [name for name in await versionbase._versions() if name.startswith("loading")]


@pytest.mark.parametrize("is_done", [True, False])
async def test_whether_documents_were_exchanged_is_known_though_nobody_was_told(
    versionbase: Versionbase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    await versionbase.fork(PRODUCTION, None)
    await put(versionbase, PRODUCTION, "a")
    await versionbase.fork(COMMIT, None)
    await versionbase.unfold(PRODUCTION, None, tmp_path / "now")
    swap = Owner.swap

    async def lost(owner: Owner, version: str, other: str) -> None:
        if is_done:
            await swap(owner, version, other)
        raise ConnectionLost("The connection ended.")

    monkeypatch.setattr(Owner, "swap", lost)
    if is_done:
        await versionbase.load(COMMIT, tmp_path / "now")
    else:
        with pytest.raises(StepFailed):
            await versionbase.load(COMMIT, tmp_path / "now")
    assert await titles(versionbase, COMMIT) == ({"a": "hello"} if is_done else {})


async def test_a_server_that_is_killed_is_back_where_its_workers_look_for_it(
    versionbase: Versionbase,
) -> None:
    await versionbase.fork(PRODUCTION, None)
    url = (await versionbase.environment(PRODUCTION))["VERSIONBASE_URL"]
    async with connect(url) as database:
        await database.collection("posts").insert({"title": "kept"}, key="a")
        (pid,) = versionbase.pids()
        os.kill(pid, signal.SIGKILL)
        assert (await database.collection("posts").get("a", timeout=PATIENCE)) == {"title": "kept"}
        await until(lambda: versionbase.pids() not in (set(), {pid}))
    assert await titles(versionbase, PRODUCTION) == {"a": "kept"}


async def test_the_server_rests_with_the_last_that_uses_it(versionbase: Versionbase, tmp_path: Path) -> None:
    await versionbase.fork(PRODUCTION, None)
    await versionbase.fork(COMMIT, PRODUCTION)
    await versionbase.environment(PRODUCTION)
    await versionbase.environment(COMMIT)
    assert sorted(versionbase.awake) == sorted([PRODUCTION, COMMIT])
    assert len(notes(tmp_path / "apps")) == 1
    await versionbase.rest(COMMIT, never)
    assert versionbase.awake == [PRODUCTION]
    await versionbase.rest(PRODUCTION, lambda: True)
    assert versionbase.awake == [PRODUCTION]
    await versionbase.rest(PRODUCTION, never)
    assert (
        versionbase.awake == [] and versionbase.reached(PRODUCTION) == () and notes(tmp_path / "apps") == []
    )
    assert await versionbase.size(PRODUCTION) > 0  # nobody is woken for that
    assert versionbase.awake == []


async def test_the_next_control_finds_the_server_again(
    versionbase: Versionbase, tmp_path: Path, engine: Engine
) -> None:
    await versionbase.fork(PRODUCTION, None)
    url = (await versionbase.environment(PRODUCTION))["VERSIONBASE_URL"]
    pids = versionbase.pids()
    await versionbase.close(keep=True)
    found = served(tmp_path, engine)
    try:
        await found.adopt()
        assert found.pids() == pids
        await found.go_on(lambda version: True)
        assert (await found.environment(PRODUCTION))["VERSIONBASE_URL"] == url
        (pid,) = pids
        os.kill(pid, signal.SIGKILL)  # it is minded, too
        await until(lambda: found.pids() not in (set(), pids))
    finally:
        await found.close()


async def test_a_server_that_ended_while_no_control_was_there_is_started_where_it_was(
    versionbase: Versionbase, tmp_path: Path, engine: Engine
) -> None:
    await versionbase.fork(PRODUCTION, None)
    url = (await versionbase.environment(PRODUCTION))["VERSIONBASE_URL"]
    (pid,) = versionbase.pids()
    await versionbase.close(keep=True)
    os.kill(pid, signal.SIGKILL)
    found = served(tmp_path, engine)
    try:
        await asyncio.sleep(0)
        await until(
            lambda: (
                not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
            )
        )
        await found.adopt()
        await found.go_on(lambda version: version == PRODUCTION)
        assert (await found.environment(PRODUCTION))["VERSIONBASE_URL"] == url
    finally:
        await found.close()


async def test_beside_containers_none_can_be_run(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="beside containers"):
        await Versionbase(tmp_path / "versionbase").fork(PRODUCTION, None)


def test_a_note_that_a_power_cut_has_spoilt_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "server.json").write_text('{"port": 1')
    assert Note.read(tmp_path) == Note()


async def test_the_server_does_not_rest_while_control_talks_with_it(versionbase: Versionbase) -> None:
    await versionbase.fork(PRODUCTION, None)
    await versionbase.environment(PRODUCTION)
    async with versionbase.talk() as database:
        await versionbase.rest(PRODUCTION, never)  # as in a standstill, where nothing of the app runs
        assert await database.owner.versions()
    assert versionbase.awake == [] and versionbase.pids()  # for a while: control may ask more
    await versionbase.rest(PRODUCTION, never)
    assert not versionbase.pids()


async def test_control_has_one_connection_however_many_ask(versionbase: Versionbase) -> None:
    await versionbase.fork(PRODUCTION, None)
    await versionbase.close()

    async def asked() -> Database:
        async with versionbase.talk() as database:
            await database.owner.versions()
            return database

    assert len(set(await asyncio.gather(*(asked() for _ in range(8))))) == 1


async def test_an_app_can_pass_no_snapshot_off_as_another_version(versionbase: Versionbase) -> None:
    await versionbase.fork(PRODUCTION, None)
    await versionbase.fork(COMMIT, PRODUCTION)
    await put(versionbase, COMMIT, "a")
    async with connect((await versionbase.environment(PRODUCTION))["VERSIONBASE_URL"]) as database:
        await database.snapshot(COMMIT)  # of production, called as the other version is
    found = await documents.difference(versionbase, (PRODUCTION, None), (COMMIT, None))
    assert found is not None and [(one.name, one.added) for one in found.tables] == [("posts", 1)]
    assert [one.after for one in found.tables] == [1]
    assert found.noun == "document"


async def test_what_one_versions_data_may_take_is_not_the_limit_of_all(
    tmp_path: Path, engine: Engine
) -> None:
    limits = Limits(disk=1)  # by which a server is ended, with what all versions keep there
    versionbase = Versionbase(tmp_path / "versionbase", EngineHosting(engine, tmp_path, limits))
    try:
        await versionbase.fork(PRODUCTION, None)
        process = versionbase._process
        assert isinstance(process, Hosted) and process._worker.bound.limits == Limits()
    finally:
        await versionbase.close()


async def test_what_a_version_may_have_is_told_to_a_server_that_is_found_again(
    versionbase: Versionbase, tmp_path: Path, engine: Engine
) -> None:
    await versionbase.fork(PRODUCTION, None)
    url = (await versionbase.environment(PRODUCTION))["VERSIONBASE_URL"]
    await put(versionbase, PRODUCTION, "a", "x" * 3_000_000)
    await versionbase.close(keep=True)
    limits = Limits(disk=2_999_999)
    found = Versionbase(tmp_path / "apps" / "shop" / "versionbase", EngineHosting(engine, tmp_path, limits))
    try:
        await found.adopt()
        assert found._telling
        await found._telling
        async with connect(url) as database:
            with pytest.raises(Full, match=r"has 3\.\d MB of its own, and may have 2\.0 MB"):
                await database.collection("posts").insert({})
            assert await database.collection("posts").delete("a")
    finally:
        await found.close()


async def test_a_file_is_written_as_long_as_there_is_room(
    versionbase: Versionbase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await versionbase.fork(PRODUCTION, None)
    await put(versionbase, PRODUCTION, "a", "x" * 100_000)
    monkeypatch.setattr("lazycloud.data.versionbase.LOOK_EVERY", 50_000)

    def room() -> None:
        raise TooLarge("The disk is all but full.")

    with pytest.raises(TooLarge):
        await versionbase.unfold(PRODUCTION, None, tmp_path / "file", room)
    assert await titles(versionbase, PRODUCTION)
