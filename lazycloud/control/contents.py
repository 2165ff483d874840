"""What is in the data of versions, told by a process of its own: what differs; and data as files, out and in.

A version is read as a copy that nobody else uses; what comes in is looked through before anything is replaced.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from aiohttp import web

from lazycloud import trees
from lazycloud.allowance import in_words
from lazycloud.config import Config
from lazycloud.data import documents, tools, within
from lazycloud.data.names import PRODUCTION
from lazycloud.data.tools.contents import (
    DUMP,
    DUMPED,
    FORMATS,
    POSTGRES,
    SQL,
    SQLITE,
    TAR,
    is_database,
    is_dump,
)
from lazycloud.data.tools.process import Limits
from lazycloud.data.versionbase import NAME as VERSIONBASE
from lazycloud.data.versions import READING
from lazycloud.deployments.app import App
from lazycloud.deployments.changes import Changes, Replaced
from lazycloud.deployments.deploy import beside
from lazycloud.deployments.snapshots import Data, Snapshots, shown
from lazycloud.errors import BadInput, LazycloudError, StepFailed, TooLarge
from lazycloud.events import EventLog, VersionExported
from lazycloud.walls.sandbox import Sandbox

PIECE = 1 << 20
LOOK_EVERY = 16 << 20  # bytes of an upload between two looks at the disk
DOCUMENTS = "jsonl"  # of a versionbase
TAR_AT, TAR_MAGIC = 257, b"ustar"
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")  # as a tar may be
AT_ONCE = 2  # comparisons
LONG = Limits(seconds=3600.0)  # for what reads or writes all of the data

Json = dict[str, Any]


class Contents:
    """`walls` are put around who reads; None where there are none."""

    def __init__(
        self, config: Config, snapshots: Snapshots, changes: Changes, events: EventLog, walls: Sandbox | None
    ) -> None:
        self._config = config
        self._snapshots = snapshots
        self._changes = changes
        self._events = events
        self._walls = walls
        self._comparing = asyncio.Semaphore(AT_ONCE)  # each copies two versions

    async def difference(self, app: App, one: Data, other: Data, table: str = "", rows: int = 0) -> Json:
        """What became of one version's data in another, as docs/protocols.md has it."""
        one, other = (self._snapshots.read_from(app, data) for data in (one, other))
        async with (
            self._comparing,
            self._unfolded(app, one) as before,
            self._unfolded(app, other) as after,
        ):
            found = await tools.difference(before, after, walls=self._walls, table=table, rows=rows)
        if _has(VERSIONBASE, app, one) and _has(VERSIONBASE, app, other):
            points = [(data.version, data.snapshot) for data in (one, other)]
            differs = await documents.difference(app.versionbase, points[0], points[1], table, rows)
            if differs:
                found = replace(found, same=False, databases=(*found.databases, differs))
        if not table and (_has("redis", app, one) or _has("redis", app, other)):
            unread = tools.DatabaseDifference("redis", note="What is in Redis is not compared.")
            found = replace(found, same=False, databases=(*found.databases, unread))
        return found.as_dict()

    @asynccontextmanager
    async def _unfolded(self, app: App, data: Data) -> AsyncIterator[Path]:
        """A copy of its folder, with a dump of what it has in Postgres."""
        if _has(POSTGRES, app, data):
            size = await app.versions.beside.size(data.version, data.snapshot)
            self._demand_room(app.versions.place(PRODUCTION).parent, size)
        async with app.versions.unfolded(data.version, data.snapshot, beside=(POSTGRES,)) as place:
            yield place

    async def export(
        self, request: web.Request, app: App, data: Data, kind: str, who: str
    ) -> web.StreamResponse:
        """A file, streamed."""
        _demand_format(kind)
        origin = self._snapshots.read_from(app, data)
        with _aside(app) as folder:
            target = folder / "data"
            if kind == DOCUMENTS:
                note = await self._export_documents(app, origin, target)
            else:
                note = await self._export_files(app, origin, target, kind)
            self._events.append(
                VersionExported(
                    app=app.name,
                    version=data.version,
                    snapshot=data.snapshot or "",
                    format=kind,
                    who=who,
                )
            )
            name = f"{app.name}-{shown(data.version)}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.{kind}"
            return await _send(request, target, name, note)

    async def _export_files(self, app: App, origin: Data, target: Path, kind: str) -> str:
        """What is to be told of it."""
        _demand_kind(origin.version, kind, _has(POSTGRES, app, origin))
        async with self._unfolded(app, origin) as place:
            exported = await tools.export(place, target, kind, walls=self._walls, limits=self._long(place))
        notes = [exported.note, "Its Redis is not in it." if _has("redis", app, origin) else ""]
        if _has(VERSIONBASE, app, origin):
            notes.append(f"Its versionbase is not in it: `--format {DOCUMENTS}` has that.")
        return " ".join(filter(None, notes))

    async def _export_documents(self, app: App, origin: Data, target: Path) -> str:
        _demand_documents(app, origin)
        folder = target.parent
        await app.versionbase.unfold(
            origin.version, origin.snapshot, target, lambda: self._demand_room(folder, 0)
        )
        return "Its database and its files are not in it."

    async def take_in(
        self, request: web.Request, app: App, version: str, kind: str, who: str
    ) -> tuple[Replaced, tools.Imported]:
        """The body of a request becomes the data of a version."""
        if kind:
            _demand_format(kind)
        if kind == DOCUMENTS:
            return await self._take_documents(request, app, version, who)
        if await _is_for_postgres(app, version):
            return await self._take_dump(request, app, version, kind, who)
        _demand_kind(version, kind, in_postgres=False)
        self._changes.demand_fillable(app, version)
        with _aside(app) as folder:
            file = folder / "data"
            size = await self._receive(request, file)
            self._changes.demand_fillable(app, version)  # it may have come to some meanwhile
            if is_dump(file):
                _demand_kind(version, DUMPED, in_postgres=False)
            told: list[tools.Imported] = []

            async def fill(place: Path) -> None:
                limits = self._long(place)
                told.append(await tools.import_(file, place, kind=kind, walls=self._walls, limits=limits))

            replaced = await self._changes.fill(app, version, fill, size, who)
        return replaced, told[0]

    async def _take_dump(
        self, request: web.Request, app: App, version: str, kind: str, who: str
    ) -> tuple[Replaced, tools.Imported]:
        """What pg_dump writes becomes what a version has in Postgres. All else stays, unless a tar brings files."""
        _demand_kind(version, kind, in_postgres=True)
        with _aside(app) as folder:
            file = folder / "data"
            size = await self._receive(request, file)
            kind = kind or _kind_of(file)
            _demand_kind(version, kind, in_postgres=True)
            if kind == TAR:
                return await self._take_tar(app, version, file, size, who)
            told: list[tools.Imported] = []

            async def fill(other: str) -> None:
                told.append(await self._load(app, version, other, file, kind))

            replaced = await self._changes.fill_database(app, version, fill, size, who)
        return replaced, told[0]

    async def _take_tar(
        self, app: App, version: str, file: Path, size: int, who: str
    ) -> tuple[Replaced, tools.Imported]:
        """One with a dump beside the files: both are replaced."""
        self._changes.demand_fillable(app, version, brings=[POSTGRES])
        told: list[tools.Imported] = []

        async def fill(place: Path) -> None:
            limits, dump = self._long(place), file.with_name(DUMP)
            brought = await tools.import_(
                file, place, kind=TAR, walls=self._walls, limits=limits, with_dump=True
            )
            (place / DUMP).rename(dump)
            await app.versions.complete(place.name, [POSTGRES])
            loaded = await self._load(app, version, place.name, dump, DUMPED)
            told.append(replace(brought, warnings=(*brought.warnings, *loaded.warnings)))

        replaced = await self._changes.fill(app, version, fill, size, who)
        return replaced, told[0]

    async def _load(self, app: App, version: str, other: str, file: Path, kind: str) -> tools.Imported:
        """Into the empty database of another version, which is to have the settings of this one."""
        assert app.postgres
        login = await app.versions.beside.environment(other, [POSTGRES])
        reach = app.versions.beside.places([POSTGRES])
        if certificate := login.get("PGSSLROOTCERT"):
            reach = (*reach, Path(certificate))
        limits = self._long(file.parent)
        loaded = await tools.load(file, kind, login, walls=self._walls, reach=reach, limits=limits)
        await app.postgres.finish(other, version)
        return loaded

    async def _take_documents(
        self, request: web.Request, app: App, version: str, who: str
    ) -> tuple[Replaced, tools.Imported]:
        """Only its documents are replaced."""
        _demand_documents(app, Data(version))
        with _aside(app) as folder:
            file = folder / "data"
            size = await self._receive(request, file)
            replaced = await self._changes.load_documents(app, version, file, size, who)
        return replaced, tools.Imported(DOCUMENTS, ())

    async def _receive(self, request: web.Request, file: Path) -> int:
        """Write a body down, as long as the disk keeps its reserve; its bytes."""
        self._demand_room(file.parent, request.content_length or 0)
        size, looked = 0, 0
        with file.open("wb") as written:
            async for piece in request.content.iter_chunked(PIECE):
                await asyncio.to_thread(written.write, piece)
                size += len(piece)
                if size - looked >= LOOK_EVERY:
                    looked = size
                    self._demand_room(file.parent, 0)
        if not size:
            raise BadInput("The file is empty.", "Send what `lazycloud data export` wrote, or sqlite3.")
        return size

    def _long(self, folder: Path) -> Limits:
        """For what may write as much as the disk can spare."""
        return replace(LONG, disk=min(LONG.disk, self._demand_room(folder, 0)))

    def _demand_room(self, folder: Path, needed: int) -> int:
        """Twice what comes is needed: it is kept until it has become data. The bytes that may be written.

        What comes may be packed, and become many times as much.
        """
        disk = shutil.disk_usage(folder)
        reserve = self._config.disk.reserve.of(disk.total)
        if disk.free - 2 * needed <= reserve:
            raise TooLarge(
                f"The disk has {in_words(disk.free)} free, of which {in_words(reserve)} are kept free: "
                "the file does not fit.",
                "`lazycloud disk` tells where it went.",
            )
        return disk.free - reserve


