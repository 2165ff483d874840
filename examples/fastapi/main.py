"""A chat room: FastAPI with server-sent events, a websocket, and files that come and go as streams."""

import asyncio
import hashlib
import os
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, HTMLResponse, StreamingResponse

FILES = Path(os.environ["DATA_DIR"])
PAGE = """
<!doctype html>
<title>Room</title>
<h1>Room</h1>
<ul></ul>
<form><input name="words" autofocus required><button>Say</button></form>
<script>
  new EventSource("/events").onmessage = (event) => {
    document.querySelector("ul").append(Object.assign(document.createElement("li"), {textContent: event.data}));
  };
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    fetch("/say", {method: "POST", body: event.target.words.value});
    event.target.reset();
  };
</script>
"""

app = FastAPI()
listeners: set[asyncio.Queue[str]] = set()


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


@app.get("/events")
async def events() -> StreamingResponse:
    return StreamingResponse(listen(), media_type="text/event-stream")


async def listen():
    heard = asyncio.Queue()
    listeners.add(heard)
    try:
        yield ": welcome\n\n"
        while True:
            yield f"data: {await heard.get()}\n\n"
    finally:
        listeners.discard(heard)


@app.post("/say", status_code=202)
async def say(request: Request) -> None:
    words = (await request.body()).decode()
    for heard in listeners:
        heard.put_nowait(" ".join(words.splitlines()))


@app.websocket("/echo")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


@app.post("/files", status_code=201)
async def keep(request: Request) -> dict[str, str | int]:
    """Written as it arrives, and known by its digest."""
    digest, size, aside = hashlib.sha256(), 0, FILES / f"{id(request)}.part"
    with aside.open("wb") as file:
        async for chunk in request.stream():
            digest.update(chunk)
            size += file.write(chunk)
    aside.rename(FILES / digest.hexdigest())
    return {"name": digest.hexdigest(), "size": size}


@app.get("/files/{name}")
async def show(name: str) -> FileResponse:
    if name not in {file.name for file in FILES.iterdir()}:
        raise HTTPException(404)
    return FileResponse(FILES / name)


@app.get("/request")
async def request(request: Request) -> dict[str, object]:
    """What the app sees of a request."""
    client = request.client.host if request.client else ""
    return {"headers": dict(request.headers), "url": str(request.url), "client": client}
