"""What the role of a copy takes over from the role that the copy's contents belonged to.

A copy of files has the owners of its origin; a dump that is restored has those who restored it, but names the
origin's role where that gave rights on what it will make. Both are done as the copy's own role, which may act as the
other one meanwhile: code of a version may be met there.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from psycopg import errors, sql

from lazycloud.data.postgres.server import Connection, Login, Server, do, value

LISTS = ("search_path", "temp_tablespaces")  # settings whose values are lists of names
KINDS = {"r": "TABLES", "S": "SEQUENCES", "f": "FUNCTIONS", "T": "TYPES", "n": "SCHEMAS"}  # of pg_default_acl
FOR_ALL = {"f": "EXECUTE", "T": "USAGE"}  # what everybody may do with them, unless told otherwise

DEFAULTS = """
    SELECT defaclobjtype::text, nspname, privilege_type, is_grantable, grantee = 0, g.rolname
    FROM pg_default_acl
    JOIN pg_roles o ON o.oid = defaclrole
    LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
    CROSS JOIN aclexplode(defaclacl)
    LEFT JOIN pg_roles g ON g.oid = grantee
    WHERE o.rolname = %s
"""
SETTINGS = """
    SELECT unnest(setconfig) FROM pg_db_role_setting
    LEFT JOIN pg_roles r ON r.oid = setrole
    LEFT JOIN pg_database d ON d.oid = setdatabase
    WHERE r.rolname = %s OR (d.datname = %s AND setrole = 0)
"""
NAMED = """
    SELECT count(*) FROM pg_shdepend WHERE refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)
    AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextlib.asynccontextmanager
async def acting_as(on: Connection, login: Login, other: str) -> AsyncIterator[None]:
    """A role may do what another may."""
    await do(on, "GRANT {} TO {}", other, login.role)
    try:
        yield
    finally:
        await do(on, "REVOKE {} FROM {}", other, login.role)


async def take_over(server: Server, on: Connection, login: Login, source: str) -> None:
    """In a copy of the files of the source, which nobody uses."""
    async with acting_as(on, login, source), server.session(login, login.role) as inside:
        owned = "SELECT nspname FROM pg_namespace JOIN pg_roles r ON r.oid = nspowner WHERE rolname = %s"
        for (schema,) in await _rows(inside, owned, source):
            await do(
                inside, "ALTER SCHEMA {} OWNER TO {}", schema, login.role
            )  # first: functions ask it for rights
        await do(inside, "REASSIGN OWNED BY {} TO {}", source, login.role)
        await take_defaults(inside, source)
        await take_settings(inside, source)
        is_named = bool(await value(inside, NAMED, source))
        if is_named:
            await do(inside, "DROP OWNED BY {}", source)
    if is_named:  # its rights to enter the source went with those in the copy
        await do(on, "GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {} TO {}", source, source)


async def take_defaults(inside: Connection, source: str) -> None:
    """What the source's role grants on all that it will make: ours does so from now on, and the source's no more."""
    rows = await _rows(inside, DEFAULTS, source)
    for kind, schema in {(kind, schema) for kind, schema, *_ in rows if schema is None and kind in FOR_ALL}:
        await _alter_default(inside, schema, f"REVOKE ALL ON {KINDS[kind]} FROM PUBLIC")
    for kind, schema, right, can_grant, to_all, grantee in rows:
        if grantee != source:
            option = " WITH GRANT OPTION" if can_grant else ""
            who = "PUBLIC" if to_all else sql.Identifier(grantee).as_string(inside)
            await _alter_default(inside, schema, f"GRANT {right} ON {KINDS[kind]} TO {who}{option}")
            await _alter_default(inside, schema, f"REVOKE ALL ON {KINDS[kind]} FROM {who}", source)
    for kind, schema in {(kind, schema) for kind, schema, *_ in rows if schema is None and kind in FOR_ALL}:
        await _alter_default(inside, schema, f"GRANT {FOR_ALL[kind]} ON {KINDS[kind]} TO PUBLIC", source)


async def _alter_default(inside: Connection, schema: str | None, what: str, role: str = "") -> None:
    of = f"FOR ROLE {sql.Identifier(role).as_string(inside)}" if role else ""
    within = f"IN SCHEMA {sql.Identifier(schema).as_string(inside)}" if schema else ""
    await inside.execute(f"ALTER DEFAULT PRIVILEGES {of} {within} {what}".encode())


async def take_settings(inside: Connection, source: str) -> None:
    """Those of the source's role and database, as far as a role may set them for itself."""
    for (entry,) in await _rows(inside, SETTINGS, source, source):
        name, _, text = entry.partition("=")
        words = sql.SQL(", ").join(map(sql.Literal, _names(text))) if name in LISTS else sql.Literal(text)
        setting = sql.SQL(".").join(map(sql.Identifier, name.split(".")))
        with contextlib.suppress(errors.InsufficientPrivilege, errors.UndefinedObject, errors.DataError):
            await inside.execute(sql.SQL("ALTER ROLE CURRENT_USER SET {} TO {}").format(setting, words))


def _names(text: str) -> list[str]:
    """Of a list such as `"$user", public`. A comma within quotes is not thought of."""
    return [each.strip().strip('"').replace('""', '"') for each in text.split(",")]


async def _rows(on: Connection, query: str, *words: str) -> list[tuple[Any, ...]]:
    return await (await on.execute(query.encode(), words)).fetchall()
