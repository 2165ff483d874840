"""What one backup is of, signed by the server that made it. Pure but for the clock."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lazycloud.blobs.keys import LENGTH, SIGNATURE_LENGTH, SigningKey, is_signed, public_text
from lazycloud.data import wal
from lazycloud.data.backup.chunks import LEVEL, Damaged
from lazycloud.data.wal import Mark
from lazycloud.errors import BadInput, LazycloudError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMATS = PLAIN, LAYERED = (
    1,
    2,
)  # of one with databases in layers an older lazycloud says that it cannot read it
MAGIC = b"lazybak"  # and one byte, the format
KEY = len(MAGIC) + 1  # where the public key begins
HEAD = KEY + LENGTH + SIGNATURE_LENGTH
MOST = 1 << 30  # bytes of one that is read, decompressed
FILE, FOLDER, LINK = "file", "folder", "link"
_HASH = re.compile(r"[0-9a-f]{64}")
_PLACE = re.compile(r"([a-z0-9][a-z0-9-]*\.[0-9a-f]{12})/backups/([0-9]{20})-([0-9a-f]{64})")


class Untrusted(LazycloudError):
    """It is whole, and somebody else's."""

    status = 409
    kind = "untrusted"


@dataclass(frozen=True)
class Wal:
    """What the WAL of one generation says up to a mark: in order the `chunks` that are its bytes up to there."""

    generation: str
    mark: str
    chunks: tuple[str, ...]

    @property
    def at(self) -> Mark:
        return wal.mark(self.mark)


@dataclass(frozen=True)
class Entry:
    """One path. Of a file `size` in bytes, and in order the `chunks` that are its bytes; of a link its `target`.

    Of a database in layers the `chunks` are its base, for which the id `base` stands, else ""; what the `wals` say is
    folded into it, the oldest first, and `size` is that of the result.
    """

    path: str
    type: str
    mode: int
    mtime: int  # nanoseconds
    size: int = 0
    chunks: tuple[str, ...] = ()
    target: str = ""
    base: str = ""
    wals: tuple[Wal, ...] = ()

    @property
    def pieces(self) -> set[str]:
        return {*self.chunks, *(name for one in self.wals for name in one.chunks)}

    def as_dict(self) -> dict[str, object]:
        """Without what only databases in layers have."""
        facts = asdict(self)
        return facts if self.base else {name: facts[name] for name in facts if name not in ("base", "wals")}


@dataclass(frozen=True)
class Manifest:
    """`at`: unix time at which making it began: it has all that was acknowledged before. `note`: what is not exact.

    `databases`: by path, the fingerprint of the contents of each SQLite database that is not in layers. `facts`: what
    people want to know.
    """

    app: str
    at: float
    note: str
    facts: Mapping[str, str]
    entries: tuple[Entry, ...]
    databases: Mapping[str, str]
    format: int = PLAIN

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def chunks(self) -> set[str]:
        return {name for entry in self.entries for name in entry.pieces}

    def pack(self, key: SigningKey) -> bytes:
        facts = {**vars(self), "entries": [entry.as_dict() for entry in self.entries]}
        body = zstd.compress(json.dumps(facts, separators=(",", ":")).encode(), LEVEL)
        magic = MAGIC + bytes([self.format])
        return magic + key.public + key.sign(magic + body) + body


@dataclass(frozen=True)
class Backup:
    """One that a store names. `scope` is of one app of one server; `at`: unix time."""

    scope: str
    id: str
    at: float = field(compare=False)

    @property
    def name(self) -> str:
        return f"{self.scope}/backups/{self.id}"

    @property
    def app(self) -> str:
        return self.scope.rpartition(".")[0]

    @classmethod
    def of(cls, scope: str, at: float, blob: bytes) -> Backup:
        return cls(scope, f"{int(at * 1e6):020}-{hashlib.sha256(blob).hexdigest()}", at)

    @classmethod
    def named(cls, name: str) -> Backup | None:
        found = _PLACE.fullmatch(name)
        return cls(found[1], f"{found[2]}-{found[3]}", int(found[2]) / 1e6) if found else None


def shown(text: str) -> str:
    """What an app had a say in, unable to steer a terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in text[:200])


def scope(app: str, public: bytes) -> str:
    """The part of a store that is written to for an app, by the server that has that key."""
    return f"{app}.{hashlib.sha256(public).hexdigest()[:12]}"


def unpack(backup: Backup, blob: bytes, trusted: Iterable[bytes]) -> Manifest:
    """Nothing of it is read before it is whole, and signed by somebody trusted. Raises Damaged, Untrusted."""
    if hashlib.sha256(blob).hexdigest() != backup.id.partition("-")[2] or len(blob) < HEAD:
        raise Damaged(f"The backup {backup.id[:27]}… is damaged.")
    magic, public = blob[:KEY], blob[KEY : KEY + LENGTH]
    signature, body = blob[KEY + LENGTH : HEAD], blob[HEAD:]
    if magic[:-1] != MAGIC or magic[-1] not in FORMATS or not is_signed(magic + body, signature, public):
        raise Damaged(
            f"The backup {backup.id[:27]}… is of another format, or not signed by whom it says.",
            "If a newer lazycloud made it, read it with that one.",
        )
    if public not in set(trusted):
        raise Untrusted(
            f"The backup was signed by another server: {public_text(public)}.",
            "If that is the one you mean, say --signed-by and that key.",
        )
    try:
        fields = json.loads(zstd.ZstdDecompressor().decompress(body, max_length=MOST))
        manifest = Manifest(**fields | {"entries": tuple(map(_entry, fields["entries"]))})
    except (zstd.ZstdError, ValueError, TypeError, KeyError) as problem:
        raise Damaged(f"The backup {backup.id[:27]}… cannot be read: {problem}.") from problem
    _demand_sound(manifest, backup)
    if manifest.format != magic[-1] or manifest.app != backup.app:
        raise Damaged(f"The backup {backup.id[:27]}… is of another format, or another app.")
    return manifest


def _entry(facts: dict[str, Any]) -> Entry:
    wals = tuple(Wal(**one | {"chunks": tuple(one["chunks"])}) for one in facts.get("wals", ()))
    return Entry(**facts | {"chunks": tuple(facts["chunks"]), "wals": wals})


def _demand_sound(manifest: Manifest, backup: Backup) -> None:
    """Whoever signed it: nothing is written outside of a folder, or through a link."""
    kinds: dict[str, str] = {"": FOLDER}
    for entry in manifest.entries:
        parts = entry.path.split("/")
        parent = "/".join(parts[:-1])
        sound = (
            not {"", ".", ".."} & set(parts)
            and "\0" not in entry.path
            and entry.path not in kinds
            and kinds.get(parent) == FOLDER
            and entry.type in (FILE, FOLDER, LINK)
            and 0 <= entry.mode <= 0o7777
            and all(_HASH.fullmatch(name) for name in entry.pieces)
            and _are_layers(entry)
        )
        if not sound:
            raise Damaged(f"The backup {backup.id[:27]}… has a path that cannot be: {entry.path[:80]!r}.")
        kinds[entry.path] = entry.type


def _are_layers(entry: Entry) -> bool:
    """Whether it has none, or such as can be folded."""
    try:
        marks = [one.at for one in entry.wals]
    except BadInput:
        return False
    return not marks or (
        entry.type == FILE and bool(entry.base) and all(one.page_size in wal.PAGE_SIZES for one in marks)
    )
