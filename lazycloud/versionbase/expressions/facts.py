"""What a filter plainly says of each document that it can match: what an index can be asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from lazycloud.versionbase.expressions.functions import Failure, Steps
from lazycloud.versionbase.expressions.meaning import DOCUMENT, Names, meaning
from lazycloud.versionbase.expressions.syntax import Call, Constant, ListOf, MapOf, Member, Name, Node
from lazycloud.versionbase.problems import TooCostly
from lazycloud.versionbase.values import Value


@dataclass(frozen=True)
class Restriction:
    """`op` is ==, <, <=, >, >=, in (`value` is a list) or startsWith. A path of nothing is the key."""

    path: tuple[str, ...]
    op: str
    value: Value


_OPERATORS = {"_==_": "==", "_<_": "<", "_<=_": "<=", "_>_": ">", "_>=_": ">="}
_TURNED = {"==": "==", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_UNKNOWN = object()
_SCALARS = (str, int, float, bool, bytes, datetime, Decimal, type(None))


def restrictions(node: Node, params: Mapping[str, Value]) -> Iterator[Restriction]:
    """Of what is joined by && only: nothing is known of what is below || or !."""
    try:
        yield from _told(node, params, Steps())
    except TooCostly:
        return  # what is found out so far is true all the same


def _told(node: Node, params: Mapping[str, Value], steps: Steps) -> Iterator[Restriction]:
    if isinstance(node, Call) and node.function == "_&&_":
        for part in node.arguments:
            yield from _told(part, params, steps)
    elif isinstance(node, Call) and len(node.arguments) == 2:
        yield from _of_call(node.function, *node.arguments, params, steps)
    elif (path := _path(node)) is not None:
        yield Restriction(path, "==", True)


def _of_call(
    function: str, one: Node, other: Node, params: Mapping[str, Value], steps: Steps
) -> Iterator[Restriction]:
    if op := _OPERATORS.get(function):
        for place, against, how in ((one, other, op), (other, one, _TURNED[op])):
            path = _path(place)
            value = _value(against, params, steps) if path is not None else _UNKNOWN
            if path is not None and _is_scalar(value):
                yield Restriction(path, how, value)
    elif (path := _path(one)) is not None:
        value = _value(other, params, steps)
        if function == "@in" and isinstance(value, list) and all(map(_is_scalar, value)):
            yield Restriction(path, "in", value)
        elif function == "startsWith" and isinstance(value, str):
            yield Restriction(path, "startsWith", value)


def _path(node: Node) -> tuple[str, ...] | None:
    """Of the document's members, `doc.a.b` or `doc["a"].b`; () for the key."""
    if node == Name("key"):
        return ()
    members: list[str] = []
    while True:
        match node:
            case Member(of, name, False):
                members.append(name)
                node = of
            case Call("_[_]", (of, Constant(str() as name))):
                members.append(name)
                node = of
            case Name("doc") if members:
                return tuple(reversed(members))
            case _:
                return None


def _is_scalar(value: Any) -> bool:
    return isinstance(value, _SCALARS) and (type(value) is not float or math.isfinite(value))


def _value(node: Node, params: Mapping[str, Value], steps: Steps) -> Any:
    """What it is for every document alike; _UNKNOWN otherwise."""
    if not _is_fixed(node, params):
        return _UNKNOWN
    places = {name: place for place, name in enumerate(params, DOCUMENT + 1)}
    names = Names(places)
    try:
        found = meaning(node, names)
        frame = [steps, None, None, *params.values()]
        return found(frame + [None] * (names.size - len(frame)))
    except Failure:
        return _UNKNOWN


def _is_fixed(node: Node, params: Mapping[str, Value]) -> bool:
    match node:
        case Constant():
            return True
        case Name(name):
            return name in params
        case Member(of, _, _):
            return _is_fixed(of, params)
        case Call(_, arguments):
            return all(_is_fixed(argument, params) for argument in arguments)
        case ListOf(items):
            return all(_is_fixed(item, params) for item in items)
        case MapOf() | _:
            return False
