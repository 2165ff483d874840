"""What is kept of the past of a database is told from another past that went on in the same WAL."""

from __future__ import annotations

from pathlib import Path

from lazycloud.data import image, wal
from lazycloud.data.archive import Archive

from .wals import written

PAGE = 4096


def page(letter: bytes) -> bytes:
    return letter * PAGE


def test_a_moment_of_another_history_in_a_wal_of_the_same_salts_is_not_there(tmp_path: Path) -> None:
    image.empty(tmp_path / "base")
    common, salts = [(2, 2, page(b"a"))], (1, 2)
    marks = {}
    for name in ("one", "other"):
        (tmp_path / name).write_bytes(
            written([*common, (2, 2, page(b"o" if name == "one" else b"p"))], PAGE, salts)
        )
        with (tmp_path / name).open("rb") as log:
            marks[name] = wal.last(log.fileno())
    archive = Archive(tmp_path / "archive")
    with (tmp_path / "base").open("rb") as base, (tmp_path / "one").open("rb") as log:
        archive.copy_base("g1", base.fileno())
        archive.admit("g1", None, 1)
        archive.append("g1", log.fileno(), marks["one"])
        archive.settle("g1", marks["one"])
    found = archive.find("g2", marks["one"])
    assert found and found.id == "g1"
    assert archive.find("g2", marks["other"]) is None
