"""Sealed folders, for the user that servers usually run as: root's rights would hide what is wrong."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest

from lazycloud.build.marker import remove
from lazycloud.build.seal import seal
from tests.waiting import PATIENCE

NOBODY = 65534


def _use(folder: Path) -> None:
    """Exits 0 when all is as it should be."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    deep = folder / "made/a/b"
    deep.mkdir(parents=True)
    (folder / "made/cache").mkdir()
    (deep / "file").write_text("as it was made")
    seal(folder / "made", ["cache"])
    for place in (deep / "file", deep / "new", folder / "made/a/new"):
        with pytest.raises(PermissionError):
            place.write_text("changed")
    (folder / "made/cache/file").write_text("may be written")
    remove(folder / "made")
    assert not (folder / "made").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs the right to become another user")
def test_who_is_not_root_cannot_write_to_what_is_sealed_and_can_remove_it() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        os.chown(name, NOBODY, NOBODY)
        process = multiprocessing.get_context("fork").Process(target=_use, args=(Path(name),))
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 0
