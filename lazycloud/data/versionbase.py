"""versionbase: the documents of all versions of an app, in one server of its own, where each version is a branch.

The server runs behind walls that show it its store alone, while anything of the app does that was given its
address. Its port is among those of workers, so that a wall keeps the workers of other apps from it; those of its own
app have a key each, which opens their version and no other. Control has the owner's key, and is a client like others.

A fork, a snapshot and a swap copy nothing, whatever the size.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import lazycloud
from lazycloud import trees
from lazycloud.data import durable
from lazycloud.data.names import PRODUCTION, check_snapshot, check_version
from lazycloud.data.serving import Hosting, Process, Wanted, mind
from lazycloud.errors import LazycloudError, StepFailed
from lazycloud.versionbase import keys
from lazycloud.versionbase.values import from_json, to_json
from lazycloud.walls.space import kept_free

if TYPE_CHECKING:
    from lazycloud.versionbase.client import Database

log = logging.getLogger(__name__)

NAME = "versionbase"
DATA, STORE, NOTE, LOG, SWAPS = "data", "store.sqlite", "server.json", "server.log", "swaps.json"
LOADING = "loading-"  # how a version is called that is filled to take another's place
LINGER = 60.0  # seconds for which one runs on after control has asked it something
LONG = 600.0  # and that what takes long may take
LINE = 64 << 20  # bytes of a line of a file: a document of 16 MB, and what JSON makes of it
LOOK_EVERY = 16 << 20  # bytes of a file between two looks at the disk
AT_ONCE = 256 << 10  # bytes of lines that are read at once, about
HEADS = 10_000  # collections of a file
OWN = (Path(sys.prefix), Path(sys.base_prefix), Path(lazycloud.__file__).parent)  # what it needs to run


@dataclass(frozen=True)
class Note:
    """What is remembered of the server: its port, itself while it runs, and who was given its address."""

    port: int = 0
    process: Mapping[str, Any] = field(default_factory=dict)
    users: tuple[str, ...] = ()  # versions

    @classmethod
    def read(cls, place: Path) -> Note:
        """One that says nothing if there is none, or a power cut has spoilt it."""
        try:
            kept = json.loads((place / NOTE).read_text())
            return cls(int(kept["port"]), dict(kept["process"]), tuple(kept["users"]))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()


class Versionbase:
    """The server of one app, and what it keeps in `folder`. A `provider.Provider`, and `serving.Servers`.

    `hosting` None: none can be run.
    """

    name = NAME

    def __init__(self, folder: Path, hosting: Hosting | None = None) -> None:
        self._folder = folder.absolute()
        self._hosting = hosting
        self._process: Process | None = None
        self._minding: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._users: set[str] = set()
        self._lingering: asyncio.TimerHandle | None = None
        self._resting: asyncio.Task[None] | None = None
        self._waking = asyncio.Lock()
        self._connecting = asyncio.Lock()
        self._noting = asyncio.Lock()
        self._database: Database | None = None
        self._talks = 0  # of control, under way
        self._loading: set[str] = set()

    def __repr__(self) -> str:
        return f"<Versionbase in {self._folder}: {'awake' if self._process else 'at rest'}>"

    # The life of the server

    async def open(self) -> None:
        """Nothing is left half-made: the store is one database."""

    async def close(self, keep: bool = False) -> None:
        """Stop the server, or leave it to be found again."""
        await self._forget()
        process, self._process = self._process, None
        if process and keep:
            process.leave()
        elif process:
            await process.stop()
            await self._remember(Note)

    async def adopt(self) -> None:
        """Find again the server that an earlier control left."""
        note = await asyncio.to_thread(Note.read, self._folder)
        self._users = set(note.users)
        if note.process and self._hosting:
            process = await self._hosting.adopt(note.process)
            if process:
                self._mind(process)
                self._telling = asyncio.create_task(self._tell_limit(), name=f"limit of {self._folder}")

    async def _tell_limit(self) -> None:
        """The one that it was started with may be another."""
        assert self._hosting
        try:
            async with self.talk() as database:
                await database.owner.limit(_megabytes(self._hosting.disk) * 1_000_000)
        except StepFailed as problem:  # of an earlier lazycloud, for instance
            log.warning("The versionbase in %s keeps the limit it has: %s", self._folder, problem)

    async def go_on(self, in_use: Callable[[str], bool]) -> None:
        """Start it anew, where its users look for it, if it ended while no control was there. After `adopt`."""
        self._users = {version for version in self._users if in_use(version)}
        if self._process:
            return
        if self._users:
            try:
                await self.wake()
            except StepFailed as problem:
                log.error("The versionbase in %s does not run: %s", self._folder, problem)
        elif self._has_store:  # its port may be another's by now
            await self._remember(Note)

    def pids(self) -> set[int]:
        return {self._process.pid} if self._process else set()

    @property
    def awake(self) -> list[str]:
        """The versions that it runs for."""
        return list(self._users) if self._process else []

    async def rest(self, version: str, in_use: Callable[[], bool]) -> None:
        """Stop it, unless this version or another one needs it; while control talks with it, a while after that."""
        async with self._waking:
            if in_use():
                return
            self._users.discard(version)
            if not self._users and not self._talks:
                await asyncio.shield(self.close())

    async def wake(self) -> int:
        """Let it run; its port. Idempotent. Raises StepFailed."""
        async with self._waking:
            if self._process is None or not self._process.is_running:
                if self._process:
                    await self._process.stop()  # what is left of it holds the port
                self._mind(await self._start())
            assert self._process is not None
            return _port(self._process)

    async def _start(self) -> Process:
        note = await asyncio.to_thread(Note.read, self._folder)
        if self._hosting is None:
            raise StepFailed(
                "The app wants a versionbase ([data] versionbase = true), and none can be run beside containers.",
                'Serve one with `lazycloud versionbase serve`, or set isolation = "sandbox" in config.toml.',
            )
        data = self._folder / DATA
        await asyncio.to_thread(self._prepare)
        words = [
            sys.executable,
            "-I",
            "-m",
            "lazycloud",
            "versionbase",
            "serve",
            "--store",
            f"sqlite:///{data / STORE}",
            "--keep-free",
            str(await asyncio.to_thread(_kept_free, data)),
            "--version-limit",
            str(_megabytes(self._hosting.disk)),
        ]
        process = await self._hosting.start(
            Wanted(
                name=f"versionbase.{secrets.token_hex(4)}",
                command=f'{shlex.join(words)} --listen "127.0.0.1:$PORT"',
                read=OWN,
                write=data,
                log=self._folder / LOG,
                port=note.port if note.process else 0,
                of_all=True,
            )
        )
        try:
            await self._remember(lambda: self._note(process))
        except BaseException:
            await asyncio.shield(process.stop())
            raise
        return process

    def _prepare(self) -> None:
        (self._folder / DATA).mkdir(parents=True, exist_ok=True, mode=0o700)
        keys.beside(self._store)

    def _mind(self, process: Process) -> None:
        self._process = process
        if self._minding is None:
            self._minding = asyncio.create_task(
                mind(f"The versionbase in {self._folder}", self._minded, self._again),
                name=f"mind {self._folder}",
            )

    def _minded(self) -> Process:
        assert self._process is not None
        return self._process

    async def _again(self) -> bool:
        async with self._waking:
            if self._process is None:
                return False
            if not self._process.is_running:  # else somebody has woken it
                await self._process.stop()  # what is left of it holds the port
                self._process = await self._start()
            return True

    async def _forget(self) -> None:
        """Nobody minds it any more, and control's connection ends."""
        if self._lingering:
            self._lingering.cancel()
        if self._telling:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
            self._telling = None
        if self._minding:
            self._minding.cancel()
            self._minding = None
        database, self._database = self._database, None
        if database:
            await database.close()

    def _linger(self) -> None:
        """One that only control asked something rests again after a while."""
        if self._lingering:
            self._lingering.cancel()
        self._lingering = asyncio.get_running_loop().call_later(LINGER, self._rest_unused)

    def _rest_unused(self) -> None:
        if self._process and not self._users:
            self._resting = asyncio.create_task(self.rest("", lambda: bool(self._users)))

    async def _remember(self, note: Callable[[], Note]) -> None:
        """One after the other, each as it is by then."""
        async with self._noting:
            await asyncio.to_thread(self._write_note, note())

    def _note(self, process: Process) -> Note:
        return Note(_port(process), process.note, tuple(sorted(self._users)))

    def _write_note(self, note: Note) -> None:
        durable.write(self._folder / NOTE, json.dumps(asdict(note)))

    @property
    def _store(self) -> Path:
        return self._folder / DATA / STORE

    @property
    def _has_store(self) -> bool:
        return self._store.is_file()

    # Talk with it

    async def address(self, version: str = PRODUCTION) -> str:
        """Of a version that is there, for the owner; not to be shown to anybody. Raises StepFailed."""
        port = await self.wake()
        self._linger()
        return self._url(port, version, self._keys().owner)

    def moment(self, version: str, snapshot: str | None) -> str:
        """What the owner calls it. By its name alone it might be taken for a snapshot, as apps name theirs."""
        return f"{version}@{snapshot or ''}"

    @contextlib.asynccontextmanager
    async def talk(self, version: str = PRODUCTION) -> AsyncIterator[Database]:
        """A connection of the owner's, at a version that is there. Raises StepFailed for what is refused."""
        from lazycloud.versionbase import client  # takes a tenth of a second, and few need it

        self._talks += 1
        try:
            if version == PRODUCTION:
                yield await self._ours()
            else:
                async with client.connect(await self.address(version)) as database:
                    yield database
        except client.VersionbaseError as problem:
            raise StepFailed(f"The versionbase says: {problem.sentence}", problem.hint) from problem
        finally:
            self._talks -= 1
            self._linger()

    async def _ours(self) -> Database:
        """Kept, as most of what control asks is asked of all versions."""
        from lazycloud.versionbase.client import connect

        address = await self.address()
        async with self._connecting:
            if self._database is None:
                self._database = await connect(address).open()
            return self._database

    def _keys(self) -> keys.Keys:
        return keys.beside(self._store)

    @staticmethod
    def _url(port: int, version: str, key: str) -> str:
        return f"ws://{quote(version, safe='')}:{quote(key, safe='')}@127.0.0.1:{port}/"

    # A provider

    def places(self) -> tuple[Path, ...]:
        """None that a worker must see."""
        return ()

    def reached(self, version: str) -> tuple[int, ...]:
        """The server's port, if it runs."""
        return (_port(self._process),) if self._process else ()

    async def memory(self, version: str) -> int:
        """Bytes that the server takes now: production's, since it runs for all."""
        if self._process is None or version != PRODUCTION:
            return 0
        return await asyncio.to_thread(self._process.memory)

    def changing(self, version: str) -> list[Path]:
        """Folders that change when it does."""
        return [self._folder / DATA] if self._has_store else []

    async def environment(self, version: str) -> dict[str, str]:
        async with self.talk() as database:
            key = await database.owner.key(check_version(version))
        if version not in self._users:
            self._users.add(version)
            await self._remember(lambda: self._note(self._minded()))
        return {"VERSIONBASE_URL": self._url(_port(self._minded()), version, key)}

    async def exists(self, version: str) -> bool:
        return self._has_store and await self._is_there(version)

    async def _is_there(self, version: str) -> bool:
        from lazycloud.versionbase.client import NotFound

        async with self.talk() as database:
            try:
                await database.owner.key(version)
            except NotFound:
                return False
            return True

    async def _versions(self) -> dict[str, int]:
        """The sequence of each."""
        async with self.talk() as database:
            return {str(one["name"]): int(one["sequence"]) for one in await database.owner.versions()}

    async def fork(self, version: str, source: str | None, at: str | None = None) -> str:
        is_there = await self._is_there(check_version(version))
        if is_there and version != PRODUCTION:
            return ""
        begins_empty = source is None or not await self._is_there(source)
        if not is_there:
            async with self.talk() as database:
                await database.owner.fork(
                    version, "" if begins_empty else source, None if begins_empty else at
                )
        if begins_empty:
            return "an empty versionbase"
        return "as of its snapshot" if at else f"as of {time.strftime('%H:%M:%S')}"

    async def snapshot(self, version: str, snapshot: str) -> str:
        async with self.talk() as database:
            known = {one.name for one in await database.owner.snapshots(version)}
            if check_snapshot(snapshot) not in known:
                await database.owner.snapshot(version, snapshot)
        return ""

    async def drop_snapshot(self, version: str, snapshot: str) -> None:
        if await self.exists(version):
            async with self.talk() as database:
                await database.owner.drop_snapshot(version, check_snapshot(snapshot))

    async def drop(self, version: str) -> None:
        if not await self.exists(version):
            return
        async with self.talk() as database:
            await database.owner.drop(check_version(version))
        await self.rest(version, lambda: False)

    async def size(self, version: str, snapshot: str | None = None) -> int:
        """What only it has; production's is with what others share. At rest it has all, and others have nothing."""
        if not self._has_store:
            return 0
        if self._process is None:
            return await asyncio.to_thread(trees.size, self._folder / DATA) if version == PRODUCTION else 0
        async with self.talk() as database:
            whole = version == PRODUCTION and snapshot is None
            return await database.owner.size(version, snapshot, whole=whole)

    # Swaps: taken back unless they hold. The sequences of versions tell whether one has happened.

    async def swap(self, version: str, other: str) -> None:
        async with self.talk() as database:
            for one in (version, other):
                if not await self._is_there(check_version(one)):
                    await database.owner.fork(one, "")
            await self._exchange(database, version, other)

    async def swapped(self, version: str) -> None:
        await asyncio.to_thread(self._write_swap, version, None)

    async def undo_swap(self, version: str) -> None:
        swap = (await asyncio.to_thread(self._swaps)).get(version)
        if swap is None:
            return
        has_happened = (await self._versions()).get(version, swap["sequence"]) != swap["sequence"]
        if has_happened != swap["back"]:
            async with self.talk() as database:
                await self._exchange(database, version, swap["other"], back=True)
        await asyncio.to_thread(self._write_swap, version, None)

    async def _exchange(self, database: Database, version: str, other: str, back: bool = False) -> None:
        """What is noted first is the sequence at which it has not happened."""
        sequence = (await self._versions())[version]
        swap = {"other": other, "sequence": sequence, "back": back}
        await asyncio.to_thread(self._write_swap, version, swap)
        await database.owner.swap(version, other)

    def _swaps(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = json.loads((self._folder / SWAPS).read_text())
            return kept
        except (OSError, ValueError):
            return {}

    def _write_swap(self, version: str, swap: dict[str, Any] | None) -> None:
        swaps = {name: one for name, one in self._swaps().items() if name != version}
        if swap is not None:
            swaps[version] = swap
        if swaps or (self._folder / SWAPS).exists():
            durable.write(self._folder / SWAPS, json.dumps(swaps))

    # Contents as lines of JSON: of each collection a line with its indexes and schema, and one for each document.

    async def unfold(
        self, version: str, snapshot: str | None, place: Path, room: Callable[[], Any] = lambda: None
    ) -> None:
        """`room` is asked now and then, and raises if there is none."""
        looked = 0
        async with self.talk() as database:
            with place.open("xb") as file:
                async for one in database.owner.export(version, at=snapshot, timeout=LONG):
                    line = json.dumps(to_json(one), ensure_ascii=False, separators=(",", ":"))
                    file.write(line.encode() + b"\n")
                    if file.tell() - looked > LOOK_EVERY:
                        looked = file.tell()
                        room()
                file.flush()
                await asyncio.to_thread(durable.sync, place)

    async def outline(self, version: str, snapshot: str | None, place: Path) -> dict[str, int]:
        """Its schemas belong to collections, and are none of SQL's."""
        if snapshot is not None:
            return {}
        async with self.talk(version) as database:
            return {one["name"]: one["documents"] for one in await database.collections()}

    async def load(self, version: str, place: Path) -> None:
        """Raises StepFailed for a file that `unfold` did not write; nothing has changed then."""
        loading = f"{LOADING}{secrets.token_hex(8)}"
        async with self.talk() as database:
            if not await self._is_there(check_version(version)):
                await database.owner.fork(version, "")
            await self._drop_loaded(database)
            self._loading.add(loading)
            try:
                await database.owner.fork(loading, "")
                async with self.talk(loading) as filled:
                    await _load(database, loading, place, filled)
                await self._give(database, version, loading)
            finally:
                self._loading.discard(loading)
                await asyncio.shield(database.owner.drop(loading))

    async def _give(self, database: Database, version: str, loaded: str) -> None:
        """Raises ConnectionLost only if the version has what it had."""
        from lazycloud.versionbase.client import ConnectionLost

        before = (await self._versions())[version]
        try:
            await database.owner.swap(version, loaded)
        except ConnectionLost:
            if (await self._versions())[version] == before:
                raise

    async def _drop_loaded(self, database: Database) -> None:
        """What a control that was killed had not loaded to the end."""
        for name in await self._versions():
            if name.startswith(LOADING) and name not in self._loading:
                await database.owner.drop(name)


async def _load(owner: Database, loading: str, place: Path, filled: Database) -> None:
    """Documents first: their indexes are built at once then."""
    heads: list[dict[str, Any]] = []
    with place.open("rb") as file:
        await owner.owner.load(loading, _documents(file, heads), timeout=LONG)
    for head in heads:
        collection = filled.collection(head["collection"])
        for index in head["indexes"]:
            await collection.create_index(
                index["path"], unique=index["unique"], name=index["name"], timeout=LONG
            )
        if head["schema"] is not None:
            await collection.set_schema(head["schema"], check=False, strict=False)


async def _documents(file: BinaryIO, heads: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    """What collections have besides goes into `heads`. Raises StepFailed for a line that is none."""
    lines = enumerate(iter(lambda: file.readline(LINE + 1), b""), 1)
    while some := await asyncio.to_thread(_some, lines):
        for one in some:
            if "key" in one:
                yield one
            elif len(heads) < HEADS:
                heads.append(one)
            else:
                raise StepFailed(f"The file has more than {HEADS:,} collections.")


def _some(lines: Iterator[tuple[int, bytes]]) -> list[dict[str, Any]]:
    """The next of them, some hundred KB. Raises StepFailed."""
    some, size = [], 0
    for number, line in lines:
        if len(line) > LINE:
            raise StepFailed(f"Line {number} has more than {LINE >> 20} MB: there is no such document.")
        try:
            some.append(_item(from_json(json.loads(line))))
        except (ValueError, TypeError, KeyError, RecursionError, LazycloudError) as problem:
            raise StepFailed(f"Line {number} is none of a versionbase: {str(problem)[:200]}.") from None
        size += len(line)
        if size >= AT_ONCE:
            break
    return some


def _item(one: Any) -> dict[str, Any]:
    """With no other members. Raises TypeError, KeyError."""
    kinds: dict[str, Any] = {"collection": str, "key": str, "document": dict}
    if "key" not in one:
        kinds = {"collection": str, "indexes": list, "schema": (dict, NoneType)}
        for index in one["indexes"]:
            _demand(index, {"path": str, "unique": bool, "name": str})
    _demand(one, kinds)
    return {name: one[name] for name in kinds}


def _demand(one: Any, kinds: Mapping[str, Any]) -> None:
    """Raises TypeError, KeyError."""
    for name, kind in kinds.items():
        if not isinstance(one[name], kind):
            raise TypeError(f"{name} cannot be that")


def _kept_free(folder: Path) -> int:
    """Megabytes: more than workers leave free, else the server of all versions is ended for what one writes."""
    return int(kept_free(shutil.disk_usage(folder).total) * 1.5 / 1e6)


def _megabytes(size: int) -> int:
    """At least one, as 0 is no limit."""
    return max(1, size // 1_000_000) if size else 0


def _port(process: Process) -> int:
    return int(process.address.rpartition(":")[2])


def notes(apps: Path) -> list[Mapping[str, Any]]:
    """What the servers of all apps are found again by, as far as they ran when that was written."""
    found = (Note.read(place.parent) for place in sorted(apps.glob(f"*/{NAME}/{NOTE}")))
    return [note.process for note in found if note.process]


def forget(apps: Path) -> None:
    """None of them runs any more."""
    for place in apps.glob(f"*/{NAME}/{NOTE}"):
        durable.write(place, json.dumps(asdict(Note())))
