"""How the tests are shared out to the processes of `pytest -n 3`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

ENGINE = "container engine"


class Files(LoadFileScheduling):
    """Whole files go to one process, and all that use the container engine: a machine has room for one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return ENGINE if uses_engine(self.config.rootpath / file) else file


@cache
def uses_engine(file: Path) -> bool:
    return "dockerd: Dockerd" in file.read_text()
