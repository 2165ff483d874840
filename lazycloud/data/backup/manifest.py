"""What one backup is of, signed by the server that made it. Pure but for the clock."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from lazycloud.blobs.keys import LENGTH, SIGNATURE_LENGTH, SigningKey, is_signed, public_text
from lazycloud.data.backup.chunks import LEVEL, Damaged
from lazycloud.errors import LazycloudError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMAT = 1
MAGIC = b"lazybak" + bytes([FORMAT])
HEAD = len(MAGIC) + LENGTH + SIGNATURE_LENGTH
MOST = 1 << 30  # bytes of one that is read, decompressed
FILE, FOLDER, LINK = "file", "folder", "link"
_HASH = re.compile(r"[0-9a-f]{64}")
_PLACE = re.compile(r"([a-z0-9][a-z0-9-]*\.[0-9a-f]{12})/backups/([0-9]{20})-([0-9a-f]{64})")


class Untrusted(LazycloudError):
    """It is whole, and somebody else's."""

    status = 409
    kind = "untrusted"


@dataclass(frozen=True)
class Entry:
    """One path. Of a file `size` in bytes, and in order the `chunks` that are its bytes; of a link its `target`."""

    path: str
    type: str
    mode: int
    mtime: int  # nanoseconds
    size: int = 0
    chunks: tuple[str, ...] = ()
    target: str = ""


@dataclass(frozen=True)
class Manifest:
    """`at`: unix time at which making it began: it has all that was acknowledged before. `note`: what is not exact.

    `databases`: by path, the fingerprint of each SQLite database's contents. `facts`: what people want to know.
    """

    app: str
    at: float
    note: str
    facts: Mapping[str, str]
    entries: tuple[Entry, ...]
    databases: Mapping[str, str]
    format: int = FORMAT

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def chunks(self) -> set[str]:
        return {name for entry in self.entries for name in entry.chunks}

    def pack(self, key: SigningKey) -> bytes:
        body = zstd.compress(json.dumps(asdict(self), separators=(",", ":")).encode(), LEVEL)
        return MAGIC + key.public + key.sign(MAGIC + body) + body


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
    public = blob[len(MAGIC) : len(MAGIC) + LENGTH]
    signature, body = blob[len(MAGIC) + LENGTH : HEAD], blob[HEAD:]
    if blob[: len(MAGIC)] != MAGIC or not is_signed(MAGIC + body, signature, public):
        raise Damaged(f"The backup {backup.id[:27]}… is of another format, or not signed by whom it says.")
    if public not in set(trusted):
        raise Untrusted(
            f"The backup was signed by another server: {public_text(public)}.",
            "If that is the one you mean, say --signed-by and that key.",
        )
    try:
        fields = json.loads(zstd.ZstdDecompressor().decompress(body, max_length=MOST))
        entries = tuple(Entry(**entry | {"chunks": tuple(entry["chunks"])}) for entry in fields["entries"])
        manifest = Manifest(**fields | {"entries": entries})
    except (zstd.ZstdError, ValueError, TypeError, KeyError) as problem:
        raise Damaged(f"The backup {backup.id[:27]}… cannot be read: {problem}.") from problem
    _demand_sound(manifest, backup)
    return manifest


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
            and all(_HASH.fullmatch(name) for name in entry.chunks)
        )
        if not sound:
            raise Damaged(f"The backup {backup.id[:27]}… has a path that cannot be: {entry.path[:80]!r}.")
        kinds[entry.path] = entry.type
    if manifest.format != FORMAT or manifest.app != backup.app:
        raise Damaged(f"The backup {backup.id[:27]}… is of another format, or another app.")
