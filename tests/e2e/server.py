"""A real `lazycloud up`, spoken to as its users do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests import waiting

PATIENCE = 2 * waiting.PATIENCE
"""Seconds in which whatever must come has come, on a machine that does much else; pytest's `timeout` is longer."""

HELD = 900.0  # seconds, longer than a server holds anybody: it has an answer before
INSTALLING = {"LAZYCLOUD_HOLD_TIMEOUT": "800"}
"""For apps with many packages: builds are kind to all else, and take minutes on a machine that does much else."""
UNWALLED = {"LAZYCLOUD_ISOLATION": "none"}
"""For apps and builds that look at files of the test's own: walls hide them."""


class Server:
    """`arguments` are those of `lazycloud up`; it listens on a free port of both loopback addresses."""

    def __init__(
        self, home: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self.arguments = [str(argument) for argument in arguments]
        if "--listen" not in self.arguments:
            self.arguments += ["--listen", "localhost:0"]
        self._environment = environment or {}
        self._text = b""
        self._hung_up = False
        self.port = 0
        self.login = ""

    def start(self) -> Server:
        self._output, terminal = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lazycloud", "up", *self.arguments, "--home", str(self.home)],
            stdout=terminal,
            stderr=subprocess.STDOUT,
            cwd=self.home.parent,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(self._environment),
        )
        os.close(terminal)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait(
            lambda: "Ctrl-C" in self.output or self.process.poll() is not None,
            "greeting",
        )
        assert self.process.poll() is None, self.output
        self.login = re.search(r"http\S+/login\?ticket=\S+", self.output)[0]
        self.port = int(re.search(r":(\d+)/", self.login)[1])
        return self

    def stop(self) -> None:
        """Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(self.process.pid).children(recursive=True):
                    child.kill()
                self.process.kill()
                raise
        self._reader.join(PATIENCE)

    @property
    def output(self) -> str:
        return self._text.decode(errors="replace")

    def hang_up(self) -> None:
        """The terminal goes away: from now on nobody reads what the server writes."""
        self._hung_up = True
        self._reader.join()

    def _read(self) -> None:
        while not self._hung_up:
            if select.select([self._output], [], [], 0.1)[0]:
                text = os.read(self._output, 65536)
                if not text:
                    break
                self._text += text
        os.close(self._output)

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Until the condition holds; what it gave."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"no {what} within {seconds} s:\n{self.output}"
            threading.Event().wait(0.02)
        return value

    async def until(self, condition: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
        """Ask again and again; the pause only keeps two cores free for what is waited for. Raises TimeoutError."""
        try:
            async with asyncio.timeout(seconds):
                while not await condition():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"not {condition} within {seconds:g} s:\n{self.output}") from None

    async def told(self, text: str) -> None:
        """Until its terminal shows the text."""
        await asyncio.to_thread(self.wait, lambda: text in self.output, text)

    async def named(self, name: str, label: str = "") -> bool:
        """Whether the `counter` app of that name answers there."""
        answer = await self.get(label)
        return answer.status == 200 and answer.json["name"] == name

    def children(self) -> dict[str, psutil.Process]:
        """control and router, by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it ends just now
                line = " ".join(child.cmdline())
                found |= {name: child for name in ("control", "router") if f"lazycloud.{name}" in line}
        return found

    async def has_another_control(self, than: psutil.Process) -> bool:
        """Which answers, as production does."""
        if self.children().get("control") in (None, than):
            return False
        return (await self.get("lazycloud")).status < 500 and (await self.get()).status == 200

    def routers(self) -> list[psutil.Process]:
        """All of them, also those that were replaced and still serve what they have."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it ends just now
                if "lazycloud.router" in child.cmdline():
                    found.append(child)
        return found

    def workers(self) -> list[psutil.Process]:
        """Whatever runs with this home's data and is none of lazycloud's own processes, nor of their walls."""
        found = []
        for process in self.inmates():
            with contextlib.suppress(psutil.Error):  # it ends just now
                if process.name() != "bwrap":
                    found.append(process)
        return found

    def inmates(self) -> list[psutil.Process]:
        """The same with what keeps the walls around it."""
        given = f"DATA_DIR={self.home}/".encode()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                # Raw: psutil stops at the first entry that is odd.
                entries = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
                if any(entry.startswith(given) for entry in entries):
                    found.append(process)
        return found

    def cli(self, *arguments: str, folder: Path | None = None, code: int | None = 0) -> str:
        """Run a verb; what it printed. `code` is the exit code to expect."""
        done = subprocess.run(
            [sys.executable, "-m", "lazycloud", *arguments],
            cwd=folder or self.home,
            env=os.environ | {"LAZYCLOUD_HOME": str(self.home), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE * 3,
        )
        assert code is None or done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    async def verb(self, *arguments: str, folder: Path | None = None, code: int | None = 0) -> str:
        """`cli`, while the test goes on with other things."""
        return await asyncio.to_thread(self.cli, *arguments, folder=folder, code=code)

    @contextlib.contextmanager
    def going_on(self, *arguments: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
        """A verb that runs as long as the block, unless it ends by itself."""
        with subprocess.Popen(
            [sys.executable, "-m", "lazycloud", *arguments],
            cwd=folder,
            env=os.environ | {"LAZYCLOUD_HOME": str(self.home), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def json(self, *arguments: str, folder: Path | None = None) -> Any:
        """A verb's JSON."""
        return json.loads(self.cli(*arguments, "--json", folder=folder))

    @property
    def authorization(self) -> str:
        """The header that lets programs in."""
        return f"Bearer {(self.home / 'token').read_text().strip()}"

    async def api(self, path: str) -> Any:
        """What control answers below /api/, as JSON."""
        return (await self.get("lazycloud", f"/api/{path}", Authorization=self.authorization)).json

    async def inspect(self, commit: str, app: str = "shop") -> Any:
        """All that is known of a commit."""
        return await self.api(f"apps/{app}/inspect?ref={commit}")

    async def reaches(self, commit: str, state: str, app: str = "shop") -> None:
        """Until the commit, on data of its own, is in that state. Control may be away meanwhile."""
        seen: Any = None

        async def is_there() -> bool:
            nonlocal seen
            with contextlib.suppress(json.JSONDecodeError):  # of who answers in its place
                seen = await self.inspect(commit, app)
            return seen is not None and seen["state"] == state

        try:
            await self.until(is_there)
        except TimeoutError as problem:
            raise AssertionError(f"{commit} did not come to be {state}: {seen}\n{problem}") from None

    def host(self, label: str = "") -> str:
        return f"{label}.localhost:{self.port}" if label else f"localhost:{self.port}"

    async def get(self, label: str = "", path: str = "/", **headers: str) -> Answer:
        return await self.request("GET", label, path, headers=headers)

    async def post(self, label: str, text: str, path: str = "/", **headers: str) -> Answer:
        return await self.request("POST", label, path, headers=headers, data=text)

    async def request(
        self, method: str, label: str, path: str, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        names = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        names.setdefault("Host", self.host(label))
        timeout = aiohttp.ClientTimeout(total=HELD)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(
                method, f"http://127.0.0.1:{self.port}{path}", headers=names, allow_redirects=False, **options
            ) as response,
        ):
            return Answer(response.status, await response.text(), response.headers)


class Answer:
    def __init__(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        self.status = status
        self.text = text
        self.headers = headers

    def __repr__(self) -> str:
        return f"<{self.status} {self.text[:2000]!r}>"

    @property
    def json(self) -> Any:
        return json.loads(self.text)


BROWSER = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}
"""What a browser sends with a top-level navigation."""
