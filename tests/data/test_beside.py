"""What versions have beside their folders, whatever becomes of the server that has it."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from lazycloud.data import durable
from lazycloud.data.beside import Beside
from lazycloud.data.names import PRODUCTION
from lazycloud.data.versions import Versions
from lazycloud.errors import Conflict, NotFound, StepFailed
from tests.waiting import PATIENCE, until

ONE, OTHER = "a" * 40, "b" * 40


class Kept:
    """A provider in memory, whose server may be away."""

    name = "postgres"

    def __init__(self) -> None:
        self.has: dict[str, str] = {}
        self.swaps: dict[str, str] = {}
        self.away = False
        self.calls: list[str] = []

    def _called(self, what: str) -> None:
        if self.away:
            raise StepFailed("It is away.")
        self.calls.append(what)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def places(self) -> tuple[Path, ...]:
        return ()

    def reached(self, version: str) -> tuple[int, ...]:
        return (5432,)

    async def exists(self, version: str) -> bool:
        self._called(f"exists {version}")
        return version in self.has

    async def environment(self, version: str) -> dict[str, str]:
        return {"DATABASE_URL": f"postgresql://{version}"}

    async def fork(self, version: str, source: str | None, at: str | None = None) -> str:
        self._called(f"fork {version}")
        origin = f"{source}@{at}" if at else source
        if origin and origin not in self.has:
            raise NotFound(f"no {origin}")
        self.has.setdefault(version, self.has[origin] if origin else "")
        return "as of now" if origin else "empty"

    async def snapshot(self, version: str, snapshot: str) -> str:
        self._called(f"snapshot {version}")
        self.has[f"{version}@{snapshot}"] = self.has[version]
        return "as of now"

    async def unfold(self, version: str, snapshot: str | None, place: Path) -> None:
        place.write_text(self.has[f"{version}@{snapshot}" if snapshot else version])

    async def load(self, version: str, place: Path) -> None:
        self.has[version] = place.read_text()

    async def swap(self, version: str, other: str) -> None:
        self._called("swap")
        self._exchange(version, other)
        self.swaps[version] = other

    async def swapped(self, version: str) -> None:
        self._called("swapped")
        del self.swaps[version]

    async def undo_swap(self, version: str) -> None:
        self._called("undo")
        if other := self.swaps.pop(version, None):
            self._exchange(version, other)

    def _exchange(self, version: str, other: str) -> None:
        was = {name: self.has.pop(name) for name in (version, other) if name in self.has}
        self.has |= {other if name == version else version: text for name, text in was.items()}

    async def drop(self, version: str) -> None:
        self._called(f"drop {version}")
        self.has.pop(version, None)

    async def drop_snapshot(self, version: str, snapshot: str) -> None:
        self._called("drop snapshot")
        self.has.pop(f"{version}@{snapshot}", None)

    async def size(self, version: str, snapshot: str | None = None) -> int:
        self._called("size")
        return 1_000_000


def opened(folder: Path, kept: Kept | None) -> Versions:
    return Versions(folder, providers={"postgres": kept} if kept else {})


async def test_a_version_has_what_it_was_forked_with_and_a_later_server_knows(tmp_path: Path) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    kept.has[PRODUCTION] = "contents"
    fork = await versions.fork(ONE, PRODUCTION, wanted=["postgres"])
    assert fork.note == "Postgres as of now" and kept.has[ONE] == "contents"
    assert (await versions.full_environment(ONE, ["postgres"]))["DATABASE_URL"] == f"postgresql://{ONE}"
    assert (await versions.full_environment(ONE, []))["DATABASE_URL"].startswith("sqlite:")
    assert await versions.size(ONE) > 1_000_000
    await versions.snapshot(ONE)
    assert (await versions.usage()).own[ONE] > 2_000_000
    again = opened(tmp_path, Kept())
    assert again.beside.of(ONE) == ["postgres"]
    without = opened(tmp_path, None)
    with pytest.raises(StepFailed, match="LAZYCLOUD_POSTGRES_URL"):
        await without.full_environment(ONE, ["postgres"])
    with pytest.raises(StepFailed, match="LAZYCLOUD_POSTGRES_URL"):
        await without.fork(OTHER, PRODUCTION, wanted=["postgres"])
    assert not without.exists(OTHER)


async def test_what_is_gone_from_the_server_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=[])
    note = await versions.complete(PRODUCTION, ["postgres"])
    assert note == "empty, as it had none; what is in its folder stays"
    assert await versions.complete(PRODUCTION, ["postgres"]) == ""
    kept.has.clear()
    with pytest.raises(StepFailed, match="gone from its server"):
        await versions.complete(PRODUCTION, ["postgres"])


async def test_what_could_not_be_dropped_is_not_taken_for_a_new_version_later(tmp_path: Path) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(ONE, None, wanted=["postgres"])
    kept.has[ONE], kept.away = "half migrated", True
    await versions.drop(ONE)
    assert not versions.exists(ONE)
    again = opened(tmp_path, kept)
    with pytest.raises(StepFailed, match="away"):
        await again.fork(ONE, None, wanted=["postgres"])
    kept.away = False
    await again.fork(ONE, None, wanted=["postgres"])
    assert kept.has[ONE] == ""
    kept.away = True
    await again.drop(ONE)
    kept.away = False
    await again.fork(OTHER, None, wanted=["postgres"])
    await again.drop(OTHER)  # and what could not go before
    assert kept.has == {}


async def test_a_snapshot_has_it_too(tmp_path: Path) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    kept.has[PRODUCTION] = "then"
    taken = await versions.snapshot(PRODUCTION)
    assert taken.note == "Postgres as of now"
    kept.has[PRODUCTION] = "now"
    await versions.fork(ONE, PRODUCTION, taken.id)
    assert kept.has[ONE] == "then"
    async with versions.unfolded(PRODUCTION, taken.id, beside=None) as folder:
        assert (folder / "postgres.dump").read_text() == "then"
    await versions.drop_snapshot(PRODUCTION, taken.id)
    assert f"{PRODUCTION}@{taken.id}" not in kept.has
    kept.away = True
    with pytest.raises(StepFailed, match="away"):
        await versions.snapshot(PRODUCTION)
    assert versions.snapshots(PRODUCTION) == []


@pytest.mark.parametrize("held", [True, False])
async def test_a_swap_is_of_both_or_of_none(tmp_path: Path, held: bool) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    await versions.fork(ONE, PRODUCTION, wanted=["postgres"])
    kept.has |= {PRODUCTION: "production", ONE: "one"}
    (versions.place(ONE) / "files" / "mark").touch()
    await versions.swap(PRODUCTION, ONE)
    assert kept.has[PRODUCTION] == "one" and (versions.place(PRODUCTION) / "files" / "mark").exists()
    again = opened(tmp_path, kept)  # as after a crash
    await (again.swapped(PRODUCTION) if held else again.undo_swap(PRODUCTION))
    assert kept.has[PRODUCTION] == ("one" if held else "production")
    assert (versions.place(PRODUCTION) / "files" / "mark").exists() == held
    assert kept.swaps == {}
    assert await again.undo_swap(PRODUCTION) is False
    was, kept.away = dict(kept.has), True
    with pytest.raises(StepFailed):
        await again.swap(PRODUCTION, ONE)
    assert (versions.place(PRODUCTION) / "files" / "mark").exists() == held
    kept.away = False
    assert await opened(tmp_path, kept).undo_swaps(holds="") == {}
    assert kept.has == was


@pytest.mark.parametrize("held", [True, False])
async def test_a_swap_of_what_is_beside_the_folders_leaves_them(tmp_path: Path, held: bool) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    await versions.fork(ONE, None, wanted=["postgres"])
    kept.has |= {PRODUCTION: "production", ONE: "one"}
    (versions.place(PRODUCTION) / "files" / "mark").touch()
    await versions.swap(PRODUCTION, ONE, whole=False)
    assert kept.has[PRODUCTION] == "one" and (versions.place(PRODUCTION) / "files" / "mark").exists()
    if held:
        await versions.swapped(PRODUCTION)
    again = opened(tmp_path, kept)  # as after a crash
    assert await again.undo_swaps(holds="") == ({} if held else {PRODUCTION: ONE})
    assert kept.has[PRODUCTION] == ("one" if held else "production") and kept.swaps == {}
    assert (again.place(PRODUCTION) / "files" / "mark").exists()


async def test_a_swap_whose_end_a_server_was_not_told_holds_all_the_same(tmp_path: Path) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    await versions.fork(ONE, PRODUCTION, wanted=["postgres"])
    kept.has |= {PRODUCTION: "production", ONE: "one"}
    await versions.swap(PRODUCTION, ONE)
    kept.away = True
    await versions.swapped(PRODUCTION)
    kept.away = False
    again = opened(tmp_path, kept)
    assert await again.undo_swaps(holds="") == {}
    assert await again.undo_swap(PRODUCTION) is False and kept.has[PRODUCTION] == "one"
    await again.swap(PRODUCTION, ONE)
    assert kept.has[PRODUCTION] == "production"


async def test_what_one_of_two_that_change_places_has_not_the_other_has_not_afterwards(
    tmp_path: Path,
) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=[])
    await versions.fork(ONE, None, wanted=["postgres"])
    await versions.swap(PRODUCTION, ONE)
    assert (versions.beside.of(PRODUCTION), versions.beside.of(ONE)) == (["postgres"], [])
    await versions.undo_swap(PRODUCTION)
    assert (versions.beside.of(PRODUCTION), versions.beside.of(ONE)) == ([], ["postgres"])
    assert list(kept.has) == [ONE]


async def test_what_only_a_version_has_stays_with_it_when_its_folder_is_replaced(tmp_path: Path) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    kept.has[PRODUCTION] = "contents"
    await versions.fork(ONE, None, wanted=[])  # of a file that somebody imports
    await versions.swap(PRODUCTION, ONE)
    await versions.swapped(PRODUCTION)
    await versions.drop(ONE)
    assert versions.beside.of(PRODUCTION) == ["postgres"] and kept.has == {PRODUCTION: "contents"}


async def test_a_commit_that_does_not_want_it_does_not_cost_production_it(tmp_path: Path) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    await versions.fork("migration-1", PRODUCTION, wanted=[])
    await versions.swap(PRODUCTION, "migration-1")
    assert versions.beside.of(PRODUCTION) == ["postgres"] and PRODUCTION in kept.has
    await versions.fork(ONE, PRODUCTION, wanted=[])
    assert versions.beside.of(ONE) == []


@pytest.mark.parametrize("where", ["write", "exchange", "sync"])
async def test_a_swap_that_fails_at_the_folders_leaves_both_as_they_were(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    await versions.fork(ONE, PRODUCTION, wanted=["postgres"])
    kept.has |= {PRODUCTION: "production", ONE: "one"}
    (versions.place(ONE) / "files" / "mark").touch()
    exchange = durable.exchange

    def full(*places: Path) -> None:
        monkeypatch.undo()
        if where == "sync":
            exchange(*places)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(durable, "exchange" if where == "sync" else where, full)
    if where == "write":  # that one is asked for by who keeps what versions have beside them, too
        monkeypatch.setattr(Beside, "_write", lambda *_: None)
    with pytest.raises(OSError, match="full"):
        await versions.swap(PRODUCTION, ONE)
    assert kept.has == {PRODUCTION: "production", ONE: "one"}
    assert (versions.place(ONE) / "files" / "mark").exists()
    assert not await versions.undo_swap(PRODUCTION)


async def test_a_swap_whose_caller_is_cancelled_in_its_midst_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    await versions.fork(ONE, PRODUCTION, wanted=["postgres"])
    kept.has |= {PRODUCTION: "production", ONE: "one"}
    (versions.place(ONE) / "files" / "mark").touch()
    begun, may_go_on, exchange = threading.Event(), threading.Event(), durable.exchange

    def slowly(one: Path, other: Path) -> None:
        begun.set()
        may_go_on.wait(PATIENCE)
        exchange(one, other)

    monkeypatch.setattr(durable, "exchange", slowly)
    swapping = asyncio.create_task(versions.swap(PRODUCTION, ONE))
    await until(begun.is_set)
    for _ in range(2):  # who ends a server may say so again
        swapping.cancel()
        await asyncio.sleep(0.05)
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await swapping
    assert kept.has == {PRODUCTION: "production", ONE: "one"}
    assert (versions.place(ONE) / "files" / "mark").exists()
    assert not await versions.undo_swap(PRODUCTION)


async def test_what_cannot_be_put_back_while_a_server_is_away_is_not_dropped(tmp_path: Path) -> None:
    kept, fork = Kept(), "migration-1"
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    await versions.fork(fork, PRODUCTION, wanted=["postgres"])
    kept.has |= {PRODUCTION: "production", fork: "migrated"}
    (versions.place(fork) / "files" / "mark").touch()
    await versions.swap(PRODUCTION, fork)
    kept.away = True
    with pytest.raises(StepFailed):
        await versions.undo_swap(PRODUCTION)
    with pytest.raises(Conflict, match="kept as migration-1"):
        await versions.drop(fork)
    again = opened(tmp_path, kept)  # a machine whose server comes up later
    assert await again.undo_swaps(holds="") == {}
    await again.clear_passing()
    kept.away = False
    assert (await again.undo_swaps(holds="")).keys() == {PRODUCTION}
    assert kept.has[PRODUCTION] == "production"
    assert not (again.place(PRODUCTION) / "files" / "mark").exists()
    await again.clear_passing()
    assert not again.exists(fork)


@pytest.mark.parametrize("step", ["settle", "remove", "swapped"])
async def test_wherever_the_end_of_a_swap_is_cut_off_both_are_of_one_mind(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CutOff(Exception):
        pass

    def cut_off(*_: object) -> None:
        raise CutOff

    kept = Kept()
    versions = opened(tmp_path, kept)
    await versions.fork(PRODUCTION, None, wanted=["postgres"])
    await versions.fork(ONE, PRODUCTION, wanted=["postgres"])
    kept.has |= {PRODUCTION: "production", ONE: "one"}
    (versions.place(ONE) / "files" / "mark").touch()
    await versions.swap(PRODUCTION, ONE)
    with monkeypatch.context() as cutting, pytest.raises(CutOff):
        if step == "remove":
            cutting.setattr("lazycloud.data.versions.durable.remove", cut_off)
        else:
            cutting.setattr(versions.beside, step, cut_off)
        await versions.swapped(PRODUCTION)
    again = opened(tmp_path, kept)
    undone = await again.undo_swaps(holds="")
    has_mark = (again.place(PRODUCTION) / "files" / "mark").exists()
    assert (kept.has[PRODUCTION] == "one") is has_mark is (not undone) is (step != "settle")
