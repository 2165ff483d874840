"""The frames of docs/versionbase-protocol.md: what a client sends, read and looked at; what it is answered, written.

A frame of answers is put together of values that are encoded already, so that their size is known and nothing is
encoded twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from lazycloud.errors import BadInput, LazycloudError
from lazycloud.versionbase import values
from lazycloud.versionbase.problems import TooLarge, kind
from lazycloud.versionbase.values import Value

FRAME = 17 << 20  # bytes, either way: a document of 16 MB, and what is around it
GREETING = 64 << 10  # bytes of the first frame: whose it is nobody knows yet
LARGEST_ID = 2**53 - 1  # what JavaScript counts to
BESIDE = 1 << 10  # bytes of a frame beside its results, at most
PART = 256 << 10  # bytes of a part of results, unless one of them has more
ITEMS = 1000  # of them in a part

MALFORMED, UNREADABLE, DENIED, OVERSIZED = 1002, 1007, 1008, 1009  # RFC 6455, 7.4.1
REASON = 120  # bytes, of which a closing frame holds 123
GOING, REPLACED = 1001, 1012  # a server that ends: with the latter, what has no answer was not done


class Malformed(Exception):
    """What came is no frame of the protocol: the connection ends, with a code and a reason, as far as that fits."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:REASON].decode(errors="ignore")


class Encoding(Protocol):
    """How frames are written: MessagePack, or JSON."""

    name: str
    is_text: bool

    def read(self, data: bytes | str) -> Any:
        """Raises Malformed."""

    def value(self, value: Value) -> bytes: ...

    def listed(self, items: Sequence[bytes]) -> bytes:
        """One list of values."""

    def mapped(self, members: Mapping[str, bytes]) -> bytes:
        """One map of them."""

    def frame(self, number: int, name: str, value: bytes) -> bytes:
        """`{"id": number, name: value}`"""


class MessagePack:
    name = "versionbase.1.msgpack"
    is_text = False

    def read(self, data: bytes | str) -> Any:
        if isinstance(data, str):
            raise Malformed(UNREADABLE, "a text, where frames are MessagePack")
        try:
            return values.received(data)
        except (msgspec.MsgspecError, LazycloudError, RecursionError, ValueError) as problem:
            raise Malformed(UNREADABLE, f"no MessagePack that this server reads: {problem}") from None

    def value(self, value: Value) -> bytes:
        return values.encode(value)

    def listed(self, items: Sequence[bytes]) -> bytes:
        return _head(len(items), 0x90, 0xDC) + b"".join(items)

    def mapped(self, members: Mapping[str, bytes]) -> bytes:
        written = b"".join(_msgpack.encode(name) + value for name, value in members.items())
        return _head(len(members), 0x80, 0xDE) + written

    def frame(self, number: int, name: str, value: bytes) -> bytes:
        return b"\x82\xa2id" + _msgpack.encode(number) + _msgpack.encode(name) + value


class Json:
    name = "versionbase.1.json"
    is_text = True

    def read(self, data: bytes | str) -> Any:
        if isinstance(data, bytes):
            raise Malformed(UNREADABLE, "a binary frame, where frames are JSON")
        try:
            return values.from_json(msgspec.json.decode(data))
        except (msgspec.MsgspecError, LazycloudError, RecursionError, ValueError) as problem:
            raise Malformed(UNREADABLE, f"no JSON that this server reads: {problem}") from None

    def value(self, value: Value) -> bytes:
        return msgspec.json.encode(values.to_json(value))

    def listed(self, items: Sequence[bytes]) -> bytes:
        return b"[" + b",".join(items) + b"]"

    def mapped(self, members: Mapping[str, bytes]) -> bytes:
        return (
            b"{"
            + b",".join(msgspec.json.encode(name) + b":" + value for name, value in members.items())
            + b"}"
        )

    def frame(self, number: int, name: str, value: bytes) -> bytes:
        return b'{"id":%d,"%s":%s}' % (number, name.encode(), value)


def _head(number: int, few: int, many: int) -> bytes:
    """Of a list or a map of so many: https://github.com/msgpack/msgpack/blob/master/spec.md"""
    if number < 16:
        return bytes([few | number])
    return bytes([many]) + number.to_bytes(2) if number < 1 << 16 else bytes([many + 1]) + number.to_bytes(4)


_msgpack = msgspec.msgpack.Encoder()

ENCODINGS: dict[str, Encoding] = {encoding.name: encoding for encoding in (MessagePack(), Json())}


def chosen(offered: Sequence[str]) -> Encoding | None:
    """The client's first one that is known."""
    return next((ENCODINGS[name] for name in offered if name in ENCODINGS), None)


@dataclass(frozen=True)
class Encoded:
    """A result that is encoded already."""

    data: bytes


