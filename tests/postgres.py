"""A Postgres server of the tests' own: in a temporary folder, and gone with them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.ports import free_port
from tests.waiting import PATIENCE

MEMORY = Path("/dev/shm")  # a database is some hundred files, which are to be written
PACKAGES = Path("/usr/lib/postgresql")
SUPERUSER, ADMIN, PASSWORD = "postgres", "lazycloud", "s3cret/of+admins"
IN_URL = PASSWORD.replace("/", "%2F").replace("+", "%2B")


class Postgres:
    """`start` and `stop` as often as is liked. Everybody needs a password, on each way in."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.programs = programs
        self.data = folder / "data"
        self.port = free_port()

    def make(self) -> Postgres:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        words = [
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]
        self._run("initdb", f"--pgdata={self.data}", f"--username={SUPERUSER}", *words)
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"port = {self.port}\nunix_socket_directories = '{self.folder}'\n"
                "fsync = off\nfull_page_writes = off\nmax_connections = 60\n"
            )
        self.start()
        with self.superuser() as superuser:
            superuser.execute(f"CREATE ROLE {ADMIN} LOGIN CREATEDB CREATEROLE PASSWORD '{PASSWORD}'")
            superuser.execute(f"GRANT CONNECT ON DATABASE postgres TO {ADMIN}")  # when all others may no more
        return self

    def start(self) -> None:
        self._run("pg_ctl", "--wait", f"--pgdata={self.data}", f"--log={self.folder / 'log'}", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "--wait", f"--pgdata={self.data}", "--mode=immediate", "stop")

    def url(self, user: str = ADMIN, database: str = "postgres") -> str:
        return f"postgresql://{user}:{IN_URL}@127.0.0.1:{self.port}/{database}"

    def superuser(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.url(SUPERUSER), autocommit=True)

    def rows(self, query: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """What the superuser sees."""
        with psycopg.connect(self.url(SUPERUSER, database), autocommit=True) as superuser:
            return superuser.execute(query.encode()).fetchall()

    def databases(self) -> list[str]:
        return [str(row[0]) for row in self.rows("SELECT datname FROM pg_database ORDER BY 1")]

    def roles(self) -> list[str]:
        return [
            str(row[0])
            for row in self.rows("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")
        ]

    def _run(self, program: str, *words: str) -> None:
        """As the user postgres where we are root, which the server refuses to be."""
        before: Sequence[str] = ()
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            before = (
                "setpriv",
                f"--reuid={account.pw_uid}",
                f"--regid={account.pw_gid}",
                "--clear-groups",
                "--",
            )
        log = self.folder / "commands"
        with log.open("ab") as output:  # no pipe: the server would hold it open
            done = subprocess.run(
                [*before, str(self.programs / program), *words],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=PATIENCE,
                start_new_session=True,  # a Ctrl-C is for the tests
            )
        assert done.returncode == 0, log.read_text()[-4000:]


@contextmanager
def postgres_running() -> Iterator[Postgres]:
    """In a folder with a short name: a socket is made in it."""
    on_path = shutil.which("initdb")  # which Debian's packages do not put there: it is there on purpose
    newest = max(PACKAGES.glob("*/bin/initdb"), key=lambda place: int(place.parts[-3]), default=None)
    found = Path(on_path) if on_path else newest
    if found is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("there is no initdb: install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=MEMORY if MEMORY.is_dir() else None))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    folder.chmod(0o755)
    server = Postgres(folder, found.parent)
    try:
        yield server.make()
    finally:
        if (server.data / "postmaster.pid").exists():
            server.stop()
        shutil.rmtree(folder)
