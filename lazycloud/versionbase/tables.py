"""The tables of a store. Their names, and what nodes look like, are format 1."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

FORMAT = 1  # of tables and nodes; a store with a higher number is not touched

metadata = MetaData()

_Number = BigInteger().with_variant(Integer(), "sqlite")  # the rowid, there

store = Table(  # one row
    "versionbase_store",
    metadata,
    Column("format", Integer, nullable=False),
    Column(
        "opened", String, nullable=False
    ),  # random, of who opened it last: whoever finds another's has lost it
)

nodes = Table(
    "versionbase_nodes",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column(
        "writer", BigInteger
    ),  # the version that made it (`stored.writer`); none: an earlier lazycloud did
    Column("data", LargeBinary, nullable=False),
)

branches = Table(  # each is where its last commit left it
    "versionbase_branches",
    metadata,
    Column("name", String, primary_key=True),
    Column("birth", String, nullable=False),  # random: another branch of this name has another one
    Column("source", String, nullable=False),  # "": it began empty
    Column("made", Float, nullable=False),
    sqlite_with_rowid=False,
)

commits = Table(  # of late, for who watches and for what was; the first one of a branch is where it began
    "versionbase_commits",
    metadata,
    Column("birth", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),  # a fork goes on from its source's
    Column("root", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)

snapshots = Table(
    "versionbase_snapshots",
    metadata,
    Column("birth", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),  # "": it has its id only
    Column("root", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)
Index("versionbase_snapshots_of_name", snapshots.c.birth, snapshots.c.name)
