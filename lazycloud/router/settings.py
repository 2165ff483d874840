"""What a router is told at its start: sockets, secrets, limits and deadlines. One frozen value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, get_type_hints

from lazycloud.errors import BadInput

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes are bytes, times are seconds. The reason of each limit stands beside it."""

    listen_fds: tuple[int, ...]
    control: str  # path of control's HTTP unix socket
    link: str  # path of control's link unix socket
    lifeline: int | None = None  # reading end of a pipe; its end means that the parent is gone
    public_scheme: str = "http"
    preview_key: bytes = b""  # signs preview cookies; empty: no cookie is valid
    token_sha256: str = ""  # hex; empty: no token is valid
    trusted_proxies: tuple[Network, ...] = ()  # peers whose X-Forwarded-* are believed

    target_max: int = 16 * 1024  # twice what browsers and CDNs let through
    head_max: int = 64 * 1024  # sums of large cookies stay under 32 KiB; a worker's head likewise
    body_max: int | None = None  # None: as large as the worker takes
    ahead_max: int = 64 * 1024  # bytes of pipelined requests kept while one is in flight
    write_max: int = 1024 * 1024  # of an answer kept for a slow client, so that it does not hold a worker
    held_max: int = 1024  # requests waiting for control's answer: a file descriptor and a few KiB each
    held_host_max: int = 512  # of them for one host, so that one cold app leaves room for others
    pool_max: int = 256  # idle connections kept per worker: more than any worker serves at once
    backlog: int = 2048  # what the kernel keeps while a router is replaced
    robots: tuple[str, ...] = ("bot/", "bot-", "bot;", "bot)", "spider", "crawler", "slurp", "externalhit")

    head_timeout: float = 30.0  # from a head's first byte to its last: a drip-feeding client
    keep_alive: float = 75.0  # a client's idle connection; browsers give up at about this
    connect_timeout: float = 5.0  # workers are on this machine or next to it
    answer_timeout: float = 120.0  # from the request's last byte to the answer's first
    idle_timeout: float = 300.0  # between two bytes of a body, in either direction
    pool_idle: float = 55.0  # under the 60 s at which most servers close an idle connection
    link_wait: float = 10.0  # control restarts in less
    held_timeout: float = 1800.0  # control's own deadline is shorter and has a better sentence
    linger: float = 5.0  # reading on after an early answer, so that no reset swallows it
    drain_timeout: float = 10.0  # for requests in flight at a stop
    sweep: float = 1.0  # how often deadlines are looked at, and so how exact they are
    report: float = 1.0  # how often activity is told to control


_READERS: dict[str, Callable[[Any], object]] = {
    "preview_key": bytes.fromhex,
    "trusted_proxies": lambda value: tuple(ip_network(each) for each in value),
    "listen_fds": lambda value: tuple(int(each) for each in value),
    "robots": tuple,
}


def read_settings(text: str) -> Settings:
    """Settings from the JSON object given to `--settings`. BadInput names the key that is wrong."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise BadInput(f"The router's settings are not JSON: {error}.") from error
    if not isinstance(given, dict):
        raise BadInput("The router's settings must be a JSON object.")
    known = {field.name for field in fields(Settings)}
    if unknown := sorted(given.keys() - known):
        raise BadInput(f"The router has no setting “{unknown[0]}”.", f"It has: {', '.join(sorted(known))}.")
    if missing := sorted({"listen_fds", "control", "link"} - given.keys()):
        raise BadInput(f"The router's settings lack “{missing[0]}”.")
    return Settings(**{key: _read(key, given) for key in given})


def _read(key: str, given: Mapping[str, Any]) -> Any:
    try:
        value = _READERS[key](given[key]) if key in _READERS else given[key]
    except (TypeError, ValueError) as error:
        raise BadInput(f"The router's setting “{key}” is not right: {error}.") from error
    if not _fits(value, get_type_hints(Settings)[key]):
        raise BadInput(f"The router's setting “{key}” cannot be {given[key]!r}.")
    return value


def _fits(value: object, wanted: Any) -> bool:
    if isinstance(value, tuple):
        return True
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if wanted is float else wanted)
