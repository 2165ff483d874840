"""What stands in for control: it answers each router that asks where a host leads, and hears what it counts."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Routes:
    """Every host leads to the back end, as a deployment of its own; `spread-N.…` to the Nth of its addresses."""

    def __init__(self, link: Path, backends: Sequence[str]) -> None:
        self._link, self.backends = link, backends
        self._server = _Server(str(link), _Line)
        self._server.route = self.route
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def route(self, host: str) -> dict[str, Any]:
        """The route of `host`, as the link says it."""
        label = host.partition(".")[0]
        number = label.removeprefix("spread-")
        at = int(number) % len(self.backends) if number.isdigit() else 0
        return {"to": "worker", "deployment": label, "addresses": [self.backends[at]]}

    def settings(self, listener: int, folder: Path) -> str:
        """A router's settings; all but the sockets are its defaults."""
        return json.dumps(
            {"listen_fds": [listener], "control": str(folder / "control"), "link": str(self._link)}
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._link.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    route: Any = None


class _Line(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        for line in self.rfile:
            if line.startswith(b'{"ask"') and line.endswith(b"\n"):
                message = json.loads(line)
                answer = {"answer": message["ask"], "route": self.server.route(message["host"]), "keep": True}
                self.wfile.write(json.dumps(answer).encode() + b"\n")
