"""Where blobs are kept: one seam, so that an object storage is one more file beside folder_store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from lazycloud.errors import BadInput, LazycloudError

SCHEMES = ("file",)


@dataclass(frozen=True)
class Kind:
    """What a store keeps. `called` is its name in sentences, `setting` where its URL stands; `names` are blobs'."""

    called: str
    setting: str
    example: str
    suffix: str
    names: re.Pattern[str]

    def is_name(self, name: str) -> bool:
        return self.names.fullmatch(name) is not None


ARTIFACTS = Kind(
    "artifact store", "artifacts.store", "file:///srv/artifacts", ".lazyart", re.compile(r"[a-z]+/[0-9a-f]+")
)
BACKUPS = Kind(
    "backup store",
    "data.backup",
    "file:///srv/backups",
    ".lazybak",
    re.compile(r"[a-z0-9][a-z0-9-]*\.[0-9a-f]{12}/(chunks/[0-9a-f]{64}|backups/[0-9]{20}-[0-9a-f]{64})"),
)


class StoreFailed(LazycloudError):
    """The store cannot be used now: not there, full, not allowed. The sentence says which."""

    status = 502
    kind = "store failed"


class Missing(StoreFailed):
    """The store has nothing of that name."""

    status = 404
    kind = "missing"


@dataclass(frozen=True)
class Stored:
    """`size` in bytes, `at` when it was put, in unix time."""

    name: str
    size: int
    at: float


class Store(Protocol):
    """Blobs by name, such as `environments/3f2a…`. Methods block, and may be called by many processes at once.

    All raise StoreFailed when the store cannot be used. What is given out is not trusted: readers verify.
    """

    def put(self, name: str, source: BinaryIO, settled: bool = True) -> None:
        """Keep all that can be read from `source`, whole or not at all; it survives a power cut on return.

        A name that is there already is replaced: names are keys of contents, so that both mean the same. One that is
        not `settled` may have no name before `settle`: of many, that is faster.
        """

    def settle(self) -> None:
        """All that was put by this object survives a power cut, and has its name."""

    def get(self, name: str, to: BinaryIO) -> None:
        """Write the blob to a file. Raises Missing. `to` may hold a part of it after any error."""

    def exists(self, name: str) -> bool: ...

    def list(self, below: str = "") -> Iterator[Stored]:
        """All blobs, in no order; or those whose names begin with `below`, and a slash."""

    def delete(self, name: str) -> None:
        """Nothing happens when it is not there."""


def open_store(url: str, kind: Kind = ARTIFACTS) -> Store:
    """The store of a URL that `parse_store` has let pass."""
    from lazycloud.blobs.folder_store import FolderStore

    return FolderStore(Path(unquote(urlsplit(url).path)), kind)


def parse_store(url: str, kind: Kind = ARTIFACTS) -> str:
    """Raises BadInput for a URL that no store here understands."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise BadInput(
            f"{kind.setting}: “{url}” is no store that lazycloud knows.",
            f"Supported is a folder: {kind.example}",
        )
    if (
        parts.netloc not in ("", "localhost")
        or not parts.path.startswith("/")
        or parts.query
        or parts.fragment
    ):
        raise BadInput(
            f"{kind.setting}: “{url}” names no folder of this machine.",
            f"Three slashes, and an absolute path: {kind.example}",
        )
    return url
