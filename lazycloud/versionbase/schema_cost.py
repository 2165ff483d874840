"""How often a schema may look at one value: a bound, found before the schema is used.

A few hundred bytes can ask a validator for 2**30 looks at one value: two references to a schema that has two
references, and so on, whether in one place or further down at each level of a document. So looks are counted first,
at the worst of documents. A schema that refers to itself for members, as that of a tree, looks once at each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from lazycloud.errors import BadInput
from lazycloud.versionbase.values import MAX_DEPTH

LOOKS = 1000  # at one value
STEPS = 1_000_000  # of finding out

Schema = Any  # a dict, or true or false

_ONE = ("not", "if", "then", "else")  # in place of the same value: one schema, a list of them, or by name
_LIST = ("allOf", "anyOf", "oneOf")
_NAMED = ("dependentSchemas", "dependencies")
_ONE_BELOW = (
    "additionalProperties", "unevaluatedProperties", "propertyNames", "items", "contains", "unevaluatedItems",
)  # fmt: skip
_NAMED_BELOW = ("properties", "patternProperties", "$defs", "definitions")
_REFERENCES = ("$ref", "$dynamicRef")
_OTHER: None = None  # the members, or items, that nothing names


def check(schema: Schema) -> None:
    """Raises BadInput for one that looks too often, goes around in a circle, or refers to what is not in it."""
    cost = _Cost(schema)
    cost.looks(schema, ())
    below = {id(entry): list(cost.below(entry)) for entry in cost.entries(schema)}
    most = {entry: cost.weights[entry] for entry in below}
    for _ in range(MAX_DEPTH):
        before = most
        most = {}
        for entry, classes in below.items():
            cost.spend(sum(map(len, classes)))
            most[entry] = max((sum(before[each] for each in inner) for inner in classes), default=0)
        if max(most.values()) > LOOKS:
            raise _too_many()
        if most == before:
            return


class _Cost:
    def __init__(self, schema: Schema) -> None:
        self._root = schema
        self._anchors: dict[str, Schema] = {}
        self._left = STEPS
        self.weights: dict[int, int] = {}  # by id: looks at the same value, this one's too
        for each in all_in(schema):
            if isinstance(each, dict):
                self._name(each)

    def spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise _too_many()

    def looks(self, schema: Schema, above: tuple[int, ...]) -> int:
        """At one value, all that is in its place and what that refers to."""
        here = id(schema)
        if here in above:
            raise BadInput(
                "This schema refers to itself, for one and the same value.", "Let it be for a member of it."
            )
        if here not in self.weights:
            if len(above) > 2 * MAX_DEPTH:
                raise _too_many()
            weight = 1 + sum(self.looks(each, (*above, here)) for each in self._in_place(schema))
            if isinstance(schema, dict) and schema.keys() & {"unevaluatedProperties", "unevaluatedItems"}:
                weight *= 2  # what was evaluated is found out by another look
            if weight > LOOKS:
                raise _too_many()
            self.weights[here] = weight
        return self.weights[here]

    def entries(self, schema: Schema) -> Iterator[Schema]:
        """Those that a value is first looked at with: the whole one, and those of members and items."""
        known, pending = {id(schema)}, [schema]
        while pending:
            entry = pending.pop()
            self.looks(entry, ())
            yield entry
            for each in self._everywhere(entry):
                for inner in _members(each):
                    if id(inner) not in known:
                        known.add(id(inner))
                        pending.append(inner)

    def below(self, entry: Schema) -> Iterator[list[int]]:
        """For each kind of member and item: what it is looked at with, as often as it is."""
        here = [each for each in self._everywhere(entry) if isinstance(each, dict)]
        names = {name for each in here for name in each.get("properties", ())}
        for name in (*names, _OTHER):
            self.spend(len(here))
            yield [id(inner) for each in here for inner in _for_member(each, name)]
        for place in (*range(max((len(each.get("prefixItems", ())) for each in here), default=0)), _OTHER):
            self.spend(len(here))
            yield [id(inner) for each in here for inner in _for_item(each, place)]

    def _everywhere(self, schema: Schema) -> list[Schema]:
        """It, and all in its place, as often as each is there."""
        everywhere = [schema]
        for each in everywhere:
            everywhere.extend(self._in_place(each))
        self.spend(len(everywhere))
        return everywhere

    def _in_place(self, schema: Schema) -> Iterator[Schema]:
        if not isinstance(schema, dict):
            return
        yield from (schema[word] for word in _ONE if word in schema)
        yield from (each for word in _LIST for each in schema.get(word, ()))
        for word in _NAMED:
            yield from (each for each in schema.get(word, {}).values() if isinstance(each, dict | bool))
        for word in _REFERENCES:
            if word in schema:
                yield self._referred(schema[word])

    def _referred(self, reference: str) -> Schema:
        found: Schema = self._root
        name = unquote(reference.removeprefix("#"))
        try:
            if not reference.startswith("#"):
                raise LookupError
            if name.startswith("/"):
                for part in name[1:].split("/"):
                    word = part.replace("~1", "/").replace("~0", "~")
                    found = found[int(word) if isinstance(found, list) else word]
            elif name:
                found = self._anchors[name]
            if not isinstance(found, dict | bool):
                raise LookupError
        except (LookupError, TypeError, ValueError):
            raise BadInput(
                f"This is no JSON Schema: {reference[:80]!r} is not in it.", "References begin with # here."
            ) from None
        return found

    def _name(self, schema: dict[str, Any]) -> None:
        if "$id" in schema and schema is not self._root:
            raise BadInput(
                "This schema has an $id inside of it.", "Only the whole of it may have one; use $anchor."
            )
        for word in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(word), str):
                self._anchors.setdefault(schema[word], schema)


def all_in(schema: Schema, depth: int = 0) -> Iterator[Schema]:
    """It, and all that are written in it."""
    if depth > 2 * MAX_DEPTH:
        raise BadInput(f"This schema is nested more than {2 * MAX_DEPTH} deep.")
    yield schema
    if not isinstance(schema, dict):
        return
    inner: list[Schema] = [schema[word] for word in (*_ONE, *_ONE_BELOW) if word in schema]
    inner += [each for word in (*_LIST, "prefixItems") for each in schema.get(word, ())]
    inner += [each for word in (*_NAMED, *_NAMED_BELOW) for each in schema.get(word, {}).values()]
    for each in inner:
        yield from all_in(each, depth + 1)


def _members(schema: Schema) -> list[Schema]:
    """For members and items of the value."""
    if not isinstance(schema, dict):
        return []
    named = [*schema.get("properties", {}).values(), *schema.get("prefixItems", ())]
    return [*named, *_for_member(schema, _OTHER), *_for_item(schema, _OTHER)]


def _for_member(schema: dict[str, Any], name: str | None) -> Iterator[Schema]:
    """For one of this name; a pattern is taken to fit."""
    yield from schema.get("patternProperties", {}).values()
    yield from _given(schema, "unevaluatedProperties")
    if name is not _OTHER and name in schema.get("properties", {}):
        yield schema["properties"][name]
    else:
        yield from _given(schema, "additionalProperties", "propertyNames")


def _for_item(schema: dict[str, Any], place: int | None) -> Iterator[Schema]:
    yield from _given(schema, "contains", "unevaluatedItems")
    if place is not _OTHER and place < len(schema.get("prefixItems", ())):
        yield schema["prefixItems"][place]
    else:
        yield from _given(schema, "items")


def _given(schema: dict[str, Any], *words: str) -> Iterator[Schema]:
    return (schema[word] for word in words if word in schema)


def _too_many() -> BadInput:
    return BadInput(
        f"This schema may look at one value more than {LOOKS:,} times.",
        "Have fewer references to what has references itself.",
    )
