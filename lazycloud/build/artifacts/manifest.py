"""What an artifact holds: its manifest, and the rules that a manifest keeps before anything is written by it."""

from __future__ import annotations

import json
import posixpath
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lazycloud.errors import LazycloudError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMAT = 1
KINDS = {"environment": "environments", "release": "releases", "build": "builds"}
"""What may be packed, and the folder of an app that holds it."""

FILE, FOLDER, LINK, INTERPRETER = "file", "folder", "link", "interpreter"
LEVEL = 3  # of zstd: as fast as a disk; higher levels cost minutes for a tenth of the size
PACKED_MOST = 64 << 20  # bytes of a compressed manifest: some million files
PLAIN_MOST = 512 << 20
PATH_MOST, NAME_MOST = 4096, 255
MODE_MOST = 0o777  # no setuid, setgid, sticky
OWNER = 0o700  # of every folder: what seals an environment seals it again where it comes to
_NOWHERE = frozenset({"", ".", ".."})
_KEY = re.compile(r"[0-9a-f]{16,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w.-]{1,64}")


class ArtifactRefused(LazycloudError):
    """A file that is no artifact, not a whole one, not one of somebody trusted, or not for this machine."""

    kind = "artifact refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path below the artifact's folder, with `/`.

    `type` is "file", "folder", "link", or "interpreter": a link to the Python of the machine it is on. `size` and
    `sha256` are of a file's content as packed. `relocate`: a file that names the app's folder; of a link, that
    `target` is relative to the app's folder instead of to the link.
    """

    path: str
    type: str
    mode: int = 0o755
    size: int = 0
    sha256: str = ""
    target: str = ""
    relocate: bool = False


@dataclass(frozen=True)
class Body:
    """The rest of the file: `size` bytes with that hash, which decompress to `content` bytes."""

    size: int
    sha256: str
    content: int


@dataclass(frozen=True)
class Manifest:
    """`folder` was in `root`, the app's folder on the machine that made it.

    `key` is the stage's, made without paths of that machine. `python` is the full version of the interpreter that it
    links to, or "". `needs` are the environments that it leads to: folders in `root` by key. `bound` is a file that
    names `root` where it cannot be rewritten, or "". `marker` are the facts that completed the folder, in the file
    `marker_name`. `provenance` says of what commit it is, and who made it, where and when.
    """

    kind: str
    key: str
    root: str
    folder: str
    marker_name: str
    marker: Mapping[str, Any]
    provenance: Mapping[str, str | float]
    platform: str
    body: Body
    entries: tuple[Entry, ...]
    python: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)
    bound: str = ""
    format: int = field(default=FORMAT)

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders in `root` that it may lead to, its own first."""
        return self.folder, *self.needs.values()

    def to_bytes(self) -> bytes:
        text = json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)
        return zstd.compress(text.encode(), LEVEL)

    @classmethod
    def from_bytes(cls, packed: bytes) -> Manifest:
        """Raises ArtifactRefused for one that breaks a rule, whoever signed it."""
        try:
            manifest = _read(_unpacked(packed))
            _check(manifest)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
            raise ArtifactRefused(f"Its manifest cannot be read: {problem}.") from problem
        return manifest


def moved(path: str, folders: Mapping[str, str]) -> str | None:
    """A path at or below one of these folders, below the folder that it became; None for any other."""
    for old, new in folders.items():
        if path == old or path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return None


def is_key(text: str) -> bool:
    return _KEY.fullmatch(text) is not None


def _unpacked(packed: bytes) -> Any:
    decompressor = zstd.ZstdDecompressor()
    try:
        text = decompressor.decompress(packed, PLAIN_MOST)
    except zstd.ZstdError as problem:
        raise ArtifactRefused(f"Its manifest cannot be decompressed: {problem}.") from problem
    if not decompressor.eof or decompressor.unused_data:
        raise ArtifactRefused("Its manifest is larger than any that lazycloud makes.")
    return json.loads(text)


