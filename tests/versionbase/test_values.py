"""Values: they come back as they were, are ordered as exact arithmetic has it, and what cannot be one is refused."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lazycloud.errors import BadInput
from lazycloud.versionbase import values
from lazycloud.versionbase.problems import TooLarge
from lazycloud.versionbase.values import (
    MISSING,
    at_path,
    decode,
    encode,
    encode_document,
    from_json,
    ordered,
    received,
    to_json,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
DATETIMES = st.datetimes(
    datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.one_of(st.just(UTC), OFFSETS)
)
DECIMALS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: abs(d.adjusted()) <= 300),
    st.builds(lambda n, e: Decimal(n).scaleb(e), st.integers(-(10**25), 10**25), st.integers(-270, 270)),
).filter(lambda d: abs(int(d.as_tuple().exponent)) <= 1000 and abs(d.adjusted()) <= 300)
INTEGERS = st.integers(values.LEAST, values.GREATEST)
NUMBERS = st.one_of(INTEGERS, st.floats(allow_nan=False, allow_infinity=False), DECIMALS)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.binary(), DATETIMES)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXTS, inner)), max_leaves=20
)


def exactly(value: Any) -> Any:
    """Equal only for what is the same in every respect: types, digits, the sign of zero; datetimes in UTC."""
    if isinstance(value, dict):
        return {name: exactly(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [exactly(inner) for inner in value]
    if isinstance(value, datetime):
        return ("datetime", value.astimezone(UTC).isoformat())
    return (type(value).__name__, repr(value))


# Bytes


@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert exactly(decode(encode(value))) == exactly(value)
    assert exactly(decode(memoryview(encode(value)))) == exactly(value)
    assert exactly(received(encode(value))) == exactly(value)


@given(VALUES)
def test_values_come_back_through_json(value: Any) -> None:
    written = msgspec.json.encode(to_json(value))
    assert exactly(from_json(msgspec.json.decode(written))) == exactly(value)


@pytest.mark.parametrize(
    "value",
    [
        -0.0, 5e-324, 1.7976931348623157e308, values.LEAST, values.GREATEST, Decimal("1.10"), Decimal("-0"),
        Decimal("0E-6"), Decimal("1E+300"), Decimal("0." + "0" * 299 + "1"), Decimal("9" * 301 + "." + "9" * 699),
        datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(2200, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        "a\0b", "\U0010ffff", b"", {"": {}}, {"$": 1}, {"$$bytes": "x"}, {"$bytes": "x"}, {"$a": 1, "$b": 2},
    ],
)  # fmt: skip
def test_what_is_at_the_limits_comes_back(value: Any) -> None:
    assert exactly(decode(encode(value))) == exactly(received(encode(value))) == exactly(value)
    assert exactly(from_json(msgspec.json.decode(msgspec.json.encode(to_json(value))))) == exactly(value)


def test_a_document_that_is_encoded_stays_as_it_is() -> None:
    document = {"a": [Decimal("1.10"), {"at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))}]}
    before = exactly(document), document["a"][1]
    encode(document)
    assert (exactly(document), document["a"][1]) == before


def nested(levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"a": {"b": [1, {2}]}}, "`a.b[1]` is a set"),
        ({"a": (1, 2)}, "`a` is a tuple"),
        ({"a": OrderedDict()}, "`a` is a OrderedDict"),
        ({"a": datetime(2026, 1, 1)}, "`a` is a datetime without a time zone"),
        ({"a": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, "years 1 to 9999"),
        ({"a": 2**64}, "`a` is an integer of more than 64 bits"),
        ({"a": [-(2**63) - 1]}, "`a[0]` is an integer of more than 64 bits"),
        ({"a": math.nan}, "`a` is nan, which is no number"),
        ({"a": {"b": -math.inf}}, "`a.b` is -inf, which is no number"),
        ({"a": Decimal("nan")}, "`a` is NaN"),
        ({"a": Decimal("sNaN")}, "`a` is sNaN"),
        ({"a": Decimal("1e301")}, "`a` is a decimal beyond"),
        ({"a": Decimal("1e-999999999")}, "`a` is a decimal beyond"),
        ({"a": Decimal("1e999999999999999999")}, "`a` is a decimal beyond"),
        ({"a": Decimal("1." + "1" * 1000)}, "`a` is a decimal beyond"),
        ({"a": ["\ud800"]}, "`a[0]` is a text with half of a surrogate pair"),
        ({"a": {"x\udfff": 1}}, "`a.x\\udfff` has half of a surrogate pair in its name"),
        ({"a": {1: 2}}, "`a` has a member whose name is no text: '1'"),
        ({1: 2}, "The document has a member whose name is no text: '1'"),
        (nested(101), "nested more than 100 deep"),
        (nested(100_000), "nested more than 100 deep"),
        ([], "A document is an object, not a list"),
        (None, "A document is an object, not a NoneType"),
    ],
)  # fmt: skip
def test_what_cannot_be_in_a_document_is_refused_with_its_place(document: Any, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        encode_document(document)
    assert said in refused.value.sentence
    refused.value.sentence.encode()  # it can be sent


def test_a_list_in_itself_is_refused() -> None:
    document: dict[str, Any] = {"a": []}
    document["a"].append(document)
    with pytest.raises(BadInput, match="nested more than"):
        encode_document(document)


def test_a_document_has_its_limits() -> None:
    encode_document(nested(100))
    encode_document({"a": b"x" * (values.MAX_DOCUMENT - 10)})
    with pytest.raises(TooLarge, match="16,777,21"):
        encode_document({"a": b"x" * values.MAX_DOCUMENT})


@given(st.binary())
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdd\x0f\xff\xff\xff" * 900)
@example(b"\x91" * 100_000)
@example(b"\x81\xa1a" * 100_000)
@example(b"\x81\x81\x01\x01\xc0")
@example(b"\xc7\x03\x01inf")
@example(b"\xc7\x08\x011e999999")
@example(b"\xc7\x0c\x011e9999999999")
@example(b"\xc8\x07\xd0\x01" + b"1" * 2000)
@example(b"\xc7\x04\x01\xd9\xa1\xd9\xa1")
@example(b"\xc7\x03\x011_0")
@example(b"\xa3\xed\xa0\x80")
@example(b"\xd7\xff" + b"\xff" * 8)
@example(b"\xc0\xc0")
def test_bytes_that_say_nothing_are_refused(data: bytes) -> None:
    for read in (decode, received):
        try:
            value = read(data)
        except BadInput as problem:
            assert "no MessagePack" in problem.sentence
        else:
            assert not isinstance(value, Decimal) or value.is_finite()


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x01\xc0", b"\x81\x91\x01\xc0", b"\x91\x81\xc0\x01", b"\x81\xc4\x01a\xc0", b"\x81\xd4\x011\xc0",
        b"\xc0\xc0", b"\xc0\x92", b"\xc0\xc4\x10" + b"x" * 16, b"\x91", b"\xdc\x00\x01", b"", b"\xc4\x20",
    ],
)  # fmt: skip
def test_frames_are_one_value_whose_names_are_texts(data: bytes) -> None:
    with pytest.raises(BadInput, match="no MessagePack"):
        received(data)


def test_names_of_one_hash_cannot_be_sent() -> None:
    """Lists as names, made so that Python's hashes of the tuples are one: a hundred thousand would take minutes."""
    one, two, three, word = 11400714785074694791, 14029467366897019727, 2870177450012600261, 1 << 64

    def partner(number: int) -> int:
        lane = (three + number * two) % word
        turned = ((lane << 31) | (lane >> 33)) % word * one % word
        return (12345 - turned) * pow(two, -1, word) % word

    pairs = [(n, partner(n)) for n in range(1, 400_000) if partner(n) < 2**61 - 1]
    assert hash(pairs[0]) == hash(pairs[1])
    names = b"".join(b"\x92" + encode(n) + encode(m) + b"\xc0" for n, m in pairs)
    began = time.process_time()
    with pytest.raises(BadInput, match="no MessagePack"):
        received(b"\xdf" + len(pairs).to_bytes(4) + names)
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    "value",
    [
        {"$bytes": "x"}, {"$bytes": "=="}, {"$bytes": "YQ==\n"}, {"$bytes": 1}, {"$datetime": "yesterday"},
        {"$datetime": "2026-01-01T00:00:00"}, {"$datetime": "0001-01-01T00:00:00+14:00"}, {"$datetime": None},
        {"$decimal": "1e999999"}, {"$decimal": "NaN"}, {"$decimal": "1_0"}, {"$decimal": " 1"}, {"$decimal": "१"},
        {"$decimal": "9" * 100_000}, {"$": 1}, {"$other": "x"}, {"a": [{"$other": "x"}]}, 2**64, {"a": -(2**64)},
        nested(100_000),
    ],
)  # fmt: skip
def test_json_that_is_no_value_is_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        from_json(value)


