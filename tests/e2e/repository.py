"""Git repositories of small real apps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}

COUNTER = """
import http.server, json, os, sqlite3
NAME = "{name}"
BORN = os.urandom(8).hex()
DATABASE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")

def database():
    return sqlite3.connect(DATABASE, timeout=60)

with database() as db:
    db.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        with database() as db:
            notes = [row[0] for row in db.execute("SELECT text FROM notes ORDER BY rowid")]
        self.answer(200, dict(name=NAME, notes=notes, path=self.path, host=self.headers["Host"],
                              environment=dict(os.environ), pid=os.getpid(), born=BORN))
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with database() as db:
            db.execute("INSERT INTO notes VALUES (?)", (text,))
        self.answer(201, dict(name=NAME))
    def answer(self, status, body):
        html = "text/html" in self.headers.get("Accept", "")
        data = ("<h1>%s</h1><p>%s</p>" % (NAME, self.path) if html else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if html else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""
"""Keeps notes in its database; tells its name, its notes and its environment as JSON, or a page.

`born` tells one process from another; behind walls, `pid` is one of few.
"""


def counter(name: str, **files: str) -> dict[str, str]:
    return {"app.py": COUNTER.replace("{name}", name), "Procfile": "web: python app.py\n", **files}


class Checkout:
    """A git repository with a work tree."""

    def __init__(self, path: Path, branch: str = "main") -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "-q", "-b", branch)

    def git(self, *arguments: str) -> str:
        """What git answered."""
        return self._run(*arguments).stdout.strip()

    def aloud(self, *arguments: str) -> str:
        """All that git and its hooks said."""
        done = self._run(*arguments)
        return done.stdout + done.stderr

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["git", *arguments], cwd=self.path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done

    def commit(self, files: Mapping[str, str | None], message: str = "a commit") -> str:
        """Write files (None removes one) and commit; the full id."""
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")
