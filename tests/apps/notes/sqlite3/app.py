"""Notes by Python's own sqlite3; each also is a file, which is there before its row."""

import json
import os
import sqlite3
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

DATABASE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")
LETTERS = Path(os.environ["DATA_DIR"], "letters")


def connect():
    return closing(sqlite3.connect(DATABASE, timeout=20))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with connect() as database:
            rows = database.execute("SELECT text, letter FROM notes ORDER BY id").fetchall()
            columns = [row[1] for row in database.execute("PRAGMA table_info(notes)")]
        lost = [text for text, letter in rows if (LETTERS / letter).read_text() != text]
        self.answer(200, {"notes": [text for text, _ in rows], "columns": columns, "lost": lost})

    def do_POST(self):
        text, letter = self.rfile.read(int(self.headers["Content-Length"])).decode(), f"{uuid4()}.txt"
        (LETTERS / letter).write_text(text)
        with connect() as database, database:
            database.execute("INSERT INTO notes (text, letter) VALUES (?, ?)", (text, letter))
        self.answer(201, {})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


LETTERS.mkdir(exist_ok=True)
with connect() as database:
    database.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT, letter TEXT)")
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
