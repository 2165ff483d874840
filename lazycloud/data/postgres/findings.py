"""What a Postgres server lacks to keep versions, for `lazycloud doctor`."""

from __future__ import annotations

import asyncio

from lazycloud.data.postgres import programs
from lazycloud.data.postgres import server as pg
from lazycloud.data.postgres.server import Server
from lazycloud.errors import LazycloudError
from lazycloud.findings import Finding, Weight

WHAT = "postgres"


def findings(url: str) -> list[Finding]:
    """Blocks for some seconds where the server does not answer."""
    try:
        return asyncio.run(_look(Server(url)))
    except LazycloudError as problem:
        return [Finding(Weight.BROKEN, WHAT, problem.sentence, problem.advice)]


async def _look(server: Server) -> list[Finding]:
    async with server.admin() as on:
        await server.demand_rights(on)
        number, found = on.info.server_version, await pg.open_to_all(on)
    tools = programs.find(number // 10000)
    said = f"The server {server.where} keeps versions: it is PostgreSQL {number // 10000}.{number % 10000}"
    fine = Finding(Weight.FINE, WHAT, f"{said}, copied by pg_dump {tools.major}.")
    if not found:
        return [fine]
    names = ", ".join(found[:5]) + (" …" if len(found) > 5 else "")
    sentence = f"Every version of every app may enter these databases of {server.where}: {names}."
    advice = f'As its superuser, for each: REVOKE CONNECT ON DATABASE "{found[0]}" FROM PUBLIC;'
    return [Finding(Weight.UNSAFE, WHAT, sentence, advice), fine]
