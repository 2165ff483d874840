"""Lines 18 to 20 of http.md, cookies and tokens: who is who."""

from __future__ import annotations

import hashlib
import time

import pytest

from lazycloud.router.access import sign

from .stage import GRANT, KEY, TOKEN, fields, saying, sized, to_worker

FORGED = (
    b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n"
    b"X-Real-IP: 6.6.6.6\r\nX-Forwarded-Port: 1\r\nX_Forwarded_For: 6.6.6.6\r\nLazycloud-Reason: page\r\n"
)
ASK = b"GET / HTTP/1.1\r\nHost: app.localhost:8000\r\n"


async def test_forwarded_headers_are_set_at_the_edge_whatever_the_client_said(router, serve) -> None:
    worker = await serve(saying(sized()))
    assert (await router.ask(ASK + FORGED + b"\r\n")).status == 200
    assert fields(worker.last, "x-forwarded-for") == ["127.0.0.1"]
    assert fields(worker.last, "x-forwarded-proto") == ["http"]
    assert fields(worker.last, "x-forwarded-host") == ["app.localhost:8000"]
    assert b"6.6.6.6" not in worker.last
    assert b"evil" not in worker.last


async def test_a_trusted_proxy_is_believed_and_extended(start, serve) -> None:
    router = await start(trusted_proxies=["127.0.0.0/8"], public_scheme="http")
    worker = await serve(saying(sized()))
    await router.ask(ASK + FORGED + b"\r\n")
    assert fields(worker.last, "x-forwarded-for") == ["6.6.6.6, 127.0.0.1"]
    assert fields(worker.last, "x-forwarded-proto") == ["https"]
    assert fields(worker.last, "x-forwarded-host") == ["evil"]
    await router.ask(ASK + b"\r\n")
    assert fields(worker.last, "x-forwarded-proto") == ["http"]


async def test_a_proxy_outside_the_trusted_networks_is_not_believed(start, serve) -> None:
    router = await start(trusted_proxies=["10.0.0.0/8"], public_scheme="https")
    worker = await serve(saying(sized()))
    await router.ask(ASK + FORGED + b"\r\n")
    assert fields(worker.last, "x-forwarded-for") == ["127.0.0.1"]
    assert fields(worker.last, "x-forwarded-proto") == ["https"]


async def test_reserved_headers_are_stripped_for_a_worker_and_all_but_the_token_for_control(
    router, control, serve
) -> None:
    worker = await serve(saying(sized()))
    reserved = (
        b"Lazycloud-Reason: admin\r\nlazycloud-anything: x\r\nLazycloud_Token: x\r\nLazycloud-Token: x\r\n"
    )
    await router.ask(ASK + reserved + b"\r\n")
    assert b"lazycloud" not in worker.last.lower()
    await router.ask(ASK.replace(b"GET /", b"GET /.well-known/lazycloud/x") + reserved + b"\r\n")
    assert fields(control.http.last, "lazycloud-reason") == ["page"]
    assert fields(control.http.last, "lazycloud-token") == ["x"]  # who sees a preview may see its log, too
    assert control.http.last.lower().count(b"\r\nlazycloud") == 2


async def test_a_worker_cannot_speak_in_lazyclouds_name_and_control_can(router, serve) -> None:
    await serve(saying(sized(more=b"Lazycloud-Answer: control\r\n")))
    assert (await router.get()).field("lazycloud-answer") is None
    assert (await router.get(path="/.well-known/lazycloud/x")).field("lazycloud-answer") == "control"


@pytest.mark.parametrize(
    "host", ["app.localhost", "APP.localhost:8000", "app.localhost.", "app.localhost.:8000"]
)
async def test_the_worker_sees_the_host_that_the_client_asked_for(router, control, serve, host: str) -> None:
    worker = await serve(saying(sized()))
    assert (await router.get(host)).status == 200
    assert fields(worker.last, "host") == [host]
    assert control.said("ask")[0]["host"] == "app.localhost"


