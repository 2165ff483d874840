"""What a router is told at its start: sockets, secrets, limits and deadlines. One frozen value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, get_type_hints

from lazycloud.certificates import Files
from lazycloud.errors import BadInput

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes are bytes, times are seconds. The reason of each limit stands beside it."""

    listen_fds: tuple[int, ...]
    control: str  # path of control's HTTP unix socket
    link: str  # path of control's link unix socket
    lifeline: int | None = None  # reading end of a pipe; its end means that the parent is gone
    ready: int | None = None  # writing end of a pipe that is told, in a line of JSON, when we accept
    pulse: int | None = None  # the same of a pipe that is told that we move
    public_scheme: str = "http"
    preview_key: bytes = b""  # signs preview cookies; empty: no cookie is valid
    token_sha256: str = ""  # hex; empty: no token is valid
    trusted_proxies: tuple[Network, ...] = ()  # peers whose X-Forwarded-* are believed
    access_log: str = ""  # a file, or - for standard output; empty: none is written
    tls: tuple[Files, ...] = ()  # certificates by name, the first for other names; none: plain HTTP
    redirect_fds: tuple[int, ...] = ()  # those of listen_fds that only send clients to https
    https_port: int = 443  # where they are sent

    target_max: int = 16 * 1024  # twice what browsers and CDNs let through
    head_max: int = 64 * 1024  # sums of large cookies stay under 32 KiB; a worker's head likewise
    body_max: int | None = None  # None: as large as the worker takes
    ahead_max: int = 64 * 1024  # bytes of pipelined requests kept while one is in flight
    write_max: int = 1024 * 1024  # of an answer kept for a slow client, so that it does not hold a worker
    write_total: int = 256 * 1024 * 1024  # of it for all clients together, about; beyond it each has 64 KiB
    held_max: int = 1024  # requests waiting for control's answer: a file descriptor and a few KiB each
    held_app_max: int = 512  # of them for one app, so that a cold one leaves room for others
    pool_max: int = 256  # idle connections kept per worker: more than any worker serves at once
    pool_total: int = 2048  # of them over all workers: descriptors are for clients too
    backlog: int = 2048  # what the kernel keeps while a router is replaced
    robots: tuple[str, ...] = ("bot/", "bot-", "bot;", "bot)", "spider", "crawler", "slurp", "externalhit")

    head_timeout: float = 30.0  # from a head's first byte to its last: a drip-feeding client
    keep_alive: float = 75.0  # a client's idle connection; browsers give up at about this
    connect_timeout: float = 5.0  # workers are on this machine or next to it
    answer_timeout: float = 120.0  # from the request's last byte to the answer's first
    upload_rate: int = 500  # bytes/s of a body on average, after head_timeout: drips would hold a worker
    idle_timeout: float = 300.0  # between two bytes of a body, in either direction
    pool_idle: float = 55.0  # under the 60 s at which most servers close an idle connection
    link_wait: float = 30.0  # control restarts in less, also on a busy machine
    held_timeout: float = 1800.0  # control's own deadline is shorter and has a better sentence
    linger: float = 5.0  # reading on after an early answer, so that no reset swallows it
    drain_timeout: float = 10.0  # for requests in flight at a stop
    leave_timeout: float = 3600.0  # for downloads and websockets of a router that was replaced
    tls_look: float = 1.0  # how often certificates are looked at; a new one is used at the second look
    sweep: float = 1.0  # how often deadlines are looked at, and so how exact they are
    report: float = 1.0  # how often activity is told to control


_READERS: dict[str, Callable[[Any], object]] = {
    "preview_key": bytes.fromhex,
    "trusted_proxies": lambda value: tuple(ip_network(each) for each in value),
    "listen_fds": lambda value: tuple(int(each) for each in value),
    "robots": tuple,
    "tls": lambda value: tuple(Files(str(cert), str(key)) for cert, key in value),
    "redirect_fds": lambda value: tuple(int(each) for each in value),
}


_OF_THE_SERVER = {"held_max", "held_timeout", "drain_timeout"}  # they follow from settings of the server
_OURS = {"lifeline", "ready", "pulse", "https_port", "tls_look", "report", "sweep"}
_SIZES = {"target_max", "head_max", "body_max", "ahead_max", "write_max", "write_total", "upload_rate"}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) *(?:([kMGT]?)(i?)B)?", re.IGNORECASE)


def _is_number(name: str) -> bool:
    return get_type_hints(Settings)[name] in (int, float, int | None)


LIMITS: dict[str, Field[Any]] = {
    field.name: field
    for field in fields(Settings)
    if field.name == "robots" or (_is_number(field.name) and field.name not in _OURS | _OF_THE_SERVER)
}
"""What an operator may set in the table [router] of config.toml."""


def read_limits(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table [router] as `read_settings` takes it. Raises BadInput with the key that is wrong."""
    return {name: read_limit(name, value) for name, value in table.items()}


def read_limit(name: str, value: Any) -> Any:
    """One of LIMITS: bytes for a size ("10 MB", "64 KiB" or a number), else a count, seconds, or words."""
    if name not in LIMITS:
        raise BadInput(f"config.toml: [router] has no setting `{name}`.", _instead(name))
    if name == "robots":
        return _words(name, value)
    if name in _SIZES:
        return _size(name, value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    whole = get_type_hints(Settings)[name] is int
    if not number or not 0 < value < float("inf") or (whole and value != int(value)):
        wanted = "a whole number above 0" if whole else "a number of seconds above 0"
        raise BadInput(f"config.toml: [router] `{name}` cannot be {value!r}.", f"Give {wanted}.")
    return int(value) if whole else float(value)


def _instead(name: str) -> str:
    if name in ("held_max", "drain_timeout", "trusted_proxies"):
        return "It is a setting of the server: write it above all tables."
    near = get_close_matches(name, LIMITS, 1)
    return f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(sorted(LIMITS))}."


def _words(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise BadInput(f"config.toml: [router] `{name}` must be a list of words.", 'Such as ["bot/"].')
    return [word.lower() for word in value]


def _size(name: str, value: Any) -> int:
    found = None if isinstance(value, bool) else _SIZE.fullmatch(str(value).strip())
    if found is None:
        raise BadInput(
            f"config.toml: [router] `{name}` cannot be {value!r}.", 'Give bytes, or a size such as "64 KiB".'
        )
    number, prefix, binary = found.groups()
    factor = (1024 if binary else 1000) ** " kmgt".index((prefix or " ").lower())
    size = int(float(number) * factor)
    if not size:
        raise BadInput(f"config.toml: [router] `{name}` must be more than 0.")
    return size


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