def test_what_is_at_a_path() -> None:
    document = {"a": {"b": None}, "": 1}
    assert at_path(document, ("a", "b")) is None
    assert at_path(document, ("",)) == 1
    assert at_path(document, ()) is document
    for path in (("a", "c"), ("a", "b", "c"), ("c",)):
        assert at_path(document, path) is MISSING


# Order


def rank(value: Any) -> int:
    kinds: tuple[type | tuple[type, ...], ...]
    kinds = (type(None), bool, (int, float, Decimal), datetime, str, bytes, list, dict)
    return next(place for place, kind in enumerate(kinds) if isinstance(value, kind))


def compared(one: Any, other: Any) -> int:
    """-1, 0 or 1, by exact arithmetic; of objects only whether they are the same."""
    if rank(one) != rank(other):
        return -1 if rank(one) < rank(other) else 1
    if isinstance(one, list):
        for a, b in zip(one, other, strict=False):
            if compared(a, b):
                return compared(a, b)
        return (len(one) > len(other)) - (len(one) < len(other))
    if one is None:
        return 0
    if rank(one) == 2:
        one, other = Fraction(one), Fraction(other)
    return (one > other) - (one < other)


LISTS = st.recursive(SCALARS, st.lists, max_leaves=10)
NEAR = st.builds(  # numbers that differ by little, or not at all
    lambda number, by, kind: kind(number + by) if kind is not float else float(number + by),
    st.sampled_from([0, 1, 2**53, -(2**53), 2**62, 10**18]),
    st.integers(-3, 3),
    st.sampled_from([int, float, Decimal]),
)
FRACTIONS = st.builds(
    lambda n, e, digits: Decimal(n).scaleb(e) + Decimal(digits).scaleb(e - 20),
    st.integers(-20, 20), st.integers(-100, 100), st.integers(-3, 3),
)  # fmt: skip


