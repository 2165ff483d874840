"""Documents of a versionbase as JSON for a page: each kind of value told apart, and not more than can be shown. Pure.

null, booleans, numbers that JavaScript keeps exactly and short texts are themselves. Anything else is an object:
`{"object": [[name, value], …]}`, `{"list": […]}`, `{"text", "letters"}`, `{"integer"}`, `{"real"}`, `{"decimal"}`,
`{"datetime"}`, `{"bytes": size, "begin": hex}`. Of an object or a list that is cut, `more` counts what is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from os.path import commonprefix
from typing import Any

EXACT = 2**53 - 1  # of what is larger JavaScript knows only about what it is
BEGIN = 16  # bytes of a binary value that are shown
BEFORE = 40  # letters that two texts have in common, before they differ
MOST_CHANGES = 200  # members of one document that are told to have changed

Json = Any


class Cut:
    """How much may be shown: letters of one text, members of one object or list, and values in all."""

    def __init__(self, letters: int, members: int, values: int) -> None:
        self.letters = letters
        self.members = members
        self.left = values

    def shown(self, value: Any) -> Json:
        """A value of a document."""
        self.left -= 1
        match value:
            case None | bool():
                return value
            case int():
                return value if -EXACT <= value <= EXACT else {"integer": str(value)}
            case float():
                return {"real": repr(value)} if value.is_integer() else value
            case str():
                return self._text(value)
            case Mapping():
                names = self._first(value)
                pairs = [[self._text(name), self.shown(value[name])] for name in names]
                return {"object": pairs} | _rest(len(value) - len(names))
            case list() | tuple():
                some = self._first(value)
                return {"list": [self.shown(one) for one in some]} | _rest(len(value) - len(some))
            case _:
                return scalar(value)

    def _text(self, text: str) -> Json:
        if len(text) <= self.letters:
            return text
        return {"text": text[: self.letters], "letters": len(text)}

    def _first(self, members: Any) -> list[Any]:
        """The members that there is room for: none where that is used up."""
        most = max(0, min(self.members, self.left))
        return [one for _, one in zip(range(most), members, strict=False)]


def scalar(value: Any) -> Json:
    match value:
        case Decimal():
            return {"decimal": str(value)}
        case datetime():
            return {"datetime": value.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        case bytes() | bytearray() | memoryview():
            return {"bytes": len(value), "begin": bytes(value[:BEGIN]).hex()}
    return {"text": repr(value)[:80], "letters": 80}  # a kind that this server does not know yet


def _rest(more: int) -> dict[str, int]:
    return {"more": more} if more > 0 else {}


def for_table() -> Cut:
    """A document in a row."""
    return Cut(letters=200, members=60, values=400)


def whole() -> Cut:
    """A document that somebody opened."""
    return Cut(letters=20_000, members=2000, values=20_000)


def change_view(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Json:
    """What became of a document: `change` is added, removed, changed or same; `members`, those that differ, by path.

    Of an added or removed one, `document`.
    """
    if old is None or new is None:
        present = new if old is None else old
        change = "same" if present is None else "added" if old is None else "removed"
        return {"change": change, "document": for_table().shown(present)}
    members: list[Json] = []
    for path, (before, after) in differences(old, new, ()):
        if len(members) == MOST_CHANGES:
            return {"change": "changed", "members": members, "more": True}
        cut = for_table()
        before, after = _apart(before, after, cut.letters)
        view = {"path": [cut.shown(name) for name in path]}
        view |= {name: cut.shown(one[0]) for name, one in (("old", before), ("new", after)) if one}
        members.append(view)
    return {"change": "changed" if members else "same", "members": members}


Side = tuple[Any] | tuple[()]  # a value, or none where a document has no such member
Difference = tuple[tuple[str, ...], tuple[Side, Side]]


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[Difference]:
    """The members that are not the same, at the depth where they differ; a list is one value."""
    for name in [*old, *(name for name in new if name not in old)]:
        before: Side = (old[name],) if name in old else ()
        after: Side = (new[name],) if name in new else ()
        if not before or not after:
            yield (*path, name), (before, after)
        elif isinstance(before[0], Mapping) and isinstance(after[0], Mapping):
            yield from differences(before[0], after[0], (*path, name))
        elif not same(before[0], after[0]):
            yield (*path, name), (before, after)


def _apart(before: Side, after: Side, letters: int) -> tuple[Side, Side]:
    """Of two texts that are cut, the part where they begin to differ."""
    texts = [side[0] for side in (before, after) if side and isinstance(side[0], str)]
    if len(texts) < 2 or max(map(len, texts)) <= letters:
        return before, after
    begin = max(0, len(commonprefix(texts)) - BEFORE)  # noqa: RUF071 - letter by letter
    if not begin:
        return before, after
    return (f"…{texts[0][begin:]}",), (f"…{texts[1][begin:]}",)


def same(one: Any, other: Any) -> bool:
    """Of one kind and equal: Python takes True for 1, and 1 for 1.0."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (str(one) == str(other) if isinstance(one, Decimal) else one == other)


def weight(values: Sequence[Any]) -> int:
    """About how many bytes they take, to know when it is enough."""
    total, waiting = 0, list(values)
    while waiting:
        one = waiting.pop()
        total += 8 + (len(one) if isinstance(one, str | bytes) else 0)
        if isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one
    return total
