"""What a repository, a caller or a command line may bring that nobody expects: it is answered, and breaks nothing."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, PATIENCE, Server
from tests.e2e.test_edges import new_control
from tests.ports import free_port


async def test_a_commit_in_an_encoding_that_cannot_be_read_breaks_nothing_else(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--follow", "main")
    assert (await server.get()).json["name"] == "one"
    checkout.git("checkout", "-q", "-b", "hostile")
    checkout.git("-c", "i18n.commitEncoding=undefined", "commit", "-q", "--allow-empty", "-m", "x")
    await server.told(f"hostile is now at {checkout.git('rev-parse', 'HEAD')[:10]}")
    checkout.git("checkout", "-q", "main")
    checkout.commit(counter("two"))
    assert "Traceback" not in server.cli("ls", "--app", "shop")
    await server.until(partial(server.named, "two"))


async def test_a_subject_that_is_no_valid_text_is_shown_and_promoted_for_good(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("one"))
    server = up(checkout.path, "--follow", "main")
    assert (await server.get()).json["name"] == "one"
    for name, text in counter("two").items():
        (checkout.path / name).write_text(text)
    checkout.git("-c", "i18n.commitEncoding=utf-7", "commit", "-q", "-a", "-m", "+2AA-")
    await server.until(partial(server.named, "two"))
    commit = checkout.git("rev-parse", "HEAD")
    assert server.json("releases", "--app", "shop")[0]["commit"]["id"] == commit
    assert (await server.get(commit, **BROWSER)).status in (200, 503)


async def test_a_commit_with_an_impossible_date_leaves_valid_json(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("one"))
    tree = checkout.git("rev-parse", "HEAD^{tree}")
    path = checkout.path.parent / "object"
    path.write_text(
        f"tree {tree}\nparent {first}\nauthor A <a@b> {'9' * 400} +0000\ncommitter A <a@b> 1 +0000\n\nx\n"
    )
    commit = checkout.git("hash-object", "-t", "commit", "-w", "--literally", str(path))
    checkout.git("update-ref", "refs/heads/far", commit)
    server = up(checkout.path)
    answer = await server.get("lazycloud", "/api/overview", Authorization=server.authorization)
    assert commit in answer.text
    assert "Infinity" not in answer.text


async def test_production_answers_although_its_commit_was_removed_from_the_repository(
    up: Up, checkout: Checkout
) -> None:
    checkout.commit(counter("base"))
    checkout.commit(counter("gone"))
    server = up(checkout.path)
    assert (await server.get()).json["name"] == "gone"
    checkout.git("reset", "-q", "--hard", "HEAD~1")
    checkout.git("update-ref", "-d", "ORIG_HEAD")
    checkout.git("reflog", "expire", "--expire=now", "--all")
    checkout.git("gc", "-q", "--prune=now")
    assert (await server.get()).json["name"] == "gone"
    await new_control(server)
    assert (await server.get()).json["name"] == "gone"


async def test_a_branch_that_is_removed_names_nothing_any_more(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    checkout.git("branch", "feature")
    server = up(checkout.path)
    assert (await server.get("feature")).status == 200
    checkout.git("branch", "-D", "feature")

    async def is_gone() -> bool:
        return (await server.get("feature")).status == 404

    await server.until(is_gone)


async def test_a_repository_that_was_removed_is_said_to_be_missing(up: Up, checkout: Checkout) -> None:
    checkout.commit(counter("one"))
    other = checkout.commit(counter("two"))
    server = up(checkout.path)
    await server.get()
    checkout.path.rename(checkout.path.with_name("moved"))
    assert "Install git" not in (await server.get(other)).text
    for token, status in ((server.authorization, 200), ("Bearer x", 401)):
        assert (await server.get("lazycloud", "/api/overview", Authorization=token)).status == status


async def test_an_app_named_in_the_file_and_on_the_command_line_is_served_once(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    checkout.commit(counter("one"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(f'[apps.blog]\nsource = "{checkout.path}"\n')
    server = up(checkout.path, home=home)
    assert (await server.get()).json["name"] == "one"


async def test_a_reason_that_is_no_valid_text_does_not_stop_the_event_log(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    second = checkout.commit(counter("second"))
    server = up(checkout.path, "--production", first)
    await server.get()
    body = f'{{"ref": "{second}", "why": "\\ud800"}}'
    refused = await server.post(
        "lazycloud", body, "/api/apps/shop/promote", Authorization=server.authorization
    )
    assert refused.status == 422
    await server.verb("promote", second, "-m", "a good reason", folder=checkout.path)
    assert (await server.get()).json["name"] == "second"
    assert "event log cannot be written" not in server.output


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/api/apps", {"Authorization": "Bearer \udcff"}, None),
        ("/", {"Cookie": "lazycloud_session=1.\udcff"}, None),
        ("/visit?to=http://[", {}, None),
        ("/api/apps/shop/deploy", {"Origin": "http://["}, "{}"),
        ("/api/apps/shop/deploy", {"Content-Type": "application/json; charset=nope"}, "{}"),
        ("/api/apps/shop/deploy", {}, b"\xff"),
        ("/api/apps/shop/deploy", {}, "[" * 200_000),
        ("/login", {"Content-Type": "multipart/form-data"}, "x"),
    ],
    ids=["token", "cookie", "query", "origin", "charset", "bytes", "brackets", "form"],
)
async def test_a_request_that_nobody_should_send_is_no_bug_of_ours(
    shared: Server, path: str, headers: dict[str, str], body: str | bytes | None
) -> None:
    lines = {"Host": shared.host("lazycloud"), "Authorization": shared.authorization, **headers}
    data = body.encode() if isinstance(body, str) else body or b""
    head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nConnection: close\r\n"
    head += f"Content-Length: {len(data)}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items())

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", shared.port), PATIENCE) as line:
            line.sendall(head.encode(errors="surrogateescape") + b"\r\n" + data)
            return b"".join(iter(lambda: line.recv(65536), b""))

    answer = await asyncio.to_thread(ask)
    assert answer.startswith(b"HTTP/1.1 ")
    assert not answer.startswith(b"HTTP/1.1 500"), answer[-300:]


async def test_previews_behind_a_public_front_need_a_login(up: Up, checkout: Checkout) -> None:
    first = checkout.commit(counter("first"))
    checkout.commit(counter("second"))
    port = free_port()
    url = f"http://shop.example.com:{port}"
    server = up(checkout.path, "--public-url", url, "--listen", f"localhost:{port}")
    assert (await server.get(Host=f"shop.example.com:{port}")).status == 200
    assert (await server.get(Host=f"{first}.shop.example.com:{port}")).status == 401
