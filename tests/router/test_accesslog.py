"""The access log: what its lines say, and what it costs when the disk, or who reads it, is slow, full or gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lazycloud.router import accesslog
from lazycloud.router.accesslog import AccessLog, Line, as_json
from tests.waiting import PATIENCE, until

from .stage import Conversation, get, saying, sized

LINE = Line(
    began=1_700_000_000.1239,
    seconds=0.0123456,
    client=b"203.0.113.9",
    status=200,
    by="worker",
    method=b"GET",
    target=b"/a?b=c",
    host=b"app.localhost",
    request_id=b"r1",
    received=100,
    sent=200,
    first_byte=0.01,
    deployment="d1",
    upstream="127.0.0.1:4000",
    agent=b"curl/8",
    referer=b"http://app.localhost/",
)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path | str], AccessLog]]:
    """Starts logs, and stops them without waiting."""
    monkeypatch.setattr(accesslog, "_CLOSE_WAIT", PATIENCE)
    logs = []

    def start(path: Path | str) -> AccessLog:
        log = AccessLog(str(path))
        log.start()
        logs.append(log)
        return log

    yield start
    for log in logs:
        log._stop.set()


def lines(path: Path) -> list[dict[str, Any]]:
    """Those that are written whole."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def test_a_line_says_who_asked_what_and_what_came_of_it() -> None:
    assert json.loads(as_json(LINE)) == {
        "time": "2023-11-14T22:13:20.123Z",
        "request_id": "r1",
        "client": "203.0.113.9",
        "host": "app.localhost",
        "method": "GET",
        "target": "/a?b=c",
        "proto": "HTTP/1.1",
        "status": 200,
        "sent": 200,
        "received": 100,
        "seconds": 0.012346,
        "first_byte": 0.01,
        "deployment": "d1",
        "upstream": "127.0.0.1:4000",
        "by": "worker",
        "why": None,
        "user_agent": "curl/8",
        "referer": "http://app.localhost/",
        "tls": None,
    }


def test_what_was_no_request_has_a_line_too() -> None:
    said = json.loads(as_json(Line(0.0, 0.0, b"::1", 400, "router", "malformed", minor=None)))
    assert (said["proto"], said["method"], said["first_byte"], said["why"]) == (None, "", None, "malformed")


def test_what_a_stranger_sent_is_escaped_to_the_byte() -> None:
    everything = bytes(range(256))
    text = as_json(LINE._replace(target=everything, agent=b'\x1b[31m"},\n{', referer="ü".encode()))
    assert text.isascii()
    assert text.isprintable()
    said = json.loads(text)
    assert said["target"].encode("latin-1") == everything
    assert said["user_agent"] == '\x1b[31m"},\n{'
    assert said["referer"].encode("latin-1").decode() == "ü"


@pytest.mark.parametrize("byte", [b"a", b"\xff", b'"', b"\0"])
def test_no_line_is_longer_than_a_pipe_takes_whole(byte: bytes) -> None:
    long = byte * 70_000
    line = LINE._replace(target=long, agent=long, referer=long, host=long, method=long, request_id=long)
    text = as_json(line._replace(client=long, deployment="d" * 200, upstream="u" * 80, why="w" * 40))
    assert len(text) < 4096
    assert json.loads(text)["target"].endswith("…")


def test_a_target_of_two_thousand_letters_is_whole() -> None:
    target = b"/" + b"a" * 2000
    assert json.loads(as_json(LINE._replace(target=target)))["target"] == target.decode()


@pytest.mark.parametrize("by", ["control", "router"])
def test_a_ticket_that_logs_somebody_in_is_never_written(by: str) -> None:
    line = LINE._replace(by=by, target=b"/login?ticket=secret&path=/a&ticket=secret")
    assert json.loads(as_json(line))["target"] == "/login?ticket=...&path=/a&ticket=..."
    assert json.loads(as_json(line._replace(by="worker")))["target"] == line.target.decode()


