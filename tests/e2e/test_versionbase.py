"""An app on its versionbase: each version its own documents, through promotes, kills, restores, diffs and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
import websockets

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout
from tests.e2e.server import Server

pytestmark = pytest.mark.slow

LIBRARY = Path(websockets.__file__).parent
WEBSOCKETS = {f"websockets/{path.relative_to(LIBRARY)}": path.read_text() for path in LIBRARY.rglob("*.py")}
"""What the client needs, beside it: to install it takes longer than all that is tried here."""
CLIENT = Path(__file__).parents[2] / "lazycloud" / "versionbase" / "client.py"
APP = """
import http.server, json, os
from versionbase import VersionbaseError, connect_sync
NAME = "{name}"
db = connect_sync()
notes = db.collection("notes")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/reach/"):
            try:
                with connect_sync(self.path.removeprefix("/reach/")) as other:
                    return self.answer(len(other.collection("notes").find().to_list()))
            except VersionbaseError as problem:
                return self.answer(str(problem))
        self.answer(dict(name=NAME, url=os.environ["VERSIONBASE_URL"],
                         notes=[note["text"] for note in notes.find(order="key")]))
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(dict(key=notes.insert(dict(text=text, by=NAME))))
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


def app(name: str) -> dict[str, str]:
    return {
        "app.py": APP.replace("{name}", name),
        "versionbase.py": CLIENT.read_text(),
        **WEBSOCKETS,
        "Procfile": "web: python app.py\n",
        "lazycloud.toml": "[data]\nversionbase = true\n",
    }


async def notes(server: Server, label: str = "") -> list[str]:
    answer = await server.get(label)
    assert answer.status == 200, answer.text
    return list(answer.json["notes"])


def bases(server: Server) -> list[psutil.Process]:
    return [one for one in server.workers() if "versionbase" in one.cmdline() and "serve" in one.cmdline()]


async def _answers(server: Server, label: str = "") -> bool:
    return (await server.get(label)).status == 200


async def _runs(server: Server, count: int) -> bool:
    return len(bases(server)) == count


async def test_each_commit_has_documents_of_its_own_through_its_life(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    first, second = checkout.commit(app("first")), checkout.commit(app("second"))
    server = up(checkout.path, "--production", first)
    assert await notes(server) == []
    await server.post("", "old")
    assert await notes(server, second) == ["old"]  # forked when it was first opened
    await server.post(second, "its own")
    await server.post("", "production's")
    assert (await notes(server), await notes(server, second)) == (["old", "production's"], ["old", "its own"])
    assert len(bases(server)) == 1  # one for the app

    # Nobody opens another's by their own key.
    url, mine = (await server.get()).json["url"], (await server.get(second)).json["url"]
    key = mine.split(":")[2].split("@")[0]
    forged = url.replace(url.split(":")[2].split("@")[0], key)
    assert "key" in str((await server.get(second, f"/reach/{forged}")).json)
    assert (await server.get(second, f"/reach/{mine}")).json == 2

    # Diff, snapshot, restore.
    told = json.loads(
        server.cli("data", "diff", "production", second, "--rows", "--json", folder=checkout.path)
    )
    (base,) = [one for one in told["databases"] if one["name"] == "versionbase"]
    (table,) = base["tables"]
    assert (table["name"], table["added"], table["removed"], table["changed"]) == ("notes", 1, 1, 0)
    assert {row["change"]: (row["after"] or row["before"])["text"] for row in table["rows"]} == {
        "added": "its own",
        "removed": "production's",
    }
    server.cli("data", "snapshot", "--name", "before", folder=checkout.path)
    await server.post("", "a mistake")
    assert "a mistake" in server.cli(
        "data", "diff", "production@before", "production", "--rows", folder=checkout.path
    )
    server.cli("data", "restore", "@before", "--yes", folder=checkout.path)
    assert await notes(server) == ["old", "production's"]

    # Out as lines of JSON, and in again.
    file = tmp_path / "notes.jsonl"
    said = server.cli("data", "export", "production", str(file), folder=checkout.path)
    assert "database and its files are not in it" in said
    lines: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line.get("document", {}).get("text") for line in lines] == [None, "old", "production's"]
    server.cli("data", "import", str(file), second, "--yes", folder=checkout.path)
    assert await notes(server, second) == ["old", "production's"]
    (tmp_path / "broken.jsonl").write_text("{}\n")
    said = server.cli(
        "data", "import", str(tmp_path / "broken.jsonl"), second, "--yes", folder=checkout.path, code=1
    )
    assert "Line 1" in said
    assert await notes(server, second) == ["old", "production's"]

    # A promote takes the code, not the preview's documents; a rollback neither.
    await server.post(second, "of the preview")
    server.cli("promote", second, folder=checkout.path)
    assert (await server.get()).json["name"] == "second"
    await server.post("", "after")
    server.cli("rollback", folder=checkout.path)
    assert (await server.get()).json["name"] == "first"
    assert await notes(server) == ["old", "production's", "after"]

    server.cli("data", "rm", second, "--yes", folder=checkout.path, code=None)
    server.stop()
    assert bases(server) == []


async def test_what_was_acknowledged_is_there_whoever_is_killed(up: Up, checkout: Checkout) -> None:
    commit = checkout.commit(app("one"))
    preview = checkout.commit(app("two"))
    server = up(checkout.path, "--production", commit)
    for number in range(5):
        await server.post("", f"note {number}")
    (base,) = bases(server)
    base.kill()
    await server.until(lambda: _answers(server))
    assert await notes(server) == [f"note {number}" for number in range(5)]
    (base,) = bases(server)
    control = server.children()["control"]
    control.kill()
    await server.post("", "while control is away")
    await server.until(lambda: server.has_another_control(control))
    assert (await notes(server))[-1] == "while control is away"
    assert bases(server) == [base]
    assert len(await notes(server, preview)) == 6
    server.cli("upgrade", folder=checkout.path)
    await server.post("", "after the upgrade")
    assert bases(server) == [base]
    assert len(await notes(server)) == 7
