"""What an expression gives for a document: its syntax, made once into functions of a frame, which are called often.

A frame is a list: the steps that are left, the key, the document, the parameters, and the names of loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazycloud.errors import BadInput
from lazycloud.versionbase.expressions import functions
from lazycloud.versionbase.expressions.functions import FAILURE, Failure, Steps
from lazycloud.versionbase.expressions.syntax import (
    Call,
    Constant,
    ListOf,
    Loop,
    MapOf,
    Member,
    Name,
    Node,
    parts,
)

Frame = list[Any]
Meaning = Callable[[Frame], Any]

STEPS, KEY, DOCUMENT = 0, 1, 2
LIGHT = 12  # nodes of the syntax, done for each item of a loop, that are a step
HEAVY = 16  # nodes that a conversion takes as long as


class Names:
    """Where in a frame each name is."""

    def __init__(self, places: dict[str, int]) -> None:
        self.places = places
        self.size = max(places.values(), default=DOCUMENT) + 1

    def place(self, name: str) -> int:
        self.size += 1
        self.places = self.places | {name: self.size - 1}
        return self.size - 1


def meaning(node: Node, names: Names) -> Meaning:
    """Raises BadInput for a function that is not known. What it returns raises Failure, TooCostly."""
    return _MEANINGS[type(node)](node, names)


def _constant(node: Constant, _: Names) -> Meaning:
    value = node.value
    return lambda frame: value


def _name(node: Name, names: Names) -> Meaning:
    if node.name not in names.places:  # what the checker knows beside variables
        raise BadInput(f"{node.name[:80]} is a type of CEL, and no value of a document.")
    place = names.places[node.name]
    if place <= DOCUMENT:
        return lambda frame: frame[place]

    def found(frame: Frame) -> Any:
        value = frame[place]
        if value.__class__ is Failure:  # what a loop keeps may be one
            raise Failure("as before")
        return value

    return found


def _member(node: Member, names: Names) -> Meaning:
    of, name = meaning(node.of, names), node.name

    def asked(frame: Frame) -> bool:
        value = of(frame)
        if not isinstance(value, dict):
            raise Failure("no members")
        return name in value

    def found(frame: Frame) -> Any:
        value = of(frame)
        try:
            return value[name]
        except (KeyError, TypeError):
            raise Failure(f"no such member: {name}") from None

    return asked if node.asks else found


def _list(node: ListOf, names: Names) -> Meaning:
    items = [meaning(item, names) for item in node.items]
    return lambda frame: [item(frame) for item in items]


def _map(node: MapOf, names: Names) -> Meaning:
    entries = [(meaning(key, names), meaning(value, names)) for key, value in node.entries]

    def made(frame: Frame) -> dict[str, Any]:
        found = {}
        for key, value in entries:
            name = key(frame)
            if type(name) is not str or name in found:
                raise Failure("names of members are strings, each once")
            found[name] = value(frame)
        return found

    return made


def _call(node: Call, names: Names) -> Meaning:
    found = _called(node, names)
    return _folded(found, names) if all(map(_is_constant, node.arguments)) else found


def _is_constant(node: Node) -> bool:
    return isinstance(node, Constant) or (isinstance(node, Call) and all(map(_is_constant, node.arguments)))


def _folded(found: Meaning, names: Names) -> Meaning:
    """What is the same for every document, as `timestamp("…")` is, is worked out once."""
    try:
        value = found([Steps(), *[None] * names.size])
    except Failure:
        return found
    return lambda frame: value


def _called(node: Call, names: Names) -> Meaning:
    if special := _SPECIAL.get(node.function):
        return special(node, names)
    arguments = [meaning(argument, names) for argument in node.arguments]
    if (plain := functions.PLAIN.get(node.function)) is not None:
        if len(arguments) == 1:
            (only,) = arguments
            return lambda frame: plain(only(frame))
        if len(arguments) == 2:
            first, second = arguments
            return lambda frame: plain(first(frame), second(frame))
        return lambda frame: plain(*[argument(frame) for argument in arguments])
    if (counted := functions.WITH_STEPS.get(node.function)) is None:
        raise functions.refuse(node.function)
    if len(arguments) == 1:
        (only,) = arguments
        return lambda frame: counted(only(frame), frame[STEPS])
    one, other = arguments
    return lambda frame: counted(one(frame), other(frame), frame[STEPS])


def _both(node: Call, names: Names) -> Meaning:
    return _decided(node, names, False)


def _either(node: Call, names: Names) -> Meaning:
    return _decided(node, names, True)


def _decided(node: Call, names: Names, by: bool) -> Meaning:
    """Of two, one that is `by` decides, whatever the other is, or fails to be."""
    one, other = (meaning(argument, names) for argument in node.arguments)

    def decided(frame: Frame) -> Any:
        try:
            first: Any = one(frame)
            if first is by:
                return by
        except Failure:
            frame[STEPS].take(FAILURE)
            first = None
        second: Any = other(frame)
        if second is by:
            return by
        if first.__class__ is not bool or second.__class__ is not bool:
            raise Failure("no bool")
        return not by

    return decided


def _not(node: Call, names: Names) -> Meaning:
    of = meaning(node.arguments[0], names)

    def opposite(frame: Frame) -> bool:
        value = of(frame)
        if value.__class__ is not bool:
            raise Failure("no bool")
        return not value

    return opposite


def _choice(node: Call, names: Names) -> Meaning:
    condition, one, other = (meaning(argument, names) for argument in node.arguments)

    def chosen(frame: Frame) -> Any:
        value = condition(frame)
        if value.__class__ is not bool:
            raise Failure("no bool")
        return one(frame) if value else other(frame)

    return chosen


def _goes_on(node: Call, names: Names) -> Meaning:
    """Whether a loop's condition is not plainly false."""
    of = meaning(node.arguments[0], names)

    def goes_on(frame: Frame) -> bool:
        try:
            return of(frame) is not False
        except Failure:
            return True

    return goes_on


