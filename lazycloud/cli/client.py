"""The control API's client: over the unix socket of a home, or by URL and token."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlencode, urlsplit

from lazycloud.config import Config
from lazycloud.errors import BadInput, LazycloudError

ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 60.0  # a stream this quiet may have lost its server: it is asked for again
AWAY_SECONDS = 60.0  # control starts in two, and on a very busy machine in many more
RECONNECTS = 6  # without any news in between; with the pauses between them some twelve seconds
READ_SIZE = 65536
MISUSE = (400, 422)

Event = dict[str, Any]
Connect = Callable[[float | None], HTTPConnection]


class Unreachable(LazycloudError):
    """No server answers."""


class Refused(LazycloudError):
    """The API said no: its sentence and advice."""

    def __init__(self, status: int, sentence: str, advice: str) -> None:
        super().__init__(sentence, advice)
        self.status = status
        self.exit_code = 2 if status in MISUSE else 1


@dataclass(frozen=True)
class Place:
    """Where a server is, for who speaks to it in another way: its URL, over a unix socket if there is one."""

    url: str
    headers: Mapping[str, str]
    socket: Path | None = None


class UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Waits while control is away of a server that goes on: it is being replaced, or started again."""
        deadline = time.monotonic() + AWAY_SECONDS
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(str(self._path))
                return
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()
                if time.monotonic() > deadline or not _goes_on(self._path.with_name("generation")):
                    raise
            time.sleep(0.05)


class LoopbackConnection(HTTPConnection):
    """To a name under localhost: it is this machine's (RFC 6761), which not every resolver knows."""

    def connect(self) -> None:
        self.sock = socket.create_connection(("localhost", self.port), self.timeout)


def _is_local(host: str) -> bool:
    return host.lower().rstrip(".").endswith(".localhost")


def _goes_on(generation: Path) -> bool:
    """Whether the server's process, which notes itself there, is alive."""
    try:
        os.kill(json.loads(generation.read_text())["pid"], 0)
    except (OSError, ValueError, KeyError):
        return False
    return True


