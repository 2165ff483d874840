"""A few words with a Redis server, in its own protocol (RESP2): commands that answer soon, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

PATIENCE = 5.0  # seconds for a connection, and for an answer
MOST = 1 << 20  # bytes of one answer: what we ask is answered in a few kilobytes


class Refusal(Exception):
    """What the server answered instead: "LOADING …", "NOAUTH …"."""


class Talk:
    """An open connection. Raises OSError when the server is gone or no longer answers, Refusal when it says no."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, *words: str) -> str:
        """One command; a simple answer, a number or a text as text."""
        try:
            async with asyncio.timeout(PATIENCE):
                self._writer.write(command(*words))
                await self._writer.drain()
                return await self._answer()
        except (TimeoutError, asyncio.IncompleteReadError, ValueError) as problem:
            raise ConnectionError(f"it did not answer {words[0]}: {problem!r}") from problem

    async def _answer(self) -> str:
        line = (await self._reader.readuntil(b"\r\n"))[:-2].decode(errors="replace")
        kind, rest = line[:1], line[1:]
        if kind == "-":
            raise Refusal(rest)
        if kind in ("+", ":"):
            return rest
        if kind != "$" or not -1 <= int(rest) <= MOST:
            raise ValueError(f"an answer of an unexpected kind: {line[:40]!r}")
        if int(rest) < 0:
            return ""
        return (await self._reader.readexactly(int(rest) + 2))[:-2].decode(errors="replace")


@contextlib.asynccontextmanager
async def talk(port: int, user: str, password: str) -> AsyncIterator[Talk]:
    """To the server on a port of this machine. Raises OSError, Refusal."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except TimeoutError as problem:
        raise ConnectionError("it took no connection") from problem
    try:
        said = Talk(reader, writer)
        await said.say("AUTH", user, password)
        yield said
    finally:
        writer.close()


def command(*words: str) -> bytes:
    """As it is sent."""
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return "".join([f"*{len(words)}\r\n", *parts]).encode()


def facts(text: str) -> dict[str, str]:
    """What INFO answers, by name."""
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, separator, value in lines if separator}
