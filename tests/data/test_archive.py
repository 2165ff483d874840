"""What is kept of a live WAL, which its app may have made up."""

import os
from pathlib import Path

import pytest

from lazycloud.data import image, wal
from lazycloud.data.archive import Archive
from lazycloud.data.wal import FRAME, HEADER, Mark
from lazycloud.errors import Unavailable

from .wals import written

SALTS, SIZE = (7, 9), 4096


def test_a_wal_of_holes_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    """It takes no room where it is, so no limit of its app's keeps it from being 4 GB."""
    image.empty(tmp_path / "base")
    frames = [(1, 1, bytes(SIZE)), (1, 1, b"x" * SIZE)]
    (tmp_path / "log").write_bytes(written(frames, SIZE, SALTS))
    archive = Archive(tmp_path / "archive")
    with (tmp_path / "base").open("rb") as base, (tmp_path / "log").open("r+b") as log:
        mark = wal.last(log.fileno())
        archive.copy_base("one", base.fileno())
        archive.admit("one", None, 0)
        archive.append("one", log.fileno(), mark)
        archive.settle("one", mark)
        forged = Mark(*SALTS, 1_000_000, 1, 1, 1, SIZE)
        about = b"".join(number.to_bytes(4, "big") for number in (1, 1, *SALTS, 1, 1))
        os.pwrite(log.fileno(), about, forged.end - FRAME - SIZE)
        os.truncate(log.fileno(), forged.end)
        with pytest.raises(Unavailable, match="damaged"):
            archive.append("one", log.fileno(), forged)
        with pytest.raises(Unavailable, match="started over"):
            archive.append("one", log.fileno(), mark._replace(frame=100, page_size=512))
    kept = tmp_path / "archive" / "one" / "wal"
    assert kept.read_bytes() == written(frames, SIZE, SALTS)
    assert kept.stat().st_size == HEADER + 2 * (FRAME + SIZE)
