"""A to-do list that everybody who has it open sees change: aiohttp, and a versionbase for the tasks."""

import json
import os
from pathlib import Path

from aiohttp import web

import task
import versionbase

STATIC = Path(__file__).parent / "static"
DATABASE = web.AppKey("database", versionbase.Database)
routes = web.RouteTableDef()


async def database(app):
    """One for all requests, as long as the app runs."""
    async with versionbase.connect() as db:
        await db.collection("tasks").set_schema(task.SCHEMA)
        app[DATABASE] = db
        yield


@routes.get("/")
async def page(request):
    return web.FileResponse(STATIC / "index.html")


@routes.get("/tasks")
async def tasks(request):
    """All of them at one moment, and that moment's number: what changes is followed from there."""
    async with request.app[DATABASE].transaction(write=False) as tx:
        found = [task.shown(document) async for document in tx.collection("tasks").find()]
    commit, version = (os.environ.get(name, "") for name in ("COMMIT_ID", "LAZYCLOUD_VERSION"))
    return web.json_response({"tasks": found, "sequence": tx.sequence, "commit": commit, "version": version})


@routes.get("/changes")
async def changes(request):
    """Server-sent events; a browser that comes back says which it had last.

    All changes of one commit have one number, and a browser may have got only some of them when it was cut off.
    So it is told the number before: to hear of a change twice does no harm.
    """
    since = int(request.headers.get("Last-Event-ID") or request.query["since"])
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await answer.prepare(request)
    await answer.write(b"retry: 500\n\n")  # ms, until a browser that was cut off comes back
    try:
        async for change in request.app[DATABASE].watch("tasks", since=since):
            data = json.dumps({"key": change.key, "task": change.new and task.shown(change.new)})
            await answer.write(f"id: {change.sequence - 1}\ndata: {data}\n\n".encode())
    except versionbase.Gone:  # too long ago: the page reads all of them again
        await answer.write(b"event: again\ndata:\n\n")
    return answer


@routes.post("/tasks")
async def add(request):
    key = await request.app[DATABASE].collection("tasks").insert(task.new(await fields(request)))
    return web.json_response({"key": key}, status=201)


@routes.patch("/tasks/{key}")
async def change(request):
    await request.app[DATABASE].collection("tasks").update(request.match_info["key"], await fields(request))
    return web.Response(status=204)


@routes.delete("/tasks/{key}")
async def remove(request):
    await request.app[DATABASE].collection("tasks").delete(request.match_info["key"])
    return web.Response(status=204)


@routes.post("/clear")
async def clear(request):
    """Remove what is done, all of it or nothing; one that somebody just took up again stays."""

    async def remove_done(tx):
        tasks = tx.collection("tasks")
        return await tasks.delete_many([document.key async for document in tasks.find("doc.done")])

    return web.json_response({"removed": await request.app[DATABASE].run(remove_done)})


async def fields(request):
    try:
        given = await request.json()
    except ValueError:
        given = None
    if not isinstance(given, dict) or not given.keys() <= task.FIELDS:
        raise web.HTTPBadRequest(text=f"A task has {', '.join(sorted(task.FIELDS))}.")
    return given


@web.middleware
async def in_words(request, handler):
    """What the database refuses, for the page to show."""
    try:
        return await handler(request)
    except versionbase.Invalid as problem:
        raise web.HTTPUnprocessableEntity(text=str(problem)) from problem
    except versionbase.NotFound as problem:
        raise web.HTTPNotFound(text="Somebody removed it meanwhile.") from problem


async def fresh(request, answer):
    """Production is another commit tomorrow: a browser asks each time whether a file is still the same."""
    answer.headers.setdefault("Cache-Control", "no-cache")


def main():
    app = web.Application(middlewares=[in_words])
    app.add_routes([*routes, web.static("/static", STATIC)])
    app.cleanup_ctx.append(database)
    app.on_response_prepare.append(fresh)
    host, port = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))
    web.run_app(app, host=host, port=port, handler_cancellation=True, shutdown_timeout=1)


if __name__ == "__main__":
    main()
