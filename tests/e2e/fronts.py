"""Caddy, nginx and HAProxy as docs/behind-a-proxy.md sets them up, in front of a real server.

The files of docs/proxies/ are used as they are, but for ports, the folder of certificates, and what lets a
program run beside others that are not its tests' business. example.com is found on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.e2e.mirror import FILES
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, UNWALLED, Server
from tests.ports import free_port

PROXIES = Path(__file__).parents[2] / "docs" / "proxies"
DOMAIN = "example.com"
VISITOR = "127.0.0.3"  # where visitors come from: loopback too, but no address of a front
STRANGER = "127.0.0.2"
SLOW_BUILD = '[build]\ncommand = "echo compiling; until [ -e {gate} ]; do sleep 0.05; done"\n'
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/lazycloud.conf;
}}
"""
CADDY = "{{\n\tadmin off\n\thttp_port {http}\n\thttps_port {https}\n\tskip_install_trust\n\tlocal_certs\n"


class Site:
    """A server for example.com behind whatever front; production is the mirror, `cold` makes commits to open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.https, self.http, self.direct = free_ports(3)
        self.checkout = Checkout(folder / "shop")
        self.checkout.commit(FILES)
        self.checkout.git("tag", "v1.0")
        self.server = Server(
            folder / "home",
            self.checkout.path,
            *("--listen", f"localhost:{self.direct}", "--trust-proxy", "127.0.0.1"),
            *("--public-url", f"https://{DOMAIN}:{self.https}"),
            environment=UNWALLED,
        )
        self.certificates = folder / "tls"
        self.certificates.mkdir()
        make_certificate(self.certificates)

    def cold(self, name: str) -> Path:
        """A branch of that name that nobody opened; its build ends when the file given exists."""
        gate = self.folder / f"gate-{name}"
        self.checkout.git("checkout", "-q", "-b", name, "main")
        self.checkout.commit(counter(name, **{"lazycloud.toml": SLOW_BUILD.format(gate=gate)}), f"The {name}")
        self.checkout.git("checkout", "-q", "main")
        return gate

    def configuration(self, name: str) -> str:
        """A file of docs/proxies/, for our ports and folders."""
        text = (PROXIES / name).read_text()
        text = text.replace("/etc/lazycloud/tls", str(self.certificates))
        for number, port in ((443, self.https), (80, self.http), (8000, self.direct)):
            text = re.sub(rf"(?<![\w.]){number}(?![\w.])", str(port), text)
        return text


@dataclass
class Front:
    """A running one. `authority` signs its certificates; `name` is that of its cold branch, too."""

    name: str
    site: Site
    authority: Path

    def url(self, label: str = "", path: str = "/", scheme: str = "https") -> str:
        port = self.site.https if scheme in ("https", "wss") else self.site.http
        return f"{scheme}://{f'{label}.' if label else ''}{DOMAIN}:{port}{path}"

    def host(self, label: str = "") -> str:
        return self.url(label).partition("://")[2].rstrip("/")

    @contextlib.asynccontextmanager
    async def visitor(self, address: str = VISITOR) -> AsyncIterator[aiohttp.ClientSession]:
        """A program on HTTP/1.1 that keeps cookies, and finds every name here."""
        connector = aiohttp.TCPConnector(
            resolver=Here(),
            local_addr=(address, 0),
            ssl=ssl.create_default_context(cafile=str(self.authority)),
        )
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield session

    async def has_certificate(self, name: str) -> bool:
        """Whether the front shows one for that name."""
        context = ssl.create_default_context(cafile=str(self.authority))
        try:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", self.site.https, ssl=context, server_hostname=name
            )
        except ssl.SSLError:
            return False
        writer.close()
        return True

    def curl(self, path: str, *arguments: str, label: str = "") -> subprocess.Popen[bytes]:
        """A program on HTTP/2, which answers on its standard output as it comes."""
        url = self.url(label, path)
        command = ["curl", "-sSN", "--http2", "--path-as-is", "--cacert", str(self.authority)]
        command += ["--connect-to", f"::127.0.0.1:{self.site.https}", "--interface", VISITOR]
        return subprocess.Popen([*command, *arguments, url], stdout=subprocess.PIPE)

    def fetch(self, path: str, *arguments: str, label: str = "") -> bytes:
        """What HTTP/2 answers there."""
        with self.curl(path, *arguments, label=label) as process:
            output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
        return output

    def seen(self, path: str = "/", *arguments: str) -> Any:
        """What the app saw of a request over HTTP/2: `path`, and `headers` by lower-case name."""
        return seen(self.fetch(path, *arguments))


def seen(text: bytes | str) -> dict[str, Any]:
    answer = json.loads(text)
    names = [name.lower() for name, _ in answer["headers"]]
    assert len(set(names)) == len(names), names
    return {"path": answer["path"], "headers": {name.lower(): value for name, value in answer["headers"]}}


class Here(AbstractResolver):
    """Every name is on this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is open."""


@contextlib.contextmanager
def running(site: Site, name: str) -> Iterator[Front]:
    """A front by the name in `FRONTS`, until the block ends."""
    folder = site.folder / name
    folder.mkdir(exist_ok=True)
    command, authority = FRONTS[name](site, folder)
    assert shutil.which(command[0]), f"no {command[0]} on PATH: install it"
    environ = os.environ | {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
    try:
        wait(lambda: authority.exists() and accepts(site.https), process, folder / "log")
        yield Front(name, site, authority)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def caddy(site: Site, folder: Path, file: str = "Caddyfile") -> tuple[list[str], Path]:
    ours = CADDY.format(http=site.http, https=site.https)
    text = site.configuration(file).partition("\n")[2]  # without the comment that names the file
    text = ours + text.removeprefix("{\n") if text.startswith("{") else f"{ours}}}\n{text}"
    (folder / "Caddyfile").write_text(text)
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    return command, folder / "caddy/pki/authorities/local/root.crt"


def caddy_wildcard(site: Site, folder: Path) -> tuple[list[str], Path]:
    command, _ = caddy(site, folder, "Caddyfile.wildcard")
    return command, site.certificates / f"{DOMAIN}.crt"


def nginx(site: Site, folder: Path) -> tuple[list[str], Path]:
    (folder / "lazycloud.conf").write_text(site.configuration("nginx.conf"))
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return command, site.certificates / f"{DOMAIN}.crt"


def haproxy(site: Site, folder: Path) -> tuple[list[str], Path]:
    (folder / "haproxy.cfg").write_text(site.configuration("haproxy.cfg"))
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], site.certificates / f"{DOMAIN}.crt"


FRONTS: Mapping[str, Callable[[Site, Path], tuple[list[str], Path]]] = {
    "caddy": caddy,
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy-wildcard": caddy_wildcard,
}


def make_certificate(folder: Path) -> None:
    """example.com.crt, .key, and both in .pem, for the domain and one label below it."""
    key, certificate = folder / f"{DOMAIN}.key", folder / f"{DOMAIN}.crt"
    names = f"subjectAltName=DNS:{DOMAIN},DNS:*.{DOMAIN}"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", f"/CN={DOMAIN}", "-addext", names]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=PATIENCE)
    (folder / f"{DOMAIN}.pem").write_text(certificate.read_text() + key.read_text())


def free_ports(count: int) -> list[int]:
    """Of all loopback addresses, and no two the same."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE):
        return True
    return False


def wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it holds; fails with the log when the process ends or it takes too long."""
    for _ in range(int(PATIENCE / 0.05)):
        if condition():
            return
        assert process.poll() is None, log.read_text()
        threading.Event().wait(0.05)
    raise AssertionError(log.read_text())
