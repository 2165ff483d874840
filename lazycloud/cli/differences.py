"""What differs between two versions of data, for people: `data diff`, and what a restore would lose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from lazycloud.cli.terminal import plain, size

SIGNS = {"added": "+", "removed": "-", "changed": "~"}
STYLES = {"added": "green", "removed": "red", "changed": "yellow"}
FILES_SHOWN = 50

Json = dict[str, Any]


def lines(difference: Json) -> Iterator[Text]:
    """From the first to the second."""
    for database in difference["databases"]:
        yield plain(database["name"], "bold")
        if database["note"]:
            yield plain(f"  {database['note']}", "yellow")
        for one in database["schema"]:
            yield from _schema(one)
        for one in database["tables"]:
            yield from _table(one, database.get("noun", "row"))
    if files := difference["files"]:
        yield plain("files", "bold")
        for one in files[:FILES_SHOWN]:
            yield _signed(one["change"], f"{one['path']}  {_sizes(one)}")
        if len(files) > FILES_SHOWN or difference["more"]:
            yield plain("  … and others", "dim")


def _schema(one: Json) -> Iterator[Text]:
    yield _signed(one["change"], f"{one['kind']} {one['name']}")
    if one["change"] == "changed":
        yield plain(f"      - {_in_line(one['before'])}", "red")
        yield plain(f"      + {_in_line(one['after'])}", "green")


def _in_line(sql: str | None) -> str:
    return " ".join((sql or "").split())


def _table(one: Json, noun: str) -> Iterator[Text]:
    """`noun` is what a row is called: versionbase has documents."""
    counts = [f"{one[what]} {what}" for what in SIGNS if one[what]]
    text = f"  {one['name']}: {_count(one['before'], noun)} → {_count(one['after'], noun)}"
    yield plain(text + (f" ({', '.join(counts)})" if counts else ""))
    if one["note"]:
        yield plain(f"    {one['note']}", "yellow")
    for row in one["rows"]:
        yield from _row(row, noun)
    if one["more"] and one["rows"]:
        yield plain(f"    … and more {noun}s", "dim")


def _count(count: int | None, noun: str) -> str:
    return "none" if count is None else f"{count} {noun}{'' if count == 1 else 's'}"


def _row(row: Json, noun: str) -> Iterator[Text]:
    if row["change"] != "changed":
        values = row["after"] if row["before"] is None else row["before"]
        key = {} if noun == "row" else row["key"]  # a document does not have it among its members
        yield _signed(row["change"], _values(key | values), "    ")
        return
    before, after = row["before"], row["after"]
    changed = [name for name in before | after if before.get(name) != after.get(name)]
    told = ", ".join(f"{name}: {_member(before, name)} → {_member(after, name)}" for name in changed)
    yield _signed("changed", f"{_values(row['key'])}: {told}", "    ")


def _values(values: Json) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items())


def _member(values: Json, name: str) -> str:
    return _value(values[name]) if name in values else "none"


def _value(value: Any) -> str:
    """A value as SQL would show it; long ones by what they are."""
    if isinstance(value, dict):
        if "integer" in value or "real" in value:
            return str(value.get("integer", value.get("real")))
        if "blob" in value:
            return f"({size(value['blob'])} of bytes)"
        return f"{json.dumps(value.get('text', ''), ensure_ascii=False)}…"
    return "NULL" if value is None else json.dumps(value, ensure_ascii=False)


def _sizes(one: Json) -> str:
    told = [size(one[when]) for when in ("before", "after") if one[when] is not None]
    return " → ".join(told)


def _signed(change: str, text: str, before: str = "  ") -> Text:
    return plain(f"{before}{SIGNS[change]} {text}", STYLES[change])
