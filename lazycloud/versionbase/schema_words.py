"""Slips of the pen in a schema: words that would be ignored, and look like those that would not.

JSON Schema ignores what it does not know, so that schemas can hold words for other programs: a limit that is misspelt
is none. So a word, or a format, is refused if it is much like one that limits documents; others are let through, as
a slip in a title harms nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Any

from lazycloud.errors import BadInput
from lazycloud.versionbase.schema_cost import all_in

LIKE = 0.8  # of 1, how much alike two words are of which one is a slip of the other
SHORTEST = 4  # letters of a word that may be a slip
UNKNOWN = 300  # words that are looked at, each of which takes some 0.1 ms: who has more has them on purpose

_KEYWORDS = (
    "$ref", "$dynamicRef", "$defs", "definitions", "allOf", "anyOf", "oneOf", "not", "if", "then", "else",
    "dependentSchemas", "dependentRequired", "dependencies", "prefixItems", "items", "contains", "properties",
    "patternProperties", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
    "type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum",
    "maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains",
    "maxProperties", "minProperties", "required", "format",
)  # fmt: skip

_OTHERS = (
    "$schema", "$vocabulary", "$id", "$anchor", "$dynamicAnchor", "$comment", "title", "description", "default",
    "deprecated", "readOnly", "writeOnly", "examples", "contentEncoding", "contentMediaType", "contentSchema",
)  # fmt: skip

_KNOWN = frozenset((*_KEYWORDS, *_OTHERS))

_FORMATS = (
    "date", "time", "date-time", "duration", "email", "idn-email", "hostname", "idn-hostname", "ipv4", "ipv6",
    "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template", "json-pointer",
    "relative-json-pointer", "regex",
)  # fmt: skip

_TYPES = ("null", "boolean", "object", "array", "number", "string", "integer")

_MEANT = {
    "additionalItems": "items",
    "nullable": 'type": [..., "null"]',
    "property": "properties",
    "min": "minimum",
    "max": "maximum",
    "minLen": "minLength",
    "maxLen": "maxLength",
    "regex": "pattern",
}
"""Words of earlier drafts, of OpenAPI, and of other languages."""


def check(schema: dict[str, Any]) -> None:
    """Of one that is right otherwise. Raises BadInput with the first slip."""
    for what, word, known in islice(_unknown(schema), UNKNOWN):
        meant = _MEANT.get(word) if known is _KEYWORDS else None
        if meant := meant or near(word, known):
            raise BadInput(
                f'"{word[:80]}" is no {what} of JSON Schema, and would be ignored.',
                f'Did you mean "{meant}"? A word of your own begins with x-, or is let through without `strict`.',
            )


def _unknown(schema: dict[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """What each is, and what there is of that."""
    for each in all_in(schema):
        if isinstance(each, dict):
            yield from (("keyword", word, _KEYWORDS) for word in each if not _is_fine(word, _KNOWN))
            if isinstance(called := each.get("format"), str) and not _is_fine(called, _FORMATS):
                yield "format", called, _FORMATS


def _is_fine(word: str, known: Collection[str]) -> bool:
    return word in known or word.lower().startswith("x-")


def near(word: str, words: Iterable[str]) -> str | None:
    """The one that was probably meant."""
    plain = {_plain(each): each for each in words}
    if _plain(word) in plain:
        return plain[_plain(word)]
    long = [each for each in plain if len(each) >= SHORTEST] if len(word) < 80 else []
    found = get_close_matches(_plain(word), long, 1, LIKE)
    return plain[found[0]] if found else None


def no_type(name: object) -> str:
    """Why this is no type, with the one that was probably meant."""
    meant = near(name, _TYPES) if isinstance(name, str) else None
    told = f'did you mean "{meant}"?' if meant else f"there are {', '.join(_TYPES)}"
    return f"{str(name)[:80]!r} is no type: {told}"


def unknown_type(types: object) -> object:
    """Of what a schema has as `type`, the first that is none; None if that is not what is wrong with it."""
    each = types if isinstance(types, list) else [types]
    return next((name for name in each if name not in _TYPES), None)


def _plain(word: str) -> str:
    return word.lower().translate({ord(sign): None for sign in "$-_ "})
