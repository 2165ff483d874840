"""What the functions and operators of CEL mean for our values. All raise `Failure` for what has no meaning.

Sources: the language definition of https://github.com/google/cel-spec (doc/langdef.md), and cel-cpp, with which tests
compare them. Unlike there, an unsigned integer is one beyond 2**63-1, and a decimal is a number beside int and
double, which goes together with ints.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Context, Decimal, DecimalException
from difflib import get_close_matches
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import re2

from lazycloud.errors import BadInput
from lazycloud.versionbase.problems import TooCostly
from lazycloud.versionbase.values import GREATEST, LEAST

STEPS = 100_000  # of one evaluation
FAILURE = 5  # of a failure that something else is decided beside: to raise it takes time
CHARACTERS = 64  # of a text, or bytes, that is made: they count as a step
SOUGHT = 256  # of one that is looked through
LONGEST_PATTERN = 4096  # characters
PATTERNS = 200  # that are remembered
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMALS = Context(prec=60, Emax=300, Emin=-300)


class Failure(Exception):
    """A value could not be had. None is kept when it is caught: it would be in a cycle with its own traceback."""


class Steps:
    """How many are left of one evaluation."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = STEPS

    def take(self, number: int) -> None:
        """Raises TooCostly."""
        self.left -= number
        if self.left < 0:
            raise TooCostly(
                f"The expression takes more than {STEPS:,} steps for one document.",
                "Loops within loops, and long lists and texts, take many.",
            )


def _kind(value: Any) -> str:
    return _KINDS.get(type(value)) or (
        "map" if isinstance(value, dict) else "list" if isinstance(value, list) else ""
    )


_KINDS = {
    type(None): "null",
    bool: "bool",
    int: "int",
    float: "double",
    Decimal: "decimal",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    datetime: "timestamp",
    timedelta: "duration",
}
_NUMBERS = frozenset(("int", "double", "decimal"))
_PLAIN = frozenset((type(None), bool, int, float, Decimal, datetime, timedelta))
"""Kinds of which two are compared at once, and in no time."""