async def _is_for_postgres(app: App, version: str) -> bool:
    """Whether its database is there; of one that is not there yet, whether its commit says so."""
    if app.versions.exists(version):
        return _has(POSTGRES, app, Data(version))
    with suppress(LazycloudError):  # what cannot be planned has what every app has
        commit = await app.commit(app.production if version == PRODUCTION else version)
        return POSTGRES in beside(await app.plan(commit))
    return False


def _kind_of(file: Path) -> str:
    """Of a file that is sent for Postgres, by how it begins."""
    if is_dump(file):
        return DUMPED
    if is_database(file):
        return SQLITE
    with file.open("rb") as content:
        begins = content.read(TAR_AT + len(TAR_MAGIC))
    is_tar = begins[TAR_AT:] == TAR_MAGIC or begins.startswith(PACKED)
    return TAR if is_tar else SQL


def _demand_kind(version: str, kind: str, in_postgres: bool) -> None:
    """Raises BadInput for a format that is not one of its database's."""
    if in_postgres and kind == SQLITE:
        raise BadInput(
            f"The database of {shown(version)} is in Postgres, of which sqlite is no format.",
            "dump and sql are what pg_dump writes; tar has the files, too.",
        )
    if not in_postgres and kind == DUMPED:
        raise BadInput(
            f"{shown(version)} has nothing in Postgres, of which dump is the format.",
            "sqlite and sql are of its database; tar has the files, too.",
        )


