"""The back ends that all proxies stand before, and the load that reaches them; both on the load's core."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from peer import HERE, HOST, CannotRun, Running, fill, free_port, spawn

LARGE = 10_000_000  # bytes of a large body
_HEAD = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Encoding: gzip, deflate",
    "Accept-Language: en",
)
COOKIE = "Cookie: session=abcdef0123456789"


def pages(folder: Path, core: int, addresses: int = 1) -> tuple[Running, list[str]]:
    """An nginx that answers small and large requests, on so many addresses of the loopback network."""
    port = free_port()
    backends = [f"127.0.{n // 250}.{n % 250 + 1}:{port}" for n in range(addresses)]
    listen = "\n".join(f"        listen {address} backlog=4096;" for address in backends)
    (folder / "bytes").write_bytes(bytes(LARGE))
    settings = fill(HERE / "load/backend.conf", folder, {"LISTEN": listen})
    command = ["nginx", "-p", ".", "-c", str(settings), "-e", "stderr"]
    return spawn("the back end", command, core, folder, port).wait(), backends


def echo(folder: Path, core: int) -> tuple[Running, list[str]]:
    """A websocket server that says what it hears."""
    port = free_port()
    command = [sys.executable, str(HERE / "load/echo.py"), str(port)]
    return spawn("the echo server", command, core, folder, port).wait(), [f"127.0.0.1:{port}"]


@dataclass(frozen=True, slots=True)
class Done:
    """What a load did: requests (or messages) that were answered, in so many seconds."""

    count: int
    seconds: float
    trouble: str = ""
    times: tuple[float, ...] = ()  # p50, p99 and the slowest, in seconds


def wrk(port: int, connections: int, seconds: float, *options: str, arguments: tuple[str, ...] = ()) -> Done:
    """wrk's requests for a small page, as fast as they are answered. wrk counts whole seconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", *options]
    for line in (f"Host: {HOST}", *_HEAD):
        command += ["-H", line]
    command += [f"http://127.0.0.1:{port}/some/path?x=1", *(["--", *arguments] if arguments else [])]
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 3 + 60).stdout
    found = re.search(r"(\d+) requests in ([\d.]+)s", said)
    if not found:
        raise CannotRun(f"wrk said: {said}")
    trouble = "; ".join(re.findall(r"(Non-2xx.*|Socket errors.*)", said))
    return Done(int(found[1]), float(found[2]), trouble)


def load(script: str, *arguments: object, cores: str = "", first: bool = False) -> Done:
    """Run a generator of bench/load; what it did. On those cores instead of the load's, and before all others."""
    command = ["taskset", "-c", cores] if cores else []
    if first and os.geteuid() == 0:
        command = ["chrt", "--fifo", "1", *command]
    command += [sys.executable, str(HERE / "load" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise CannotRun(f"{script} failed: {done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    return Done(said["count"], said["seconds"], said.get("trouble", ""), tuple(said.get("times", ())))
