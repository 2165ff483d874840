"""Values of documents: what may be one, its bytes, its place in an order, and its form in JSON.

JSON's, and bytes, datetimes (of UTC, to the microsecond) and decimals, kept exactly. In storage and on the wire they
are MessagePack: a datetime is its timestamp extension (-1), a decimal is extension 1 with its digits as text.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import secrets
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Final

import msgspec
import ormsgpack

from lazycloud.errors import BadInput
from lazycloud.versionbase.problems import TooLarge

Value = Any
"""None, bool, int, float, str, bytes, datetime, Decimal, list and dict[str, …] of them."""

MAX_DOCUMENT = 16 << 20  # bytes, encoded
MAX_DEPTH = 100
NESTED = 200  # of what comes in JSON: a document is a few deep in its frame
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


def encode_document(document: Any) -> bytes:
    """Raises BadInput, with the path of it, for what cannot be in a document, or is none; TooLarge."""
    if type(document) is not dict:
        raise BadInput(f"A document is an object, not a {type(document).__name__}.")
    return encode(document)


def encode(value: Value) -> bytes:
    """Raises BadInput, with the path of it, for what cannot be a value; TooLarge."""
    try:
        data = _encoder.encode(_ready(value, 0))
    except (_Unfit, UnicodeEncodeError, OverflowError, RecursionError):
        _explain(value, ())
        raise  # never: it has found the place
    if len(data) > MAX_DOCUMENT:
        raise TooLarge(f"This takes {len(data):,} bytes; a document has {MAX_DOCUMENT:,} at most.")
    return data


def decode(data: bytes | memoryview) -> Value:
    """Of what `encode` made. Raises BadInput for what is no MessagePack of values."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError) as problem:
        raise BadInput(f"This is no MessagePack of values: {str(problem)[:200]}.") from None


def received(data: bytes | memoryview) -> Value:
    """Of what a stranger sent, in time that its length bounds. Raises BadInput for what is no MessagePack of values.

    msgspec takes lists for names of members. Lists of numbers can be made that all have one hash: a frame of 17 MB of
    them, and Python would compare them for hours. ormsgpack takes texts only; what is after a value it does not mind,
    so something is put there that nobody can have foreseen.
    """
    try:
        value, end = ormsgpack.unpackb(
            b"".join((b"\x92", data, _END)),
            ext_hook=_decode_extension,
            option=ormsgpack.OPT_DATETIME_AS_TIMESTAMP_EXT,
        )
    except ValueError as problem:
        raise BadInput(f"This is no MessagePack of values: {str(problem)[:200]}.") from None
    if end != _ENDING:
        raise BadInput("This is no MessagePack of values: something comes after it.")
    return value


class _Unfit(Exception):
    """Somewhere in it is what cannot be in a document."""


_NAMES = frozenset((str,))
_PLAIN = frozenset((str, int, bool, bytes, type(None)))  # the encoder refuses what cannot be of these


def _ready(value: Value, depth: int) -> Value:
    """As the encoder takes it: the same object where it does. Raises _Unfit.

    It goes by types, which is quick, and does not say where: `_explain` does, of the few that fail.
    """
    kind = type(value)
    if kind is dict:
        if depth >= MAX_DEPTH or not _NAMES.issuperset(map(type, value)):
            raise _Unfit
        if _PLAIN.issuperset(map(type, value.values())):
            return value
        return _ready_members(value, value.items(), depth + 1)
    if kind is list:
        if depth >= MAX_DEPTH:
            raise _Unfit
        if _PLAIN.issuperset(map(type, value)):
            return value
        return _ready_members(value, enumerate(value), depth + 1)
    if kind is float:
        if value - value != 0:
            raise _Unfit
        return value
    return value if kind in _PLAIN else _extension(value)


def _ready_members(value: Value, members: Iterable[tuple[Any, Value]], depth: int) -> Value:
    changed = None
    for place, inner in members:
        if type(inner) not in _PLAIN:
            ready = _ready(inner, depth)
            if ready is not inner:
                if changed is None:
                    changed = value.copy()
                changed[place] = ready
    return value if changed is None else changed


