"""TLS towards clients: the certificate by the name they ask for, and plain words for who did not speak TLS.

Certificates are looked at again about once a second: a new one is for new connections, those that are open go on
with what they have, and a broken one leaves the one before it in use.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

from lazycloud.certificates import Certificate, Files, prepare, read
from lazycloud.errors import BadInput
from lazycloud.router import accept, troubles
from lazycloud.router.heads import normalise_host
from lazycloud.router.pages import Pages, new_request_id

_HOST = re.compile(rb"^host:([^\r\n]*)\r$", re.IGNORECASE | re.MULTILINE)

Stamp = tuple[tuple[int, int, int], ...]

log = logging.getLogger(__name__)


class Shelf:
    """The certificates in use, found by the name that a client asks for; the first is for all other names."""

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        self._default = certificates[0].context
        self._by_name: dict[str, ssl.SSLContext] = {}
        for certificate in certificates:
            for name in certificate.names:
                self._by_name.setdefault(name, certificate.context)

    def find(self, name: str | None) -> ssl.SSLContext:
        """By the whole name, else by a wildcard for its first label."""
        if not name:
            return self._default
        name = name.lower().removesuffix(".")
        wildcard = f"*.{name.partition('.')[2]}"
        return self._by_name.get(name) or self._by_name.get(wildcard) or self._default


class Handshake(ssl.SSLObject):
    """The server's side of one. A failed one ends in words: an alert, or HTTP for who speaks HTTP."""

    start: Start
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    _failed = False

    def do_handshake(self) -> None:
        """Raises SSLWantReadError until it is done; after a failure for ever, which the deadline ends.

        The loop would close at once, which keeps the alert from the client; clients close when they have it.
        """
        if self._failed:
            self.incoming.read()
            raise ssl.SSLWantReadError
        if self.incoming.pending:
            self.start.under_way.add(self)
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as problem:
            self._failed = True
            self._answer_http(self.incoming.read())
            self.start.under_way.discard(self)
            raise ssl.SSLWantReadError from problem
        self.start.under_way.discard(self)

    def _answer_http(self, rest: bytes) -> None:
        """If that is what came. OpenSSL has taken five bytes, which is no more than “GET /”."""
        if b" HTTP/1." in rest.partition(b"\r\n")[0]:
            self.outgoing.read()  # the alert
            self.outgoing.write(self.start.answer(rest))


class Start(ssl.SSLContext):
    """What every connection begins with, before the certificate is chosen. It stays; so session tickets do."""

    sslobject_class = Handshake
    answer: Callable[[bytes], bytes]  # to the rest of a request in plain HTTP
    under_way: WeakSet[Handshake]

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *more: Any, **named: Any
    ) -> Handshake:
        handshake = cast(Handshake, super().wrap_bio(incoming, outgoing, *more, **named))
        handshake.start, handshake.incoming, handshake.outgoing = self, incoming, outgoing
        return handshake


class Tls:
    """`context` is for servers. Nothing is read before `open`."""

    def __init__(self, files: Iterable[Files], pages: Pages) -> None:
        self._pages = pages
        self._files = tuple(files)
        self._used: dict[Files, Certificate] = {}
        self._stamps: dict[Files, Stamp] = {}
        self.context = Start(ssl.PROTOCOL_TLS_SERVER)
        self.context.answer, self.context.under_way = self._speak_https, WeakSet()
        prepare(self.context)

    @property
    def busy(self) -> bool:
        """Whether a client is in the middle of a handshake."""
        return bool(self.context.under_way)

    def open(self) -> None:
        """Read all. What is broken is left out, and said; raises BadInput when nothing is left."""
        problem: BadInput | None = None
        for files in self._files:
            self._stamps[files] = _stamp(files)
            try:
                self._use(read(files))
            except BadInput as broken:
                problem = broken
                log.error("%s", broken)
        if not self._used:
            raise problem or BadInput("There is no certificate.")
        self._put_up()
        sys.unraisablehook = _unraisable
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of each write to a client that left

    async def watch(self, every: float) -> None:
        """Look at the files every so many seconds, and use what changed, for ever."""
        seen = dict(self._stamps)
        while True:
            await asyncio.sleep(every)
            looked = await asyncio.to_thread(lambda: {files: _stamp(files) for files in self._files})
            for files in self._files:
                # Two equal looks: whoever writes a certificate and then its key is not caught between them.
                if looked[files] != self._stamps[files] and looked[files] == seen[files]:
                    self._stamps[files] = looked[files]
                    await self._renew(files)
            seen = looked

    async def _renew(self, files: Files) -> None:
        try:
            self._use(await asyncio.to_thread(read, files))
        except BadInput as broken:
            log.error("%s The certificate before it stays in use.", broken)
            return
        except Exception:  # what one file holds must not end the watch over all
            log.exception("%s cannot be read; the certificate before it stays in use", files.cert)
            return
        self._put_up()
        log.info("The certificate %s is in use.", files.cert)

    def _use(self, certificate: Certificate) -> None:
        if complaint := certificate.complaint(datetime.now(UTC)):
            log.warning("%s", complaint)
        self._used[certificate.files] = certificate

    def _put_up(self) -> None:
        shelf = Shelf([self._used[files] for files in self._files if files in self._used])

        def choose(
            connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, start: ssl.SSLContext
        ) -> None:
            connection.context = shelf.find(name)

        self.context.sni_callback = choose

    def _speak_https(self, rest: bytes) -> bytes:
        """The answer to a request in plain HTTP, whose first five bytes are lost."""
        found = _HOST.search(rest)
        host = found[1].strip(b" \t") if found else b""
        advice = "Write https:// in the address."
        if normalise_host(host):
            advice = f"The address is https://{host.decode()}/"
        return self._pages.render(
            troubles.not_https(advice),
            accept.named_in(rest),
            new_request_id(),
            head_only=False,
            connection=b"Connection: close",
        )


def _unraisable(what: Any) -> None:
    """A name in no ASCII ends its handshake; Python would print a traceback too, for every stranger who does that."""
    if not (isinstance(what.exc_value, UnicodeDecodeError) and isinstance(what.object, bytes)):
        sys.__unraisablehook__(what)


def _stamp(files: Files) -> Stamp:
    """What differs when a file was written, replaced or linked elsewhere; nothing of it while it is missing."""
    found = []
    for path in (files.cert, files.key):
        try:
            now = Path(path).stat()
        except OSError:
            continue
        found.append((now.st_ino, now.st_mtime_ns, now.st_size))
    return tuple(found)
