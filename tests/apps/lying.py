"""Listens, and answers 500, or the given status. `lying.py [STATUS [SECONDS]]`: 200 after that long."""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

status = int((sys.argv[1:2] or ["500"])[0])
until = time.monotonic() + float((sys.argv[2:3] or ["600"])[0])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(status if time.monotonic() < until else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