def _demand_format(kind: str) -> None:
    known = (*FORMATS, DOCUMENTS)
    if kind not in known:
        raise BadInput(f"“{kind[:40]}” is no format of data.", f"Give one of {', '.join(known)}.")


def _demand_documents(app: App, data: Data) -> None:
    if not _has(VERSIONBASE, app, data):
        raise BadInput(
            f"{shown(data.version)} has no versionbase, of which {DOCUMENTS} is the format.",
            "One with `versionbase = true` under [data] in its lazycloud.toml has.",
        )


def _has(name: str, app: App, data: Data) -> bool:
    return app.versions.beside.has(name, data.version, data.snapshot)


@contextmanager
def _aside(app: App) -> Iterator[Path]:
    """A folder beside the app's data, on their disk; a crash leaves what the next start removes."""
    beside = app.versions.place(PRODUCTION).parent
    beside.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = Path(tempfile.mkdtemp(prefix=READING, dir=beside))
    try:
        yield folder
    finally:
        trees.remove(folder)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """A regular file, and no link. Raises StepFailed."""
    try:
        with within.opened(file.parent, file.parent, within.FOLDER) as folder:
            descriptor = os.open(file.name, within.FILE, dir_fd=folder)
    except OSError as problem:
        raise StepFailed(f"What was to be sent is not there: {problem.strerror}.") from problem
    with os.fdopen(descriptor, "rb") as data:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StepFailed("What was to be sent is no file.")
        yield data


async def _send(request: web.Request, file: Path, name: str, note: str) -> web.StreamResponse:
    """Who wrote the file had read what an app wrote: it may have been led to leave a link there."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
            **({"Lazycloud-Note": quote(note)} if note else {}),
        }
    )
    with _opened(file) as data:
        response.content_length = os.fstat(data.fileno()).st_size
        await response.prepare(request)
        while piece := await asyncio.to_thread(data.read, PIECE):
            await response.write(piece)
    await response.write_eof()
    return response
