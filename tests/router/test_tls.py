"""TLS towards clients: certificates by name, their renewal, and what does not speak TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lazycloud.certificates import Files, read
from lazycloud.router.tls import Shelf
from tests.certificates import Authority
from tests.waiting import PATIENCE, until

from .stage import Conversation, Router, Wire, fields, get, saying, sized

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def listen(start, authority: Authority) -> Callable[..., Any]:
    """Starts a router that speaks TLS with these certificates."""

    async def start_router(*pairs: tuple[Path, Path], **settings: Any) -> Router:
        tls = [(str(cert), str(key)) for cert, key in pairs or [authority.issue("app.localhost")]]
        router = await start(**{"tls": tls, "tls_look": 0.02, "public_scheme": "https", **settings})
        router.trust = authority.trust
        return router

    return start_router


async def shown(router: Router, name: str | None) -> bytes:
    """The certificate that a client is shown who asks for that name."""
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", router.port, ssl=blind, server_hostname=name or "")
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


def body(cert: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(cert.read_text())


async def plain(router: Router) -> Wire:
    """A connection without TLS."""
    async with asyncio.timeout(PATIENCE):
        return Wire(*await asyncio.open_connection("127.0.0.1", router.port))


async def connect_slowly(router: Router) -> Wire:
    """A client whose side buffers little."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.setblocking(False)
    await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", router.port))
    name = "app.localhost"
    return Wire(*await asyncio.open_connection(sock=own, ssl=router.trust, server_hostname=name, limit=4096))


# Which certificate


def test_the_whole_name_comes_before_a_wildcard_and_the_first_certificate_is_for_the_rest(
    authority: Authority,
) -> None:
    def issue(*names: str):
        cert, key = authority.issue(*names)
        return read(Files(str(cert), str(key)))

    first, wild, exact = issue("first.org"), issue("*.example.com", "example.com"), issue("a.example.com")
    shelf = Shelf([first, wild, exact, issue("example.com")])
    assert shelf.find("a.example.com") is exact.context
    assert shelf.find("A.Example.COM.") is exact.context
    assert shelf.find("b.example.com") is wild.context
    assert shelf.find("example.com") is wild.context
    for name in ("b.a.example.com", "other.org", "com", "", "*", None):
        assert shelf.find(name) is first.context


async def test_a_client_is_shown_the_certificate_of_the_name_it_asks_for(listen, authority) -> None:
    pairs = [authority.issue("app.localhost"), authority.issue("*.example.com")]
    router = await listen(*pairs)
    assert await shown(router, "app.localhost") == body(pairs[0][0])
    assert await shown(router, "a.example.com") == body(pairs[1][0])
    assert await shown(router, "a.b.example.com") == body(pairs[0][0])
    assert await shown(router, None) == body(pairs[0][0])


async def test_a_request_over_tls_is_told_to_the_worker_as_https(listen, serve) -> None:
    worker = await serve(saying(sized()))
    router = await listen()
    wire = await router.connect()
    await wire.send(get())
    assert (await wire.answer()).status == 200
    assert fields(worker.last, "x-forwarded-proto") == ["https"]
    used = wire.writer.get_extra_info("ssl_object")
    assert used.version() == "TLSv1.3"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_http_1_1_is_agreed_on_and_nothing_older_than_tls_1_2(listen, serve) -> None:
    await serve(saying(sized()))
    router = await listen()
    router.trust.set_alpn_protocols(["h2", "http/1.1"])
    router.trust.maximum_version = ssl.TLSVersion.TLSv1_2
    wire = await router.connect()
    assert wire.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
    await wire.send(get())
    assert (await wire.answer()).status == 200
    router.trust.minimum_version = ssl.TLSVersion.TLSv1
    router.trust.maximum_version = ssl.TLSVersion.TLSv1_1
    router.trust.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
        await router.connect()


# Renewal


def put(pair: tuple[Path, Path], new: tuple[Path, Path]) -> None:
    """Replace files as certbot and its kind do."""
    for old, file in zip(pair, new, strict=True):
        spare = old.with_suffix(".new")
        shutil.copy(file, spare)
        spare.replace(old)