def equal(one: Any, other: Any, steps: Steps) -> bool:
    """Of two kinds they are not equal; numbers are one kind."""
    steps.left -= 1
    if steps.left < 0:
        steps.take(0)
    if type(one) is type(other) and (type(one) in _PLAIN or (type(one) is str and len(one) < SOUGHT)):
        return bool(one == other)
    kind = _kind(one)
    if kind in _NUMBERS:
        return _kind(other) in _NUMBERS and bool(one == other)  # nan equals nothing, and decimals are exact
    if kind != _kind(other):
        return False
    if kind == "list":
        return len(one) == len(other) and all(map(lambda a, b: equal(a, b, steps), one, other))
    if kind == "map":
        return len(one) == len(other) and all(
            name in other and equal(value, other[name], steps) for name, value in one.items()
        )
    if kind in ("string", "bytes"):
        steps.take(min(len(one), len(other)) // 4096)
    return bool(one == other)


def contains(item: Any, among: Any, steps: Steps) -> bool:
    """`item in among`."""
    if isinstance(among, list):
        return any(equal(item, one, steps) for one in among)
    if isinstance(among, dict) and _kind(item) in ("string", "int", "double", "bool"):
        return isinstance(item, str) and item in among
    raise Failure(f"in a {_kind(among)}")


HASHED = frozenset((str, int, float, Decimal))
"""Kinds of which two that are equal have one hash."""


def as_set(values: Any) -> frozenset[Any] | None:
    """None where equality here is not that of Python."""
    if type(values) is list and HASHED.issuperset(map(type, values)):
        return frozenset(values)
    return None


def item(of: Any, place: Any) -> Any:
    if isinstance(of, dict):
        if isinstance(place, str) and place in of:
            return of[place]
        raise Failure("no such key")
    if isinstance(of, list) and _kind(place) in _NUMBERS:
        if 0 <= place < len(of) and place == int(place):  # asked in this order: inf has no int
            return of[int(place)]
        raise Failure("no such place")
    raise Failure(f"no items of a {_kind(of)}")


def _comparison(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any, Steps], bool]:
    def compared(one: Any, other: Any, steps: Steps) -> bool:
        if type(one) is type(other) is int:
            return compare(one, other)
        kinds = _kind(one), _kind(other)
        if not (kinds[0] == kinds[1] and kinds[0] in _ORDERED) and not _NUMBERS.issuperset(kinds):
            raise Failure(f"{kinds[0]} and {kinds[1]} have no order")
        if kinds[0] in ("string", "bytes"):
            steps.take(min(len(one), len(other)) // 4096)
        try:
            return compare(one, other)
        except DecimalException:  # nan beside a decimal; beside others it is less and greater than nothing
            return False

    return compared


_ORDERED = frozenset(("bool", "string", "bytes", "timestamp", "duration"))


def _integer(value: int, *of: int) -> int:
    """An int of 64 bits; of operands beyond those, an unsigned one."""
    if LEAST <= value <= _GREATEST_INT and (not of or max(of) <= _GREATEST_INT):
        return value
    if of and max(of) > _GREATEST_INT and 0 <= value <= GREATEST:
        return value
    raise Failure("integer overflow")


_GREATEST_INT = (1 << 63) - 1


def _arithmetic(
    on_integers: Callable[[int, int], int],
    on_doubles: Callable[[float, float], float] | None,
    on_decimals: Callable[[Decimal, Decimal], Decimal],
) -> Callable[[Any, Any], Any]:
    def done(one: Any, other: Any) -> Any:
        if type(one) is type(other) is int:
            return _integer(on_integers(one, other), one, other)
        kinds = {_kind(one), _kind(other)}
        if kinds == {"double"} and on_doubles:
            return on_doubles(one, other)
        if kinds in ({"decimal"}, {"decimal", "int"}):
            try:
                return on_decimals(Decimal(one), Decimal(other))
            except DecimalException:
                raise Failure("decimal beyond its bounds") from None
        raise Failure(f"no such operation on {' and '.join(sorted(kinds))}")

    return done


def _divided(one: int, other: int) -> int:
    if not other:
        raise Failure("division by zero")
    quotient = abs(one) // abs(other)
    return quotient if (one < 0) == (other < 0) else -quotient


def _rest(one: int, other: int) -> int:
    return one - other * _divided(one, other)


def _divided_doubles(one: float, other: float) -> float:
    if other:
        return one / other
    return math.nan if not one or math.isnan(one) else math.copysign(math.inf, one) * math.copysign(1, other)


_sum = _arithmetic(operator.add, operator.add, _DECIMALS.add)
_difference = _arithmetic(operator.sub, operator.sub, _DECIMALS.subtract)
_product = _arithmetic(operator.mul, operator.mul, _DECIMALS.multiply)
_quotient = _arithmetic(_divided, _divided_doubles, _DECIMALS.divide)
_remainder = _arithmetic(_rest, None, _DECIMALS.remainder)


def add(one: Any, other: Any, steps: Steps) -> Any:
    if type(one) is type(other) is int:
        return _sum(one, other)
    kinds = _kind(one), _kind(other)
    if kinds[0] == kinds[1] and kinds[0] in ("string", "bytes", "list"):
        steps.take((len(one) + len(other)) // (1 if kinds[0] == "list" else CHARACTERS))
        return one + other
    if set(kinds) in ({"timestamp", "duration"}, {"duration"}):
        return _moved(operator.add, one, other)
    return _sum(one, other)


def subtract(one: Any, other: Any) -> Any:
    if (_kind(one), _kind(other)) in (
        ("timestamp", "duration"),
        ("timestamp", "timestamp"),
        ("duration", "duration"),
    ):
        return _moved(operator.sub, one, other)
    return _difference(one, other)


def _moved(how: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    try:
        return how(one, other)
    except OverflowError:
        raise Failure("beyond the years 1 to 9999") from None


def negative(value: Any) -> Any:
    if _kind(value) == "int":
        return _integer(-value) if value <= _GREATEST_INT else _fail("no negative of an unsigned integer")
    if type(value) is Decimal:
        return value.copy_negate()  # `-` would round it
    if _kind(value) == "double":
        return -value
    raise Failure(f"no negative of a {_kind(value)}")


def _fail(why: str) -> Any:
    raise Failure(why)


def size(value: Any) -> int:
    if isinstance(value, (str, bytes, list, dict)):
        return len(value)
    raise Failure(f"no size of a {_kind(value)}")


def _of_texts(done: Callable[[str, str], bool]) -> Callable[[Any, Any, Steps], bool]:
    def asked(text: Any, other: Any, steps: Steps) -> bool:
        if type(text) is not str or type(other) is not str:
            raise Failure("of strings")
        steps.take((len(text) + len(other)) // SOUGHT)
        return done(text, other)

    return asked


def _matches(text: Any, pattern: Any, steps: Steps) -> bool:
    """By RE2, in time linear to the text, and to the size of the pattern at worst."""
    if type(text) is not str or type(pattern) is not str:
        raise Failure("of strings")
    found = _pattern(pattern, steps)
    if found is None:
        raise Failure("no such pattern")
    steps.take(1 + len(text) * found.programsize // SOUGHT)
    return found.search(text.encode()) is not None


_patterns: dict[str, Any] = {}
_OPTIONS = re2.Options()
_OPTIONS.max_mem = 1 << 20
_OPTIONS.never_capture = True
_OPTIONS.log_errors = False


def _pattern(text: str, steps: Steps) -> Any:
    """None for what is none, or would be too large. It takes steps where it is new."""
    if len(text) > LONGEST_PATTERN:
        return None
    if text not in _patterns:
        steps.take(STEPS // 100)
        if len(_patterns) >= PATTERNS:
            _patterns.clear()
        try:
            found = _patterns[text] = re2.compile(text, _OPTIONS)
            steps.take(found.programsize)
        except re2.error:
            found = _patterns[text] = None
        return found
    return _patterns[text]


# Conversions


def to_int(value: Any) -> int:
    kind = _kind(value)
    if kind in ("int", "bool"):
        return _integer(int(value))
    if kind in ("double", "decimal") and abs(value) < 1 << 63:
        return _integer(int(value))
    if kind == "timestamp":
        return (value - _EPOCH) // timedelta(seconds=1)  # type: ignore[no-any-return]
    if kind == "string" and re.fullmatch(r"-?[0-9]{1,20}", value):
        return _integer(int(value))
    raise Failure(f"no int of a {kind}")


def to_uint(value: Any) -> int:
    kind = _kind(value)
    if kind == "string" and re.fullmatch(r"[0-9]{1,20}", value):
        value = int(value)
    elif kind not in _NUMBERS or (kind != "int" and not abs(value) < 1 << 64):
        raise Failure(f"no uint of a {kind}")
    return int(value) if 0 <= int(value) <= GREATEST else _fail("integer overflow")


_DOUBLE = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def to_double(value: Any) -> float:
    kind = _kind(value)
    if kind in _NUMBERS:
        return float(value)
    if kind == "string" and len(value) <= 400 and _DOUBLE.fullmatch(value):
        return float(value)
    raise Failure(f"no double of a {kind}")


def to_text(value: Any, steps: Steps) -> str:
    kind = _kind(value)
    if kind == "string":
        return value  # type: ignore[no-any-return]
    if kind in ("int", "decimal"):
        return str(value)
    if kind == "bool":
        return "true" if value else "false"
    if kind == "double":
        shown = (f"{value:.{digits}g}" for digits in (15, 16, 17))
        return next((text for text in shown if float(text) == value), "nan")
    if kind == "bytes":
        steps.take(len(value) // CHARACTERS)
        try:
            return value.decode()  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            raise Failure("bytes that are no text") from None
    if kind == "timestamp":
        time = value.astimezone(UTC)
        return f"{time.replace(microsecond=0, tzinfo=None).isoformat()}{_fraction(time.microsecond)}Z"
    if kind == "duration":
        span = abs(value)
        sign = "-" if value < timedelta() else ""
        return f"{sign}{span.days * 86400 + span.seconds}{_fraction(span.microseconds)}s"
    raise Failure(f"no string of a {kind}")


def _fraction(microseconds: int) -> str:
    """Of a second: to the millisecond if that is all of it."""
    if not microseconds:
        return ""
    return f".{microseconds:06}" if microseconds % 1000 else f".{microseconds // 1000:03}"


def to_bytes(value: Any, steps: Steps) -> bytes:
    if isinstance(value, str):
        steps.take(len(value) // CHARACTERS)
        return value.encode()
    return value if isinstance(value, bytes) else _fail(f"no bytes of a {_kind(value)}")


def to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "True", "TRUE", "t", "1"):
        return True
    if value in ("false", "False", "FALSE", "f", "0"):
        return False
    raise Failure(f"no bool of a {_kind(value)}")


_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def to_timestamp(value: Any) -> datetime:
    try:
        if isinstance(value, datetime):
            return value
        if _kind(value) == "int":
            return _EPOCH + timedelta(seconds=value)
        if isinstance(value, str) and (found := _TIMESTAMP.fullmatch(value)):
            date, time, fraction, zone = found.groups()
            zone = "+00:00" if zone in "Zz" else zone
            return datetime.fromisoformat(f"{date}T{time}{(fraction or '')[:7]}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise Failure("no such timestamp")


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"([+-]?)((?:[0-9]{1,12}(?:\.[0-9]{0,9})?(?:h|ms|us|ns|m|s))+|0)", re.ASCII)


def to_duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and (found := _DURATION.fullmatch(value[:100])) and len(value) <= 100:
        pieces = re.findall(r"([0-9.]+)(h|ms|us|ns|m|s)", found[2])
        try:
            whole = sum(
                (timedelta(seconds=float(number) * _UNITS[unit]) for number, unit in pieces), timedelta()
            )
        except OverflowError:
            raise Failure("no such duration") from None
        return -whole if found[1] == "-" else whole
    raise Failure("no such duration")


# Parts of times


@lru_cache(100)
def _zone(name: str) -> tzinfo:
    try:
        if found := re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name, re.ASCII):
            offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
            return timezone(-offset if found[1] == "-" else offset)
        if name in _zones():
            return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        pass
    raise Failure("no such time zone")


@lru_cache(1)
def _zones() -> frozenset[str]:
    """Known by name, so that no wrong one is looked for on the disk, once for each document."""
    return frozenset(available_timezones())


def _part(
    of_time: Callable[[datetime], int], of_duration: Callable[[timedelta], int] | None = None
) -> Callable[..., int]:
    def part(value: Any, zone: Any = "") -> int:
        if isinstance(value, timedelta) and of_duration and zone == "":
            return of_duration(value)
        if not isinstance(value, datetime) or not isinstance(zone, str):
            raise Failure(f"no such part of a {_kind(value)}")
        try:
            return of_time(value.astimezone(_zone(zone) if zone else UTC))
        except OverflowError:
            raise Failure("beyond the years 1 to 9999") from None

    return part


def _whole(value: timedelta, unit: timedelta) -> int:
    return value // unit if value >= timedelta() else -(-value // unit)


PARTS: dict[str, Callable[..., int]] = {
    "getFullYear": _part(lambda time: time.year),
    "getMonth": _part(lambda time: time.month - 1),
    "getDate": _part(lambda time: time.day),
    "getDayOfMonth": _part(lambda time: time.day - 1),
    "getDayOfWeek": _part(lambda time: time.isoweekday() % 7),
    "getDayOfYear": _part(lambda time: time.timetuple().tm_yday - 1),
    "getHours": _part(lambda time: time.hour, lambda span: _whole(span, timedelta(hours=1))),
    "getMinutes": _part(lambda time: time.minute, lambda span: _whole(span, timedelta(minutes=1))),
    "getSeconds": _part(lambda time: time.second, lambda span: _whole(span, timedelta(seconds=1))),
    "getMilliseconds": _part(
        lambda time: time.microsecond // 1000,
        lambda span: _whole(span, timedelta(milliseconds=1)) % 1000,
    ),
}

WITH_STEPS: dict[str, Callable[..., Any]] = {
    "_==_": equal,
    "_!=_": lambda one, other, steps: not equal(one, other, steps),
    "_<_": _comparison(operator.lt),
    "_<=_": _comparison(operator.le),
    "_>_": _comparison(operator.gt),
    "_>=_": _comparison(operator.ge),
    "_+_": add,
    "@in": contains,
    "contains": _of_texts(lambda text, other: other in text),
    "startsWith": _of_texts(str.startswith),
    "endsWith": _of_texts(str.endswith),
    "matches": _matches,
    "string": to_text,
    "bytes": to_bytes,
}
PLAIN: dict[str, Callable[..., Any]] = {
    "_-_": subtract,
    "_*_": _product,
    "_/_": _quotient,
    "_%_": _remainder,
    "-_": negative,
    "_[_]": item,
    "size": size,
    "int": to_int,
    "uint": to_uint,
    "double": to_double,
    "bool": to_bool,
    "timestamp": to_timestamp,
    "duration": to_duration,
    "dyn": lambda value: value,
    **PARTS,
}


HEAVY = frozenset(
    ("_*_", "_/_", "_%_", "int", "uint", "double", "string", "timestamp", "duration", "matches", *PARTS)
)
"""What takes longer than the others: conversions, and decimals of many digits."""
NAMES = sorted(name for name in {*WITH_STEPS, *PLAIN} if name.isalnum())
MACROS = ["all", "exists", "exists_one", "filter", "has", "map"]


def refuse(function: str) -> BadInput:
    if function in NAMES:
        return BadInput(f"{function} is not called with so many arguments.")
    near = get_close_matches(function, [*NAMES, *MACROS], 1)
    return BadInput(
        f"{function[:80]} is no function here{f'; did you mean {near[0]}?' if near else '.'}",
        f"Functions are {', '.join(NAMES)}, and {', '.join(MACROS)}.",
    )
