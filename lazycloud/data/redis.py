"""Redis: each version that wants one has a small server of its own, of the machine's redis-server.

A version's server runs while anything of the version does, and is asleep with it. What it keeps lies in
<folder>/<version>/data, an append-only file that is flushed every second: what was acknowledged survives the end of
the server, however it ends, and a power cut costs a second at most. The folder is not in the version's own, where a
worker may write, and make of anything a link: nobody but the server of the version, behind walls that show it
no more than that, writes there; and it in turn is not trusted either, as an app may have found a hole in it.

Its port is in the range of workers' ports, where a wall keeps other workers from it, and its password is told to the
workers of its version. Commands that are for who runs a server (CONFIG SET, MODULE, DEBUG, SHUTDOWN,
REPLICAOF, MIGRATE, ACL …) are not the app's. A copy is what BGSAVE writes of a server that runs, whole and of one
moment, or else its files.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from lazycloud import trees
from lazycloud.data import blocks, durable, within
from lazycloud.data.names import check_snapshot, check_version
from lazycloud.data.resp import Refusal, Talk, facts, talk
from lazycloud.data.serving import Hosting, Process, Wanted, mind
from lazycloud.data.swaps import Swaps
from lazycloud.errors import Conflict, DiskFull, StepFailed

log = logging.getLogger(__name__)

NAME = "redis"
PROGRAMS = ("redis-server", "valkey-server")
PLACES = "/usr/local/bin:/usr/bin:/bin"  # what walls show of the machine's programs
DATA, SETTINGS, NOTE, LOG = "data", "redis.conf", "server.json", "server.log"
DUMP, CONTENTS = "dump.rdb", "appendonly.aof"
MAGIC = b"REDIS"  # how a file of all contents begins
SNAPSHOTS = ".snapshots"
MAKING, DROPPING, READING = ".making-", ".dropping-", ".reading-"
US = "lazycloud"  # the server's user that may do all
PATIENCE = 60.0  # seconds that a server has to read what it keeps
SAVE_PATIENCE = 300.0  # seconds that it has to write all of it
POLL = 0.01  # seconds
MEMORY_SHARE = 2  # its data may take a half of its limit: BGSAVE needs the rest, in the worst case
RIGHTS = "~* &* +@all -@admin -migrate +client +monitor +slowlog +latency +config|get +acl|whoami"
"""What an app may do. `-@admin` takes what is for who runs a server; the rest gives back what libraries use of it."""


@dataclass(frozen=True)
class Note:
    """What is remembered of a version's server beside its data: its passwords, its port, and itself while it runs."""

    password: str
    ours: str
    port: int = 0
    process: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def new(cls) -> Note:
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24))

    @classmethod
    def read(cls, place: Path) -> Note | None:
        """None if there is none, or a power cut has spoilt it."""
        try:
            return cls(**json.loads((place / NOTE).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, place: Path) -> None:
        aside = place / f"{NOTE}.new"
        aside.touch(mode=0o600)
        aside.write_text(json.dumps(asdict(self)))
        aside.replace(place / NOTE)


@dataclass
class Server:
    """One that runs. `minding` starts it again if it ends by itself."""

    process: Process
    note: Note
    minding: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self.process.address.rpartition(":")[2])

    def talk(self) -> contextlib.AbstractAsyncContextManager[Talk]:
        return talk(self.port, US, self.note.ours)


