"""Values of documents: what may be one, its bytes, its place in an order, and its form in JSON.

JSON's, and bytes, datetimes (of UTC, to the microsecond) and decimals, kept exactly. In storage and on the wire they
are MessagePack: a datetime is its timestamp extension (-1), a decimal is extension 1 with its digits as text.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final

import msgspec

from lazycloud.errors import BadInput
from lazycloud.versionbase.problems import TooLarge

Value = Any
"""None, bool, int, float, str, bytes, datetime, Decimal, list and dict[str, …] of them."""

MAX_DOCUMENT = 16 << 20  # bytes, encoded
MAX_DEPTH = 100
LEAST, GREATEST = -(1 << 63), (1 << 64) - 1  # integers of MessagePack
EXPONENT = 300  # decimals are below 10 to that, and not closer to 0 than 10 to minus that
DIGITS = 1000  # of a decimal
DECIMAL = 1  # its extension's type


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""What is at a path where there is nothing; null is something."""


# Checks and bytes


def check(document: Any) -> None:
    """Raises BadInput, with the path of it, for what cannot be in a document, or is none."""
    if not isinstance(document, dict):
        raise BadInput(f"A document is an object, not a {type(document).__name__}.")
    _check(document, 0, ())


def encode(value: Value) -> bytes:
    """Raises BadInput, with the path of it, for what cannot be a value; TooLarge."""
    _check(value, 0, ())
    data = _encoder.encode(_with_extensions(value))
    if len(data) > MAX_DOCUMENT:
        raise TooLarge(f"This takes {len(data):,} bytes; a document has {MAX_DOCUMENT:,} at most.")
    return data


