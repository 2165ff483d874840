"""What bounds the workers of a server: a control group for each, a wall between their ports, and the watch.

Where there can be no groups, only the watch is left, and the limits of single processes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lazycloud.errors import StepFailed
from lazycloud.walls.groups import Group, Groups, entering, made_in_thread
from lazycloud.walls.ports import Wall
from lazycloud.workforce import Limits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bound:
    """What holds one start of a command. `group` None: nothing of the kernel's but limits of single processes."""

    limits: Limits = field(default_factory=Limits)
    group: Group | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """Before the command."""
        return entering(self.group, self.limits)

    @property
    def words_without_entering(self) -> tuple[str, ...]:
        """Before a command that enters by `doors` itself."""
        return entering(self.group, self.limits, by_itself=True)

    @property
    def doors(self) -> tuple[Path, ...]:
        """For a fork, which has the limits of its parent's processes: the files that it enters the group by."""
        return self.group.doors if self.group else ()

    @property
    def name(self) -> str:
        return self.group.name if self.group else ""

    def memory_ended(self) -> bool:
        return self.group is not None and self.group.memory_ended()


class Bounds:
    """Of one server. `limits` are those of what waits to be a worker.

    `groups` None: no groups are made, which is for tests of other things.
    """

    def __init__(
        self, groups: Groups | None = None, wall: Wall | None = None, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self._groups = groups
        self._wall = wall

    async def make(self, name: str, limits: Limits, port: int = 0, reaches: tuple[int, ...] = ()) -> Bound:
        """For a command that may listen on `port` only, 0 for none of workers'. Raises StepFailed.

        It may connect to those that it `reaches`, too.
        """
        return await made_in_thread(partial(self.make_now, name, limits, port, reaches), self.end_soon)

    def make_now(self, name: str, limits: Limits, port: int = 0, reaches: tuple[int, ...] = ()) -> Bound:
        """The same. Blocks for some milliseconds."""
        if self._groups is None or not name:
            return Bound(limits)
        try:
            return self._make(self._groups, name, limits, port, reaches)
        except OSError as problem:
            raise StepFailed(
                f"No control group could be made for it: {problem.strerror}.",
                "It is not started without its limits. `lazycloud doctor` says what this machine allows.",
            ) from problem

    def _make(self, groups: Groups, name: str, limits: Limits, port: int, reaches: tuple[int, ...]) -> Bound:
        group = groups.make(name, limits)
        if group is not None and group.unified and self._wall:
            try:
                why_not = self._wall.try_attach(group, port, reaches)
            except OSError:
                groups.drop(group)
                raise
            if why_not:
                log.warning("Workers are not kept from each other's ports: %s.", why_not)
                self._wall = None
        return Bound(limits, group)

    def find(self, name: str, limits: Limits) -> Bound:
        """That of a worker which an earlier control started."""
        return Bound(limits, self._groups.find(name) if self._groups else None)

    async def end(self, bound: Bound) -> None:
        """Nothing of what was started in it goes on. Idempotent; takes 5 s at most."""
        if bound.group and self._groups and not await asyncio.to_thread(bound.group.end):
            self._groups.drop(bound.group)

    def end_soon(self, bound: Bound) -> None:
        """The same without a wait: what dies slowly is removed later."""
        if bound.group and self._groups:
            bound.group.kill()
            self._groups.drop(bound.group)

    def kill(self, bound: Bound) -> None:
        if bound.group:
            bound.group.kill()

    async def end_others(self, spare: set[str]) -> None:
        """Of a control that was killed: all that nobody watches any more."""
        if self._groups and (ended := await asyncio.to_thread(self._groups.end_others, spare)):
            log.warning("Ended what nobody watched any more: %s.", ", ".join(ended))

    async def hasten(self) -> None:
        if self._groups:
            await asyncio.to_thread(self._groups.hasten)

    def entered(self) -> None:
        if self._groups:
            self._groups.entered()

    async def close(self) -> None:
        if self._groups:
            await asyncio.to_thread(self._groups.close)


NO_BOUNDS = Bounds()