async def test_an_ipv6_host_and_an_ipv6_worker_are_fine(router, serve) -> None:
    try:
        worker = await serve(saying(sized()), host="[::1]", ip="::1")
    except OSError:
        pytest.skip("no IPv6 on this machine")
    assert (await router.get("[::1]:8000")).status == 200
    assert fields(worker.last, "host") == ["[::1]:8000"]


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host:\r\n",
        b"Host: a@b\r\n",
        b"Host: a..b\r\n",
    ],
)
async def test_a_host_that_is_absent_repeated_or_malformed_is_a_400(router, control, lines: bytes) -> None:
    assert (await router.ask(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")).status == 400
    assert control.said("ask") == []


async def test_1_0_without_a_host_is_asked_about_as_such(router, control) -> None:
    control.routes[""] = {"to": "control", "reason": "page"}
    answer = await router.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert answer.body == b"control"


@pytest.mark.parametrize(
    "address", ["localhost:80", "example.com:80", "127.0.0.1", "169.254.169.254", "/etc/passwd"]
)
async def test_only_addresses_of_workers_are_dialled(router, control, address: str) -> None:
    control.routes["app.localhost"] = to_worker(address)
    answer = await router.get()
    assert (answer.status, answer.field("lazycloud-answer")) == (502, "router")


async def test_a_route_with_login_needs_the_cookie_of_that_host(router, control, serve) -> None:
    worker = await serve(saying(sized(b"app")), login=True)
    soon = int(time.time()) + 100
    good = f"lazycloud_preview={sign(KEY, 'app.localhost', GRANT, soon)}"
    assert (await router.get()).body == b"control"
    assert fields(control.http.last, "lazycloud-reason") == ["login"]
    assert (await router.get(Cookie=f"a=b; {good}; c=d")).body == b"app"
    assert fields(worker.last, "cookie") == ["a=b; c=d"]
    for bad in (
        sign(KEY, "app.localhost", GRANT, int(time.time()) - 5),
        sign(KEY, "other.localhost", GRANT, soon),
        sign(b"other key", "app.localhost", GRANT, soon),
        sign(KEY, "app.localhost", "l1", soon),
        "nonsense",
    ):
        assert (await router.get(Cookie=f"lazycloud_preview={bad}")).body == b"control"


async def test_a_route_with_login_takes_the_token_and_passes_authorization_untouched(start, serve) -> None:
    router = await start(token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest())
    worker = await serve(saying(sized(b"app")), login=True)
    answer = await router.get(Lazycloud_Token=TOKEN, Authorization="Bearer the-apps-own")
    assert answer.body == b"app"
    assert fields(worker.last, "authorization") == ["Bearer the-apps-own"]
    assert TOKEN.encode() not in worker.last
    assert (await router.get(Lazycloud_Token="wrong")).body == b"control"


async def test_an_ask_says_whether_the_client_is_logged_in(router, control, serve) -> None:
    await serve(saying(sized()), login=True)
    await serve(saying(sized()), host="b.localhost", login=True)
    cookie = f"lazycloud_preview={sign(KEY, 'b.localhost', GRANT, int(time.time()) + 100)}"
    await router.get("app.localhost", Cookie=cookie)
    await router.get("b.localhost", Cookie=cookie)
    assert [ask["login"] for ask in control.said("ask")] == [False, True]


async def test_own_cookies_reach_control(router, control) -> None:
    await router.get(path="/.well-known/lazycloud/x", Cookie="a=b; lazycloud_session=s")
    assert fields(control.http.last, "cookie") == ["a=b; lazycloud_session=s"]


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-123", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)]
)
async def test_a_sane_request_id_is_kept_and_another_replaced(router, serve, given: str, kept: bool) -> None:
    worker = await serve(saying(sized()))
    await router.get(X_Request_Id=given)
    (found,) = fields(worker.last, "x-request-id")
    assert (found == given) is kept
    assert kept or len(found) == 32