def decode(data: bytes | memoryview) -> Value:
    """Raises BadInput for what is no MessagePack of values; what it holds is not checked further."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as problem:
        raise BadInput(f"This is no MessagePack of values: {str(problem)[:200]}.") from None


_PLAIN = frozenset((type(None), bool))


def _check(value: Value, depth: int, path: tuple[str | int, ...]) -> None:
    kind = type(value)
    if kind is str:
        try:
            if not value.isascii():
                value.encode()
        except UnicodeEncodeError:
            raise _bad(path, "is a text with half of a surrogate pair") from None
    elif kind is int:
        if not LEAST <= value <= GREATEST:
            raise _bad(path, "is an integer of more than 64 bits; give it as a decimal")
    elif kind in _PLAIN:
        pass
    elif kind is float:
        if not math.isfinite(value):
            raise _bad(path, f"is {value}, which is no number")
    elif isinstance(value, dict):
        if depth >= MAX_DEPTH:
            raise _bad(path[:8], f"is nested more than {MAX_DEPTH} deep")
        for member, inner in value.items():
            if not isinstance(member, str):
                raise _bad(path, f"has a member whose name is no text: {str(member)[:40]!r}")
            if not member.isascii():
                _check(member, depth, (*path, member))
            if not (type(inner) is str and inner.isascii()):
                _check(inner, depth + 1, (*path, member))
    elif isinstance(value, list):
        if depth >= MAX_DEPTH:
            raise _bad(path[:8], f"is nested more than {MAX_DEPTH} deep")
        for place, inner in enumerate(value):
            _check(inner, depth + 1, (*path, place))
    elif isinstance(value, datetime):
        if value.tzinfo is None:
            raise _bad(path, "is a datetime without a time zone; give it one, as in datetime.now(UTC)")
        try:
            value.astimezone(UTC)
        except OverflowError:
            raise _bad(path, "is a datetime beyond the years 1 to 9999 of UTC") from None
    elif isinstance(value, Decimal):
        _check_decimal(value, path)
    elif not isinstance(value, bytes):
        raise _bad(path, f"is a {kind.__name__}, which no document holds")


def _check_decimal(value: Decimal, path: tuple[str | int, ...]) -> None:
    if not value.is_finite():
        raise _bad(path, f"is {value}, which is no number")
    exponent = value.as_tuple().exponent
    if abs(value.adjusted()) > EXPONENT or not isinstance(exponent, int) or abs(exponent) > DIGITS:
        raise _bad(path, f"is a decimal beyond 10 to ±{EXPONENT}, or of more than {DIGITS} digits")
    if len(value.as_tuple().digits) > DIGITS:
        raise _bad(path, f"is a decimal of more than {DIGITS} digits")


def _bad(path: tuple[str | int, ...], what: str) -> BadInput:
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return BadInput(f"`{shown[:200]}` {what}." if path else f"The document {what}.")


def _decode_extension(code: int, data: memoryview) -> Any:
    if code == DECIMAL:
        return _decimal(bytes(data[: DIGITS + 20]).decode("ascii", "replace"))
    raise ValueError(f"extension {code} is not known")


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]!r} is no decimal") from None
    if "_" in text or not text.isascii():
        raise ValueError(f"{text[:40]!r} is no decimal")
    return value


def _with_extensions(value: Value) -> Value:
    """The same, with extensions in the places of decimals, and of datetimes of other time zones those of UTC."""
    kind = type(value)
    if kind is dict or isinstance(value, dict):
        return {
            member: _with_extensions(inner) if type(inner) not in _AS_IT_IS else inner
            for member, inner in value.items()
        }
    if isinstance(value, list):
        return [_with_extensions(inner) if type(inner) not in _AS_IT_IS else inner for inner in value]
    if isinstance(value, Decimal):
        return msgspec.msgpack.Ext(DECIMAL, str(value).encode())
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return value


_AS_IT_IS = frozenset((str, int, float, bool, bytes, type(None)))
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ext_hook=_decode_extension)


def at_path(document: Any, path: tuple[str, ...]) -> Value | _Missing:
    """What members of members lead to; MISSING where there is none."""
    for member in path:
        if not isinstance(document, dict) or member not in document:
            return MISSING
        document = document[member]
    return document


# Order

_NULL, _BOOL, _NUMBER, _DATETIME, _TEXT, _BYTES, _LIST, _OBJECT = (bytes([tag]) for tag in range(1, 9))
_SAME, _LESS, _MORE = b"\x80", b"\x7f", b"\x81"  # what is left of a number beyond the double next to it
_REST = 4  # doubles that tell a number, at most
_EXACT = 1 << 53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_double, _long = struct.Struct(">d"), struct.Struct(">Q")


def ordered(value: Value) -> bytes:
    """Bytes that are ordered as values are, of which none begin another's; the first tells the kind.

    null < false < true < numbers < datetimes < texts < bytes < lists < objects. Numbers that are equal have the same,
    whatever their type; so have two that differ beyond some 60 digits.
    """
    kind = type(value)
    if kind is str:
        return _TEXT + _escaped(value.encode()) + b"\0\0"
    if kind is int or kind is float:
        return _NUMBER + _number(value)
    if value is None:
        return _NULL
    if kind is bool:
        return _BOOL + (b"\1" if value else b"\0")
    if isinstance(value, datetime):
        return _DATETIME + _long.pack((value - _EPOCH) // _MICROSECOND + (1 << 63))
    if isinstance(value, Decimal):
        return _NUMBER + _number(value)
    if kind is bytes:
        return _BYTES + _escaped(value) + b"\0\0"
    if isinstance(value, list):
        return _LIST + b"".join(map(ordered, value)) + b"\0"
    if isinstance(value, dict):
        return (
            _OBJECT
            + b"".join(ordered(name) + ordered(inner) for name, inner in sorted(value.items()))
            + b"\0"
        )
    raise BadInput(f"A {kind.__name__} has no place in an order.")


def ordered_prefix(text: str) -> bytes:
    """How `ordered` begins for each text that begins so."""
    return _TEXT + _escaped(text.encode())


def _escaped(data: bytes) -> bytes:
    return data.replace(b"\0", b"\0\xff")


def _number(value: int | float | Decimal) -> bytes:
    """The double next to it, and, as often as something is left, its sign and the double next to that."""
    if type(value) is float or (type(value) is int and -_EXACT <= value <= _EXACT):
        return _placed(float(value)) + _SAME
    rest, told = Fraction(value), b""
    for _ in range(_REST):
        near = float(rest)
        told += _placed(near)
        rest -= Fraction(near)
        if not rest:
            break
        told += _MORE if rest > 0 else _LESS
    else:
        return told[:-1] + _SAME
    return told + _SAME


def _placed(number: float) -> bytes:
    bits: int = _long.unpack(_double.pack(number + 0.0))[0]  # -0.0 is 0.0
    return _long.pack(bits ^ (1 << 63) if bits < 1 << 63 else (1 << 64) - 1 - bits)


# JSON


def to_json(value: Value) -> Any:
    """The same with bytes, datetimes and decimals as objects of one member; names with a $ have one more."""
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value)).startswith("$"):
            ((name, inner),) = value.items()
            return {f"${name}": to_json(inner)}
        return {name: to_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [to_json(inner) for inner in value]
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$datetime": value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    return value


def from_json(value: Any) -> Value:
    """What `to_json` was given. Raises BadInput."""
    if isinstance(value, dict):
        if len(value) == 1 and next(iter(value)).startswith("$"):
            ((name, inner),) = value.items()
            return _from_tagged(name, inner)
        return {name: from_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [from_json(inner) for inner in value]
    return value


def _from_tagged(name: str, inner: Any) -> Value:
    if name.startswith("$$"):
        return {name[1:]: from_json(inner)}
    read = _TAGS.get(name)
    try:
        if read is None or not isinstance(inner, str):
            raise ValueError
        return read(inner)
    except (ValueError, OverflowError, binascii.Error):
        raise BadInput(
            f"{name[:20]!r} with {str(inner)[:40]!r} is no value.",
            "$bytes, $datetime and $decimal are known, each with a text.",
        ) from None


def _datetime(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError("no time zone")
    return value.astimezone(UTC)


_TAGS: dict[str, Callable[[str], Value]] = {
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$datetime": _datetime,
    "$decimal": _decimal,
}
