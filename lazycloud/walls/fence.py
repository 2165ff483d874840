"""A fence around commands of builds that may use the network: what is behind it reaches no worker, and listens on no
port of theirs or of lazycloud's own.

It is the wall between workers' ports around a control group that counts nothing: builds have limits of their own.
Where the kernel allows none (ports.py says when), there is none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network

from lazycloud.walls.groups import Group, Groups, entering
from lazycloud.walls.ports import Wall
from lazycloud.workforce import Limits

UNLIMITED = Limits(processes=0, files=0)

log = logging.getLogger(__name__)


class Fence:
    """Of one server. Thread-safe. `networks`: where only workers are, asked for each build."""

    def __init__(
        self, groups: Groups, wall: Wall, networks: Callable[[], tuple[IPv4Network, ...]] = tuple
    ) -> None:
        self._groups = groups
        self._networks = networks
        self._wall: Wall | None = wall

    def make(self, name: str) -> Group | None:
        """A group behind it, None where there is none. Blocks for some milliseconds; raises OSError."""
        wall = self._wall
        group = self._groups.make_uncounted(name) if wall else None
        if wall is None or group is None:
            return None
        try:
            why_not = replace(wall, networks=self._networks()).try_attach(group, 0)
        except OSError:
            self._groups.drop(group)
            raise
        if why_not:
            self._groups.drop(group)
            log.warning("Builds are not kept from workers' ports: %s.", why_not)
            self._wall = None
            return None
        return group

    def end(self, group: Group) -> None:
        """Nothing that ran in it goes on. Blocks, for 5 s at most."""
        if not group.end():
            self._groups.drop(group)

    def drop(self, group: Group | None) -> None:
        """One in which nothing has run."""
        if group:
            self._groups.drop(group)

    def close(self) -> None:
        self._groups.close()


def words(group: Group) -> Sequence[str]:
    """Before a command that is to run in the group."""
    return entering(group, UNLIMITED)