async def test_lines_are_written_soon_and_in_order(tmp_path: Path, started) -> None:
    path = tmp_path / "access.log"
    log = started(path)
    for status in range(200, 300):
        log.note(LINE._replace(status=status))
    await until(lambda: len(lines(path)) == 100)
    assert [line["status"] for line in lines(path)] == list(range(200, 300))
    assert path.stat().st_mode & 0o007 == 0  # what people looked at is not for everybody


async def test_the_end_writes_what_is_left(tmp_path: Path, started) -> None:
    path = tmp_path / "access.log"
    log = started(path)
    for _ in range(5000):
        log.note(LINE)
    await log.close()
    assert len(lines(path)) == 5000
    await log.close()


async def test_several_routers_share_a_file(tmp_path: Path, started) -> None:
    path = tmp_path / "access.log"
    logs = [started(path) for _ in range(3)]
    for status in range(1000):
        for log in logs:
            log.note(LINE._replace(status=status, target=b"/" + b"a" * 500))
    for log in logs:
        await log.close()
    assert sorted(line["status"] for line in lines(path)) == sorted([*range(1000)] * 3)


async def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path, started) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    log = started(path)
    log.note(LINE)
    await until(lambda: lines(path))
    path.rename(old)
    await until(path.exists)
    log.note(LINE._replace(status=201))
    await until(lambda: lines(path))
    assert [line["status"] for line in lines(old) + lines(path)] == [200, 201]


async def test_a_file_that_was_emptied_is_filled_from_its_beginning(tmp_path: Path, started) -> None:
    path = tmp_path / "access.log"
    log = started(path)
    log.note(LINE)
    await until(lambda: lines(path))
    os.truncate(path, 0)
    log.note(LINE)
    await until(lambda: lines(path))
    assert path.read_bytes()[:1] == b"{"


async def test_what_does_not_fit_into_memory_is_dropped_and_counted(
    tmp_path: Path, started, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)  # whose reader does not come yet: the disk hangs
    monkeypatch.setattr(accesslog, "_HELD_MAX", 100 * accesslog._cost(LINE))
    log = started(path)
    for _ in range(150):
        log.note(LINE)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    heard = b""

    def hear() -> bool:
        nonlocal heard
        with contextlib.suppress(BlockingIOError):
            heard += os.read(reader, 1 << 20)
        return b"dropped" in heard

    await until(hear)
    os.close(reader)
    said = [json.loads(line) for line in heard.splitlines()]
    assert len([each for each in said if "status" in each]) == 100
    assert [each["dropped"] for each in said if "dropped" in each] == [50]


