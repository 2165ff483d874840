"""The access log of a whole server, and the pages that lead to its lines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER


def lines(path: Path) -> list[dict[str, Any]]:
    """Those that are written whole."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


async def test_all_routers_write_one_access_log_and_it_lets_nobody_in(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    commit = checkout.commit(counter("one"))
    server = up(checkout.path, "--routers", "2", "--access-log", "access.log")
    path = tmp_path / "access.log"  # where `lazycloud up` was run
    login = urlsplit(server.login)
    assert (await server.request("GET", "lazycloud", f"{login.path}?{login.query}")).status < 400
    answers = await asyncio.gather(*(server.get(path=f"/{number}") for number in range(40)))
    assert {answer.status for answer in answers} == {200}
    await asyncio.to_thread(server.wait, lambda: len(lines(path)) >= 41, "lines")
    said = sorted(lines(path), key=lambda line: line["time"])
    assert sorted(line["target"] for line in said[1:]) == sorted(f"/{number}" for number in range(40))
    assert {line["by"] for line in said[1:]} == {"worker"}
    assert all(commit in line["deployment"] or "production" in line["deployment"] for line in said[1:])
    assert said[0]["target"] == "/login?ticket=..."
    server.stop()
    assert len(lines(path)) == 41


async def test_an_unknown_host_is_404_as_page_json_and_text_and_names_its_request(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, LAZYCLOUD_ACCESS_LOG=str(tmp_path / "access.log"))
    accepts = {"text/html": BROWSER["Accept"], "application/json": "application/json", "text/plain": "*/*"}
    for kind, accept in accepts.items():
        answer = await server.get("x.y", Accept=accept, X_Request_Id="abc-1", Host="shop.example.org")
        assert (answer.status, answer.headers["X-Request-Id"]) == (404, "abc-1")
        assert answer.headers["Content-Type"].startswith(kind)
        assert "No app is served at shop.example.org." in answer.text
        assert "404" in answer.text
        assert f"http://localhost:{server.port}/" in answer.text  # what is served instead
        assert "abc-1" in answer.text
        assert answer.headers["Lazycloud-Answer"] == "not-found"
        assert answer.headers["Cache-Control"] == "no-store"
        assert ("Content-Security-Policy" in answer.headers) == (kind == "text/html")
    head = await server.request("HEAD", "", "/", headers={"Host": "shop.example.org"})
    assert (head.status, head.text) == (404, "")
    wrong = await server.request("PUT", "", "/.well-known/lazycloud/retry", {"Accept": "application/json"})
    assert (wrong.status, wrong.json["error"]["kind"]) == (405, "method not allowed")
    await asyncio.to_thread(server.wait, lambda: len(lines(tmp_path / "access.log")) >= 5, "lines")
    said = sorted(lines(tmp_path / "access.log"), key=lambda line: line["time"])
    assert [(line["status"], line["by"]) for line in said] == [(404, "control")] * 4 + [(405, "control")]
    assert [line["request_id"] for line in said[:3]] == ["abc-1"] * 3