class Client:
    """Calls of the API, one connection each; raises Unreachable and Refused."""

    def __init__(
        self, connect: Connect, unreachable: Unreachable, url: str, token: str = "", path: Path | None = None
    ) -> None:
        self.unreachable = unreachable
        self._connect = connect
        self._patience = ANSWER_SECONDS
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self.place = Place(url, self._headers, path)

    @classmethod
    def local(cls, home: Path) -> Client:
        path = Config(home=home).api_socket
        unreachable = Unreachable(
            f"No lazycloud server runs for {home}.",
            "Start one with `lazycloud up`, or name its folder with --home.",
        )
        return cls(lambda timeout: UnixConnection(path, timeout), unreachable, "http://localhost", path=path)

    @classmethod
    def remote(cls, url: str, token: str) -> Client:
        """`url` is the control address, such as https://lazycloud.example.com. Raises BadInput."""
        host, port, secure = _parse(url)
        if not (token.isascii() and token.isprintable()):
            raise BadInput("The token has characters that no token has.", "Copy it again.")
        unreachable = Unreachable(f"No lazycloud server answers at {url}.", "Look at --server.")
        local = not secure and _is_local(host)
        kind = HTTPSConnection if secure else LoopbackConnection if local else HTTPConnection
        client = cls(lambda timeout: kind(host, port, timeout=timeout), unreachable, url, token)
        if local:
            headers = {**client.place.headers, "Host": urlsplit(url).netloc}
            client.place = Place(f"http://localhost:{port or 80}", headers)
        return client

    def patient(self, seconds: float) -> Client:
        """The same, for calls whose answer may take so long."""
        client = copy(self)
        client._patience = seconds
        return client

    def get(self, path: str, **query: Any) -> Any:
        return self._call("GET", _with_query(path, query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._call("POST", path, body or {})

    def stream(self, path: str, silence: float | None = None, **query: Any) -> Iterator[Event]:
        """The objects of a JSON Lines answer as they come; empty lines only keep the connection alive.

        Raises OSError, HTTPException or ValueError where it breaks off.
        """
        yield from self._objects(silence, "GET", _with_query(path, query))

    def post_stream(self, path: str, body: Mapping[str, Any], silence: float) -> Iterator[Event]:
        """The same, of what somebody wants to be done."""
        yield from self._objects(silence, "POST", path, body)

    def download(self, path: str, into: IO[bytes], **query: Any) -> str:
        """Write the bytes of an answer; what the server notes of them, or "". Raises Unreachable if it breaks off."""
        connection = self._connect(self._patience)
        try:
            answer = self._ask(connection, "GET", _with_query(path, query))
            while piece := answer.read1(READ_SIZE):
                into.write(piece)
            if answer.length:
                raise IncompleteRead(b"", answer.length)
            return unquote(answer.headers.get("Lazycloud-Note", ""))
        except HTTPException as problem:
            raise Unreachable("The server hung up before the end of the data.") from problem
        finally:
            connection.close()

    def upload(self, path: str, data: IO[bytes], size: int | None, **query: Any) -> Any:
        """Send bytes, `size` of them if that is known; the answer's JSON."""
        length = {"Content-Length": str(size)} if size is not None else {"Transfer-Encoding": "chunked"}
        headers = self._headers | {"Content-Type": "application/octet-stream"} | length
        connection = self._connect(self._patience)
        try:
            self._reach(connection)
            with suppress(BrokenPipeError, ConnectionResetError):  # it does not want them, and says why
                pieces = iter(lambda: data.read(READ_SIZE), b"")
                connection.request(
                    "POST", _with_query(path, query), pieces, headers, encode_chunked=size is None
                )
            return json.loads(_accepted(connection.getresponse()).read() or b"null")
        except (OSError, HTTPException, ValueError) as problem:
            raise Unreachable(
                f"The server did not take all of the data: {problem or 'it hung up'}.",
                "The terminal of `lazycloud up` may say why.",
            ) from problem
        finally:
            connection.close()

    def _objects(
        self, silence: float | None, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Iterator[Event]:
        connection = self._connect(silence)
        try:
            answer = self._ask(connection, method, path, body)
            yield from (json.loads(line) for line in _lines(answer) if line.strip())
        finally:
            connection.close()

    def follow(self, path: str, after: int, is_last: Callable[[Event], bool]) -> Iterator[Event]:
        """Events with a number above `after` till the last one; resumes where a connection was lost."""
        failures = 0
        while True:
            try:
                for event in self.stream(path, SILENCE_SECONDS, after=after):
                    failures, after = 0, max(after, event.get("number", 0))
                    yield event
                    if is_last(event):
                        return
            except (Unreachable, OSError, HTTPException, ValueError) as problem:
                if failures >= RECONNECTS:
                    raise self.unreachable from problem
            if failures >= RECONNECTS:
                raise Unreachable("The server ended the stream before the end of the deploy.")
            failures += 1
            time.sleep(min(0.1 * 2**failures, 5))

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection = self._connect(self._patience)
        try:
            answer = self._ask(connection, method, path, body)
            return json.loads(answer.read() or b"null")
        except (OSError, HTTPException, ValueError) as problem:
            raise Unreachable(
                f"The server did not answer {method} {path.partition('?')[0]} in full: {problem or 'it hung up'}.",
                "The terminal of `lazycloud up` may say why.",
            ) from problem
        finally:
            connection.close()

    def _ask(
        self, connection: HTTPConnection, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> HTTPResponse:
        self._reach(connection)
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return _accepted(connection.getresponse())

    def _reach(self, connection: HTTPConnection) -> None:
        try:
            connection.connect()
        except OSError as problem:
            raise self.unreachable from problem


def _accepted(answer: HTTPResponse) -> HTTPResponse:
    if answer.status >= 300:
        raise _refusal(answer)
    return answer


def _lines(answer: HTTPResponse) -> Iterator[bytes]:
    """Lines as they come. Not answer.readline(), which takes a stream that broke off for its end."""
    rest = b""
    while piece := answer.read1(READ_SIZE):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        raise IncompleteRead(rest)


def _parse(url: str) -> tuple[str, int | None, bool]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("http", "https"):
        raise BadInput(f"--server {url} is no URL.", "Give one such as https://lazycloud.example.com.")
    return host, port, parts.scheme == "https"


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _refusal(answer: HTTPResponse) -> LazycloudError:
    try:
        error = json.loads(answer.read())["error"]
        sentence, advice = str(error["sentence"]), str(error.get("advice") or "")
    except (ValueError, KeyError, TypeError):
        return Unreachable(
            f"What answers there is not lazycloud: it said {answer.status} {answer.reason}.",
            "--server takes the control address, such as https://lazycloud.example.com.",
        )
    choices = "".join(f"\n  {_in_words(choice)}" for choice in error.get("choices") or ())
    return Refused(answer.status, sentence, advice + choices)


def _in_words(choice: Any) -> str:
    if isinstance(choice, Mapping):
        choice = list(choice.values())
    return "  ".join(map(str, choice)) if isinstance(choice, list) else str(choice)
