"""The server as a process: opens a store, tells where it listens, and stops without losing what was acknowledged."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import uvloop
from sqlalchemy.engine import make_url

from lazycloud.errors import BadInput, Conflict, DiskFull
from lazycloud.versionbase import keys, verification
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.keys import Keys
from lazycloud.versionbase.server import PRODUCTION, Server
from lazycloud.versionbase.storage import Storage
from lazycloud.versionbase.tending import Tending
from lazycloud.versionbase.verification import Checked

UNIX = "unix:"
MOST = 65_536  # descriptors


@dataclass(frozen=True)
class Options:
    """`store`: sqlite:///FILE or postgresql://…. `listen`: HOST:PORT, or unix:PATH."""

    store: str
    listen: str = "127.0.0.1:7070"
    secret_file: Path | None = None
    relaxed: bool = False
    compress: bool = False
    print_url: bool = False
    keep_hours: float = 24.0
    keep_commits: int = 10_000
    keep_free: int = 0  # bytes of the disk
    version_limit: int = 0  # bytes that each version may have of its own, 0: no limit


def run(options: Options, environ: Mapping[str, str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises LazycloudError for what is to be mended first."""
    storage, where = Storage(options.store, options.relaxed), _place(options.listen)
    known = find_keys(options.store, options.secret_file, environ)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, stream=sys.stderr
    )
    _allow_many_clients()
    os.umask(0o077)  # what is kept here is this user's
    storage.stored.limit = options.version_limit
    engine = Engine(storage, _demanding(options))
    engine.open()
    try:
        return uvloop.run(_serve(options, engine, known, where))
    finally:
        engine.close()


def find_keys(store: str, file: Path | None, environ: Mapping[str, str]) -> Keys:
    """Of a file that is named, of the environment, or of one beside the SQLite store. Raises BadInput."""
    if file is not None:
        return keys.from_file(file)
    if text := environ.get(keys.VARIABLE):
        return keys.made_of(text)
    database = _file(store)
    if database is None:
        raise BadInput(
            "Keys of a versionbase in Postgres are made of a secret, and there is none.",
            f"Give --secret-file, or set {keys.VARIABLE} (`openssl rand -hex 32` makes one).",
        )
    try:
        return keys.beside(database)
    except OSError as problem:
        raise BadInput(
            f"No secret can be kept beside {database}: {problem}.",
            "Give --store a file in a folder to write in, or --secret-file.",
        ) from problem


def _file(store: str) -> Path | None:
    """Of an SQLite store."""
    url = make_url(store)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _allow_many_clients() -> None:
    """As many descriptors as this process may have; it begins with a thousand on most machines."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _demanding(options: Options) -> Callable[[], None]:
    """What refuses to write where that would leave less of the disk than is to be kept free."""
    database = _file(options.store)
    if database is None or not options.keep_free:
        return lambda: None
    folder = database.absolute().parent

    def demand_room() -> None:
        free = shutil.disk_usage(folder).free
        if free < options.keep_free:
            raise DiskFull(
                f"The disk has {free / 1e6:.0f} MB free, of which {options.keep_free / 1e6:.0f} MB are kept free.",
                "Make room there, and try again: what is stored can be read meanwhile.",
            )

    return demand_room


async def _serve(options: Options, engine: Engine, known: Keys, where: Path | tuple[str, int]) -> int:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    server = Server(engine, known, compress=options.compress)
    await server.demand_production()
    address = await _listen(server, where)
    tending = Tending(engine, options.keep_hours * 3600, options.keep_commits)
    tending.start()
    gc.freeze()
    _tell(options, server, address)
    await stop.wait()
    await tending.stop()
    await server.close()
    return 0


async def _listen(server: Server, where: Path | tuple[str, int]) -> str:
    """The address, as a URL without a key. Raises LazycloudError."""
    try:
        if isinstance(where, Path):
            await server.open_unix(where)
            return f"ws+unix://{where}"
        host, _ = where
        port = await server.open(*where)
        return f"ws://{f'[{host}]' if ':' in host else host}:{port}/"
    except OSError as problem:
        told = where if isinstance(where, Path) else f"{where[0]}:{where[1]}"
        raise Conflict(
            f"Cannot listen on {told}: {problem.strerror or problem}.",
            "Give another: --listen 127.0.0.1:7071",
        ) from problem


def _tell(options: Options, server: Server, address: str) -> None:
    """One line that says where, for whoever started this; keys only where they are wanted."""
    lines = [f"versionbase listens at {address}"]
    if (options.print_url or sys.stdout.isatty()) and not address.startswith("ws+unix"):
        lines += [f"{name}={url}" for name, url in _urls(server, address)]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _urls(server: Server, address: str) -> Iterator[tuple[str, str]]:
    production = server.engine.storage.branch(PRODUCTION)
    rest = address.removeprefix("ws://")
    mine = server.keys.version(PRODUCTION, production.birth)
    yield "VERSIONBASE_URL", f"ws://{PRODUCTION}:{quote(mine, safe='')}@{rest}"
    yield "VERSIONBASE_OWNER_URL", f"ws://:{quote(server.keys.owner, safe='')}@{rest}"


def _place(listen: str) -> Path | tuple[str, int]:
    """Raises BadInput."""
    if listen.startswith(UNIX):
        return Path(listen.removeprefix(UNIX)).absolute()
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise BadInput(f"--listen {listen}: “{port}” is no port.", "Give HOST:PORT, or unix:PATH.")
    return host.strip("[]") or "127.0.0.1", int(port)


def verify(store: str, told: Callable[[str], None]) -> tuple[int, Checked]:
    """Look at all of a store that nobody serves: each problem is told; how many there are, and what was looked at.

    Raises NotFound if there is none, LazycloudError if it cannot be looked at.
    """
    storage = Storage(store)
    storage.open(make=False)  # a slip of the pen would make an empty one, and find it in order
    problems, looked_at = 0, Checked(0, 0, 0)
    try:
        for found in verification.verify(storage, contents=True):
            if isinstance(found, Checked):
                looked_at = found
            else:
                problems += 1
                told(found)
    finally:
        storage.close()
    return problems, looked_at
