"""Whatever is done to a versionbase, on SQLite and on Postgres, it is as the plain model is.

More by `make stress-versionbase`.
"""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.postgres import Postgres
from tests.versionbase.beside_model import Machine, SqlitePlace

NUMBERS = itertools.count(1)
STEPS = int(os.environ.get("LAZYCLOUD_VERSIONBASE_STEPS", "2000"))  # on SQLite; half as many on Postgres
AT_ONCE = 60


def tried(examples: int) -> settings:
    return settings(
        max_examples=max(1, examples),
        stateful_step_count=AT_ONCE,
        derandomize="LAZYCLOUD_VERSIONBASE_STEPS" not in os.environ,  # the same ones each time, in CI
        deadline=None,
        suppress_health_check=[*HealthCheck],
        report_multiple_bugs=False,
    )


class PostgresPlace:
    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._name = f"versionbase_{next(NUMBERS)}"
        with server.superuser() as superuser:
            superuser.execute(f"CREATE DATABASE {self._name} STRATEGY WAL_LOG OWNER lazycloud".encode())
        self.url = server.url(database=self._name)

    def crash(self) -> None:
        with self._server.superuser() as superuser:
            superuser.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self._name]
            )

    def remove(self) -> None:
        with self._server.superuser() as superuser:
            superuser.execute(f"DROP DATABASE {self._name} WITH (FORCE)".encode())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.timeout(600)  # a failure is made small first
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # of long texts, on purpose
def test_on_sqlite() -> None:
    class OnSqlite(Machine):
        place = SqlitePlace

    run_state_machine_as_test(OnSqlite, settings=tried(STEPS // AT_ONCE))  # type: ignore[no-untyped-call]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.timeout(600)  # a failure is made small first
@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # of long texts, on purpose
def test_on_postgres(postgres: Postgres) -> None:
    class OnPostgres(Machine):
        @staticmethod
        def place() -> PostgresPlace:
            return PostgresPlace(postgres)

    run_state_machine_as_test(OnPostgres, settings=tried(STEPS // AT_ONCE // 2))  # type: ignore[no-untyped-call]
