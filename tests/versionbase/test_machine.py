"""Stores on SQLite and on Postgres against a model. More steps: `make stress-versionbase STEPS=100000`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from lazycloud.versionbase.tables import metadata
from tests.postgres import MEMORY, Postgres
from tests.versionbase.machine import Machine, small_nodes

STEPS = int(os.environ.get("LAZYCLOUD_VERSIONBASE_STEPS", "2000"))  # on SQLite; a quarter of them on Postgres
AT_ONCE = 50  # steps of one store


def run(make_url: Callable[[], str], steps: int) -> None:
    machine = type("Machine", (Machine,), {"make_url": staticmethod(make_url)})
    chosen = settings(
        max_examples=max(1, steps // AT_ONCE),
        stateful_step_count=AT_ONCE,
        deadline=None,
        derandomize="LAZYCLOUD_VERSIONBASE_STEPS" not in os.environ,  # the same ones each time, in CI
        suppress_health_check=list(HealthCheck),
    )
    with small_nodes():
        run_state_machine_as_test(machine, settings=chosen)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory: a disk is not what is tried here."""
    made = Path(tempfile.mkdtemp(prefix="vb-", dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_store_on_sqlite_is_what_its_model_is(folder: Path) -> None:
    def make_url() -> str:
        for left in folder.iterdir():
            left.unlink()
        return f"sqlite:///{folder}/versionbase.sqlite"

    run(make_url, STEPS)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_store_on_postgres_is_what_its_model_is(postgres: Postgres) -> None:
    def make_url() -> str:
        with postgres.superuser() as superuser:
            superuser.execute("DROP TABLE IF EXISTS " + ", ".join(metadata.tables))
        return postgres.url("postgres")

    run(make_url, STEPS // 4)
