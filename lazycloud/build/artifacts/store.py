"""Where artifacts are kept: one seam, so that an object storage is one more file beside folder_store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from lazycloud.errors import BadInput, LazycloudError

SCHEMES = ("file",)
_NAME = re.compile(r"[a-z]+/[0-9a-f]+")


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

    def put(self, name: str, source: BinaryIO) -> None:
        """Keep all that can be read from `source`, whole or not at all.

        A name that is there already is replaced: names are keys of contents, so that both mean the same.
        """

    def get(self, name: str, to: BinaryIO) -> None:
        """Write the blob to a file. Raises Missing. `to` may hold a part of it after any error."""

    def exists(self, name: str) -> bool: ...

    def list(self) -> Iterator[Stored]:
        """All blobs, in no order."""

    def delete(self, name: str) -> None:
        """Nothing happens when it is not there."""


def open_store(url: str) -> Store:
    """The store of a URL that `parse_store` has let pass."""
    from lazycloud.build.artifacts.folder_store import FolderStore

    return FolderStore(Path(unquote(urlsplit(url).path)))


def parse_store(url: str) -> str:
    """Raises BadInput for a URL that no store here understands."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise BadInput(
            f"artifacts.store: “{url}” is no store that lazycloud knows.",
            "Supported is a folder: file:///srv/artifacts",
        )
    if (
        parts.netloc not in ("", "localhost")
        or not parts.path.startswith("/")
        or parts.query
        or parts.fragment
    ):
        raise BadInput(
            f"artifacts.store: “{url}” names no folder of this machine.",
            "Three slashes, and an absolute path: file:///srv/artifacts",
        )
    return url


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None
