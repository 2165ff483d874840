"""Forks that are behind their walls before anybody says what they are to run, while data is still being copied.

To make walls and to go behind them takes longer than all else of a preloaded start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from lazycloud.walls.view import View
from lazycloud.workers.preload.parent import WAITS, Parent, said
from lazycloud.workers.preload.unsuitable import Unsuitable

LIMIT = 8  # that wait at once
PATIENCE = 2.0  # seconds for one to be behind its walls
Places = frozenset[Path]
UNUSED = 30.0  # seconds after which one that nobody wanted is ended: a release command may take longer


@dataclass(frozen=True)
class Waiting:
    """A fork of `parent`, a process `pid` which sees `view` from `folder`, and waits for its order on `report`."""

    parent: Parent
    folder: Path
    view: View
    report: socket.socket
    pid: int

    def suits(self, parent: Parent, folder: Path, view: View) -> bool:
        """Whether it sees exactly that: the folders that it writes to may have been made anew meanwhile."""
        places = _written(view)
        return (
            (self.parent, self.folder, _fixed(self.view), _written(self.view))
            == (parent, folder, _fixed(view), places)
            and not view.copies
            and all(self._sees(place) for place in places)
        )

    def _sees(self, place: Path) -> bool:
        try:
            return os.path.samestat(os.stat(f"/proc/{self.pid}/root{place}"), place.stat())  # noqa: PTH116 - no link of theirs
        except OSError:
            return False


class Ahead:
    """One for each place that workers write to. Belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[Places, asyncio.Task[Waiting]] = {}
        self._parents: dict[Places, Parent] = {}

    def make(self, parent: Parent, folder: Path, view: View) -> None:
        """One that `take` may be asked for soon."""
        name = _written(view)
        self.drop(name)
        while len(self._tasks) >= LIMIT:
            self.drop(next(iter(self._tasks)))
        self._parents[name] = parent
        task = asyncio.create_task(_wait_behind_walls(parent, folder, view), name=f"walls for {folder}")
        self._tasks[name] = task
        asyncio.get_running_loop().call_later(UNUSED, self._end_unused, name, task)

    async def take(self, parent: Parent, folder: Path, view: View) -> socket.socket | None:
        """Where one that suits waits for its order; None if there is none."""
        name = _written(view)
        task = self._tasks.pop(name, None)
        if task is None:
            return None
        self._parents.pop(name)
        try:
            waiting = await task
        except Unsuitable:
            return None
        except asyncio.CancelledError:
            _end(task)
            raise
        if waiting.suits(parent, folder, view):
            return waiting.report
        waiting.report.close()
        return None

    def drop(self, name: Places) -> None:
        if task := self._tasks.pop(name, None):
            del self._parents[name]
            _end(task)

    def leave(self, parent: Parent) -> None:
        """End its forks."""
        for name in [name for name, other in self._parents.items() if other is parent]:
            self.drop(name)

    def close(self) -> None:
        for name in list(self._tasks):
            self.drop(name)

    def _end_unused(self, name: Places, task: asyncio.Task[Waiting]) -> None:
        if self._tasks.get(name) is task:
            self.drop(name)


async def _wait_behind_walls(parent: Parent, folder: Path, view: View) -> Waiting:
    report = await parent.begin(folder, view)
    try:
        async with asyncio.timeout(PATIENCE):
            line, pid = await said(report)
        if line != WAITS:
            raise Unsuitable(line)
    except TimeoutError:
        report.close()
        raise Unsuitable("it was not behind its walls in time") from None
    except BaseException:
        report.close()
        raise
    return Waiting(parent, folder, view, report, pid)


def _end(task: asyncio.Task[Waiting]) -> None:
    """A fork ends when nobody is left who could order something."""
    task.cancel()
    task.add_done_callback(_close)


def _close(task: asyncio.Task[Waiting]) -> None:
    with contextlib.suppress(asyncio.CancelledError, Unsuitable):
        task.result().report.close()


def _written(view: View) -> Places:
    places = (*view.write, *(place for _, place in view.copies), *((view.scratch,) if view.scratch else ()))
    return frozenset(places)


def _fixed(view: View) -> View:
    return replace(view, write=(), copies=())
