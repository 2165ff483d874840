"""versionbase: a document database in which every commit's version is a branch, and a snapshot is a number.

nodes, tree
    a persistent B+tree: changes make new nodes along their path and share the rest; scans, differences
sizes
    how much of a tree is its own
storage, tables, database
    nodes, branches, commits and snapshots, in SQL
stored
    what each version has of its own, and may have
tending, verification, consistency
    what a store needs now and then, and whether it is as it should be
values, schemas, expressions
    what documents are, what they must be, and how they are chosen
catalogue, scratch
    what a tree holds by key, and what one transaction changes of it
engine, transactions, queries
    reads of one moment, plans, and commits in groups
past, upkeep
    history, differences, watches; indexes and schemas that take many transactions
server, connection, intake, requests, protocol
    who may, how much of it at once, what may be asked for, and how it is said
process
    the server as a program
client
    what apps have, and nothing of ours comes with it: `from lazycloud.versionbase import connect, connect_sync`
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
