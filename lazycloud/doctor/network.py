"""Addresses, names and certificates."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

from lazycloud.certificates import Files, complaints
from lazycloud.config import Config
from lazycloud.errors import LazycloudError
from lazycloud.findings import Finding, Weight
from lazycloud.listeners import try_listens

NAME_SECONDS = 3.0
ANY_LABEL = "lazycloud-doctor-asks"  # a name that nobody has made an entry for by hand


def names(config: Config) -> Iterator[Finding]:
    """Whether every name below the domain leads somewhere, as commits need it."""
    name = f"{ANY_LABEL}.{config.domain}"
    if addresses(name):
        yield Finding(Weight.FINE, "names", f"Every name below {config.domain} leads somewhere.")
    elif config.domain == "localhost" or config.domain.endswith(".localhost"):
        sentence = f"Programs of this machine do not find {name}. Browsers and curl do, by themselves."
        advice = "Others find it with libnss-myhostname or systemd-resolved, or by a Host header."
        yield Finding(Weight.LIMITED, "names", sentence, advice)
    else:
        sentence = f"The name {name} leads nowhere, so no commit can be opened."
        advice = f"Make entries for {config.domain} and *.{config.domain} in its DNS, to this machine."
        yield Finding(Weight.BROKEN, "names", sentence, advice)


def certificates(config: Config) -> Iterator[Finding]:
    try:
        for complaint in complaints(Files(*pair) for pair in config.tls):
            yield Finding(Weight.BROKEN, "https", complaint, "Renew it; the new file is used by itself.")
    except LazycloudError as problem:
        yield Finding(Weight.BROKEN, "https", problem.sentence, problem.advice)


def ports(config: Config) -> Iterator[Finding]:
    """Only where no server of these settings runs, which has them."""
    try:
        try_listens(config.listen, ())
    except LazycloudError as problem:
        yield Finding(Weight.BROKEN, "ports", problem.sentence, problem.advice)
    else:
        shown = " and ".join(map(str, config.listen))
        yield Finding(Weight.FINE, "ports", f"{shown} can be listened on.")


LOOKS = (names, certificates)


def addresses(name: str) -> list[str]:
    """Where a name leads; nowhere after some seconds without an answer, which only the name server can end."""
    found: list[str] = []

    def ask() -> None:
        with suppress(OSError, UnicodeError):
            found.extend(str(info[4][0]) for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM))

    asking = threading.Thread(target=ask, name="ask for a name", daemon=True)
    asking.start()
    asking.join(NAME_SECONDS)
    return list(found)