async def test_an_end_waits_for_nobody_who_does_not_read(
    tmp_path: Path, started, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    monkeypatch.setattr(accesslog, "_CLOSE_WAIT", 0.1)
    log = started(path)
    log.note(LINE)
    async with asyncio.timeout(PATIENCE):
        await log.close()
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # lets the thread go


async def test_a_full_disk_costs_lines_and_is_said_once(started, caplog: pytest.LogCaptureFixture) -> None:
    log = started("/dev/full")
    for count in (1, 2, 3):
        log.note(LINE)
        await until(lambda: log._lost == count, "a lost line")  # noqa: B023
    assert [record.getMessage() for record in caplog.records] == [
        "the access log /dev/full loses lines: No space left on device"
    ]


async def test_a_folder_that_is_missing_costs_lines_until_it_is_there(
    tmp_path: Path, started, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "later" / "access.log"
    log = started(path)
    log.note(LINE)
    await until(lambda: log._lost == 1)
    assert "No such file or directory" in caplog.text
    path.parent.mkdir()
    await until(lambda: lines(path))
    assert [line.get("dropped") for line in lines(path)] == [1]


# With a router


async def test_a_half_line_of_a_full_disk_spoils_no_other(start, serve, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    router = await start(access_log=str(path))
    await serve(saying(sized()))
    await router.get()
    await until(lambda: lines(path))
    pid, most = router.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (path.stat().st_size + 100, most))
    assert (await router.get(path="/lost")).body == b"hello"
    await until(lambda: not path.read_bytes().endswith(b"\n"))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
    await until(lambda: path.read_bytes().endswith(b"\n"))
    await router.get(path="/kept")
    await until(lambda: b"/kept" in path.read_bytes())
    whole, torn, *others = path.read_bytes().splitlines()
    assert json.loads(whole)["target"] == "/"
    assert len(torn) == 100
    assert {"dropped": 1}.items() <= json.loads(others[0]).items()
    assert json.loads(others[1])["target"] == "/kept"


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
async def logging(start, path: Path):
    return await start(access_log=str(path))


async def wait(path: Path, count: int = 1) -> list[dict[str, Any]]:
    """The lines, as soon as there are so many; there must be no more."""
    await until(lambda: len(lines(path)) >= count)
    return lines(path)


async def test_a_relayed_request_has_one_line(logging, serve, path: Path) -> None:
    worker = await serve(saying(sized(b"hello")))
    body = b"x" * 1000
    raw = b"POST /form?a=%2F HTTP/1.1\r\nHost: App.localhost:80\r\nContent-Length: 1000\r\n\r\n" + body
    answer = await logging.ask(raw)
    (line,) = await wait(path)
    wanted = {
        "client": "127.0.0.1",
        "host": "app.localhost",
        "method": "POST",
        "target": "/form?a=%2F",
        "proto": "HTTP/1.1",
        "status": 200,
        "sent": len(answer.head) + len(answer.body),
        "received": len(raw),
        "deployment": "d1",
        "upstream": worker.address,
        "by": "worker",
        "why": None,
        "tls": None,
    }
    assert {key: line[key] for key in wanted} == wanted
    assert line["request_id"].encode() in worker.last
    assert 0 < line["first_byte"] <= line["seconds"] < 5


async def test_every_request_of_a_connection_has_its_line_in_order(logging, serve, path: Path) -> None:
    await serve(saying(sized()))
    wire = await logging.connect()
    await wire.send(get(path="/1") + get(path="/2") + get(path="/3"))
    for _ in range(3):
        await wire.answer()
    assert [line["target"] for line in await wait(path, 3)] == ["/1", "/2", "/3"]


async def test_what_lets_people_in_is_never_written(logging, serve, path: Path) -> None:
    await serve(saying(sized(more=b"Set-Cookie: s=hidden1\r\n")))
    await logging.get(
        Cookie="s=hidden2",
        Authorization="Bearer hidden3",
        Lazycloud_Token="hidden4",
        User_Agent="seen5",
        Referer="http://seen6/",
    )
    (line,) = await wait(path)
    assert "hidden" not in path.read_text()
    assert (line["user_agent"], line["referer"]) == ("seen5", "http://seen6/")


async def test_a_page_of_controls_says_so(logging, path: Path) -> None:
    await logging.get(path="/.well-known/lazycloud/progress")
    (line,) = await wait(path)
    assert (line["by"], line["status"], line["deployment"]) == ("control", 200, None)


async def test_an_answer_of_the_router_says_why(start, serve, path: Path) -> None:
    router = await start(access_log=str(path), body_max=10)
    await serve(saying(sized()))
    await router.ask(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 11\r\n\r\n")
    await router.ask(b"GET / HTTP/1.1\r\n\r\n")
    await router.ask(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
    said = await wait(path, 3)
    assert [line["by"] for line in said] == ["router"] * 3
    assert [line["status"] for line in said] == [413, 400, 414]
    assert said[0]["why"] == "too_large"
    assert all(line["why"] for line in said)
    assert all(line["sent"] > 0 and line["client"] == "127.0.0.1" for line in said)


async def test_a_worker_that_is_not_there_is_502_in_the_log(logging, control, serve, path: Path) -> None:
    worker = await serve(saying(sized()))
    await worker.stop()
    await logging.get()
    (line,) = await wait(path)
    assert (line["status"], line["by"], line["first_byte"]) == (502, "router", None)
    assert line["why"]


async def test_an_answer_that_a_worker_cut_keeps_its_status_and_says_why(logging, serve, path: Path) -> None:
    async def die(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    await serve(die)
    wire = await logging.connect()
    await wire.send(get())
    raw = await wire.rest()
    (line,) = await wait(path)
    assert (line["status"], line["why"], line["sent"]) == (200, "cut", len(raw))


async def test_a_client_that_leaves_within_an_answer_is_499_with_what_it_got(
    logging, serve, path: Path
) -> None:
    await serve(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
    wire = await logging.connect()
    await wire.send(get())
    head, half = await wire.head(), await wire.exactly(4)
    wire.close()
    (line,) = await wait(path)
    assert (line["status"], line["why"], line["sent"]) == (499, "client_left", len(head) + len(half))
    assert line["first_byte"] > 0


async def test_a_client_that_leaves_is_499_in_the_log(logging, serve, path: Path) -> None:
    async def never(talk: Conversation) -> None:
        await talk.request()
        await talk.rest()

    worker = await serve(never)
    wire = await logging.connect()
    await wire.send(get())
    await until(lambda: worker.heads)
    wire.reset()
    (line,) = await wait(path)
    assert (line["status"], line["why"], line["first_byte"]) == (499, "client_left", None)
    assert (line["deployment"], line["sent"]) == ("d1", 0)


async def test_a_websocket_has_its_line_when_it_ends(logging, serve, path: Path) -> None:
    async def echo(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await talk.send(await talk.exactly(5) * 2)
        await talk.rest()

    await serve(echo)
    wire = await logging.connect()
    request = get(path="/socket", Connection="Upgrade", Upgrade="websocket")
    await wire.send(request)
    head = await wire.head()
    await wire.send(b"12345")
    await wire.exactly(10)
    await logging.get("none.localhost", "/.well-known/lazycloud/x")
    assert [line["target"] for line in await wait(path)] == ["/.well-known/lazycloud/x"]
    wire.close()
    line = (await wait(path, 2))[1]
    assert (line["status"], line["target"], line["by"], line["why"]) == (101, "/socket", "worker", None)
    assert (line["received"], line["sent"]) == (len(request) + 5, len(head) + 10)
    assert line["seconds"] >= line["first_byte"] > 0


async def test_a_stop_writes_the_last_lines_of_all_that_it_ends(start, serve, control, path: Path) -> None:
    async def upgrade(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await talk.rest()

    router = await start(access_log=str(path), drain_timeout=0.1)
    await serve(upgrade)
    socket, held = await router.connect(), await router.connect()
    await socket.send(get(path="/socket", Connection="Upgrade", Upgrade="websocket"))
    await socket.head()
    await held.send(get("cold.localhost", "/held"))
    await until(lambda: any(ask["host"] == "cold.localhost" for ask in control.said("ask")))
    router.process.terminate()
    await router.process.wait()
    said = {line["target"]: (line["status"], line["why"]) for line in lines(path)}
    assert said == {"/socket": (101, None), "/held": (503, "stopping")}


async def test_a_log_that_cannot_be_written_costs_no_request(start, serve) -> None:
    router = await start(access_log="/dev/full")
    await serve(saying(sized()))
    for _ in range(3):
        assert (await router.get()).status == 200


async def test_standard_output_may_be_the_log(started, capfd: pytest.CaptureFixture[str]) -> None:
    log = started("-")
    log.note(LINE)
    await log.close()
    assert json.loads(capfd.readouterr().out)["target"] == "/a?b=c"


async def test_what_was_no_request_is_written_up_to_its_first_line_end_only(logging, path: Path) -> None:
    wire = await logging.connect()
    await wire.send(b"GET / HTTP/1.1\nHost: app.localhost\nCookie: lazycloud_session=SECRET\n\n")
    assert (await wire.answer()).status == 400
    (line,) = await until(lambda: path.exists() and lines(path))
    assert line["target"] == "GET / HTTP/1.1"
    assert "SECRET" not in path.read_text()