class Redis:
    """The servers of the versions of one app, and what they keep, below `folder`. A `provider.Provider`.

    `hosting` None: none can be run. What there is can be copied and dropped all the same while it is at rest.
    """

    name = NAME

    def __init__(self, folder: Path, hosting: Hosting | None = None) -> None:
        self._folder = folder.absolute()
        self._hosting = hosting
        self._servers: dict[str, Server] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._swaps = Swaps(self._folder)
        self._ended: list[str] = []  # while no control was there

    def __repr__(self) -> str:
        return f"<Redis of {', '.join(self._servers) or 'nobody'} in {self._folder}>"

    async def open(self) -> None:
        for pattern in (f"{MAKING}*", f"{DROPPING}*", f"*{SNAPSHOTS}/{MAKING}*"):
            for leftover in self._folder.glob(pattern):
                trees.remove(leftover)

    async def close(self, keep: bool = False) -> None:
        """Stop every server, or leave it to be found again."""
        for server in self._servers.values():
            if server.minding:
                server.minding.cancel()
        if keep:
            for server in self._servers.values():
                server.process.leave()
        else:
            await asyncio.gather(*(self.rest(version, lambda: False) for version in list(self._servers)))
        self._servers.clear()

    # The life of servers

    async def adopt(self) -> None:
        """Find again the servers that an earlier control left; end those that only served to read a copy."""
        for place in sorted(self._folder.glob("*")):
            note = Note.read(place) if place.is_dir() else None
            if note is None or not note.process:
                continue
            process = await self._hosting.adopt(note.process) if self._hosting else None
            if place.name.startswith(READING):
                if process:
                    await process.stop()
            elif process:
                self._mind(place.name, Server(process, note))
            else:
                self._ended.append(place.name)
        for left in self._folder.glob(f"{READING}*"):
            trees.remove(left)

    async def go_on(self, in_use: Callable[[str], bool]) -> None:
        """Start anew, where its workers look for it, what ended while no control was there. After `adopt`.

        Not before all was ended that is not to be found again: what is begun here is not known to that.
        """
        ended, self._ended = self._ended, []
        for version in ended:
            if in_use(version):
                try:
                    await self.wake(version)
                except StepFailed as problem:
                    log.error("The Redis of %s does not run: %s", version, problem)
            elif note := Note.read(place := self._place(version)):  # its port may be another's by now
                Note(note.password, note.ours).write(place)

    def pids(self) -> set[int]:
        return {server.process.pid for server in self._servers.values()}

    @property
    def awake(self) -> list[str]:
        return list(self._servers)

    async def wake(self, version: str) -> None:
        """Let the server of a version run, that was forked. Idempotent. Raises StepFailed."""
        async with self._lock(version):
            if not self._exists(version):
                raise StepFailed(
                    f"The Redis of {version[:40]} is gone: {self._place(version) / DATA} is not there.",
                    "Put it back from a backup, or drop the version.",
                )
            server = self._servers.get(version)
            if server is None or not server.process.is_running:
                if server:
                    await server.process.stop()  # what is left of it holds the port
                self._mind(version, await self._start(self._place(version)))

    async def rest(self, version: str, in_use: Callable[[], bool]) -> None:
        """Stop it, unless somebody needs it. What it keeps is on the disk then."""
        async with self._lock(version):
            server = self._servers.get(version)
            if server is None or in_use():
                return
            if server.minding:
                server.minding.cancel()
            del self._servers[version]
            await asyncio.shield(self._stop(version, server))

    async def _stop(self, version: str, server: Server) -> None:
        await server.process.stop()
        if (place := self._place(version)).is_dir():
            Note(server.note.password, server.note.ours).write(place)

    def places(self) -> tuple[Path, ...]:
        """None that a worker must see."""
        return ()

    def reached(self, version: str) -> tuple[int, ...]:
        """The port of its server, if that runs."""
        server = self._servers.get(version)
        return (server.port,) if server else ()

    def given(self, version: str) -> dict[str, str]:
        """What a worker finds the server of its version by, if that runs."""
        server = self._servers.get(version)
        if server is None:
            return {}
        return {"REDIS_URL": f"redis://:{server.note.password}@127.0.0.1:{server.port}/0"}

    async def memory(self, version: str) -> int:
        """Bytes that its server takes now."""
        server = self._servers.get(version)
        return await asyncio.to_thread(server.process.memory) if server else 0

    async def environment(self, version: str) -> dict[str, str]:
        await self.wake(version)
        return self.given(version)

    async def _start(self, place: Path) -> Server:
        """Of a version's folder, or of a copy."""
        note = await asyncio.to_thread(Note.read, place) or Note.new()
        wanted = self._wanted(place, note)
        process = await self._hosted().start(wanted)
        server = Server(process, note)
        try:
            server.note = Note(note.password, note.ours, server.port, process.note)
            await asyncio.to_thread(server.note.write, place)
            await self._answers(server)
        except BaseException:
            await asyncio.shield(process.stop())
            raise
        return server

    def _wanted(self, place: Path, note: Note) -> Wanted:
        hosting, program = self._hosted(), _program()
        if program is None:
            raise StepFailed(
                "The app wants a Redis ([data] redis = true), and this machine has no redis-server.",
                "Install it (Debian and others: the package redis-server); it needs not run as a service.",
            )
        settings = place / SETTINGS
        settings.touch(mode=0o600)
        settings.write_text(_settings(place / DATA, note, hosting.memory))
        return Wanted(
            name=f"redis.{place.name.lstrip('.')}.{secrets.token_hex(4)}",
            command=f'{program} {settings} --port "$PORT"',
            read=(settings,),
            write=place / DATA,
            log=place / LOG,
            port=note.port if note.process else 0,
        )

    def _hosted(self) -> Hosting:
        if self._hosting is None:
            raise StepFailed(
                "The app wants a Redis ([data] redis = true), and none can be run beside containers.",
                'Give it one of your own, by a variable, or set isolation = "sandbox" in config.toml.',
            )
        return self._hosting

    async def _answers(self, server: Server) -> None:
        """Wait until it has read what it keeps. Raises StepFailed."""
        deadline = time.monotonic() + PATIENCE
        while server.process.is_running and time.monotonic() < deadline:
            with contextlib.suppress(OSError, Refusal):
                async with server.talk() as redis:
                    if await redis.say("PING") == "PONG":
                        return
            await asyncio.sleep(POLL)
        ended = "did not read its data in time" if server.process.is_running else "ended at its start"
        raise StepFailed(
            f"Its Redis {ended}.",
            "Its last lines say why; `redis-check-aof` mends what a power cut has damaged.",
            server.process.last_lines(),
        )

    def _mind(self, version: str, server: Server) -> None:
        self._servers[version] = server
        server.minding = asyncio.create_task(
            mind(f"The Redis of {version}", lambda: server.process, lambda: self._again(version, server))
        )

    async def _again(self, version: str, server: Server) -> bool:
        async with self._lock(version):
            if self._servers.get(version) is not server:
                return False
            await server.process.stop()  # what is left of it holds the port
            again = await self._start(self._place(version))
            server.process, server.note = again.process, again.note
            return True

    # What they keep

    async def exists(self, version: str) -> bool:
        return self._exists(version)

    def _exists(self, version: str) -> bool:
        return (self._place(version) / DATA).is_dir()

    def changing(self, version: str) -> list[Path]:
        """Folders that change when it does."""
        return [self._place(version) / DATA] if self._exists(version) else []

    async def fork(self, version: str, source: str | None, at: str | None = None) -> str:
        if self._exists(version):
            return ""
        if source is None or not self._has(source, at):
            await asyncio.to_thread(self._ensure, self._place(version))
            return "an empty Redis"
        began = time.time()
        async with self._made(self._place(version)) as making:
            await self._copy(source, at, making / DATA)
        return "as of its snapshot" if at else f"as of {time.strftime('%H:%M:%S', time.localtime(began))}"

    async def snapshot(self, version: str, snapshot: str) -> str:
        if self._exists(version):
            async with self._made(self._snapshot(version, snapshot)) as making:
                await self._copy(version, None, making / DATA)
        return ""

    async def unfold(self, version: str, snapshot: str | None, place: Path) -> None:
        """As an RDB file, which any Redis reads; an empty one where there is nothing."""
        if snapshot is None and version in self._servers:
            async with self._lock(version):
                if server := self._servers.get(version):
                    await self._save(server, self._place(version), place)
                    return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        reading = Path(tempfile.mkdtemp(prefix=READING, dir=self._folder))
        try:
            if self._has(version, snapshot):
                await self._copy(version, snapshot, reading / DATA)
            else:
                await asyncio.to_thread(self._ensure, reading)
            server = await self._start(reading)
            try:
                await self._save(server, reading, place)
            finally:
                await asyncio.shield(server.process.stop())
        finally:
            trees.remove(reading)

    async def outline(self, version: str, snapshot: str | None, place: Path) -> dict[str, int]:
        """Keys are no tables."""
        return {}

    async def load(self, version: str, place: Path) -> None:
        """Raises Conflict for one that runs, StepFailed for a file that no Redis reads; nothing has changed then."""
        self._demand_rest(version)
        reading = self._aside(self._place(version), READING)
        try:
            await asyncio.to_thread(_seed, place, reading / DATA)
            server = await self._start(reading)  # it checks the file's checksum
            await asyncio.shield(server.process.stop())
            async with self._lock(version):
                self._demand_rest(version)
                await asyncio.to_thread(self._replace, self._place(version), reading / DATA)
        finally:
            trees.remove(reading)

    async def swap(self, version: str, other: str) -> None:
        """Until `swapped` is called it is taken back by `undo_swap`, also after a crash."""
        for one in (version, other):
            await self.rest(one, lambda: False)
        places = [self._place(one) for one in (version, other)]
        await asyncio.to_thread(self._swap, *places)

    async def swapped(self, version: str) -> None:
        """The swap of a version holds for good."""
        await asyncio.to_thread(self._swaps.hold, check_version(version))

    async def undo_swap(self, version: str) -> None:
        """Nothing happens if there is none that does not hold yet."""
        if other := self._swaps.pending().get(version):
            for one in (version, other):
                await self.rest(one, lambda: False)
            await asyncio.to_thread(self._swaps.undo, version)

    async def drop(self, version: str) -> None:
        await self.rest(version, lambda: False)
        for place in (self._place(version), self._snapshots(version)):
            await asyncio.to_thread(durable.discard, place, DROPPING, self._folder)

    async def drop_snapshot(self, version: str, snapshot: str) -> None:
        place = self._snapshot(version, snapshot)
        await asyncio.to_thread(durable.discard, place, DROPPING, self._folder)

    async def size(self, version: str, snapshot: str | None = None) -> int:
        place = self._snapshot(version, snapshot) if snapshot else self._place(version)
        return await asyncio.to_thread(trees.size, place / DATA)

    def _has(self, version: str, snapshot: str | None) -> bool:
        return self._exists(version) if snapshot is None else self._snapshot(version, snapshot).is_dir()

    async def _copy(self, version: str, at: str | None, target: Path) -> None:
        """What a version or a snapshot has, as a folder that a server may take for its own."""
        if at is not None:
            await asyncio.to_thread(_copy_folder, self._snapshot(version, at) / DATA, target)
            return
        async with self._lock(version):
            if server := self._servers.get(version):
                target.mkdir(mode=0o700)
                await self._save(server, self._place(version), target / CONTENTS)
            else:
                await asyncio.to_thread(_copy_folder, self._place(version) / DATA, target)

    async def _save(self, server: Server, place: Path, target: Path) -> None:
        """All that it has at this moment, as a file; its clients go on. Raises StepFailed. With its lock held."""
        data = place / DATA
        try:
            async with server.talk() as redis:
                await self._idle(redis)  # else a copy that somebody else wanted before would pass for ours
                await asyncio.to_thread(_take_away, data, DUMP)
                await redis.say("BGSAVE", "SCHEDULE")
                await self._saved(redis, data)
            await asyncio.to_thread(_copy_file, data, DUMP, target)
            await asyncio.to_thread(_take_away, data, DUMP)
        except Refusal as problem:
            raise StepFailed(f"The Redis would not be copied: {problem}.") from problem
        except OSError as problem:
            if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(self._folder) from problem
            raise StepFailed(
                f"The Redis could not be copied: {problem}.", "Try again when it answers."
            ) from problem

    async def _idle(self, redis: Talk) -> None:
        deadline = time.monotonic() + SAVE_PATIENCE
        while _is_saving(facts(await redis.say("INFO", "persistence"))):
            if time.monotonic() > deadline:
                raise StepFailed(f"The Redis was writing its contents for more than {SAVE_PATIENCE:g} s.")
            await asyncio.sleep(POLL)

    async def _saved(self, redis: Talk, data: Path) -> None:
        """Its file gets its name when it is complete and on the disk. Only we let it be written."""
        deadline = time.monotonic() + SAVE_PATIENCE
        while time.monotonic() < deadline:
            if (data / DUMP).is_file() and not (data / DUMP).is_symlink():
                return
            told = facts(await redis.say("INFO", "persistence"))
            if told.get("rdb_last_bgsave_status") == "err" and not _is_saving(told):
                free = shutil.disk_usage(data).free
                raise StepFailed(
                    f"The Redis could not be copied: it could not write its contents ({free / 1e6:.0f} MB are free).",
                    f"{data.parent / LOG} says why.",
                )
            await asyncio.sleep(POLL)
        raise StepFailed(f"The Redis could not be copied within {SAVE_PATIENCE:g} s.")

    def _demand_rest(self, version: str) -> None:
        if version in self._servers:
            raise Conflict(f"The Redis of {version[:40]} runs.", "Stop what uses it, and try again.")

    def _ensure(self, place: Path) -> None:
        """Empty data, if there are none."""
        if not (place / DATA).is_dir():
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            (place / DATA).mkdir(mode=0o700)
            durable.sync(place)
            durable.sync(place.parent)

    @contextlib.asynccontextmanager
    async def _made(self, place: Path) -> AsyncIterator[Path]:
        """A folder to fill, which gets its name when it is complete and on the disk, or is gone."""
        making = self._aside(place, MAKING)
        try:
            yield making
            await asyncio.to_thread(durable.persist, making)
            if not place.is_dir():  # else somebody was faster
                await asyncio.to_thread(durable.publish, making, place)
        except OSError as problem:
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _full(self._folder) from problem
        finally:
            trees.remove(making)

    def _aside(self, place: Path, prefix: str) -> Path:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=place.parent))

    def _replace(self, place: Path, data: Path) -> None:
        self._ensure(place)
        durable.persist(data)
        durable.exchange(data, place / DATA)
        durable.sync(place)

    def _swap(self, place: Path, other: Path) -> None:
        """Who has none gets an empty one, unless neither has."""
        for one in (place, other):
            if not one.is_dir() and (place.is_dir() or other.is_dir()):
                self._ensure(one)
        if place.is_dir():
            self._swaps.begin(place.name, other.name)

    def _lock(self, version: str) -> asyncio.Lock:
        return self._locks.setdefault(version, asyncio.Lock())

    def _place(self, version: str) -> Path:
        return self._folder / check_version(version)

    def _snapshots(self, version: str) -> Path:
        return self._folder / f"{check_version(version)}{SNAPSHOTS}"

    def _snapshot(self, version: str, snapshot: str) -> Path:
        return self._snapshots(version) / check_snapshot(snapshot)


