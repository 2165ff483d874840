"""What folders take of the disk."""

import os
from pathlib import Path

from lazycloud.walls.space import taken


def test_what_is_too_deep_for_a_path_is_counted(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    with os.fdopen(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as file:
        file.write(os.urandom(1_000_000))
        os.fsync(file.fileno())
    os.close(here)
    assert taken([tmp_path]) >= 1_000_000
