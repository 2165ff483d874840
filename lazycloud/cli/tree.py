"""The versions of an app's data as a tree, for `data ls`: each below what it was forked from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from lazycloud.cli.terminal import age, dot, plain, size, table

SHORT = 10
NAMES = 2  # of snapshots, that are told; the others are counted

Json = dict[str, Any]


def tree(versions: list[Json]) -> Table:
    """The table. Those whose origin is gone stand beside production."""
    shows_own = any(one["own"] is not None for one in versions)
    headings = ["version", "~", "forked", ">size", *([">own"] if shows_own else []), "snapshots", "last used"]
    rows: list[list[Any]] = []
    for one, lines in _placed(versions):
        own = [size(one["own"])] if shows_own else []
        name = plain(lines, "dim").append_text(plain(one["label"], "green" if one["production"] else ""))
        place = dot("ready" if one["live"] else "stopped").append(" ").append_text(name)
        rows.append([place, _about(one), _forked(one), _size(one), *own, _snapshots(one), _used(one)])
    return table(headings, rows)


def _placed(versions: list[Json]) -> Iterator[tuple[Json, str]]:
    """Each with the lines that lead to it, in the order of the tree."""
    names = {one["name"] for one in versions}
    below: dict[str, list[Json]] = {}
    for one in versions:
        origin = one["source"] if one["source"] in names and not one["production"] else ""
        below.setdefault(origin, []).append(one)
    waiting = [(one, "", "") for one in reversed(below.get("", []))]
    seen: set[str] = set()
    while waiting:
        one, before, lines = waiting.pop()
        seen.add(one["name"])
        yield one, lines
        children = below.get(one["name"], [])
        for child in reversed(children):
            is_last = child is children[-1]
            waiting.append(
                (child, before + ("   " if is_last else "│  "), before + ("└─ " if is_last else "├─ "))
            )
    for one in versions:  # two that were restored from each other
        if one["name"] not in seen:
            yield one, ""


def _about(one: Json) -> Text:
    text = plain("pinned ", "yellow") if one["pinned"] else plain("")
    return text.append_text(plain(one["subject"], "dim" if not one["live"] else ""))


def _forked(one: Json) -> str:
    if one["production"] and not one["source"]:
        return ""
    when = age(one["forked"]) if one["forked"] else ""
    at = f"@{_id(one)}" if one["snapshot"] else ""
    return " ".join(filter(None, (at, when)))


def _id(one: Json) -> str:
    """The day and the time of a snapshot's id."""
    day, _, rest = one["snapshot"].partition("T")
    return f"{day[4:6]}-{day[6:8]}T{rest[:2]}:{rest[2:4]}"


def _size(one: Json) -> Text:
    return plain("not yet", "yellow") if one["pending"] else plain(size(one["bytes"]))


def _snapshots(one: Json) -> Text:
    taken = one["snapshots"]
    names = [each["name"] for each in taken if each["name"]]
    shown = ", ".join(names[:NAMES])
    more = len(taken) - len(names[:NAMES])
    if more:
        shown += f" and {more}" if shown else str(more)
    return plain(shown)


def _used(one: Json) -> Text:
    return plain("runs", "green") if one["live"] else plain(age(one["used"] or None))