PAIRS = st.one_of(*(st.tuples(one, one) for one in (LISTS, NEAR, FRACTIONS, TEXTS)))


@given(PAIRS)
@example((0.1, Decimal("0.1")))
@example((2**63 - 1, float(2**63)))
@example((2**64 - 1, Decimal(2**64 - 1)))
@example((-0.0, 0))
@example((Decimal("-0"), 0.0))
@example((Decimal("1e300"), 1e300))
@example((Decimal("1.000000000000000000000000000000000000000000000001"), 1))
@example((Decimal("1e-300"), Decimal("1.0000000000000000000000001e-300")))
@example(("a", "a\0"))
@example(("a\0", "a\x01"))
@example((b"\0", b"\0\xff"))
@example((["a"], ["a", None]))
@example(([["a"], 1], [["a", 1]]))
@example((datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC)))
def test_ordered_bytes_are_ordered_as_values_are(pair: tuple[Any, Any]) -> None:
    one, other = ordered(pair[0]), ordered(pair[1])
    assert (one > other) - (one < other) == compared(*pair)


@given(VALUES, VALUES)
def test_no_ordered_bytes_begin_others(one: Any, other: Any) -> None:
    a, b = ordered(one), ordered(other)
    assert a == b or not (a.startswith(b) or b.startswith(a))


@given(DECIMALS, DECIMALS)
def test_decimals_beyond_what_is_told_are_in_order_or_the_same(one: Decimal, other: Decimal) -> None:
    a, b = ordered(one), ordered(other)
    assert (a <= b) if one <= other else (a >= b)


@given(st.dictionaries(TEXTS, SCALARS), st.randoms())
def test_the_order_of_members_does_not_matter(value: dict[str, Any], random: Any) -> None:
    members = list(value.items())
    random.shuffle(members)
    assert ordered(dict(members)) == ordered(value)


@given(TEXTS, TEXTS, TEXTS)
def test_a_prefix_begins_those_that_begin_so(prefix: str, rest: str, other: str) -> None:
    begin = values.ordered_prefix(prefix)
    assert ordered(prefix + rest).startswith(begin)
    assert ordered(other).startswith(begin) == other.startswith(prefix)


def test_kinds_are_told_by_their_first_byte() -> None:
    examples = (None, True, 1, datetime(2026, 1, 1, tzinfo=UTC), "a", b"a", [], {})
    firsts = [ordered(value)[0] for value in examples]
    assert firsts == sorted(set(firsts))
    assert ordered(False)[0] == ordered(True)[0]
    assert ordered(1)[0] == ordered(-1.5)[0] == ordered(Decimal("1e-300"))[0]


@pytest.mark.parametrize(
    "value", [Decimal("1e999999"), Decimal("-1e-999999"), Decimal("9" * 100_000), 1e308, 10**200]
)
def test_numbers_that_were_computed_are_placed_at_once(value: Any) -> None:
    began = time.process_time()
    assert ordered(-abs(value)) < ordered(0) < ordered(abs(value))
    assert time.process_time() - began < 10


def test_what_has_no_place_in_an_order_is_refused() -> None:
    for value in ({1}, [object()], "\ud800"):
        with pytest.raises(BadInput):
            ordered(value)
