"""What control calls. Each is a process of its own, and takes folders that nobody else uses meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazycloud import trees
from lazycloud.data.tools.contents import DUMPED, FORMATS, SQL, SQLITE, TAR
from lazycloud.data.tools.process import USUAL, Limits, run
from lazycloud.data.tools.shapes import Difference, Schema, Summary
from lazycloud.errors import BadInput, Conflict
from lazycloud.walls.sandbox import Sandbox

KINDS = (SQLITE, SQL, TAR)  # of which a folder is made


async def difference(
    one: Path,
    other: Path,
    *,
    walls: Sandbox | None = None,
    table: str = "",
    rows: int = 0,
    limits: Limits = USUAL,
) -> Difference:
    """What became of one version's data in another: schema, numbers of rows, files.

    Up to `rows` rows of each table are told, and only `table` is looked at if there is one by that name. What cannot
    be read is said in notes, and is not the same. Raises StepFailed when it takes too long.
    """
    order = {"one": str(one), "other": str(other), "table": table, "rows": rows}
    return Difference.from_dict(await run("compare", order, one, (one, other), walls, limits))


async def summary(
    folder: Path, *, walls: Sandbox | None = None, sizes: bool = True, limits: Limits = USUAL
) -> Summary:
    """The schema and the numbers of rows of all databases in a version's folder.

    `sizes`: also the bytes of each table, for which a database is read from end to end.
    """
    order = {"folder": str(folder), "sizes": sizes, "rows": True}
    return Summary.from_dict(await run("sum up", order, folder, (folder,), walls, limits))


async def schema_of(folder: Path, *, walls: Sandbox | None = None, limits: Limits = USUAL) -> Schema:
    """The schema alone, which takes milliseconds whatever the data."""
    order = {"folder": str(folder), "sizes": False, "rows": False}
    return Summary.from_dict(await run("sum up", order, folder, (folder,), walls, limits)).schema


@dataclass(frozen=True)
class Exported:
    """`bytes` of the file; `note`: what it does not hold, or ""."""

    bytes: int
    note: str


async def export(
    folder: Path, target: Path, kind: str, *, walls: Sandbox | None = None, limits: Limits = USUAL
) -> Exported:
    """Write a version's data to `target`, a file that is not there yet, in a folder that holds nothing of others.

    `kind` sqlite: its main database, compact. sql: that as text, as `sqlite3 FILE .dump` does. tar: all databases
    and files. dump: what there is of Postgres, of which sql is the text, too. Raises BadInput for another kind,
    StepFailed for what cannot be read, DiskFull. Nothing is left of a target that could not be written whole. In
    all but tar, rows without a primary key may get other rowids.
    """
    if kind not in FORMATS:
        raise BadInput(f"“{kind[:40]}” is no kind of export.", f"There are {', '.join(FORMATS)}.")
    order = {"folder": str(folder), "target": str(target), "kind": kind}
    try:
        told = await run("export", order, folder, (folder, target.parent), walls, limits)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return Exported(int(told["bytes"]), str(told["note"]))


@dataclass(frozen=True)
class Imported:
    """`kind` it was; `warnings`: what is odd of the data, though they are sound, in sentences."""

    kind: str
    warnings: tuple[str, ...]


async def import_(
    file: Path,
    folder: Path,
    *,
    kind: str = "",
    walls: Sandbox | None = None,
    limits: Limits = USUAL,
    with_dump: bool = False,
) -> Imported:
    """Make a version's folder of what `export` wrote, or `sqlite3`. `folder` is empty: filled whole or not at all.

    `kind` "" finds out. `with_dump`: it is a tar with a dump of Postgres, for `load`. Everything else is read through
    once: databases that are damaged are refused. Raises BadInput for what is wrong with the file (for SQL with the
    line), StepFailed, DiskFull.
    """
    if kind not in ("", *KINDS):
        raise BadInput(f"“{kind[:40]}” is no kind of export.", f"There are {', '.join(KINDS)}.")
    folder.mkdir(exist_ok=True)
    if any(folder.iterdir()):
        raise Conflict(f"There are data in {folder.name} already: what is sent is not mixed with them.")
    order: dict[str, Any] = {"file": str(file), "folder": str(folder), "kind": kind}
    order |= {"most": limits.disk, "with_dump": with_dump}
    try:
        told = await run("import", order, folder, (folder, file.parent), walls, limits)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(_clear, folder))
        raise
    return Imported(str(told["kind"]), tuple(map(str, told["warnings"])))


async def load(
    file: Path,
    kind: str,
    login: Mapping[str, str],
    *,
    walls: Sandbox | None = None,
    reach: Sequence[Path] = (),
    limits: Limits = USUAL,
) -> Imported:
    """Run what pg_dump wrote, or SQL like it, in an empty database of Postgres.

    `kind` is sql or dump. `file` lies in a folder of its own, in which what a dump is made stays. `login`: PGHOST,
    PGUSER and the like, of a role that may nothing elsewhere; `reach`: what is to be seen to get to the server. The
    dump is made SQL without network; SQL is only sent, and nothing of it is run here. Owners and privileges are
    left out, which is told. Raises BadInput with the line, StepFailed, DiskFull: then the database is of no use.
    """
    told = "the SQL"
    if kind == DUMPED:
        dump, file, told = file, file.with_name("restored.sql"), "what pg_restore makes of it"
        restoring = {"dump": str(dump), "target": str(file)}
        await run("restore", restoring, file.parent, (file.parent,), walls, limits)
    order = {"file": str(file), "told": told, "login": dict(login)}
    found = await run("load", order, file.parent, (file.parent,), walls, limits, reach)
    return Imported(kind, tuple(map(str, found["warnings"])))


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            trees.remove(entry)
        else:
            entry.unlink(missing_ok=True)