def _extension(value: Value) -> Value:
    if type(value) is datetime and value.utcoffset() is not None:
        return value if value.tzinfo is UTC else value.astimezone(UTC)
    if type(value) is Decimal and _is_kept(value):
        return msgspec.msgpack.Ext(DECIMAL, str(value).encode())
    raise _Unfit


def _is_kept(value: Decimal) -> bool:
    if not value.is_finite() or abs(value.adjusted()) > EXPONENT:
        return False
    _, digits, exponent = value.as_tuple()
    return len(digits) <= DIGITS and abs(int(exponent)) <= DIGITS


def _explain(value: Value, path: tuple[str | int, ...]) -> None:
    """Raises BadInput for the first that cannot be in a document."""
    if type(value) is dict or type(value) is list:
        if len(path) >= MAX_DEPTH:
            raise _bad(path[:8], f"is nested more than {MAX_DEPTH} deep")
        if type(value) is dict:
            _explain_names(value, path)
        for place, inner in value.items() if type(value) is dict else enumerate(value):
            _explain(inner, (*path, place))
    else:
        what = _unfit(value)
        if what:
            raise _bad(path, what)


def _explain_names(value: dict[Any, Value], path: tuple[str | int, ...]) -> None:
    for name in value:
        if type(name) is not str:
            raise _bad(path, f"has a member whose name is no text: {str(name)[:40]!r}")
        if _is_broken(name):
            raise _bad((*path, name), "has half of a surrogate pair in its name")


def _unfit(value: Value) -> str:
    """What is wrong with it; nothing when it may be."""
    kind = type(value)
    if kind is str:
        return "is a text with half of a surrogate pair" if _is_broken(value) else ""
    if kind is int:
        return (
            "" if LEAST <= value <= GREATEST else "is an integer of more than 64 bits; give it as a decimal"
        )
    if kind is float:
        return "" if math.isfinite(value) else f"is {value}, which is no number"
    if kind is Decimal:
        return "" if _is_kept(value) else _unfit_decimal(value)
    if kind is datetime:
        return _unfit_datetime(value)
    return "" if kind in _PLAIN else f"is a {kind.__name__}, which no document holds"


def _unfit_decimal(value: Decimal) -> str:
    if not value.is_finite():
        return f"is {value}, which is no number"
    return f"is a decimal beyond 10 to ±{EXPONENT}, or of more than {DIGITS} digits"


def _unfit_datetime(value: datetime) -> str:
    if value.utcoffset() is None:
        return "is a datetime without a time zone; give it one, as in datetime.now(UTC)"
    try:
        value.astimezone(UTC)
    except OverflowError:
        return "is a datetime beyond the years 1 to 9999 of UTC"
    return ""


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _bad(path: tuple[str | int, ...], what: str) -> BadInput:
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    shown = shown[:200].encode(errors="backslashreplace").decode()
    return BadInput(f"`{shown}` {what}." if path else f"The document {what}.")


def _decode_extension(code: int, data: bytes | memoryview) -> Any:
    if code != DECIMAL:
        raise ValueError(f"extension {code} is not known")
    if len(data) > DIGITS + 20:  # a sign, a point, an exponent
        raise ValueError(f"a decimal of {len(data):,} characters")
    return _decimal(bytes(data).decode("ascii"))


def _decimal(text: str) -> Decimal:
    """Of its digits. Raises ValueError."""
    if len(text) > DIGITS + 20 or not _DIGITS.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no decimal")
    value = Decimal(text)
    if not _is_kept(value):
        raise ValueError(f"{text[:40]!r} {_unfit_decimal(value)}")
    return value


_DIGITS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?", re.ASCII)
_encoder = msgspec.msgpack.Encoder()
_ENDING = secrets.token_bytes(16)
_END = _encoder.encode(_ENDING)
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
_wide = Context(prec=4000, traps=[])  # a decimal less a double is exact in it
_UP = Decimal(_EXACT)


