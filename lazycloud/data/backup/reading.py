"""A backup out of the store: what there is, whether it is whole, what it holds. Nothing is trusted."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lazycloud.blobs.store import Missing, Store
from lazycloud.data import durable
from lazycloud.data.backup import chunks, layering
from lazycloud.data.backup.chunks import Damaged
from lazycloud.data.backup.manifest import (
    FILE,
    FOLDER,
    LINK,
    Backup,
    Entry,
    Manifest,
    Untrusted,
    Wal,
    shown,
    unpack,
)
from lazycloud.data.fingerprint import fingerprint_of


def backups(store: Store, scope: str = "") -> list[Backup]:
    """All that it names, the newest first."""
    found = (Backup.named(one.name) for one in store.list(f"{scope}/backups" if scope else ""))
    return sorted((one for one in found if one), key=lambda one: (-one.at, one.id))


def load(store: Store, backup: Backup, trusted: Iterable[bytes]) -> Manifest:
    """Raises Missing, Damaged, Untrusted."""
    return unpack(backup, _get(store, backup.name), trusted)


@dataclass(frozen=True)
class Verdict:
    """`troubles` in sentences; `damaged` are the names of pieces to be put anew; counts of what was looked at."""

    backups: int
    whole: int
    chunks: int
    troubles: tuple[str, ...]
    damaged: tuple[str, ...]


def verify(
    store: Store, wanted: Iterable[Backup], trusted: Iterable[bytes], expected: Iterable[str] = ()
) -> Verdict:
    """Read every bit of these backups. `expected`: ids that must be among them."""
    wanted, trusted = list(wanted), list(trusted)
    troubles = [
        f"The backup {missing[:27]}… is not there any more."
        for missing in sorted(set(expected) - {one.id for one in wanted})
    ]
    known: dict[str, bool] = {}
    sound: set[Wal] = set()
    whole = 0
    for backup in wanted:
        try:
            manifest = load(store, backup, trusted)
        except (Damaged, Missing, Untrusted) as problem:
            troubles.append(problem.sentence)
            continue
        lacking = []
        for name in sorted(manifest.chunks):
            place = f"{backup.scope}/chunks/{name}"
            if place not in known:
                known[place] = _is_whole(store, place, name)
            if not known[place]:
                lacking.append(name)
        if lacking:
            paths = [shown(entry.path) for entry in manifest.entries if set(lacking) & entry.pieces]
            named = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
            troubles.append(f"The backup {backup.id[:27]}… lacks {len(lacking)} pieces, of {named}.")
            continue
        if unfit := [why for entry in manifest.entries if (why := _unfit(store, backup, entry, sound))]:
            troubles.append(f"The backup {backup.id[:27]}…: {unfit[0]}")
        whole += not unfit
    damaged = tuple(sorted(place.rpartition("/")[2] for place, good in known.items() if not good))
    return Verdict(len(wanted), whole, len(known), tuple(troubles), damaged)


def unfold(store: Store, backup: Backup, trusted: Iterable[bytes], target: Path) -> Manifest:
    """Write what it holds into a folder that is not there yet. On return all is on the disk, and is what it was.

    Raises Missing, Damaged, Untrusted, StoreFailed, OSError; nothing is left then to be mistaken for it.
    """
    manifest = load(store, backup, trusted)
    aside = target.with_name(f".{target.name}.unfolding")
    aside.mkdir(mode=0o700)
    for entry in manifest.entries:
        if entry.type == FOLDER:
            (aside / entry.path).mkdir(mode=0o700)
        elif entry.type == FILE:
            _write(store, backup, entry, aside / entry.path)
    _demand_same(manifest.databases, aside)
    _demand_sound(manifest, aside)
    for entry in reversed(manifest.entries):  # links last, and the times of folders after what is in them
        _finish(entry, aside / entry.path)
    durable.persist(aside)
    durable.publish(aside, target)
    return manifest


def forget(store: Store, scope: str, ids: Iterable[str], trusted: Iterable[bytes]) -> int:
    """Remove backups, and the pieces that no other needs; the bytes of those. Nobody else may write to that scope.

    While one cannot be read, nobody knows what it needs, and no piece goes.
    """
    gone, trusted = set(ids), list(trusted)
    left = []
    for backup in backups(store, scope):
        if backup.id in gone:
            store.delete(backup.name)
        else:
            left.append(backup)
    needed: set[str] = set()
    for backup in left:
        try:
            needed |= load(store, backup, trusted).chunks
        except (Damaged, Missing, Untrusted):
            return 0
    freed = 0
    for one in list(store.list(f"{scope}/chunks")):
        if one.name.rpartition("/")[2] not in needed:
            store.delete(one.name)
            freed += one.size
    return freed


def _write(store: Store, backup: Backup, entry: Entry, place: Path) -> None:
    piece = _pieces(store, backup)
    with place.open("xb") as file:
        for name in entry.chunks:
            file.write(piece(name))
    layering.fold(entry, place, piece)
    if place.stat().st_size != entry.size:
        raise Damaged(f"{shown(entry.path)} of the backup is not what it was.")


def _finish(entry: Entry, place: Path) -> None:
    if entry.type == LINK:
        place.symlink_to(entry.target)
    else:
        place.chmod(entry.mode)
    os.utime(place, ns=(entry.mtime, entry.mtime), follow_symlinks=False)


def _demand_same(databases: Mapping[str, str], folder: Path) -> None:
    """The contents, not the bytes only, which say nothing of who reads them."""
    for path, expected in databases.items():
        try:
            found = fingerprint_of(folder / path)
        except sqlite3.Error as problem:
            raise Damaged(f"The database {shown(path)} of the backup cannot be read: {problem}.") from problem
        if found != expected:
            raise Damaged(f"The database {shown(path)} of the backup does not hold what it held.")


def _demand_sound(manifest: Manifest, folder: Path) -> None:
    """Of databases in layers, of which there is no fingerprint: only those were kept so that were sound before."""
    for path in layering.paths(manifest.entries):
        if wrong := layering.complaints(folder / path):
            raise Damaged(
                f"The database {shown(path)} of the backup does not fit together: {shown(wrong[0])}",
                "Take another one: there is one an hour that was read as a whole.",
            )


def _unfit(store: Store, backup: Backup, entry: Entry, sound: set[Wal]) -> str:
    """Why what an entry is made of, all of which is there, cannot be put together, or ""."""
    try:
        layering.walk(entry, _pieces(store, backup), sound)
    except (Damaged, Missing) as problem:
        return f"{shown(entry.path)}: {problem.sentence}"
    return ""


def _pieces(store: Store, backup: Backup) -> layering.Piece:
    return lambda name: chunks.unpacked(name, _get(store, f"{backup.scope}/chunks/{name}"))


def _is_whole(store: Store, place: str, name: str) -> bool:
    try:
        chunks.unpacked(name, _get(store, place))
    except (Damaged, Missing):
        return False
    return True


def _get(store: Store, name: str) -> bytes:
    file = io.BytesIO()
    store.get(name, file)
    return file.getvalue()
