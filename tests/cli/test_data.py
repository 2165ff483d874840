"""What `lazycloud data` shows, and that it asks before it replaces or removes anything."""

from __future__ import annotations

import time
from typing import Any

from .conftest import CommandLine
from .server import ScriptedServer

ESCAPE = "\x1b]0;owned\x07"
ID = "20260131T120000000001-0123abcd"
A, B, C = "a" * 40, "b" * 40, "c" * 40


def version(name: str, source: str = "production", **more: Any) -> dict[str, Any]:
    return {
        "name": name, "label": name[:10], "commit": name, "subject": f"Sell {name[0]}", "source": source,
        "snapshot": "", "forked": time.time() - 7200, "used": time.time() - 60, "bytes": 1_200_000, "own": None,
        "pending": False, "live": False, "pinned": False, "production": name == "production", "snapshots": [], **more,
    }  # fmt: skip


def snapshot(name: str = "", why: str = "timer") -> dict[str, Any]:
    at = time.time() - 3600
    return {
        "id": ID if name else ID.replace("01-", "02-"), "name": name, "why": why, "at": at, "who": "Ada",
        "size": 99_000, "note": "",
    }  # fmt: skip


def tree() -> dict[str, Any]:
    production = version(
        "production", "", snapshots=[snapshot("before-import", "asked"), snapshot()], live=True
    )
    forked = version(B, A, snapshot=ID, pending=True, bytes=0)
    return {"versions": [production, version(A), forked, version(C, "gone")], "keep": 2592000, "limit": 0}


async def test_ls_shows_who_was_forked_from_whom(lazycloud: CommandLine, server: ScriptedServer) -> None:
    server.answer("GET /api/apps/shop/data", tree())
    done = await lazycloud("data", "ls")
    _, *rows = [line.rstrip() for line in done.out.splitlines()]
    assert [row.partition("Sell")[0].rstrip() for row in rows] == [
        "● production", f"○ └─ {A[:10]}", f"○    └─ {B[:10]}", f"○ {C[:10]}",
    ]  # fmt: skip
    assert "before-import + 1" in rows[0] and rows[0].endswith("runs")
    assert "  2 h ago  " in rows[1] and rows[1].endswith("1 min ago")
    assert "@before-import" in rows[2] and "not yet" in rows[2]
    assert max(map(len, rows)) <= 100
    assert (await lazycloud("data", "ls", "--json")).status == 0


async def test_a_tree_that_is_a_ring_is_shown_all_the_same(
    lazycloud: CommandLine, server: ScriptedServer
) -> None:
    server.answer("GET /api/apps/shop/data", tree() | {"versions": [version(A, B), version(B, A)]})
    done = await lazycloud("data", "ls")
    assert A[:10] in done.out and B[:10] in done.out


async def test_a_commit_or_a_table_cannot_send_escapes(
    lazycloud: CommandLine, server: ScriptedServer
) -> None:
    server.answer("GET /api/apps/shop/data", {"versions": [version(A, subject="Sell" + ESCAPE)]})
    assert "\x1b" not in (await lazycloud("data", "ls")).out
    server.answer("GET /api/apps/shop/data/diff", difference(ESCAPE))
    done = await lazycloud("data", "diff", "@a", "@b", "--rows")
    assert done.status == 0 and "\x1b" not in done.out and "\x07" not in done.out
    assert server.asked("GET /api/apps/shop/data/diff") == [
        {"a": "production@a", "b": "production@b", "rows": "20"}
    ]


def difference(text: str) -> dict[str, Any]:
    row = {
        "change": "changed",
        "key": {"id": 1},
        "before": {"id": 1, "text": "x"},
        "after": {"id": 1, "text": text},
    }
    gone = {"change": "removed", "key": {"id": 2}, "before": {"id": 2, "text": None}, "after": None}
    table = {
        "name": f"notes{text}", "before": 2, "after": 1, "added": 0, "removed": 1, "changed": 1, "rows": [row, gone],
        "more": True, "note": "",
    }  # fmt: skip
    schema = {
        "kind": "index",
        "name": "by_text",
        "change": "added",
        "before": None,
        "after": "CREATE INDEX …",
    }
    database = {"name": "database.sqlite", "schema": [schema], "tables": [table], "note": ""}
    file = {"path": f"files/{text}", "change": "changed", "before": 1, "after": 2000}
    return {"same": False, "databases": [database], "files": [file], "more": False}


async def test_a_difference_is_told_in_words(lazycloud: CommandLine, server: ScriptedServer) -> None:
    server.answer("GET /api/apps/shop/data/diff", difference("y"))
    done = await lazycloud("data", "diff", "@a", "@b")
    assert done.out.splitlines() == [
        "database.sqlite",
        "  + index by_text",
        "  notesy: 2 rows → 1 row (1 removed, 1 changed)",
        '    ~ id=1: text: "x" → "y"',
        "    - id=2, text=NULL",
        "    … and more rows",
        "files",
        "  ~ files/y  1 B → 2.0 kB",
    ]


async def test_what_differs_in_a_versionbase_is_told_as_documents(
    lazycloud: CommandLine, server: ScriptedServer
) -> None:
    rows = [
        {"change": "added", "key": {"key": "k1"}, "before": None, "after": {"title": "x"}},
        {"change": "removed", "key": {"key": "k2"}, "before": {}, "after": None},
        {"change": "changed", "key": {"key": "k3"}, "before": {"a": 1, "b": 2}, "after": {"a": 1}},
    ]
    table = {
        "name": "posts",
        "before": 1,
        "after": None,
        "added": 1,
        "removed": 1,
        "changed": 1,
        "rows": rows,
    }
    database = {"name": "versionbase", "noun": "document", "schema": [], "note": ""}
    database["tables"] = [table | {"more": True, "note": ""}]
    told = {"same": False, "databases": [database], "files": [], "more": False}
    server.answer("GET /api/apps/shop/data/diff", told)
    done = await lazycloud("data", "diff", "@a", "@b", "--rows")
    assert done.out.splitlines() == [
        "versionbase",
        "  posts: 1 document → none (1 added, 1 removed, 1 changed)",
        '    + key="k1", title="x"',
        '    - key="k2"',
        '    ~ key="k3": b: 2 → none',
        "    … and more documents",
    ]


async def test_what_replaces_or_removes_asks_first(lazycloud: CommandLine, server: ScriptedServer) -> None:
    server.answer("GET /api/apps/shop/data", tree())
    would = {"version": "production", "snapshot": "x", "lost": difference("y")}
    server.answer("POST /api/apps/shop/data/restore", would)
    questions = {
        ("restore", "@before-import"): "Restore production of shop?",
        ("rm", "@before-import"): "Remove the snapshot @before-import of shop?",
        ("rm", A): f"Remove the data of {A[:10]} of shop?",
        ("reset", A): f"Reset the data of {A[:10]} of shop?",
        ("shell", "production"): "These are the data of production of shop",
    }
    for arguments, question in questions.items():
        done = await lazycloud("data", *arguments)
        assert done.status == 2 and question in done.err and "Say --yes" in done.err, arguments
    assert server.asked("POST /api/apps/shop/data/restore") == [
        {"point": "production@before-import", "dry_run": True}
    ]
    for route in ("rm", "reset", "forget"):
        assert server.asked(f"POST /api/apps/shop/data/{route}") == []


async def test_the_format_of_a_file_is_told_by_its_name(
    lazycloud: CommandLine, server: ScriptedServer
) -> None:
    done = await lazycloud("data", "export", "production", "data.xyz")
    assert done.status == 2 and "Which format is data.xyz?" in done.err
