"""A server that speaks https itself, seen with curl."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tests.certificates import NOW, Authority
from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import PATIENCE, Server
from tests.tools import needs

OLD_HTTP = "127.8.0.80"  # loopback addresses of one's own leave port 80 of the others alone


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def may_listen_on_port_80() -> bool:
    try:
        socket.create_server((OLD_HTTP, 80)).close()
    except OSError:
        return False
    return True


def curl(server: Server, authority: Authority, url: str, *options: str) -> str:
    """What curl prints that trusts this authority only; every name is ours."""
    given = ["--cacert", str(authority.file), "--resolve", f"*:80:{OLD_HTTP}"]
    given += ["--resolve", f"*:{server.port}:127.0.0.1", "--noproxy", "*", "--max-time", str(PATIENCE)]
    return subprocess.run(
        ["curl", "--silent", "--show-error", *given, *options, url],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@needs("curl")
@pytest.mark.skipif(not may_listen_on_port_80(), reason="port 80 is not to be had here")
def test_a_server_with_certificates_speaks_https_and_says_so(
    up: Up, checkout: Checkout, authority: Authority
) -> None:
    commit = checkout.commit(counter("one"))
    old = authority.issue("old.example.com", begins=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))
    pairs = [authority.issue("example.com", "*.example.com"), old]
    flags = [flag for cert, key in pairs for flag in ("--tls-cert", cert, "--tls-key", key)]
    listens = ["--listen", "127.0.0.1:0", "--listen", f"{OLD_HTTP}:80"]
    server = up(checkout.path, "--domain", "example.com", "--public-previews", *listens, *flags)

    assert f"Warning: The certificate {old[0]} expired on" in server.output
    address = f"https://example.com:{server.port}/"
    assert address in server.output

    said = json.loads(curl(server, authority, address))
    assert (said["name"], said["environment"]["LAZYCLOUD_URL"]) == ("one", address)
    preview = f"https://{commit[:10]}.example.com:{server.port}/"
    assert json.loads(curl(server, authority, preview))["environment"]["LAZYCLOUD_URL"].startswith("https://")
    assert curl(server, authority, address, "--http1.1", "--write-out", "%{ssl_verify_result}").endswith("0")

    moved = curl(server, authority, "http://example.com/a?b", "--include")
    assert f"Location: https://example.com:{server.port}/a?b\n" in moved
    assert json.loads(curl(server, authority, "http://example.com/a?b", "--location"))["path"] == "/a?b"

    login = curl(server, authority, server.login, "--include")
    assert "lazycloud_session=" in login
    assert "; Secure" in login
    assert "Strict-Transport-Security" not in login


def test_certificates_that_cannot_be_used_keep_the_server_from_starting(
    checkout: Checkout, authority: Authority, tmp_path: Path
) -> None:
    checkout.commit(counter("one"))
    cert, key = authority.issue("example.com")
    missing = tmp_path / "missing.pem"
    for flags, sentence in (
        (["--tls-cert", missing], f"{missing} cannot be read: No such file or directory."),
        (["--tls-cert", cert], f"There is no private key in {cert}."),
        (["--tls-key", key], "tls_key: 1 for 0 certificates"),
        (["--tls-cert", cert, "--tls-key", key, "--listen", "127.0.0.1:80"], "port of https too"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "lazycloud", "up", checkout.path, "--home", tmp_path / "home", *flags],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, sentence in done.stderr) == (2, True), done.stderr
