"""Answers every request with its environment as JSON. `ok.py [DELAY [HOST]]`: waits first, listens there."""

import json
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

delay, host = float((sys.argv[1:2] or ["0"])[0]), (sys.argv[2:3] or [os.environ["HOST"]])[0]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(dict(os.environ)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(HTTPServer):
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET


time.sleep(delay)
print("up")
Server((host, int(os.environ["PORT"])), Handler).serve_forever()