def _among(node: Call, names: Names) -> Meaning:
    """`item in list`. Of a list of texts or numbers that is the same for each document, a set is made."""
    one, among = node.arguments
    item, known = meaning(one, names), names.place(f"@{names.size}")
    is_fixed = isinstance(among, Name) and among.name in names.places
    if isinstance(among, ListOf) and among.items and all(isinstance(each, Constant) for each in among.items):
        listed, is_fixed = [each.value for each in among.items if isinstance(each, Constant)], True
        others: Meaning = lambda frame: listed  # noqa: E731
    else:
        others = meaning(among, names)
    if not is_fixed:
        return lambda frame: functions.contains(item(frame), others(frame), frame[STEPS])

    def found(frame: Frame) -> bool:
        sought, values = item(frame), others(frame)
        if frame[known] is None or frame[known][0] is not values:
            frame[known] = values, functions.as_set(values)
        at_once: frozenset[Any] | None = frame[known][1]
        if at_once is None:
            return functions.contains(sought, values, frame[STEPS])
        return type(sought) in functions.HASHED and sought in at_once

    return found


def _sought(node: Loop) -> tuple[bool, Node] | None:
    """Of `exists` and `all`: what ends it when the condition is that, and the condition."""
    kept = Name(node.kept)
    for by, start, function, goes_on in (
        (True, Constant(False), "_||_", Call("!_", (kept,))),
        (False, Constant(True), "_&&_", kept),
    ):
        match node.step:
            case Call(name, (first, condition)) if name == function and first == kept:
                if (node.start, node.condition) == (start, Call("@not_strictly_false", (goes_on,))):
                    return (by, condition) if node.result == kept else None
    return None


def _search(node: Loop, by: bool, condition: Node, names: Names) -> Meaning:
    """One item for which the condition is `by` decides, whatever others are, or fail to be."""
    over, outer = meaning(node.range, names), names.places
    item = names.place(node.item)
    asked = meaning(condition, names)
    names.places = outer
    weight, otherwise = _steps(node), not by

    def searched(frame: Frame) -> Any:
        items, steps, has_failed = over(frame), frame[STEPS], False
        if not isinstance(items, (list, dict)):
            raise Failure("no list")
        for one in items:
            steps.left -= weight
            if steps.left < 0:
                steps.take(0)
            frame[item] = one
            try:
                answer = asked(frame)
            except Failure:
                steps.take(FAILURE)
                has_failed = True
                continue
            if answer is by:
                return by
            if answer is not otherwise:
                has_failed = True
        if has_failed:
            raise Failure("of an item")
        return otherwise

    return searched


def _loop(node: Loop, names: Names) -> Meaning:
    if (sought := _sought(node)) is not None:
        return _search(node, *sought, names)
    over, start = meaning(node.range, names), meaning(node.start, names)
    outer = names.places
    item, kept = names.place(node.item), names.place(node.kept)
    condition = meaning(node.condition, names)
    step, appends = _step(node, names)
    result = meaning(node.result, names)
    names.places = outer
    weight = _steps(node)

    def looped(frame: Frame) -> Any:
        items = over(frame)
        if not isinstance(items, (list, dict)):
            raise Failure("no list")
        steps: Steps = frame[STEPS]
        frame[kept] = start(frame)
        for one in items:
            steps.take(weight)
            frame[item] = one
            if not condition(frame):
                break
            try:
                if appends:
                    step(frame)
                else:
                    frame[kept] = step(frame)
            except Failure:
                steps.take(FAILURE)
                frame[kept] = Failure("of an item")
                if appends:
                    break
        return result(frame)

    return looped


def _steps(node: Loop) -> int:
    """For each item."""
    return 1 + (_weight(node.condition) + _weight(node.step)) // LIGHT


def _weight(node: Node) -> int:
    """How much there is to do."""
    own = HEAVY if isinstance(node, Call) and node.function in functions.HEAVY else 1
    return own + sum(map(_weight, parts(node)))


def _step(node: Loop, names: Names) -> tuple[Meaning, bool]:
    """What a loop does with each item; of `kept + [item]`, whether it puts that to the list that is kept."""
    step, kept = node.step, Name(node.kept)
    condition: Meaning | None = None
    if isinstance(step, Call) and step.function == "_?_:_" and step.arguments[2] == kept:
        condition, step = meaning(step.arguments[0], names), step.arguments[1]
    match step:
        case Call("_+_", (first, ListOf((appended,)))) if first == kept and node.start == ListOf(()):
            pass
        case _:
            return meaning(node.step, names), False
    value, place = meaning(appended, names), names.places[node.kept]

    def append(frame: Frame) -> None:
        if condition is not None:
            chosen = condition(frame)
            if chosen.__class__ is not bool:
                raise Failure("no bool")
            if not chosen:
                return
        frame[place].append(value(frame))

    return append, True


_SPECIAL = {
    "_&&_": _both,
    "_||_": _either,
    "!_": _not,
    "_?_:_": _choice,
    "@in": _among,
    "@not_strictly_false": _goes_on,
}
_MEANINGS: dict[type, Callable[[Any, Names], Meaning]] = {
    Constant: _constant,
    Name: _name,
    Member: _member,
    Call: _call,
    ListOf: _list,
    MapOf: _map,
    Loop: _loop,
}
