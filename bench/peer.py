"""The proxies that are measured: how each is started, on one core, before one back end."""

from __future__ import annotations

import http.client
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from routes import Routes

HERE = Path(__file__).parent
HOST = "bench.localhost"  # what every request asks for
_PATIENCE = 20.0


class CannotRun(Exception):
    """A program is not there, or does not start; the text says which and what it said."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def fill(template: Path, into: Path, values: Mapping[str, object]) -> Path:
    """Write the file to the folder with each @NAME@ replaced. The written file's path."""
    text = template.read_text()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    known = {"FOLDER": into, "FILES": files, "USER": "user root;" if os.geteuid() == 0 else ""}
    for name, value in (known | dict(values)).items():
        text = text.replace(f"@{name}@", str(value))
    written = into / template.name
    written.write_text(text)
    return written


@dataclass(slots=True)
class Running:
    """A started program: its process, whose descendants count as its own, and the port it listens on."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    output: Path
    routes: Routes | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, path: str = "/") -> Running:
        """Until it answers. Raises CannotRun with its output if it does not."""
        deadline = time.monotonic() + _PATIENCE
        while not self._answers(path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CannotRun(f"{self.name} does not answer. It said: {self.output.read_text()[-2000:]}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End it and what it started. May be called twice."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.routes is not None:
            self.routes.close()

    def _answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)
        try:
            connection.request("GET", path, headers={"Host": HOST})
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def spawn(
    name: str,
    command: Sequence[str],
    core: int | str,
    folder: Path,
    port: int,
    *,
    environment: Mapping[str, str] | None = None,
    listeners: Sequence[socket.socket] = (),
    at: Path | None = None,
) -> Running:
    """Start a program on that core (those, with commas; all, with none), in a process group of its own.

    Its output goes to a file in the folder; `at` is where it runs, if not there.
    """
    output = folder / "output"
    pinned = ["taskset", "-c", str(core)] if core != "" else []
    with output.open("wb") as writer:
        process = subprocess.Popen(
            [*pinned, *command],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.STDOUT,
            cwd=at or folder,
            env=os.environ | dict(environment or {}),
            pass_fds=[each.fileno() for each in listeners],
            start_new_session=True,
        )
    return Running(name, process, port, output)


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy. `command` and the file `settings` of bench/peers have @PORT@, @BACKEND@, @SETTINGS@ to fill in."""

    name: str
    command: tuple[str, ...]
    settings: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    package: str = ""  # where its program comes from
    kept_only: bool = False  # it carries small requests on kept connections, and nothing else

    def lacks(self) -> str:
        """What is not installed, or ""."""
        program = self.command[0]
        return "" if shutil.which(program) else f"{program} ({self.package})"

    def start(self, folder: Path, backends: Sequence[str], core: int) -> Running:
        """Start it before a back end with these addresses, `ip:port`; most know one. Not yet waited for."""
        port = free_port()
        values: dict[str, object] = {"PORT": port, "BACKEND": backends[0]}
        values["CONNECTIONS"] = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000
        if self.settings:
            values["SETTINGS"] = fill(HERE / "peers" / self.settings, folder, values)
        command = [_filled(word, values) for word in self.command]
        return spawn(self.name, command, core, folder, port, environment=self.environment)


@dataclass(frozen=True, slots=True)
class Lazycloud(Peer):
    """One router process with all its rules on; in control's place something that knows every host."""

    def lacks(self) -> str:
        return ""

    def start(self, folder: Path, backends: Sequence[str], core: int) -> Running:
        routes = Routes(folder / "link", backends)
        with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
            settings = routes.settings(listener.fileno(), folder)
            command = [sys.executable, "-m", "lazycloud.router", "--settings", settings]
            running = spawn(
                self.name,
                command,
                core,
                folder,
                listener.getsockname()[1],
                environment=self.environment,
                listeners=[listener],
            )
        running.routes = routes
        return running


def _filled(word: str, values: Mapping[str, object]) -> str:
    for name, value in values.items():
        word = word.replace(f"@{name}@", str(value))
    return word


def peers() -> list[Peer]:
    """All that can be measured, in the order in which they are shown."""
    python = sys.executable
    return [
        Lazycloud("lazycloud", ()),
        Peer(
            "nginx",
            ("nginx", "-p", ".", "-c", "@SETTINGS@", "-e", "stderr"),
            "nginx.conf",
            package="apt: nginx",
        ),
        Peer("haproxy", ("haproxy", "-f", "@SETTINGS@"), "haproxy.cfg", package="apt: haproxy"),
        Peer(
            "caddy",
            ("caddy", "run", "--config", "@SETTINGS@", "--adapter", "caddyfile"),
            "Caddyfile",
            {"GOMAXPROCS": "1"},
            "apt: caddy",
        ),
        _configurable(),
        Peer("aiohttp", (python, str(HERE / "peers/aiohttp_proxy.py"), "@PORT@", "@BACKEND@")),
        Peer("blind", (python, str(HERE / "peers/blind.py"), "@PORT@", "@BACKEND@"), kept_only=True),
    ]


def _configurable() -> Peer:
    name = "configurable-http-proxy"
    found = shutil.which(name) or shutil.which(name, path="node_modules/.bin")
    command = (
        str(Path(found).absolute()) if found else name,
        "--ip=127.0.0.1",
        "--port=@PORT@",
        "--api-ip=127.0.0.1",
        "--api-port=0",
        "--default-target=http://@BACKEND@",
        "--log-level=error",
        "--keep-alive-timeout=600000",
    )
    return Peer(name, command, package="npm: configurable-http-proxy")
