"""The database's own program on the data of a version, or on a copy of those of a snapshot.

It runs where the commit's workers run, in their walls: such programs can read files and start others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from lazycloud.control.console import Console, Wish
from lazycloud.data.versions import DATABASE, FILES
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.errands import Errands
from lazycloud.deployments.snapshots import Data, shown
from lazycloud.errors import BadInput
from lazycloud.workers.errand import Errand
from lazycloud.workers.worker import Launch

SCHEME = "sqlite:///"
PLAIN = (
    "PATH",
    "LANG",
    "HOME",
    "TMPDIR",
    "TZ",
    "TERM",
    "LAZYCLOUD_WORKER",
)  # variables that tell nothing of an app

# python -m sqlite3 is there from 3.12 on; what it is given is a copy, if it is to change nothing.
_PROGRAM = """
case "$DATABASE_URL" in
sqlite:///*)
  file="${DATABASE_URL#sqlite:///}"
  command -v sqlite3 > /dev/null && exec sqlite3 FLAGS "$file"
  for python in python3 python3.14 python3.13 python3.12; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2> /dev/null && exec "$python" -m sqlite3 "$file"
  done
  echo "The program sqlite3 is missing on the server; Debian and others have it as the package sqlite3." >&2 ;;
postgres*)
  command -v psql > /dev/null && exec psql
  echo "The program psql is missing on the server; Debian has it as the package postgresql-client." >&2 ;;
*)
  echo "There is no shell for this kind of database." >&2 ;;
esac
exit 127
"""


class DataShell:
    def __init__(self, console: Console, errands: Errands) -> None:
        self._console = console
        self._errands = errands

    async def open(
        self, request: web.Request, app: App, deployment: Deployment, data: Data, on_copy: bool, who: str
    ) -> web.WebSocketResponse:
        """As long as the client is there. `on_copy`: nothing that is done to them is kept."""
        told = f"a database shell{' on a copy' if on_copy else ''}"
        if data.snapshot:
            told = f"a database shell on {shown(data.version)}@{data.snapshot}"

        @asynccontextmanager
        async def begin(wish: Wish) -> AsyncIterator[Errand]:
            if not on_copy:
                async with self._errands.begin(
                    deployment, _program(False), wish.terminal, who, told
                ) as errand:
                    yield errand
                return
            async with (
                app.versions.unfolded(data.version, data.snapshot) as place,
                self._errands.begin(
                    deployment, _program(True), wish.terminal, who, told, lambda launch: _on(launch, place)
                ) as errand,
            ):
                yield errand

        return await self._console.hold(request, deployment, begin)


def _program(read_only: bool) -> str:
    return _PROGRAM.replace("FLAGS", "-readonly" if read_only else "")


def _on(launch: Launch, place: Path) -> Launch:
    """With data elsewhere, and nothing else of what its workers have: a copy is shown to more people than these are.

    So neither the app's variables nor the server of a Redis. Raises BadInput where the data are not files.
    """
    if not launch.environment["DATABASE_URL"].startswith(SCHEME):
        raise BadInput(
            "Only SQLite databases can be opened as they were.",
            "`lazycloud data fork` gives the data of a snapshot to a commit, or export them.",
        )
    environment = {
        **{name: text for name, text in launch.environment.items() if name in PLAIN},
        "DATABASE_URL": f"{SCHEME}{place / DATABASE}",
        "DATA_DIR": str(place / FILES),
    }
    view = replace(launch.view, write=(place,)) if launch.view else None
    return replace(launch, environment=environment, view=view, data=(place, *launch.data[1:]), reaches=())