async def until_shown(router: Router, cert: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while await shown(router, "app.localhost") != body(cert):
            await asyncio.sleep(0.02)


async def test_a_new_certificate_is_for_new_connections_and_open_ones_go_on(listen, serve, authority) -> None:
    await serve(saying(sized()))
    pair, new = authority.issue("app.localhost"), authority.issue("app.localhost")
    router = await listen(pair)
    wire = await router.connect()
    await wire.send(get())
    await wire.answer()
    before = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    put(pair, new)
    assert before != body(new[0])
    await until_shown(router, new[0])
    await wire.send(get())
    assert (await wire.answer()).status == 200


async def test_a_broken_new_certificate_is_said_once_and_the_old_one_stays(
    listen, authority, capfd: pytest.CaptureFixture[str]
) -> None:
    pair, other = authority.issue("app.localhost"), authority.issue("other.localhost")
    router = await listen(pair, other)
    old = body(pair[0])
    said = ""

    def says(sentence: str) -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return sentence in said

    await shown(router, "app.localhost")
    pair[0].write_bytes(other[0].read_bytes())
    await until(lambda: says("is not that of the certificate"))
    assert await shown(router, "app.localhost") == old
    pair[1].unlink()
    await until(lambda: says("cannot be read: No such file"))
    assert await shown(router, "app.localhost") == old
    new = authority.issue("app.localhost")
    put(pair, new)
    await until_shown(router, new[0])
    assert await shown(router, "other.localhost") == body(other[0])
    says("")
    assert said.count("The certificate before it stays in use.") == 2


async def test_a_router_starts_without_a_certificate_that_is_broken_and_takes_it_when_it_is_mended(
    listen, authority
) -> None:
    pair, other = authority.issue("app.localhost"), authority.issue("other.localhost")
    good = pair[1].read_bytes()
    pair[1].write_text("")
    router = await listen(pair, other)
    assert await shown(router, "app.localhost") == body(other[0])
    pair[1].write_bytes(good)
    await until_shown(router, pair[0])


async def test_without_any_good_certificate_a_router_does_not_start(listen, tmp_path: Path) -> None:
    router = await listen((tmp_path / "none", tmp_path / "none"))
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 2


# Clients of all kinds


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_plain_http_is_told_to_come_back_with_https(listen, method: str) -> None:
    router = await listen()
    wire = await plain(router)
    await wire.send(f"{method} /x HTTP/1.1\r\nHost: app.localhost:{router.port}\r\n\r\n".encode())
    answer = await wire.answer()
    assert (answer.status, answer.field("connection")) == (400, "close")
    assert f"The address is https://app.localhost:{router.port}/".encode() in answer.body


async def test_the_host_of_plain_http_is_shown_only_if_it_is_one(listen) -> None:
    wire = await plain(await listen())
    await wire.send(b"GET / HTTP/1.1\r\nAccept: text/html\r\nHost: <script>\r\n\r\n")
    answer = await wire.answer()
    assert answer.status == 400
    assert b"script>" not in answer.body


async def test_plain_http_with_a_host_of_blanks_is_answered_at_once(listen) -> None:
    wire = await plain(await listen())
    await wire.send(b"GET / HTTP/1.1\r\nHost:" + b" \t" * 25_000 + b"x" * 10_000)
    assert b"Write https:// in the address." in (await wire.answer()).body


async def test_a_plain_upload_does_not_lose_its_answer_to_a_reset(listen) -> None:
    wire = await plain(await listen())
    wire.writer.write(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 5000000\r\n\r\n")
    wire.writer.write(b"x" * 5_000_000)
    assert (await wire.answer()).status == 400


async def test_whoever_does_not_finish_a_handshake_is_gone_after_the_time_for_a_head(listen) -> None:
    router = await listen(head_timeout=1.5)
    silent, strange, late = await plain(router), await plain(router), await plain(router)
    await strange.send(b"\x16\x03\x01 this is no hello at all")
    await late.send(b"\x16\x03\x01\x02\x00\x01")
    async with asyncio.timeout(PATIENCE):
        for wire in (silent, strange, late):
            with contextlib.suppress(ConnectionError):
                await wire.reader.read()
    assert await shown(router, "app.localhost")


async def test_a_name_that_is_no_name_breaks_nothing(listen, capfd: pytest.CaptureFixture[str]) -> None:
    router = await listen()
    client = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = client.wrap_bio(incoming, outgoing, server_hostname="xxx.localhost")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    wire = await plain(router)
    await wire.send(outgoing.read().replace(b"xxx.localhost", b"\xff\xfe\n.localhost"))
    assert await wire.some()
    assert await shown(router, "app.localhost")
    assert "Traceback" not in capfd.readouterr().err


async def test_a_client_that_does_not_trust_the_certificate_leaves_no_trace(
    listen, capfd: pytest.CaptureFixture[str]
) -> None:
    router = await listen()
    router.trust = ssl.create_default_context()
    for _ in range(3):
        with pytest.raises(ssl.SSLCertVerificationError):
            await router.connect()
    assert await shown(router, "app.localhost")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_a_handshake_under_way_is_finished_by_a_router_that_goes(
    listen, serve, number: signal.Signals
) -> None:
    await serve(saying(sized()))
    router = await listen()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = router.trust.wrap_bio(incoming, outgoing, server_hostname="app.localhost")
    wire = await plain(router)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    await wire.send(outgoing.read())
    incoming.write(await wire.some())
    router.process.send_signal(number)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(router.process.wait(), 0.4)
    client.do_handshake()
    client.write(get())
    await wire.send(outgoing.read())
    while True:
        incoming.write(await wire.some())
        with contextlib.suppress(ssl.SSLWantReadError):
            said = client.read()
            break
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in said
    wire.close()
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


async def test_a_client_that_closes_without_a_goodbye_cancels_its_request(listen, control, serve) -> None:
    gone = asyncio.Event()

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.rest()
        gone.set()

    worker = await serve(handle)
    router = await listen()
    wire = await router.connect()
    await wire.send(get())
    await until(lambda: worker.heads)
    with socket.socket(fileno=os.dup(wire.writer.get_extra_info("socket").fileno())) as same:
        same.shutdown(socket.SHUT_WR)
    await until(gone.is_set)
    await until(lambda: control.activity("d1").get("open") == 0)


async def test_a_client_that_half_closes_while_it_reads_slowly_cancels_its_request(
    listen, control, serve, capfd: pytest.CaptureFixture[str]
) -> None:
    gone = asyncio.Event()

    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                await talk.send(b"x" * 100_000)
                await asyncio.sleep(0.001)
        finally:
            gone.set()

    await serve(handle)
    router = await listen(write_max=1_000_000_000)
    wire = await connect_slowly(router)
    await wire.send(get())
    await wire.head()
    await until(lambda: control.activity("d1").get("sent", 0) > 10_000_000)
    with socket.socket(fileno=os.dup(wire.writer.get_extra_info("socket").fileno())) as same:
        same.shutdown(socket.SHUT_WR)
    await until(gone.is_set)
    assert capfd.readouterr().err == ""


async def test_a_cut_answer_without_a_length_does_not_end_in_a_goodbye(listen, serve) -> None:
    async def handle(talk: Conversation) -> None:
        await talk.request()
        await talk.send(CHUNKED)

    await serve(handle)
    wire = await (await listen()).connect()
    await wire.send(b"GET / HTTP/1.0\r\nHost: app.localhost\r\n\r\n")
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await wire.rest()


async def test_a_slow_client_gets_the_whole_of_a_last_answer(listen, serve) -> None:
    """The loop holds what TLS made of an answer apart from what is yet to be made of it."""
    await serve(saying(sized(b"x" * 8_000_000, more=b"Connection: close\r\n")))
    router = await listen(linger=0.2, write_max=40_000_000)
    wire = await connect_slowly(router)
    await wire.send(get(Connection="close"))
    await wire.head()
    got, pauses = 0, 0
    while data := await wire.some():
        got += len(data)
        if got > 500_000 * pauses:
            pauses += 1
            await asyncio.sleep(0.1)  # in all it is slower than `linger`
    assert got == 8_000_000


# Port 80


@pytest.fixture
async def redirecting(start, authority: Authority):
    """A router whose listen only redirects."""

    async def start_router(**settings: Any) -> Router:
        return await start(redirect=True, tls=[tuple(map(str, authority.issue("a.org")))], **settings)

    return start_router


async def test_port_80_sends_to_https_on_the_same_host(redirecting) -> None:
    router = await redirecting(https_port=8443)
    upload = b"POST http://b.org/x HTTP/1.1\r\nHost: a.org\r\nContent-Length: 3\r\n\r\nabc"
    for raw, location in (
        (get("app.localhost", "/a%2Fb?c=//d"), "https://app.localhost:8443/a%2Fb?c=//d"),
        (get("App.Localhost:80"), "https://app.localhost:8443/"),
        (upload, "https://b.org:8443/x"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.org\r\n\r\n", "https://a.org:8443/"),
        (b"GET / HTTP/1.0\r\nHost: [::1]\r\n\r\n", "https://[::1]:8443/"),
    ):
        wire = await router.connect()
        await wire.send(raw)
        answer = await wire.answer()
        assert (answer.status, answer.field("location")) == (308, location)
        assert await wire.rest() == b""


async def test_port_80_redirects_only_what_is_a_request_for_a_host(redirecting) -> None:
    router = await redirecting()
    for raw, status in (
        (b"GET / HTTP/1.1\r\nHost: evil.org/@a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a.org\r\nX: " + b"x" * 70_000, 431),
    ):
        answer = await router.ask(raw)
        assert (answer.status, answer.field("location")) == (status, None)


async def test_port_80_answers_whoever_is_connected_when_a_router_leaves(redirecting) -> None:
    router = await redirecting()
    wire = await router.connect()
    await wire.send(get()[:10])
    await router.get()  # so that the one before is accepted
    router.process.send_signal(signal.SIGHUP)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(router.process.wait(), 0.4)
    await wire.send(get()[10:])
    assert (await wire.answer()).status == 308
    wire.close()
    assert await asyncio.wait_for(router.process.wait(), PATIENCE) == 0


async def test_port_80_has_deadlines_too(redirecting) -> None:
    router = await redirecting(head_timeout=2, linger=1.5)  # both are there when they are counted
    open_files = Path(f"/proc/{router.process.pid}/fd")
    silent, staying = await router.connect(), await router.connect()
    await staying.send(get()[:-2])
    await staying.send(b"\r\n")
    assert (await staying.answer()).status == 308
    both = len(list(open_files.iterdir()))
    assert await silent.rest() == b""
    await until(lambda: len(list(open_files.iterdir())) <= both - 2)
