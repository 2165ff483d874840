from __future__ import annotations

import pytest

from lazycloud.router.heads import (
    BadHead,
    RequestHead,
    check_trailers,
    forwarding,
    is_navigation,
    is_robot,
    normalise_host,
    parse_answer,
    parse_request,
    relay_answer,
    write_request,
)
from lazycloud.router.settings import Settings

CHROME = "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0"
ROBOTS = Settings((), "", "").robots


def request(*lines: str, start: str = "GET / HTTP/1.1", host: str | None = "a.localhost") -> RequestHead:
    every = [start, *([f"Host: {host}"] if host is not None else []), *lines, "", ""]
    return parse_request("\r\n".join(every).encode("latin-1"))


@pytest.mark.parametrize(
    ("written", "host"),
    [
        (b"abc.localhost", "abc.localhost"),
        (b"ABC.LocalHost:8000", "abc.localhost"),
        (b"abc.localhost.", "abc.localhost"),
        (b"abc.localhost.:80", "abc.localhost"),
        (b"a--b.example.com", "a--b.example.com"),
        (b"127.0.0.1:8000", "127.0.0.1"),
        (b"[::1]:8000", "[::1]"),
        (b"[0:0:0:0:0:0:0:1]", "[::1]"),
        (b"", None),
        (b".", None),
        (b"a..b", None),
        (b"a b", None),
        (b"a:80:80", None),
        (b"a:port", None),
        (b"user@a", None),
        (b"a/b", None),
        (b"[::1", None),
        (b"[::g]", None),
        (b"a%2eb", None),
        ("ä.example".encode(), None),
        (b"a" * 300, None),
    ],
)
def test_a_host_is_a_name_in_lower_case_without_port_and_final_dot(written: bytes, host: str | None) -> None:
    assert normalise_host(written) == host


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("/a%2Fb;c//d?", "/a%2Fb;c//d?", "a.localhost"),
        ("/?q=%3F?&x", "/?q=%3F?&x", "a.localhost"),
        ("http://b.localhost/x%2F?y", "/x%2F?y", "b.localhost"),
        ("http://b.localhost?y", "/?y", "b.localhost"),
        ("HTTP://B.localhost:80", "/", "b.localhost"),
    ],
)
def test_the_target_passes_byte_for_byte_and_absolute_form_names_the_host(
    target: str, path: str, host: str
) -> None:
    head = request(start=f"GET {target} HTTP/1.1")
    assert (head.target.decode(), head.host) == (path, host)


@pytest.mark.parametrize("target", ["ftp://a/", "http:///x", "http://u@a/", "a.localhost:443", "*"])
def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    with pytest.raises(BadHead):
        request(start=f"GET {target} HTTP/1.1")


def test_http_1_0_may_lack_a_host_and_1_1_may_not() -> None:
    assert request(start="GET / HTTP/1.0", host=None).host == ""
    with pytest.raises(BadHead, match="no Host"):
        request(host=None)


def test_headers_named_in_connection_are_dropped_with_the_hop_by_hop_ones() -> None:
    head = request(
        "Connection: close, X-Secret", "Connection: x-other", "X-Secret: 1", "X-OTHER: 2", "Keep-Alive: 5",
        "Proxy-Authorization: x", "TE: trailers", "Trailer: X", "Upgrade: h2c", "HTTP2-Settings: x", "X-Kept: 3",
    )  # fmt: skip
    assert head.fields.lines == [b"X-Kept: 3"]
    assert not head.fields.keep_alive


def test_names_with_underscores_and_reserved_ones_are_dropped() -> None:
    head = request("X_Real: 1", "Lazycloud-Reason: page", "lazycloud-anything: x", "X-Forwarded-For: 6.6.6.6")
    assert head.fields.lines == []


@pytest.mark.parametrize(
    ("lines", "minor", "keeps"),
    [
        ((), 1, True),
        (("Connection: close",), 1, False),
        (("Connection: Keep-Alive",), 1, True),
        ((), 0, False),
        (("Connection: keep-alive",), 0, True),
    ],
)
def test_a_connection_is_kept_by_default_in_1_1_and_on_demand_in_1_0(
    lines: tuple[str, ...], minor: int, keeps: bool
) -> None:
    assert request(*lines, start=f"GET / HTTP/1.{minor}").fields.keep_alive is keeps