def ordered(value: Value) -> bytes:
    """Bytes that are ordered as values are, of which none begin another's; the first tells the kind.

    null < false < true < numbers < datetimes < texts < bytes < lists < objects. Numbers that are equal have the same,
    whatever their type; so have two that differ beyond some 60 digits.
    """
    kind = type(value)
    if kind is str:
        return _text(value) + b"\0\0"
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
    return _text(text)


def _text(text: str) -> bytes:
    try:
        return _TEXT + _escaped(text.encode())
    except UnicodeEncodeError:
        raise BadInput("A text with half of a surrogate pair has no place in an order.") from None


def _escaped(data: bytes) -> bytes:
    return data.replace(b"\0", b"\0\xff")


def _number(value: int | float | Decimal) -> bytes:
    """The double next to it, and, as often as something is left, its sign and the double next to that.

    What is left is less than 2**-53 of the double: it is made larger by as much, and no digits get lost near 0.
    """
    if type(value) is float or (type(value) is int and -_EXACT <= value <= _EXACT):
        return _placed(float(value)) + _SAME
    rest: Any = value
    told = b""
    for _ in range(_REST):
        near = float(rest)
        if near - near != 0:  # computed from what was stored: what is beyond doubles is all in one place
            return told + _placed(near) + _SAME
        told += _placed(near)
        if type(rest) is int:
            rest = (rest - int(near)) << 53
        else:
            rest = _wide.multiply(_wide.subtract(rest, Decimal(near)), _UP)
        if not rest:
            return told + _SAME
        told += _MORE if rest > 0 else _LESS
    return told[:-1] + _SAME


def _placed(number: float) -> bytes:
    bits: int = _long.unpack(_double.pack(number + 0.0))[0]  # -0.0 is 0.0
    return _long.pack(bits ^ (1 << 63) if bits < 1 << 63 else (1 << 64) - 1 - bits)


# JSON


def to_json(value: Value) -> Any:
    """The same with bytes, datetimes and decimals as objects of one member; names with a $ have one more."""
    kind = type(value)
    if kind is dict:
        if len(value) == 1 and next(iter(value)).startswith("$"):
            ((name, inner),) = value.items()
            return {f"${name}": to_json(inner)}
        if _AS_IT_IS.issuperset(map(type, value.values())):
            return value
        return {name: inner if type(inner) in _AS_IT_IS else to_json(inner) for name, inner in value.items()}
    if kind is list:
        return [inner if type(inner) in _AS_IT_IS else to_json(inner) for inner in value]
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is datetime:
        return {"$datetime": value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")}
    if kind is Decimal:
        return {"$decimal": str(value)}
    return value


def from_json(value: Any) -> Value:
    """What `to_json` was given. Raises BadInput; for what is nested too deep, as well."""
    return _from_json(value, 0)


def _from_json(value: Any, depth: int) -> Value:
    kind = type(value)
    if kind is int:
        if not LEAST <= value <= GREATEST:
            raise BadInput(
                "An integer here has more than 64 bits.", 'Give it as a decimal: {"$decimal": "…"}.'
            )
        return value
    if kind is not dict and kind is not list:
        return value
    if depth > NESTED:
        raise BadInput(f"This is nested more than {NESTED} deep.")
    if kind is list:
        return [inner if type(inner) in _AS_IN_JSON else _from_json(inner, depth + 1) for inner in value]
    if len(value) == 1 and next(iter(value)).startswith("$"):
        ((name, inner),) = value.items()
        return _from_tagged(name, inner, depth + 1)
    return {
        name: inner if type(inner) in _AS_IN_JSON else _from_json(inner, depth + 1)
        for name, inner in value.items()
    }


_AS_IT_IS = frozenset((str, int, float, bool, type(None)))
_AS_IN_JSON = frozenset((str, float, bool, type(None)))


def _from_tagged(name: str, inner: Any, depth: int) -> Value:
    if name.startswith("$$"):
        return {name[1:]: _from_json(inner, depth)}
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