def missing() -> str:
    """Why no Redis can be run on this machine, in a sentence; "" if one can."""
    return "" if _program() else "There is no redis-server on this machine."


def notes(apps: Path) -> list[Mapping[str, Any]]:
    """What the servers of all apps are found again by, as far as they ran when that was written."""
    return [note.process for note in _notes(apps).values()]


def forget(apps: Path) -> None:
    """None of them runs any more."""
    for place, note in _notes(apps).items():
        Note(note.password, note.ours).write(place)


def _notes(apps: Path) -> dict[Path, Note]:
    found = {place.parent: Note.read(place.parent) for place in sorted(apps.glob(f"*/{NAME}/*/{NOTE}"))}
    return {place: note for place, note in found.items() if note and note.process}


def _program() -> str | None:
    return next(filter(None, (shutil.which(name, path=PLACES) for name in PROGRAMS)), None)


def _settings(data: Path, note: Note, memory: int) -> str:
    """redis.conf. No line of it is anybody's but ours; passwords are there as their hashes."""
    lines = [
        "bind 127.0.0.1",
        "daemonize no",
        "set-proc-title no",  # which is written over what strays are known by
        f'dir "{data}"',
        f"dbfilename {DUMP}",
        'save ""',
        "appendonly yes",
        f"appendfilename {CONTENTS}",
        "appendfsync everysec",
        "aof-load-truncated yes",
        f"user default reset on #{_hash(note.password)} {RIGHTS}",
        f"user {US} reset on #{_hash(note.ours)} ~* &* +@all",
    ]
    if memory:
        lines += [f"maxmemory {memory // MEMORY_SHARE}", "maxmemory-policy noeviction"]
    return "\n".join([*lines, ""])


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _is_saving(told: Mapping[str, str]) -> bool:
    names = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
    return any(told.get(name, "0") != "0" for name in names)