def _read(document: Any) -> Manifest:
    made = document.get("format")
    if made != FORMAT:
        raise ArtifactRefused(
            f"It has format {str(made)[:20]}, and this lazycloud reads {FORMAT}.", "Upgrade lazycloud here."
        )
    known = {one.name for one in fields(Manifest)}
    values = {name: value for name, value in document.items() if name in known}
    return Manifest(
        **values
        | {
            "body": Body(**document["body"]),
            "entries": tuple(Entry(**entry) for entry in document["entries"]),
        }
    )


def _check(manifest: Manifest) -> None:
    _demand(manifest.kind in KINDS and is_key(manifest.key), "kind and key")
    _demand(_is_inside(manifest.folder), "folder")
    _demand(_is_text(manifest.root) and manifest.root.startswith("/"), "root")
    _demand(_NAME.fullmatch(manifest.marker_name) is not None and manifest.marker_name != "..", "marker")
    _demand(isinstance(manifest.marker, dict) and isinstance(manifest.provenance, dict), "marker")
    _demand(all(is_key(key) and _is_inside(folder) for key, folder in manifest.needs.items()), "needs")
    _demand(all(map(_is_text, (manifest.python, manifest.bound, manifest.platform))), "python and platform")
    _demand(_is_count(manifest.body.size) and _is_hash(manifest.body.sha256), "body")
    for entry in manifest.entries:
        _check_entry(entry, manifest)
    _check_places(manifest)
    content = sum(entry.size for entry in manifest.entries)
    _demand(_is_count(manifest.body.content) and content == manifest.body.content, "body")


def _check_entry(entry: Entry, manifest: Manifest) -> None:
    holds = _is_inside(entry.path) and entry.path != manifest.marker_name
    holds = holds and isinstance(entry.relocate, bool) and isinstance(entry.target, str)
    holds = holds and _is_count(entry.mode) and entry.mode <= MODE_MOST and _is_count(entry.size)
    if holds and entry.type == FILE:
        holds = _is_hash(entry.sha256) and not entry.target
    elif holds and entry.type == LINK:
        _check_target(entry, manifest)
        holds = entry.size == 0
    elif holds:
        plain = entry.type == FOLDER or (entry.type == INTERPRETER and manifest.python != "")
        holds = plain and entry.size == 0
    if not holds:
        raise _wrong(f"entry {printable(entry.path)}")


def _check_target(entry: Entry, manifest: Manifest) -> None:
    """A link stays in the artifact's folder, or leads into an environment that the artifact says it needs."""
    target = entry.target
    refusal = f"It has a link {printable(entry.path)} that leads out, to {printable(target)}."
    if not target or "\0" in target or len(target) > PATH_MOST or target.startswith("/"):
        raise ArtifactRefused(refusal)
    if not entry.relocate:
        end = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), target))
        if end == ".." or end.startswith("../"):
            raise ArtifactRefused(refusal)
        return
    if not _is_inside(target) or moved(target, dict.fromkeys(manifest.folders, "")) is None:
        raise ArtifactRefused(refusal)


def _check_places(manifest: Manifest) -> None:
    """Every path once, and nothing below what is no folder."""
    folders, others = {""}, set[str]()
    for entry in manifest.entries:
        if entry.path in folders or entry.path in others or entry.path.rpartition("/")[0] not in folders:
            raise _wrong(f"the place of {printable(entry.path)}")
        (folders if entry.type == FOLDER else others).add(entry.path)


def _is_inside(path: Any) -> bool:
    """A path that stays below where it begins, read as it is written."""
    if not isinstance(path, str) or not path or len(path) > PATH_MOST or "\0" in path:
        return False
    parts = path.split("/")
    return _NOWHERE.isdisjoint(parts) and max(map(len, parts)) <= NAME_MOST


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 50


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= PATH_MOST and "\0" not in value


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise _wrong(what)


def _wrong(what: str) -> ArtifactRefused:
    return ArtifactRefused(f"Its manifest is not one that may be followed: {what}.")


def printable(path: Any) -> str:
    """A path that a stranger chose, in quotes, for a sentence."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path)[:200])
    return f"“{shown}”"
