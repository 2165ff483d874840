"""Serves like ok.py until it is asked to go beyond its limits: /memory, /fork, /disk, /log, /daemon, /group."""

import contextlib
import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def memory() -> str:
    kept = []
    while True:
        kept.append(bytearray(b"x") * 10_000_000)


def fork() -> str:
    """Never without a limit: the test looks that it is there before it asks for this."""
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def disk() -> str:
    with (Path(os.environ["DATA_DIR"]) / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(b"x" * 1_000_000)
            time.sleep(0.005)


def log() -> str:
    if os.fork() == 0:
        while True:
            os.write(1, b"a line that says nothing, again and again and again and again and again\n" * 1000)
    return ""


def daemon() -> str:
    """Its pid. It holds on to nothing of the worker's, and is in a session of its own."""
    readable, writable = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writable, str(os.getpid()).encode())
            os.closerange(0, 100)
            time.sleep(600)
        os._exit(0)
    os.wait()
    return os.read(readable, 100).decode()


def group() -> str:
    return Path("/proc/self/cgroup").read_text()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.strip("/")
        wanted = {"memory": memory, "fork": fork, "disk": disk, "log": log, "daemon": daemon, "group": group}
        body = wanted[name]() if name in wanted else "well"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


print("up", flush=True)
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
