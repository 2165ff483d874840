"""versionbase: a document database in which every commit's version is a branch, and a snapshot is a number.

nodes   what a tree is made of: immutable pages of keys and values, encoded for storage
tree    a persistent B+tree: changes make new nodes along their path and share the rest; scans and differences
client  what apps have, and nothing of ours comes with it: `from lazycloud.versionbase import connect, connect_sync`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazycloud.versionbase.client import VersionbaseError, connect, connect_sync

__all__ = ["VersionbaseError", "connect", "connect_sync"]


def __getattr__(name: str) -> Any:
    """Those of the client, when somebody asks: the server's parts do without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lazycloud.versionbase import client

    return getattr(client, name)
