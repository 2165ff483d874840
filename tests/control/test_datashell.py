"""A shell on a copy of data has the copy, and nothing of those whose data they are."""

from pathlib import Path

import pytest

from lazycloud.control.datashell import _on
from lazycloud.errors import BadInput
from lazycloud.walls.view import View
from lazycloud.workers.worker import Launch


def launch(url: str) -> Launch:
    environment = {
        "PATH": "/usr/bin",
        "DATABASE_URL": url,
        "DATA_DIR": "/data/production/files",
        "REDIS_URL": "redis://:secret@127.0.0.1:7777/0",
        "API_KEY": "secret",
    }
    view = View(Path("/home/l"), write=(Path("/data/production"),))
    return Launch("", Path("/release"), environment, Path("/log"), view=view, data=(Path("/data/production"),),
                  reaches=(7777,))  # fmt: skip


def test_a_shell_on_a_copy_is_told_of_the_copy_alone() -> None:
    """A developer may have one of production's, whose Redis and variables are its owners'."""
    made = _on(launch("sqlite:////data/production/database.sqlite"), Path("/copy"))
    assert made.environment == {
        "PATH": "/usr/bin",
        "DATABASE_URL": "sqlite:////copy/database.sqlite",
        "DATA_DIR": "/copy/files",
    }
    assert made.view and made.view.write == (Path("/copy"),)
    assert (made.data, made.reaches) == ((Path("/copy"),), ())


def test_what_is_in_a_server_has_no_copy_to_be_opened() -> None:
    with pytest.raises(BadInput, match="Only SQLite"):
        _on(launch("postgresql://a:b@localhost/c"), Path("/copy"))
