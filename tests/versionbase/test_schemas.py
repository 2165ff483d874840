from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from lazycloud.errors import BadInput
from lazycloud.versionbase import schema_words
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
        {"enum": [object()]},
        {"maximum": Decimal("1.5")},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
        {"$ref": "#/properties", "properties": {"allOf": {"type": "object"}}},
        {"$ref": "#/$defs/a/enum/0", "$defs": {"a": {"enum": [3]}}},
        {"properties": {"a": {"$id": "https://example.com/a"}}},
        {"\ud800": 1},
        [],
    ],
)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(BadInput, match=r"[Ss]chema"):
        Schema(schema)


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ("strng", '"string"'),
        (["string", "nul"], '"null"'),
        ("Integer", '"integer"'),
        ("date", "there are null, boo"),
    ],
)
def test_a_type_that_is_none_is_refused_with_the_one_that_was_meant(types: Any, said: str) -> None:
    with pytest.raises(BadInput, match=f"is no type: .*{said}.*properties.a.type"):
        Schema({"properties": {"a": {"type": types}}})


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ({"propertys": {}}, "properties"),
        ({"minlength": 3}, "minLength"),
        ({"any_of": []}, "anyOf"),
        ({"ref": "#"}, "$ref"),
        ({"requierd": []}, "required"),
        ({"types": "string"}, "type"),
        ({"additionalProperty": False}, "additionalProperties"),
        ({"additionalItems": False}, "items"),
        ({"max": 3}, "maximum"),
        ({"format": "datetime"}, "date-time"),
        ({"format": "e-mail"}, "email"),
    ],
)
def test_what_looks_like_a_slip_is_refused_wherever_it_is(slip: dict[str, Any], meant: str) -> None:
    for schema in (slip, {"properties": {"a": {"anyOf": [True, {"items": slip}]}}}, {"$defs": {"a": slip}}):
        Schema(schema)
        with pytest.raises(BadInput) as refused:
            schema_words.check(schema)
        assert f'Did you mean "{meant}"?' in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        POST,
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/a"},
        {
            "x-type": 1,
            "note": "",
            "example": {},
            "comment": "",
            "name": "a",
            "label": "b",
            "propertyOrder": [],
        },
        {"properties": {"propertys": {"description": "a member of that name"}}, "required": ["types"]},
        {
            "enum": [{"propertys": 1}],
            "default": {"minlength": 1},
            "const": {"types": 1},
            "examples": [{"max": 1}],
        },
        {"format": "postcode"},
        {"x" * 100_000: 1},
    ],
)
def test_words_of_others_are_let_through(schema: dict[str, Any]) -> None:
    schema_words.check(schema)


def test_many_words_of_others_are_looked_through_at_once() -> None:
    began = time.process_time()
    schema_words.check({f"typo{n}": 1 for n in range(5000)})
    assert time.process_time() - began < 2


def test_a_schema_that_is_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"not": schema}
    with pytest.raises(BadInput):
        Schema(schema)


def test_patterns_take_linear_time() -> None:
    with pytest.raises(Invalid):
        Schema({"properties": {"a": {"pattern": "^(a+)+$"}}}).check({"a": "a" * 100_000 + "!"})


TREE = {
    "$id": "https://example.com/tree",
    "$defs": {"value": {"$anchor": "value", "anyOf": [{"type": "integer"}, {"type": "string"}]}},
    "additionalProperties": False,
    "properties": {
        "value": {"$ref": "#value"},
        "left": {"$ref": "#"},
        "right": {"$ref": "#"},
        "others": {"type": "array", "items": {"$ref": "#"}},
    },
}


def test_schemas_of_trees_refer_to_themselves() -> None:
    document: dict[str, Any] = {"value": "x"}
    for _ in range(40):
        document = {"value": 1, "left": document, "right": {"value": "y"}, "others": [{}, {"value": 2}]}
    Schema(TREE).check(document)
    document["others"][1]["value"] = None
    with pytest.raises(Invalid, match=r"others\[1\]\.value"):
        Schema(TREE).check(document)


def test_a_schema_has_as_many_kinds_as_a_collection_needs() -> None:
    kinds = {
        f"kind{n}": {
            "required": ["kind", "at"],
            "properties": {"kind": {"const": n}, "at": {"$ref": "#/$defs/at"}},
        }
        for n in range(150)
    }
    schema = {
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds],
        "$defs": kinds | {"at": {"type": "integer"}},
    }
    Schema(schema).check({"kind": 77, "at": 1})


def chained(one: Callable[[dict[str, Any]], dict[str, Any]], links: int) -> dict[str, Any]:
    """A schema whose each definition is of the next one."""
    chain = {f"d{n}": one({"$ref": f"#/$defs/d{n + 1}"}) for n in range(links)}
    return {"$ref": "#/$defs/d0", "$defs": chain | {f"d{links}": {"type": "object"}}}


@pytest.mark.parametrize(
    "schema",
    [
        chained(lambda then: {"allOf": [then, then]}, 40),
        chained(lambda then: {"if": then, "then": then}, 40),
        chained(lambda then: {"dependentSchemas": {"a": then, "b": then}}, 40),
        chained(lambda then: {"unevaluatedProperties": False, "allOf": [then]}, 40),
        chained(lambda then: {"properties": {"a": {"oneOf": [then, then]}}}, 40),
        chained(lambda then: {"properties": {"a": then}, "patternProperties": {"a": then}}, 40),
        chained(lambda then: {"prefixItems": [True, then], "contains": then}, 40),
        chained(lambda then: {"items": then, "contains": then}, 40),
        {"properties": {"a": {"$ref": "#"}}, "patternProperties": {"^a": {"$ref": "#"}}},
        {"additionalProperties": {"anyOf": [{"$ref": "#"}, {"required": ["a"], "$ref": "#"}]}},
        {"$dynamicAnchor": "a", "items": {"allOf": [{"$dynamicRef": "#a"}, {"$ref": "#a"}]}},
        {"$ref": "#"},
        {"not": {"$ref": "#"}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_schemas_that_look_at_one_value_again_and_again_are_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"look at one value|itself, for one"):
        Schema(schema)


def test_a_schema_is_looked_through_at_once() -> None:
    wide = {"properties": {f"p{n}": {"type": "null"} for n in range(1000)}}
    many = {"allOf": [wide] + [{"patternProperties": {f"a{n}": True}} for n in range(800)]}
    began = time.process_time()
    with pytest.raises(BadInput, match="look at one value"):
        Schema(many)
    assert time.process_time() - began < 10


def test_many_problems_with_long_words_are_told_at_once() -> None:
    schema = Schema({"properties": {"a": {"items": {"enum": list(range(10_000))}}}})
    began = time.process_time()
    with pytest.raises(Invalid, match=r"\(at `a\[0\]`\)"):
        schema.check({"a": [1.5] * 3000})
    assert time.process_time() - began < 10
