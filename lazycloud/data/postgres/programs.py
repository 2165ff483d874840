"""pg_dump and pg_restore: the contents of a database into a file, or into another one, while it is written to.

Both run as the role of a version and never as ours: what is dumped, and what runs while it is restored, a version's
code may have written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lazycloud.data.postgres.server import Login, Server, disk_full
from lazycloud.errors import DiskFull, StepFailed
from lazycloud.processes import come_after_others, signal_group

PACKAGES = Path("/usr/lib/postgresql")  # where Debian's packages have each version
TIMEOUT = 3600.0  # seconds for a dump or a restore
ANSWER_SECONDS = 10.0
LOCKED = "--lock-wait-timeout=60s"
WHAT = ("--no-owner", "--no-tablespaces", "--no-subscriptions", "--no-security-labels")
NEVER_MIND = re.compile("must be owner of extension")  # COMMENT ON EXTENSION, which the server's owner made
LAST_LINES = 12
ROOM = (
    1_000_000  # bytes that are free after a dump: pg_dump says nothing when the very last ones found no room
)
NICENESS = 10  # whoever writes meanwhile comes first
UNFLUSHED = "-c synchronous_commit=off"  # a copy counts with a later commit, which flushes all of it


@dataclass(frozen=True)
class Programs:
    """Where they are; `major` is their version."""

    folder: Path
    major: int

    @property
    def dump(self) -> str:
        return str(self.folder / "pg_dump")

    @property
    def restore(self) -> str:
        return str(self.folder / "pg_restore")


def find(major: int, packages: Path = PACKAGES) -> Programs:
    """The ones for a server of that version: the oldest that are not older. Raises StepFailed."""
    found = sorted(_all(packages), key=lambda one: one.major)
    fit = next((one for one in found if one.major >= major), None)
    if fit:
        return fit
    which = f"only pg_dump {found[-1].major} is here" if found else "there is no pg_dump here"
    raise StepFailed(
        f"The Postgres server is of version {major}, and {which}: its data cannot be copied.",
        f"Install pg_dump {major} or newer, of the package postgresql-client-{major}.",
    )


@cache
def _all(packages: Path) -> tuple[Programs, ...]:
    folders = [place.parent for place in packages.glob("*/bin/pg_dump")]
    if on_path := shutil.which("pg_dump"):
        folders.append(Path(on_path).parent)
    found = [(folder, _major(folder / "pg_dump")) for folder in folders if (folder / "pg_restore").exists()]
    return tuple(Programs(folder, major) for folder, major in found if major)


def _major(program: Path) -> int:
    """0 if it does not say."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return 0
    said = re.search(r"\) (\d+)", done.stdout)
    return int(said[1]) if said else 0


async def copy(programs: Programs, server: Server, source: Login, target: Login) -> None:
    """The contents of a role's database into another's, which is empty. Raises StepFailed."""
    read, write = os.pipe()
    async with contextlib.AsyncExitStack() as running:
        try:
            dumping = await running.enter_async_context(_dumping(programs, server, source, write, 0))
            restoring = await running.enter_async_context(_restoring(programs, server, target, read))
        finally:
            os.close(read)
            os.close(write)
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(dumping.wait(), restoring.wait())
    dumping.demand(server)  # what went wrong first; restoring fails with it
    restoring.demand(server)


async def dump(programs: Programs, server: Server, source: Login, place: Path, rows: bool = True) -> None:
    """Into a file that nobody else can read, in the format of `pg_dump --format=custom`. Raises StepFailed."""
    what = () if rows else ("--schema-only",)
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        dumping = _dumping(programs, server, source, file.fileno(), 6, *what)
        async with dumping as running, asyncio.timeout(TIMEOUT):
            await running.wait()
    running.demand(server)
    if shutil.disk_usage(place.parent).free < ROOM:
        raise _no_room()


def _no_room() -> DiskFull:
    return DiskFull(
        "The disk has no room for a dump of what is in Postgres.", "`lazycloud disk` tells where it went."
    )


async def restore(programs: Programs, server: Server, target: Login, place: Path) -> None:
    """A file that `dump` wrote, into an empty database. Raises StepFailed."""
    with place.open("rb") as file:
        async with _restoring(programs, server, target, file.fileno()) as restoring, asyncio.timeout(TIMEOUT):
            await restoring.wait()
    restoring.demand(server)


class _Running:
    """A program, and the last that it said."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.said: deque[str] = deque(maxlen=LAST_LINES)
        self._errors, self._forgiven = 0, 0

    async def wait(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            text = line.decode(errors="replace").rstrip()
            self.said.append(text[:500])
            self._errors += "error: " in text
            self._forgiven += bool(NEVER_MIND.search(text))
        await self.process.wait()

    def demand(self, server: Server) -> None:
        """Raises StepFailed unless it did all of its work."""
        status = self.process.returncode
        if status == 0 or (status == 1 and self._errors == self._forgiven > 0):
            return
        said = "\n".join(self.said)
        if re.search("(output|archive) file: No space left on device", said):
            raise _no_room()
        if "No space left on device" in said:
            raise disk_full(server.where)
        problem = next((line for line in self.said if "error: " in line), "it says nothing")
        raise StepFailed(
            f"{self.name} failed: {problem.partition('error: ')[2] or problem}.",
            "What is in a version's database must belong to that version's role." if "denied" in said else "",
            last=list(self.said),
        )


@contextlib.asynccontextmanager
async def _dumping(
    programs: Programs, server: Server, source: Login, output: int, compress: int, *what: str
) -> AsyncIterator[_Running]:
    words = [programs.dump, "--format=custom", f"--compress={compress}", *WHAT, *what, LOCKED]
    async with _running("pg_dump", words, server, source, asyncio.subprocess.DEVNULL, output) as running:
        yield running


@contextlib.asynccontextmanager
async def _restoring(
    programs: Programs, server: Server, target: Login, source: int
) -> AsyncIterator[_Running]:
    words, output = [programs.restore, "--no-owner"], asyncio.subprocess.DEVNULL
    async with _running("pg_restore", words, server, target, source, output, UNFLUSHED) as running:
        yield running


@contextlib.asynccontextmanager
async def _running(
    name: str, words: Sequence[str], server: Server, login: Login, source: int, output: int, options: str = ""
) -> AsyncIterator[_Running]:
    """Nothing of it is left afterwards."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "PGPASSWORD": login.password,
        "PGOPTIONS": f"-c client_connection_check_interval=500ms {options}",  # what was killed holds no locks
    }
    process = await asyncio.create_subprocess_exec(
        "nice",
        "-n",
        str(NICENESS),
        *words,
        "--no-password",
        f"--dbname={server.conninfo(login, login.role)}",
        stdin=source,
        stdout=output,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    lowering = asyncio.create_task(come_after_others(process.pid, NICENESS))
    try:
        yield _Running(name, process)
    finally:
        lowering.cancel()
        signal_group(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
