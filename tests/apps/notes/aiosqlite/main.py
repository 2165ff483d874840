"""Notes by FastAPI's foundation and aiosqlite, in a database of the app's own making beside its files."""

import os
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DATABASE = Path(os.environ["DATA_DIR"], "var", "notes.db")


@asynccontextmanager
async def lifespan(app):
    """One connection for as long as the app runs."""
    DATABASE.parent.mkdir(exist_ok=True)
    async with aiosqlite.connect(DATABASE, timeout=20) as app.state.database:
        await app.state.database.execute("PRAGMA journal_mode=WAL")
        await app.state.database.execute(
            "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT)"
        )
        yield


async def notes(request):
    database = request.app.state.database
    rows = await database.execute_fetchall("SELECT text FROM notes ORDER BY id")
    columns = await database.execute_fetchall("PRAGMA table_info(notes)")
    return JSONResponse({"notes": [row[0] for row in rows], "columns": [column[1] for column in columns]})


async def add(request):
    database = request.app.state.database
    await database.execute("INSERT INTO notes (text) VALUES (?)", ((await request.body()).decode(),))
    await database.commit()
    return Response(status_code=201)


app = Starlette(lifespan=lifespan, routes=[Route("/", notes), Route("/", add, methods=["POST"])])