@pytest.mark.parametrize(
    ("lines", "start", "expected"),
    [
        (("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), "GET / HTTP/1.1", True),
        (("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), "GET / HTTP/1.1", False),
        (("Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: text/html"), "GET / HTTP/1.1", False),
        (("Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"), "GET / HTTP/1.1", False),
        (("Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), "POST / HTTP/1.1", False),
        ((f"User-Agent: {CHROME}", "Accept: text/html,*/*;q=0.8"), "GET / HTTP/1.1", True),
        ((f"User-Agent: {CHROME}", "Accept: */*"), "GET / HTTP/1.1", False),
        ((f"User-Agent: {CHROME}", "Accept: text/html"), "HEAD / HTTP/1.1", False),
        (("User-Agent: curl/8.5", "Accept: text/html"), "GET / HTTP/1.1", False),
        ((f"User-Agent: {CHROME}", "Accept: text/html", "Connection: upgrade", "Upgrade: websocket"),
         "GET / HTTP/1.1", False),
    ],
)  # fmt: skip
def test_only_a_browsers_top_level_get_is_a_navigation(
    lines: tuple[str, ...], start: str, expected: bool
) -> None:
    assert is_navigation(request(*lines, start=start)) is expected


@pytest.mark.parametrize(
    ("agent", "robot"),
    [
        (b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", True),
        (b"facebookexternalhit/1.1", True),
        (b"TelegramBot (like TwitterBot)", True),
        (b"Baiduspider", True),
        (CHROME.encode(), False),
        (b"Mozilla/5.0 (Linux; Android 9; CUBOT X19 Build/PPR1)", False),
        (b"curl/8.5.0", False),
        (b"", False),
    ],
)
def test_a_robot_is_known_by_its_own_words(agent: bytes, robot: bool) -> None:
    head = request(f"User-Agent: {agent.decode()}")
    assert is_robot(head.fields, ROBOTS) is robot


def test_only_a_trusted_proxy_is_believed_and_its_chain_extended() -> None:
    head = request(
        "X-Forwarded-For: 1.1.1.1",
        "X-Forwarded-For: 2.2.2.2",
        "X-Forwarded-Proto: https",
        "X-Real-IP: 1.1.1.1",
    )
    believed = forwarding(head, b"9.9.9.9", b"http", trusted=True).decode().split("\r\n")
    assert believed == [
        "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 9.9.9.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: a.localhost",
        "x-real-ip: 1.1.1.1",
    ]
    alone = forwarding(head, b"9.9.9.9", b"http", trusted=False).decode().split("\r\n")
    assert alone == ["X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: http", "X-Forwarded-Host: a.localhost"]


def test_own_cookies_and_tokens_reach_control_and_never_a_worker() -> None:
    head = request(
        'Cookie: a="1; lazycloud_session=s;b=2', "Cookie: lazycloud_preview=1.2", "Lazycloud-Token: t0k"
    )
    assert b'\r\nCookie: a="1;b=2\r\n' in write_request(head, b"F: 1", b"id", None)
    assert b"lazycloud" not in write_request(head, b"F: 1", b"id", None)
    assert b"t0k" not in write_request(head, b"F: 1", b"id", None)
    assert b"lazycloud_session=s" in write_request(head, b"F: 1", b"id", b"page")
    assert b"\r\nLazycloud-Token: t0k\r\n" in write_request(head, b"F: 1", b"id", b"page")


def test_an_insane_request_id_is_not_taken_over() -> None:
    assert request("X-Request-Id: abc-1").fields.request_id == b"abc-1"
    assert request("X-Request-Id: " + "a" * 129).fields.request_id == b""
    assert request("X-Request-Id: a b").fields.request_id == b""


def test_trailers_with_a_say_in_framing_or_identity_are_dropped() -> None:
    lines = [b"Digest: x", b"Content-Length: 5", b"Host: evil", b"Authorization: x", b"Lazycloud-Reason: x"]
    assert check_trailers(lines) == [b"Digest: x"]
    with pytest.raises(BadHead):
        check_trailers([b"no colon"])
    with pytest.raises(BadHead):
        check_trailers([b"Space : x"])


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\nZ: z\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"200 OK\r\n\r\n",
    ],
)
def test_an_answer_that_two_readers_could_understand_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(BadHead):
        parse_answer(raw)


def test_an_answer_without_a_reason_phrase_is_understood() -> None:
    assert parse_answer(b"HTTP/1.1 204\r\n\r\n").status == 204
    assert parse_answer(b"HTTP/1.0 200 \r\n\r\n").keep_alive is False


def _raw(start: str, *lines: str) -> bytes:
    return "\r\n".join([start, "Host: memory.localhost", *lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    "start",
    [
        "get / HTTP/1.1",
        "GOT / HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET  / HTTP/1.1",
        "GET / x HTTP/1.1",
        "GET /\x01 HTTP/1.1",
        "GET /",
        " GET / HTTP/1.1",
        "CONNECT / HTTP/1.1",
    ],
)
def test_lines_that_were_understood_before_do_not_excuse_a_bad_first_line(start: str) -> None:
    for _ in range(3):  # it is kept from the second time on
        assert parse_request(_raw("GET / HTTP/1.1", "X-Known: 1")).fields.lines == [b"X-Known: 1"]
    with pytest.raises(BadHead):
        parse_request(_raw(start, "X-Known: 1"))


def test_lines_that_were_understood_before_mean_the_same_under_another_first_line() -> None:
    lines = ("Connection: upgrade, x-named", "Upgrade: websocket", "X-Named: 1", "X-Kept: 2")
    for _ in range(3):  # it is kept from the second time on
        asks = parse_request(_raw("GET /a?b HTTP/1.1", *lines))
        posts = parse_request(_raw("POST /%2F HTTP/1.1", *lines))
        old = parse_request(_raw("GET /a?b HTTP/1.0", *lines))
        elsewhere = parse_request(_raw("GET http://other.localhost/a HTTP/1.1", *lines))
        assert (asks.websocket, posts.websocket, old.websocket) == (True, False, False)
        assert (asks.target, posts.target, posts.method) == (b"/a?b", b"/%2F", b"POST")
        assert (asks.fields.keep_alive, old.fields.keep_alive) == (True, False)
        assert asks.fields.lines == posts.fields.lines == old.fields.lines == [b"X-Kept: 2"]
        assert (asks.host, elsewhere.host) == ("memory.localhost", "other.localhost")


def test_an_answer_is_understood_the_same_the_second_time() -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"
    )
    for _ in range(3):
        head = parse_answer(raw)
        assert (head.length, head.keep_alive) == (3, False)
        assert relay_answer(head) == (
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\n\r\n"
        )


def test_a_host_is_read_anew_among_lines_that_were_understood_before() -> None:
    def parse(*lines: str) -> RequestHead:
        return parse_request("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode())

    for _ in range(3):
        assert parse("A: 1", "Host: one.localhost", "B: 2").host == "one.localhost"
        assert parse("A: 1", "B: 2", "Host: two.localhost").host == "two.localhost"
        assert parse("host: Three.localhost:8000", "A: 1", "B: 2").authority == b"Three.localhost:8000"
        assert parse("HOST:   four.localhost  ", "A: 1", "B: 2").host == "four.localhost"
        for bad in (
            ("A: 1", "B: 2"),
            ("Host: one.localhost", "A: 1", "HOST: two.localhost", "B: 2"),
            ("Host: one.localhost", "A: 1", "Host: one.localhost", "B: 2"),
            ("Host: one/two", "A: 1", "B: 2"),
            ("Host: one.localhost\nX: 1", "A: 1", "B: 2"),
            ("Host: ", "A: 1", "B: 2"),
            ("Host: one.localhost", " A: 1", "B: 2"),
        ):
            with pytest.raises(BadHead):
                parse(*bad)
