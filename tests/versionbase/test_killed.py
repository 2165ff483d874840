"""A process that writes is killed with SIGKILL, again and again, wherever it is: what it acknowledged is there.

Commit n writes n to some of the keys of two versions, in one write with other commits, and says n once it is
acknowledged; between commits there are forks, snapshots and collections. So a store that was killed stands at one
commit in each version: with all of its keys, and none of the next one's.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from itertools import count as numbers
from pathlib import Path

import pytest

from lazycloud.versionbase.storage import Branch, Storage, Wish
from lazycloud.versionbase.tree import scan
from lazycloud.versionbase.verification import verify
from tests.postgres import MEMORY, Postgres

KILLS = int(os.environ.get("LAZYCLOUD_VERSIONBASE_KILLS", "20"))  # on SQLite; half as many on Postgres
VERSIONS = ("production", "abc")
WRITTEN = 30  # keys of one commit


def keys_of(number: int) -> list[bytes]:
    """Of many leaves, and the same ones for whoever asks."""
    chosen = random.Random(number).sample(range(5000), WRITTEN)
    return sorted(b"%05d" % key for key in chosen)


def write(url: str, told: int) -> None:
    """Forever. Each acknowledged commit is a line in `told`."""
    storage = Storage(url)
    storage.open()
    first = int(dict(scan(storage, storage.branch("production").root)).get(b"number", b"0")) + 1
    collecting: Iterator[int] = iter(())
    for number in numbers(first):
        value = b"%d" % number
        wishes = []
        for name in VERSIONS:
            root = storage.branch(name).root
            half = [(key, value) for key in keys_of(number)]
            wishes.append(Wish(name, root, half[: WRITTEN // 2], lambda root: True))
            wishes.append(Wish(name, root, [*half[WRITTEN // 2 :], (b"number", value)], lambda root: True))
        assert all(isinstance(result, Branch) for result in storage.commit(wishes))
        os.write(told, b"%d\n" % number)
        if number % 7 == 0:
            storage.drop("fork")
            storage.fork("fork", "production")
            storage.snapshot("production", f"s{number}")
        if number % 11 == 0:
            for row in storage.snapshots("production")[:-2]:
                storage.drop_snapshot("production", row.id)
            sum(storage.expire(keep=10))
        if next(collecting, None) is None:
            collecting = storage.collect()


def check(url: str, told: int) -> None:
    """That each version is as the last acknowledged commit left it, or the one after that."""
    storage = Storage(url)
    storage.open()
    try:
        assert [found for found in verify(storage) if isinstance(found, str)] == []
        contents = [dict(scan(storage, storage.branch(name).root)) for name in VERSIONS]
        assert contents[0] == contents[1]  # they were written together
        stands = int(contents[0].get(b"number", b"0"))
        assert told <= stands <= told + 1
        model = {}
        for number in range(1, stands + 1):
            model |= dict.fromkeys(keys_of(number), b"%d" % number)
        assert contents[0] == (model | {b"number": b"%d" % stands} if stands else {})
    finally:
        storage.close()


def kill_and_check(url: str, kills: int) -> None:
    storage = Storage(url)
    storage.open()
    for name in VERSIONS:
        storage.begin(name)
    storage.close()
    chosen, last = random.Random(1), 0
    for _ in range(kills):
        last = max(last, killed(url, chosen))
        check(url, last)
    assert last > kills


def killed(url: str, chosen: random.Random) -> int:
    """The last commit that was acknowledged to who wrote; 0 for none."""
    reading, writing = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=write, args=(url, writing))
    process.start()
    os.close(writing)
    with open(reading, "rb", buffering=0) as lines:  # noqa: PTH123
        heard = b""
        for _ in range(chosen.randrange(1, 12)):
            heard += lines.read(1000)
        until = time.monotonic() + chosen.random() * 0.01
        while time.monotonic() < until:
            pass
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        heard += lines.read()
    assert process.exitcode == -signal.SIGKILL
    return int((heard.split() or [b"0"])[-1])


@pytest.mark.slow
def test_what_was_acknowledged_is_there_after_a_kill_on_sqlite() -> None:
    folder = Path(tempfile.mkdtemp(prefix="vb-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        kill_and_check(f"sqlite:///{folder}/versionbase.sqlite", KILLS)
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_what_was_acknowledged_is_there_after_a_kill_on_postgres(postgres: Postgres) -> None:
    with postgres.superuser() as superuser:
        superuser.execute("CREATE DATABASE killed")
    try:
        kill_and_check(postgres.url("postgres", "killed"), KILLS // 2)
    finally:
        with postgres.superuser() as superuser:
            superuser.execute("DROP DATABASE killed WITH (FORCE)")
