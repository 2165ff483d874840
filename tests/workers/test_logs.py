"""Logs: the last lines without reading the whole, following, rotation."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from lazycloud.workers import logs
from lazycloud.workers.logs import BLOCK, ROTATE_AT, cut, follow, last_lines, open_log
from tests.waiting import PATIENCE


async def heard(following: AsyncIterator[str], text: str) -> None:
    """Read until all of `text` has come, and nothing but that."""
    got = ""
    async with asyncio.timeout(PATIENCE):
        while got != text:
            got += await anext(following)
            assert text.startswith(got)


def append(log: Path, content: bytes) -> None:
    with open_log(log) as file:
        file.write(content)


def test_last_lines_are_the_last_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_lines(log, 3) == []
    append(log, b"one\r\ntwo\n\n  \n\xffthree\nunfinished")
    assert last_lines(log, 3) == ["two", "�three", "unfinished"]
    assert last_lines(log, 100) == ["one", "two", "�three", "unfinished"]
    assert last_lines(log, 100, since=5) == ["two", "�three", "unfinished"]
    assert last_lines(log, 100, since=1000) == []


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, b"".join(b"line %d\n" % number for number in range(100_000)))
    lines = last_lines(log, 100_000)
    assert lines[-1] == "line 99999"
    assert sum(len(line) + 1 for line in lines) <= BLOCK
    assert lines == [f"line {number}" for number in range(100_000 - len(lines), 100_000)]


def test_a_large_log_is_moved_aside_when_it_is_opened_again(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log"
    append(log, b"x" * ROTATE_AT)
    append(log, b"y")
    assert log.stat().st_size == ROTATE_AT + 1
    append(log, b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "logs" / "log.1").stat().st_size == ROTATE_AT + 1
    assert len(list(log.parent.iterdir())) == 2


@pytest.mark.parametrize(("lines", "first"), [(0, ""), (1, "two\n"), (2, "one\ntwo\n"), (9, "one\ntwo\n")])
async def test_following_begins_with_as_many_lines_as_asked_for(
    tmp_path: Path, lines: int, first: str
) -> None:
    log = tmp_path / "log"
    append(log, b"one\ntwo\n")
    async with aclosing(follow(log, lines)) as following:
        if first:
            await heard(following, first)
        else:
            waiting = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0)  # it has found the end
            append(log, b"three\n")
            assert await asyncio.wait_for(waiting, PATIENCE) == "three\n"
            return
        append(log, b"three\n")
        await heard(following, "three\n")


async def test_an_unfinished_line_is_a_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, b"one\ntwo")
    async with aclosing(follow(log, 1)) as following:
        await heard(following, "two")


async def test_following_waits_for_a_log_and_joins_characters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with aclosing(follow(log, 10)) as following:
        waiting = asyncio.ensure_future(heard(following, "a"))
        await asyncio.sleep(0)  # it has seen that there is none
        append(log, b"a\xc3")
        await waiting
        append(log, b"\xa9\n")
        await heard(following, "é\n")


async def test_following_goes_on_after_a_rotation_and_misses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, b"old\n")
    async with aclosing(follow(log, 1)) as following:
        await heard(following, "old\n")
        with open_log(log) as file:
            log.rename(tmp_path / "log.1")
            file.write(b"late\n")
        append(log, b"new\n")
        await heard(following, "late\nnew\n")


async def test_following_begins_again_after_a_truncation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, b"a long line that was there before\n")
    async with aclosing(follow(log, 1)) as following:
        await heard(following, "a long line that was there before\n")
        log.write_bytes(b"short\n")
        await heard(following, "short\n")


async def test_a_log_that_takes_too_much_lets_go_of_its_beginning_while_others_write(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer = open_log(log)  # a worker's, which is open all the time
    for number in range(50_000):
        writer.write(b"line %06d ............................................................\n" % number)
    size = log.stat().st_size
    assert cut(log, 10_000_000) == 0
    assert cut(log, 1_000_000) > 1_000_000
    assert log.stat().st_blocks * 512 <= 600_000
    assert log.stat().st_size == size  # what comes next, and where the newest worker's lines begin, stays
    writer.write(b"the last\n")
    assert last_lines(log, 2) == [last_lines(log, 3)[1], "the last"]
    assert last_lines(log, 1_000_000)[0].startswith("line ")
    async with aclosing(follow(log, 2)) as following:
        assert (await anext(following)).endswith("\nthe last\n")
    async with aclosing(follow(log, 1_000_000)) as following:
        assert "\0" not in await anext(following)
    writer.close()


async def test_who_follows_more_slowly_than_a_log_is_let_go_of_is_told_what_is_left_out(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    append(log, b"first\n")
    async with aclosing(follow(log, 1)) as following:
        await heard(following, "first\n")
        append(log, b"".join(b"%07d\n" % number for number in range(200_000)))
        read = await anext(following)
        cut(log, 800_000)
        gap = await anext(following)
        assert gap.strip().startswith("… ") and gap.strip().endswith(" bytes were not kept …")
        missing = int(gap.split()[1].replace(",", ""))
        rest = ""
        async with asyncio.timeout(PATIENCE):
            while not rest.endswith("0199999\n"):
                rest += await anext(following)
    assert 6 + len(read) - 6 + missing + len(rest) == log.stat().st_size - 6
    assert "\0" not in read + rest


def test_the_last_lines_of_one_that_wrote_too_much_are_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    append(log, b"an earlier worker's\n" * 100_000)
    since = log.stat().st_size
    append(log, b"its own\n")
    cut(log, 100_000)
    assert last_lines(log, 5, since) == ["its own"]


def test_a_log_where_nothing_can_be_let_go_of_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setattr(logs, "_punch", lambda file, end: False)
    with open_log(log) as writer:
        writer.write(b"x" * 1_000_000)
        assert cut(log, 500_000) >= 1_000_000
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"


def test_a_log_that_is_not_there_is_left_alone(tmp_path: Path) -> None:
    assert cut(tmp_path / "log", 1) == 0
    assert not (tmp_path / "log").exists()