def _take_away(folder: Path, name: str) -> None:
    """A file of a folder that a server writes to, who may have been led to put anything there."""
    with contextlib.suppress(FileNotFoundError), within.opened(folder, folder, within.FOLDER) as opened:
        os.unlink(name, dir_fd=opened)


def _copy_file(folder: Path, name: str, target: Path) -> None:
    """The same of reading it: no link is followed."""
    with within.opened(folder, folder, within.FOLDER) as opened, target.open("xb") as made:
        with within.opened_in(opened, name, within.FILE, folder / name) as origin:
            if not stat.S_ISREG(os.fstat(origin).st_mode):
                raise OSError(errno.EINVAL, "it is no file", str(folder / name))
            blocks.give(origin, made.fileno())
        made.flush()
        os.fsync(made.fileno())


def _copy_folder(source: Path, target: Path) -> None:
    """Of a server that does not run; a link stays one, and what is neither file nor folder is left out."""
    with within.opened(source, source, within.FOLDER) as folder:
        target.mkdir(mode=0o700)
        for name in os.listdir(folder):  # noqa: PTH208 - of a descriptor
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                _copy_folder(source / name, target / name)
            elif stat.S_ISREG(facts.st_mode):
                _copy_file(source, name, target / name)
            elif stat.S_ISLNK(facts.st_mode):
                (target / name).symlink_to(os.readlink(name, dir_fd=folder))


def _seed(file: Path, data: Path) -> None:
    """A folder from which a server begins with the contents of an RDB file."""
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise StepFailed(f"{file.name} holds no contents of a Redis.", "It is to be an RDB file.")
    data.mkdir(mode=0o700)
    shutil.copyfile(file, data / CONTENTS)


def _full(folder: Path) -> DiskFull:
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    return DiskFull(
        f"The disk of {folder} is full: {free / 1e6:.1f} MB free.",
        "`lazycloud disk` tells where it went, `lazycloud prune --all` removes what can be built again.",
    )
