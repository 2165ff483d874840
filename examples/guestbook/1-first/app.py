"""The guestbook's web server: one page, its static files, and the forms on it."""

import mimetypes
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import page
from actions import ACTIONS

STATIC = Path("static")
FORM_BYTES = 16_384


class Guestbook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/":
            self.answer(200, page.guestbook())
        elif (file := STATIC / path.removeprefix("/static/")) in STATIC.iterdir():
            self.answer(200, file.read_bytes(), mimetypes.guess_type(file)[0])
        else:
            self.answer(404, page.message("There is no such page."))

    def do_HEAD(self):
        self.do_GET()

    def do_POST(self):
        form = self.read_form()
        action = ACTIONS.get(urlsplit(self.path).path)
        if form is None or action is None:
            self.answer(400, page.message("That is no form of ours."))
            return
        try:
            self.answer(303, "", **action(form, self.headers))
        except ValueError as problem:
            self.answer(422, page.message(str(problem)))

    def read_form(self):
        """The fields of a form, each once; None when it is too long to be one."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > FORM_BYTES:
            self.close_connection = True
            return None
        fields = parse_qs(self.rfile.read(length).decode(errors="replace"))
        return {name: values[-1].strip() for name, values in fields.items()}

    def answer(self, status, body, kind="text/html", **headers):
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


if __name__ == "__main__":
    address = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8080"))
    print(f"The guestbook lies open at http://{address[0]}:{address[1]}/", flush=True)
    ThreadingHTTPServer(address, Guestbook).serve_forever()
