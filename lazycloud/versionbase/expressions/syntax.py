"""The syntax of expressions: Google's parser and checker of CEL, cel-cpp, read the text; this reads what they made.

They hand out a `cel.expr.CheckedExpr` of https://github.com/google/cel-spec, proto/cel/expr/{checked,syntax}.proto,
as protocol buffers; of those little is needed here, so that no library for them is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import chain
from typing import Any

from cel_expr_python import cel

from lazycloud.errors import BadInput
from lazycloud.versionbase.expressions.functions import MACROS, refuse

TOO_DEEP = "The expression is nested too deep."
LONGEST = 4096  # characters of an expression
NAMES = 100  # parameters
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
DOCUMENT, KEY = "doc", "key"
RESERVED = frozenset((DOCUMENT, KEY, "true", "false", "null", "in"))


@dataclass(frozen=True, slots=True)
class Constant:
    value: Any


@dataclass(frozen=True, slots=True)
class Name:
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """`of.name`, or with `asks` whether there is one: `has(of.name)`."""

    of: Node
    name: str
    asks: bool


@dataclass(frozen=True, slots=True)
class Call:
    """Of a function or an operator (`_&&_`, `_[_]`, `@in`); what a method is called on is its first argument."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    entries: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """What the macros all, exists, exists_one, map and filter are: a fold over the items of a range."""

    item: str
    range: Node
    kept: str  # the name of what goes from one step to the next
    start: Node
    condition: Node
    step: Node
    result: Node


def parts(node: Node) -> Iterable[Node]:
    """What it is made of."""
    match node:
        case Member(of):
            return (of,)
        case Call(_, nodes) | ListOf(nodes):
            return nodes
        case MapOf(entries):
            return chain.from_iterable(entries)
        case Loop():
            return (node.range, node.start, node.condition, node.step, node.result)
        case _:
            return ()


Node = Constant | Name | Member | Call | ListOf | MapOf | Loop


def parse(text: str, names: frozenset[str]) -> tuple[Node, str]:
    """What it is, and the type of what it gives as CEL calls it (`dyn` where that is not known before).

    Raises BadInput, with the place in the text.
    """
    if len(text) > LONGEST:
        raise BadInput(f"An expression has {LONGEST:,} characters at most; this one has {len(text):,}.")
    try:
        text.encode()  # half of a surrogate pair is no text
        compiled = _environment(names).compile(text)
        wrapped = dict(_fields(compiled.serialize()))  # a google.protobuf.Any
        return _node(dict(_fields(wrapped[2]))[4]), compiled.return_type().name().lower()
    except UnicodeError:
        raise BadInput("The expression has half of a surrogate pair in it.") from None
    except RuntimeError as problem:
        raise _explained(str(problem), text) from None
    except RecursionError:
        raise BadInput(TOO_DEEP) from None


@lru_cache(200)
def _environment(names: frozenset[str]) -> cel.Env:
    if len(names) > NAMES:
        raise BadInput(f"An expression has {NAMES} parameters at most.")
    for name in names:
        if not NAME.fullmatch(name) or name in RESERVED:
            raise BadInput(
                f"{name[:80]!r} is no name for a parameter.",
                "Letters, digits and _, and no word that means something else.",
            )
    types = {DOCUMENT: cel.Type.DYN, KEY: cel.Type.STRING} | dict.fromkeys(sorted(names), cel.Type.DYN)
    try:
        return cel.NewEnv(variables=types)
    except RuntimeError as problem:
        raise BadInput(f"These parameters cannot be: {str(problem)[:200]}.") from None


def _explained(problem: str, text: str) -> BadInput:
    """Its first message: what, and a caret below the place; and what may be meant."""
    if "recursion" in problem:
        return BadInput(TOO_DEEP)
    first = re.sub(r"^[A-Z_]+: ", "", problem).removesuffix(" [INVALID_ARGUMENT]")
    first = re.split(r"\n(?:ERROR|WARNING): <input>", first)[0].replace(" (in container '')", "")
    found = re.match(r"ERROR: <input>:(\d+):(\d+): (.*)", first, re.DOTALL)
    if not found:
        return BadInput(first[:LONGEST])
    line, column, said = int(found[1]), int(found[2]), found[3]
    said, _, place = said.partition("\n")
    if unknown := re.match(r"undeclared reference to '([^']*)'", said):
        refused = _unknown(unknown[1], text, line, column)
        said, hint = refused.sentence, refused.advice
    else:
        said, hint = re.sub(r"^Syntax error: | expecting \{.*\}$", "", said), ""
        hint = _hint(said, text.split("\n")[line - 1][: column - 1])
    return BadInput(f"At {line}:{column}: {said}\n{place}", hint)


def _unknown(name: str, text: str, line: int, column: int) -> BadInput:
    """What is declared nowhere: a function, or a variable."""
    at = text.split("\n")[line - 1][
        column - 1 :
    ]  # of a function that is called, it is where its arguments begin
    if at.startswith("("):
        return refuse(name)
    hint = f"Did you mean doc.{name}? A parameter has to be given." if NAME.fullmatch(name) else ""
    if meant := _CONSTANTS.get(name):
        hint = f"Did you mean {meant}?"
    elif found := re.search(rf"\.([A-Za-z_]+)\(\s*{re.escape(name)}\s*,", text):
        near = get_close_matches(found[1], MACROS, 1)
        if near and near[0] != found[1]:
            hint = f"{found[1]} is no loop; did you mean {near[0]}?"
    return BadInput(f"{name[:80]} is not known.", hint)


_CONSTANTS = {"None": "null", "nil": "null", "undefined": "null", "True": "true", "False": "false"}


def _hint(said: str, before: str) -> str:
    """For what those write who come from other languages. `before` is what is in the line before it."""
    if before.rstrip().endswith("not"):
        return "Not is !."
    return next((hint for pattern, hint in _HABITS if re.search(pattern, said)), "")


_HABITS = (
    (r"'= ?'|'=[^=]", "Equality is ==."),
    (r"'&|'\|", "And is &&, or is ||."),
    (r"input 'and'|input 'or'", "And is &&, or is ||, not is !."),
    (r"input 'is'", "Equality is ==, as in doc.a == null."),
    (r"at: '['\"]", "A text ends with the quote that it begins with."),
    (r"'\.?in'", 'A member of that name is doc["in"].'),
)


# Protocol buffers

_SIGN, _ALL = 1 << 63, 1 << 64


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The number of each field, and its content: an int, 8 bytes of a double, or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 1:
            yield tag >> 3, data[at : at + 8]
            at += 8
        elif tag & 7 == 2:
            length, at = _varint(data, at)
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            raise AssertionError(f"wire type {tag & 7} is in no expression")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _signed(number: int) -> int:
    return number - _ALL if number >= _SIGN else number


def _all(data: bytes) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for number, value in _fields(data):
        found.setdefault(number, []).append(value)
    return found


def _node(data: bytes) -> Node:
    for number, value in _fields(data):
        if read := _KINDS.get(number):
            node: Node = read(value)
            return node
    raise AssertionError("an expression of no kind")


def _constant(data: bytes) -> Constant:
    ((number, value),) = list(_fields(data)) or [(1, 0)]
    if number == 1:
        return Constant(None)
    if number == 2:
        return Constant(bool(value))
    if number == 3:
        return Constant(_signed(value))
    if number == 5:
        return Constant(struct.unpack("<d", value)[0])
    if number == 6:
        return Constant(value.decode())
    return Constant(value)  # unsigned, or bytes


def _member(data: bytes) -> Member:
    parts = _all(data)
    return Member(_node(parts[1][0]), parts[2][0].decode(), bool(parts.get(3)))


def _call(data: bytes) -> Call:
    parts = _all(data)
    return Call(parts[2][0].decode(), tuple(map(_node, [*parts.get(1, ()), *parts.get(3, ())])))


def _map(data: bytes) -> MapOf:
    parts = _all(data)
    if 1 in parts:
        raise BadInput(f"{parts[1][0].decode()[:80]} is no type of a document's values.")
    entries = [_all(entry) for entry in parts.get(2, ())]
    return MapOf(tuple((_node(entry[3][0]), _node(entry[4][0])) for entry in entries))


def _loop(data: bytes) -> Loop:
    parts = _all(data)
    texts = (parts[1][0].decode(), parts[3][0].decode())
    nodes = [_node(parts[number][0]) for number in (2, 4, 5, 6, 7)]
    return Loop(texts[0], nodes[0], texts[1], *nodes[1:])


_KINDS: dict[int, Any] = {
    3: _constant,
    4: lambda data: Name(dict(_fields(data))[1].decode()),
    5: _member,
    6: _call,
    7: lambda data: ListOf(tuple(map(_node, _all(data).get(1, ())))),
    8: _map,
    9: _loop,
}
