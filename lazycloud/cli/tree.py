"""The versions of an app's data as a tree, for `data ls`: each below what it was forked from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from lazycloud.cli.running import short
from lazycloud.cli.terminal import dot, plain, size, table

NAME = 18  # letters of a snapshot's name

Json = dict[str, Any]


def tree(versions: list[Json]) -> Table:
    """The table. Those whose origin is gone stand beside production."""
    shows_own = any(one["own"] is not None for one in versions)
    headings = ["version", "~", "forked", ">size", *([">own"] if shows_own else []), "snapshots", "used"]
    names = {each["id"]: each["name"] for one in versions for each in one["snapshots"]}
    rows: list[list[Any]] = []
    for one, lines in _placed(versions):
        own = [size(one["own"])] if shows_own else []
        name = Text.assemble(
            dot("ready" if one["live"] else "stopped"),
            (f" {lines}", "dim"),
            plain(one["label"], "green" if one["production"] else ""),
        )
        rows.append([name, _about(one), _forked(one, names), _size(one), *own, _snapshots(one), _used(one)])
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
    pinned = [("pinned ", "yellow")] if one["pinned"] else []
    subject = plain(one["subject"], "" if one["live"] else "dim")
    return Text.assemble(*pinned, subject, no_wrap=True, overflow="ellipsis")


def _forked(one: Json, names: Mapping[str, str]) -> str:
    """At which snapshot, else when."""
    if one["snapshot"]:
        day, _, rest = one["snapshot"].partition("T")
        name = names.get(one["snapshot"]) or f"{day[4:6]}-{day[6:8]} {rest[:2]}:{rest[2:4]}"
        return f"@{_cut(name)}"
    return _ago(one["forked"]) if one["source"] else ""


def _ago(at: float) -> str:
    return f"{short(time.time() - at)} ago" if at else ""


def _cut(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


def _size(one: Json) -> Text:
    return plain("not yet", "yellow") if one["pending"] else plain(size(one["bytes"]))


def _snapshots(one: Json) -> str:
    """A name, and how many others there are."""
    taken = one["snapshots"]
    name = next((_cut(each["name"]) for each in taken if each["name"]), "")
    more = len(taken) - bool(name)
    return " + ".join(filter(None, (name, str(more or ""))))


def _used(one: Json) -> Text:
    return plain("runs", "green") if one["live"] else plain(_ago(one["used"]))
