"""Apps as their users write them, which know nothing of versions: previews write while production does.

One server serves them all, so that they share what was downloaded; the apps are in tests/apps/notes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.repository import Checkout
from tests.e2e.server import INSTALLING, PATIENCE, Server

NOTES = Path(__file__).parents[1] / "apps" / "notes"
APPS = ("sqlite3", "alembic", "django", "aiosqlite", "node")
INSTALLED = 8 * PATIENCE  # seconds for all packages to be there
pytestmark = [pytest.mark.slow, pytest.mark.registry, pytest.mark.timeout(1800)]


def steps(app: str) -> list[dict[str, str]]:
    """The files of its commits: of the first all, of others those that change."""
    folders = sorted((NOTES / app).glob("[0-9]-*")) or [NOTES / app]
    return [
        {
            str(file.relative_to(folder)): file.read_text()
            for file in folder.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
        for folder in folders
    ]


class Cloud:
    """The server and its apps; of each the first commit is production, and the second what its step changes."""

    def __init__(self, folder: Path) -> None:
        self.checkouts = {app: Checkout(folder / app) for app in APPS}
        self.first = {app: checkout.commit(steps(app)[0]) for app, checkout in self.checkouts.items()}
        sources = (f"{app}={folder / app}" for app in APPS)
        self.server = Server(folder / "home", *sources, environment=INSTALLING)
        self.second: dict[str, str] = {}

    def change(self) -> None:
        """Commit what is next of each app, while the server runs."""
        for app, checkout in self.checkouts.items():
            self.second[app] = checkout.commit(dict(*steps(app)[1:]), "a change")

    def label(self, app: str, commit: str = "") -> str:
        """The first app has the server's domain, others a label of theirs."""
        return ".".join(filter(None, (commit, "" if app == APPS[0] else app)))

    async def notes(self, app: str, commit: str = "") -> list[str]:
        return (await self._told(app, commit))["notes"]

    async def columns(self, app: str, commit: str = "") -> list[str]:
        return (await self._told(app, commit))["columns"]

    async def _told(self, app: str, commit: str) -> dict[str, Any]:
        answer = await self.server.get(self.label(app, commit))
        assert answer.status == 200, (answer, self.server.output)
        assert not answer.json.get("lost"), "a row whose file is not there"
        return answer.json

    async def verb(self, name: str, app: str, *arguments: str) -> str:
        return await self.server.verb(name, *arguments, "--app", app)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("cloud"))
    cloud.server.start()
    cloud.server.wait(
        lambda: cloud.server.output.count("(production) is ready") == len(APPS), "app", INSTALLED
    )
    cloud.change()
    yield cloud
    cloud.server.stop()
    assert not cloud.server.workers(), cloud.server.output


class Writers:
    """Two who write to one version, each its own notes one after the other: `p0 0`, `p0 1`, … and `p1 0`, …"""

    def __init__(self, cloud: Cloud, app: str, name: str, commit: str = "") -> None:
        self._server, self._label = cloud.server, cloud.label(app, commit)
        self.taken = {f"{name}0": 0, f"{name}1": 0}
        """How many notes of each were answered for; one more may be on its way."""

    @asynccontextmanager
    async def going_on(self, least: int) -> AsyncIterator[None]:
        """While the block lasts, and until each has written so many more."""
        self._going, self._goal = True, {name: count + least for name, count in self.taken.items()}
        async with asyncio.TaskGroup() as group:
            for name in self.taken:
                group.create_task(self._write(name))
            try:
                yield
            finally:
                self._going = False

    async def more(self, count: int) -> None:
        wanted = {name: taken + count for name, taken in self.taken.items()}

        async def there() -> bool:
            return all(self.taken[name] >= wanted[name] for name in wanted)

        await self._server.until(there)

    async def _write(self, name: str) -> None:
        timeout = aiohttp.ClientTimeout(total=2 * PATIENCE)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self._server.port}", timeout=timeout) as session:
            while self._going or self.taken[name] < self._goal[name]:
                headers = {"Host": self._server.host(self._label)}
                async with session.post("/", data=f"{name} {self.taken[name]}", headers=headers) as answer:
                    assert answer.status == 201, (answer.status, await answer.text())
                self.taken[name] += 1


def counted(notes: list[str]) -> dict[str, int]:
    """How many there are of each writer. Fails when one is missing, twice there, or not in its turn."""
    counts: dict[str, int] = defaultdict(int)
    for note in notes:
        name, number = note.split()
        assert int(number) == counts[name], (note, notes)
        counts[name] += 1
    return dict(counts)


async def forked(cloud: Cloud, app: str, commit: str, production: Writers) -> list[str]:
    """Open a preview; its notes, which are production's as of some moment since this was called."""
    before = dict(production.taken)
    notes = await cloud.notes(app, commit)
    for name, count in counted(notes).items():
        assert before[name] <= count <= production.taken[name] + 1
    assert counted(notes).keys() == before.keys()
    return notes


@pytest.mark.parametrize("app", APPS)
async def test_previews_write_while_production_writes_and_nothing_crosses_or_is_lost(
    cloud: Cloud, app: str
) -> None:
    one, other = cloud.first[app], cloud.second[app]
    await cloud.notes(app)
    production = Writers(cloud, app, "p")
    in_one, in_other = Writers(cloud, app, "one", one), Writers(cloud, app, "other", other)
    async with production.going_on(40):
        await production.more(5)
        seen_by_one = await forked(cloud, app, one, production)
        async with in_one.going_on(10):
            seen_by_other = await forked(cloud, app, other, production)
            async with in_other.going_on(10):
                await production.more(5)
    assert counted(await cloud.notes(app)) == production.taken
    for commit, seen, writers in ((one, seen_by_one, in_one), (other, seen_by_other, in_other)):
        notes = await cloud.notes(app, commit)
        assert notes[: len(seen)] == seen
        assert counted(notes[len(seen) :]) == writers.taken
        await cloud.verb("stop", app, commit)
        assert await cloud.notes(app, commit) == notes


@pytest.mark.parametrize("app", ["alembic", "django"])
async def test_a_change_of_schema_lives_beside_its_parent_is_promoted_and_rolled_back_with_all_data(
    cloud: Cloud, app: str
) -> None:
    parent, child = cloud.first[app], cloud.second[app]
    old, new = ["id", "text"], ["id", "text", "stars"]
    for _ in range(2):  # the second time after both were opened
        assert await cloud.columns(app, parent) == old
        assert await cloud.columns(app, child) == new
    assert await cloud.columns(app) == old
    before = await cloud.notes(app)
    production = Writers(cloud, app, "during-promote-")
    async with production.going_on(10):
        await production.more(5)
        await cloud.verb("promote", app, child)
    assert await cloud.columns(app) == new
    assert await cloud.columns(app, parent) == old
    notes = await cloud.notes(app)
    assert notes[: len(before)] == before
    assert counted(notes[len(before) :]) == production.taken
    since = Writers(cloud, app, "since-")
    async with since.going_on(10):
        await cloud.verb("rollback", app)
    assert await production_of(cloud, app) == parent
    last = Writers(cloud, app, "last-")
    async with last.going_on(5):
        pass
    assert await cloud.columns(app) == new
    assert counted((await cloud.notes(app))[len(notes) :]) == since.taken | last.taken


async def production_of(cloud: Cloud, app: str) -> str:
    return (await cloud.server.api(f"apps/{app}/releases"))[0]["commit"]["id"]