def told(encoding: Encoding, result: Any) -> bytes:
    """A result or an item of one. Documents in it are encoded on their own: they may be as large as may be."""
    if isinstance(result, Encoded):
        return result.data
    if isinstance(result, (list, tuple)):
        return encoding.listed([encoding.value(item) for item in result])
    if isinstance(result, dict):
        return encoding.mapped({name: encoding.value(value) for name, value in result.items()})
    return encoding.value(result)


def ok(encoding: Encoding, number: int, result: Any) -> bytes:
    """Raises TooLarge for more than a frame holds."""
    data = told(encoding, result)
    demand_fits(len(data))
    return encoding.frame(number, "ok", data)


def demand_fits(size: int) -> None:
    """Raises TooLarge for a result that has so many bytes, or more."""
    if size > FRAME - BESIDE:
        raise TooLarge(
            f"The answer has {size / (1 << 20):.1f} MB: no frame holds that.", "Ask for less at once."
        )


def error(encoding: Encoding, number: int, problem: LazycloudError) -> bytes:
    told = {"kind": kind(problem), "sentence": problem.sentence, "hint": problem.advice}
    return encoding.frame(number, "error", encoding.value(told))


class Request:
    """A frame of a client's that asks for something. What it reads from it raises BadInput, in words."""

    def __init__(self, members: dict[str, Any], size: int = 0) -> None:
        self.members = members
        self.size = size  # bytes of the frame
        self.id: int = members["id"]
        self.do: str = members["do"]

    def text(self, name: str, default: str | None = None) -> str:
        value = self._given(name, default)
        if isinstance(value, str):
            return value
        raise self._wrong(name, "a text")

    def flag(self, name: str, default: bool) -> bool:
        value = self._given(name, default)
        if isinstance(value, bool):
            return value
        raise self._wrong(name, "true or false")

    def whole(self, name: str, least: int, most: int, default: int | None = None) -> int:
        value = self._given(name, default)
        if type(value) is int and least <= value <= most:
            return value
        raise self._wrong(name, f"a whole number from {least} to {most}")

    def whole_or_none(self, name: str, least: int, most: int) -> int | None:
        return None if self.members.get(name) is None else self.whole(name, least, most)

    def seconds(self, name: str, default: float, most: float) -> float:
        value = self._given(name, default)
        if type(value) in (int, float) and 0 <= value <= most:
            return float(value)
        raise self._wrong(name, f"a number of seconds, {most:g} at most")

    def texts(self, name: str, default: list[str] | None = None) -> list[str]:
        value = self._given(name, default)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return value
        raise self._wrong(name, "a list of texts", str)

    def texts_or_none(self, name: str) -> list[str] | None:
        return None if self.members.get(name) is None else self.texts(name)

    def mapping(self, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        value = self._given(name, default)
        if isinstance(value, dict):
            return value
        raise self._wrong(name, "an object")

    def mapping_or_none(self, name: str) -> dict[str, Any] | None:
        return None if self.members.get(name) is None else self.mapping(name)

    def mappings(self, name: str) -> list[dict[str, Any]]:
        value = self.members.get(name)
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return value
        raise self._wrong(name, "a list of objects", dict)

    def demand_known(self, known: frozenset[str]) -> None:
        """A member with a slip of the pen in its name would be left out in silence."""
        for name in self.members.keys() - known - {"id", "do", "deadline"}:
            raise BadInput(
                f"`{self.do}` has no `{name[:80]}`.",
                f"It has {', '.join(f'`{one}`' for one in sorted(known)) or 'nothing'}.",
            )

    def _given(self, name: str, default: Any) -> Any:
        value = self.members.get(name)
        return default if value is None else value

    def _wrong(self, name: str, wanted: str, of: type | None = None) -> BadInput:
        """`of`: what the items of a list are to be."""
        value = self.members.get(name)
        if of is not None and isinstance(value, list):
            at, item = next((at, item) for at, item in enumerate(value) if not isinstance(item, of))
            name, value, wanted = f"{name}[{at}]", item, "an object" if of is dict else "a text"
            given = f"is of {_named(value)}"
        else:
            given = "is missing" if value is None else f"is of {_named(value)}"
        return BadInput(f"`{self.do}`: `{name}` {given}; it is {wanted}.")


def _named(value: object) -> str:
    """Its type, or itself if it is a number: what was asked wrongly, and no contents of documents."""
    return str(value)[:40] if type(value) in (int, float, bool) else f"type {type(value).__name__}"


def identified(frame: Any) -> dict[str, Any]:
    """A frame that at least says which request it is. Raises Malformed."""
    if not isinstance(frame, dict):
        raise Malformed(MALFORMED, "a frame is a map")
    number = frame.get("id")
    if type(number) is not int or not 0 <= number <= LARGEST_ID:
        raise Malformed(MALFORMED, "a frame has an id, a whole number from 0 to 2^53 - 1")
    return frame
