"""What forks of a Postgres database take, beside copies by hand, and what whoever writes notices of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict

from figures import Column, Figure, Verdict, compare
from kept import timed
from lazycloud.data.names import PRODUCTION
from lazycloud.data.postgres import server as pg
from lazycloud.data.postgres.naming import Kind
from lazycloud.data.postgres.provider import Postgres
from lazycloud.data.postgres.server import Server
from run import Row, Sample
from trials import OURS, Take, Trials

CLONE, BY_HAND = "lazycloud, no spare", "pg_dump to psql"
ALONE, POURED, DUMPED = "alone", "while a template is poured", f"during {BY_HAND}"
WRITERS = 2
_WRITER = """
import psycopg, random, sys, time
session = psycopg.connect(sys.argv[1], autocommit=True)
while True:
    number = random.randrange(100000)
    began = time.perf_counter()
    with session.transaction():
        session.execute("UPDATE account SET balance = balance + 1 WHERE id = %s", [number])
        session.execute("INSERT INTO history (account) VALUES (%s)", [number])
    print(time.perf_counter() - began, flush=True)
"""

_FILL = """
INSERT INTO bulk (content) SELECT (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 60) WHERE i > 0)
FROM generate_series(1, %s) i
"""


@dataclass
class Forks(Trials):
    """On the server of `url`, whose role may make databases; `sizes` in MB."""

    url: str = ""
    sizes: Sequence[int] = (10, 1000)
    seconds: float = 8.0  # of writing alone


def forks(trials: Forks) -> list[Row]:
    rows: list[Row] = []
    for size in trials.sizes:
        if trials.only in (case := f"{size:,} MB"):
            with _production(trials, case, size) as (runner, provider, environment):
                rows += trials.interleaved(case, _ways(trials, runner, provider, environment))
    compare(rows, "seconds", BY_HAND)
    return rows


def _ways(
    trials: Forks, runner: asyncio.Runner, provider: Postgres, production: Mapping[str, str]
) -> Mapping[str, Take]:
    def forked(with_spares: bool) -> Sample:
        version = secrets.token_hex(20)
        if with_spares:
            runner.run(_spares(provider))
        else:
            runner.run(_no_spares(provider))
        with timed() as values:
            runner.run(provider.fork(version, PRODUCTION))
        runner.run(provider._pool.close())
        runner.run(provider.drop(version))
        return Sample(values)

    def by_hand() -> Sample:
        began = time.perf_counter()
        with _by_hand(trials.url) as name:
            _dump_into(production["DATABASE_URL"], trials.url, name)
            return Sample({"seconds": time.perf_counter() - began})

    return {OURS: lambda: forked(True), CLONE: lambda: forked(False), BY_HAND: by_hand}


@contextlib.contextmanager
def _by_hand(url: str) -> Iterator[str]:
    """An empty database."""
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield name
        finally:
            admin.execute(f'DROP DATABASE "{name}"'.encode())


def _dump_into(source: str, url: str, name: str) -> None:
    found = conninfo_to_dict(url)
    environment = {
        **os.environ,
        **{f"PG{key.upper()}": str(found[key]) for key in ("host", "port", "user", "password")},
    }
    dump = subprocess.Popen(["pg_dump", "--no-owner", source], stdout=subprocess.PIPE)
    words = ["psql", "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--dbname={name}"]
    subprocess.run(words, stdin=dump.stdout, stdout=subprocess.DEVNULL, check=True, env=environment)
    assert dump.wait() == 0


async def _spares(provider: Postgres) -> None:
    provider._pool.keep_up()
    assert provider._pool._upkeep
    await provider._pool._upkeep


async def _no_spares(provider: Postgres) -> None:
    async with provider._admin() as on:
        for one in await provider._databases.all(on):
            if one.facts.kind is Kind.SPARE:
                await pg.drop(on, one.name)


def writers(trials: Forks) -> list[Row]:
    """Seconds of one transaction of several that go on writing: alone, and while what they write to is copied."""
    rows: list[Row] = []
    for size in trials.sizes:
        if trials.only not in (case := f"{size:,} MB"):
            continue
        with _production(trials, case, size) as (runner, provider, environment):

            def alone(url: str = environment["DATABASE_URL"]) -> Sample:
                with _writing(url) as took:
                    time.sleep(trials.seconds)
                return _spread(took)

            def poured(url: str = environment["DATABASE_URL"], runner=runner, provider=provider) -> Sample:
                version = f"rehearsal-{secrets.token_hex(4)}"
                with _writing(url) as took:
                    runner.run(provider.fork(version, PRODUCTION))  # which pours a template of its own moment
                runner.run(provider._pool.close())
                runner.run(provider.drop(version))
                return _spread(took)

            def dumped(url: str = environment["DATABASE_URL"]) -> Sample:
                with _by_hand(trials.url) as name, _writing(url) as took:
                    _dump_into(url, trials.url, name)
                return _spread(took)

            rows += trials.interleaved(case, {ALONE: alone, POURED: poured, DUMPED: dumped})
    for key in ("p99", "p50"):
        compare(rows, key, ALONE)
        for row in rows:
            row.values[f"x {key}"] = row.values.pop(f"x {ALONE}")
    compare(rows, "p50", DUMPED)
    return rows


@contextlib.contextmanager
def _writing(url: str) -> Iterator[list[float]]:
    """What each transaction took meanwhile, in seconds."""
    took: list[float] = []
    running = [
        subprocess.Popen([sys.executable, "-c", _WRITER, url], stdout=subprocess.PIPE, text=True)
        for _ in range(WRITERS)
    ]

    def read(process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            took.append(float(line))

    readers = [threading.Thread(target=read, args=(process,)) for process in running]
    for reader in readers:
        reader.start()
    while len(took) < 100:
        time.sleep(0.01)
    took.clear()
    try:
        yield took
    finally:
        for process in running:
            process.kill()
            process.wait()
        for reader in readers:
            reader.join()


def _spread(took: list[float]) -> Sample:
    quantiles = statistics.quantiles(took, n=100)
    return Sample(
        {"seconds": statistics.mean(took), "p50": quantiles[49], "p99": quantiles[98], "count": len(took)}
    )


@contextlib.contextmanager
def _production(
    trials: Forks, case: str, size: int
) -> Iterator[tuple[asyncio.Runner, Postgres, Mapping[str, str]]]:
    """A database of that size, of rows that are not empty, of an app that only this has."""
    trials.say(f"{case}: filling it")
    with asyncio.Runner() as runner:
        provider = Postgres(Server(trials.url), "bench", secrets.token_bytes(32))
        try:
            runner.run(provider.fork(PRODUCTION, None))
            environment = runner.run(provider.environment(PRODUCTION))
            with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as session:
                session.execute("CREATE TABLE account (id int PRIMARY KEY, balance int)")
                session.execute("INSERT INTO account SELECT i, 0 FROM generate_series(0, 99999) i")
                session.execute("CREATE TABLE history (id bigserial PRIMARY KEY, account int)")
                session.execute("CREATE TABLE bulk (id bigserial PRIMARY KEY, content text)")
                session.execute(_FILL, [size * 490])
                session.execute("VACUUM ANALYZE")
            runner.run(_first(provider))
            yield runner, provider, environment
        finally:
            runner.run(provider.remove())
            runner.run(provider.close())


async def _first(provider: Postgres) -> None:
    """So that there is a template."""
    await provider.fork("0" * 40, PRODUCTION)
    await provider._pool.close()
    await provider.drop("0" * 40)


SPREAD = (Column("p50", "p50 ms", "{:.2f}", 1e3), Column("p99", "p99 ms", "{:.2f}", 1e3))

FIGURES = (
    Figure(
        "postgres",
        "A fork of a Postgres database",
        f"at most a tenth of {BY_HAND}",
        (Column("seconds", "ms", "{:,.0f}", 1e3), Column(f"x {BY_HAND}", f"× {BY_HAND}", "{:.3f}")),
        forks,
        lambda rows: [
            Verdict(f"{row.case}: × {BY_HAND}", row.values[f"x {BY_HAND}"], 0.1)
            for row in rows
            if row.peer == OURS
        ],
    ),
    Figure(
        "pouring",
        "Writers while a template is poured",
        f"p50 at most 1.2 × what it is {DUMPED}",
        (*SPREAD, Column("x p50", "p50 ×", "{:.2f}"), Column("x p99", "p99 ×", "{:.2f}")),
        writers,
        lambda rows: [
            Verdict(f"{row.case}: p50 × that {DUMPED}", row.values[f"x {DUMPED}"], 1.2)
            for row in rows
            if row.peer == POURED
        ],
    ),
)
