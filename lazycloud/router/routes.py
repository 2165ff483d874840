"""Where hosts lead, as control last said. Pure: the table only answers and forgets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TypeVar

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})")
ROUTES_MAX = 65_536  # hosts: more live commits than a machine has memory for; some 20 MB
PASSING_MAX = 4096  # hosts at which nothing is; who tries more of them in a second is asked for each

_Kept = TypeVar("_Kept")
_REASON = re.compile(r"[a-z][a-z-]{0,31}")


class BadRoute(ValueError):
    """Control said something that is no route; the text says what."""


@dataclass(frozen=True, slots=True)
class ToWorker:
    """Relay to the worker at one of `addresses` (`ip:port`, IPv6 in brackets); there is at least one.

    `login`: only for who may see previews.
    """

    deployment: str
    addresses: tuple[str, ...]
    login: bool = False


@dataclass(frozen=True, slots=True)
class ToControl:
    """Relay to control, which is told the reason in `Lazycloud-Reason`."""

    reason: str


Route = ToWorker | ToControl


def read_route(said: object) -> Route:
    """The route in control's message. Raises BadRoute."""
    if not isinstance(said, dict):
        raise BadRoute("it names no route")
    if said.get("to") == "worker":
        deployment = said.get("deployment")
        addresses = read_addresses(said.get("addresses", [said.get("address")]))
        if not (isinstance(deployment, str) and addresses):
            raise BadRoute("a route to a worker needs a deployment and an address")
        return ToWorker(deployment, addresses, said.get("login") is True)
    reason = said.get("reason", "page")
    if said.get("to") == "control" and isinstance(reason, str) and _REASON.fullmatch(reason):
        return ToControl(reason)
    raise BadRoute(f"no route: {said!r:.120}")


def read_addresses(said: object) -> tuple[str, ...]:
    """The addresses of workers in control's message. Raises BadRoute."""
    if not (isinstance(said, list) and all(isinstance(address, str) for address in said)):
        raise BadRoute(f"no addresses: {said!r:.120}")
    for address in said:
        split_address(address)
    return tuple(dict.fromkeys(said))


def split_address(address: str) -> tuple[str, int]:
    """`127.0.0.1:80` and `[::1]:80` to host and port; names are refused, so that nothing is looked up."""
    found = _ADDRESS.fullmatch(address)
    try:
        if found is None or not 0 < int(found[3]) < 65536:
            raise ValueError
        return str(ip_address(found[1] or found[2])), int(found[3])
    except ValueError as error:
        raise BadRoute(f"“{address:.60}” is not an IP address and a port") from error


class Table:
    """Host (normalised) -> route. What it lacks, control is asked for; bounded, since strangers name hosts."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._passing: dict[str, tuple[Route, float]] = {}  # with the time at which it is forgotten
        self.find = self._routes.get  # called for every request

    def __len__(self) -> int:
        return len(self._routes)

    def find_passing(self, host: str, now: float) -> Route | None:
        """What was kept for a while only, such as that nothing is there. `now` as in `keep_until`."""
        found = self._passing.get(host)
        if found is None:
            return None
        if found[1] < now:
            del self._passing[host]
            return None
        return found[0]

    def keep(self, host: str, route: Route) -> None:
        """Until it is forgotten, or many others were kept since."""
        self._passing.pop(host, None)
        _put(self._routes, host, route, ROUTES_MAX)

    def keep_until(self, host: str, route: Route, end: float) -> None:
        """At most until `end`, of any clock that `find_passing` is asked with."""
        if host not in self._routes:
            _put(self._passing, host, (route, end), PASSING_MAX)

    def drop(self, host: str, route: Route) -> None:
        """Forget `host` if it still leads where `route` does."""
        if self._routes.get(host) == route:
            del self._routes[host]

    def move(self, deployment: str, addresses: tuple[str, ...]) -> set[str]:
        """Every host that leads to `deployment` leads to these now, or is forgotten; the addresses it had before."""
        found = {
            host: route
            for host, route in self._routes.items()
            if isinstance(route, ToWorker) and route.deployment == deployment
        }
        if addresses:
            self._routes |= {host: replace(route, addresses=addresses) for host, route in found.items()}
        else:
            self.forget_hosts(found)
        return {address for route in found.values() for address in route.addresses}

    def forget_hosts(self, hosts: Iterable[str]) -> None:
        """Those, and all that was kept for a while: something has moved."""
        for host in hosts:
            self._routes.pop(host, None)
        self._passing.clear()

    def forget_all(self) -> None:
        self._routes.clear()
        self._passing.clear()


def _put(table: dict[str, _Kept], host: str, kept: _Kept, limit: int) -> None:
    table.pop(host, None)
    if len(table) >= limit:
        del table[next(iter(table))]  # the one kept first
    table[host] = kept
