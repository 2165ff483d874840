from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from lazycloud.errors import BadInput
from lazycloud.versionbase.problems import Invalid
from lazycloud.versionbase.schemas import Schema

POST = {
    "type": "object",
    "required": ["title"],
    "additionalProperties": False,
    "properties": {
        "title": {"type": "string", "minLength": 1},
        "tags": {"type": "array", "items": {"type": "string"}},
        "at": {"type": "string", "format": "date-time"},
        "price": {"type": "number", "minimum": 0},
        "count": {"type": "integer"},
        "picture": {"type": "string", "contentEncoding": "base64"},
    },
}


def test_what_fits_is_let_through() -> None:
    Schema(POST).check(
        {"title": "x", "at": datetime(1, 1, 1, tzinfo=UTC), "price": Decimal("1.10"), "picture": b"\xff"}
    )
    Schema(POST).check({"title": "x", "count": Decimal("3")})
    Schema({}).check({"a": 2**64 - 1})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, '"title" is a required property'),
        ({"title": ""}, "(at `title`)"),
        ({"title": "x", "tags": ["a", 1]}, "1 is not of type \"string\" (at `tags[1]`)"),
        ({"title": "x", "price": Decimal("-0.01")}, "(at `price`)"),
        ({"title": "x", "count": Decimal("3.5")}, "(at `count`)"),
        ({"title": "x", "at": "yesterday"}, "(at `at`)"),
        ({"title": "x", "more": 1}, "'more' was unexpected"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(document: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        Schema(POST).check(document)
    assert said in refused.value.sentence


def test_many_problems_are_told_in_part() -> None:
    with pytest.raises(Invalid) as refused:
        Schema({"additionalProperties": {"type": "null"}}).check({str(n): "x" * 1000 for n in range(100)})
    assert len(refused.value.sentence) < 1000


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 3},
        {"$ref": "http://localhost:1/x"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/none"},
        {"pattern": "(?=a)b"},
        {"pattern": "(a{1000}){1000}"},
        {"description": "x" * 70_000},
        {"enum": [{1, 2}]},
        [],
    ],
)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(BadInput, match=r"[Ss]chema"):
        Schema(schema)


def test_a_schema_that_is_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"not": schema}
    with pytest.raises(BadInput):
        Schema(schema)


def test_patterns_take_linear_time() -> None:
    with pytest.raises(Invalid):
        Schema({"properties": {"a": {"pattern": "^(a+)+$"}}}).check({"a": "a" * 100_000 + "!"})
