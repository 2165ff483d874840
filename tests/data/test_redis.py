"""Redis: a server for each version, copied whole while it is written to, kept by itself and by its rights."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lazycloud.data.names import new_snapshot
from lazycloud.data.redis import MAGIC, Note, Redis, missing, notes
from lazycloud.data.resp import Refusal, command, facts, talk
from lazycloud.deployments.hosting import EngineHosting
from lazycloud.errors import Conflict, StepFailed
from lazycloud.workers.engine import Engine
from lazycloud.workforce import Limits
from tests.tools import needs
from tests.waiting import PATIENCE, until

from .contents import COMMIT, OTHER

pytestmark = needs("redis-server")


def servers(tmp_path: Path, engine: Engine, **limits: int) -> Redis:
    return Redis(tmp_path / "apps" / "shop" / "redis", EngineHosting(engine, tmp_path, Limits(**limits)))


@pytest.fixture
async def redis(tmp_path: Path, engine: Engine) -> AsyncIterator[Redis]:
    made = servers(tmp_path, engine)
    await made.open()
    yield made
    await made.close()


async def ask(redis: Redis, version: str, *words: str) -> str:
    """As an app does."""
    url = redis.given(version)["REDIS_URL"]
    password, _, place = url.removeprefix("redis://:").partition("@")
    async with talk(int(place.removesuffix("/0").rpartition(":")[2]), "default", password) as app:
        return await app.say(*words)


async def begin(redis: Redis, version: str) -> None:
    """Empty, and awake."""
    await redis.fork(version, None)
    await redis.wake(version)


def never() -> bool:
    return False


async def test_a_version_begins_with_an_empty_redis_which_keeps_what_it_is_told(redis: Redis) -> None:
    assert redis.given("production") == {}
    with pytest.raises(StepFailed, match="is gone"):
        await redis.wake("production")
    await redis.fork("production", None)
    await redis.wake("production")
    await redis.wake("production")
    assert await ask(redis, "production", "GET", "a") == ""
    await ask(redis, "production", "SET", "a", "1")
    await redis.rest("production", lambda: True)
    assert redis.awake == ["production"]
    await redis.rest("production", never)
    assert (redis.awake, redis.given("production"), redis.reached("production")) == ([], {}, ())
    await redis.wake("production")
    assert await ask(redis, "production", "GET", "a") == "1"
    assert await redis.size("production") > 0


async def test_a_fork_has_what_its_source_had_and_then_its_own(redis: Redis) -> None:
    await redis.fork(OTHER, "production")  # which has none: an empty one
    await redis.wake(OTHER)
    assert await ask(redis, OTHER, "DBSIZE") == "0"
    await redis.drop(OTHER)
    await begin(redis, "production")
    await ask(redis, "production", "SET", "a", "production's")
    await redis.fork(COMMIT, "production")
    await redis.fork(COMMIT, "production")  # idempotent
    await redis.wake(COMMIT)
    assert await ask(redis, COMMIT, "GET", "a") == "production's"
    await ask(redis, COMMIT, "SET", "a", "the commit's")
    await redis.rest(COMMIT, never)
    await redis.fork(OTHER, COMMIT)  # of one that is asleep
    await redis.wake(OTHER)
    assert await ask(redis, OTHER, "GET", "a") == "the commit's"
    assert await ask(redis, "production", "GET", "a") == "production's"


async def test_a_copy_is_of_one_moment_though_its_app_writes_all_the_time(redis: Redis) -> None:
    """Each transaction moves a unit from one key to another: their sum is the same at every moment."""
    await begin(redis, "production")
    writing = asyncio.create_task(_move_units(redis))
    copies = []
    for _ in range(5):
        copies.append(new_snapshot())
        await redis.snapshot("production", copies[-1])
    writing.cancel()
    moved = []
    for number, copy in enumerate(copies):
        version = f"{number:040x}"
        await redis.fork(version, "production", copy)
        await redis.wake(version)
        moved.append(int(await ask(redis, version, "GET", "there")))
        assert int(await ask(redis, version, "GET", "here")) == -moved[-1]
    assert moved == sorted(moved) and moved[0] < moved[-1]
    await redis.drop_snapshot("production", copies[0])
    await redis.fork(OTHER, "production", copies[0])
    await redis.wake(OTHER)
    assert await ask(redis, OTHER, "DBSIZE") == "0"


async def _move_units(redis: Redis) -> None:
    while True:
        await ask(redis, "production", "EVAL", "redis.call('DECR', 'here') redis.call('INCR', 'there')", "0")


async def test_what_was_acknowledged_outlives_a_kill_and_its_workers_find_it_again(redis: Redis) -> None:
    await begin(redis, "production")
    before = redis.given("production")
    for number in range(100):
        await ask(redis, "production", "SET", f"key {number}", "kept")
    (pid,) = redis.pids()
    os.killpg(pid, signal.SIGKILL)
    await until(lambda: redis.pids() and pid not in redis.pids())
    assert redis.given("production") == before  # its workers have that
    await _until_answers(redis, "production")
    assert await ask(redis, "production", "DBSIZE") == "100"


async def _until_answers(redis: Redis, version: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await ask(redis, version, "PING")
                return
            except (OSError, Refusal):
                await asyncio.sleep(0.01)


async def test_the_next_control_finds_it_again_or_starts_what_is_in_use(
    tmp_path: Path, engine: Engine, redis: Redis
) -> None:
    for version in ("production", COMMIT, OTHER):
        await begin(redis, version)
        await ask(redis, version, "SET", "a", version)
    given, pids = {one: redis.given(one) for one in redis.awake}, redis.pids()
    ended = {one["pid"] for one in notes(tmp_path / "apps")}
    assert ended == pids
    await redis.close(keep=True)
    for version in (COMMIT, OTHER):
        pid = Note.read(tmp_path / "apps" / "shop" / "redis" / version).process["pid"]
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it was killed
    again = servers(tmp_path, engine)
    await again.adopt()
    await engine.restored()
    await again.go_on(lambda version: version == COMMIT)
    assert sorted(again.awake) == [COMMIT, "production"]
    assert (
        again.pids() & pids == {pid for pid in pids if pid in again.pids()} and len(again.pids() & pids) == 1
    )
    for version in again.awake:
        assert again.given(version) == given[version]
        assert await ask(again, version, "GET", "a") == version
    await again.wake(OTHER)  # its old port may be another's by now
    assert await ask(again, OTHER, "GET", "a") == OTHER
    await again.close()
    assert notes(tmp_path / "apps") == []


async def test_contents_go_to_a_file_and_from_it(redis: Redis, tmp_path: Path) -> None:
    await begin(redis, "production")
    await ask(redis, "production", "SET", "a", "1")
    snapshot = new_snapshot()
    await redis.rest("production", never)
    await redis.snapshot("production", snapshot)  # at rest, as its files
    await redis.wake("production")
    await ask(redis, "production", "SET", "a", "2")
    await redis.unfold("production", None, tmp_path / "now.rdb")
    await redis.unfold("production", snapshot, tmp_path / "then.rdb")
    await redis.unfold(COMMIT, None, tmp_path / "nothing.rdb")
    for number, name in enumerate(("now", "then", "nothing")):
        assert (tmp_path / f"{name}.rdb").read_bytes().startswith(MAGIC)
        await redis.load(COMMIT, tmp_path / f"{name}.rdb")
        await redis.wake(COMMIT)
        assert await ask(redis, COMMIT, "GET", "a") == ("2", "1", "")[number]
        await redis.rest(COMMIT, never)


async def test_a_damaged_file_is_refused_and_nothing_has_changed(redis: Redis, tmp_path: Path) -> None:
    await begin(redis, COMMIT)
    await ask(redis, COMMIT, "SET", "a", "x" * 1000)
    await redis.unfold(COMMIT, None, tmp_path / "good.rdb")
    with pytest.raises(Conflict, match="runs"):
        await redis.load(COMMIT, tmp_path / "good.rdb")
    await redis.rest(COMMIT, never)
    content = bytearray((tmp_path / "good.rdb").read_bytes())
    content[len(content) - 20] ^= 1
    (tmp_path / "bad.rdb").write_bytes(content)
    (tmp_path / "other.rdb").write_text("no Redis at all")
    for name in ("bad.rdb", "other.rdb"):
        with pytest.raises(StepFailed):
            await redis.load(COMMIT, tmp_path / name)
    await redis.wake(COMMIT)
    assert await ask(redis, COMMIT, "GET", "a") == "x" * 1000


async def test_two_versions_take_each_others_and_a_dropped_one_leaves_nothing(
    redis: Redis, tmp_path: Path
) -> None:
    await begin(redis, "production")
    await ask(redis, "production", "SET", "a", "1")
    await redis.swap("production", COMMIT)  # which has none
    await redis.wake("production")
    await redis.wake(COMMIT)
    assert [await ask(redis, one, "GET", "a") for one in ("production", COMMIT)] == ["", "1"]
    await redis.undo_swap("production")
    await redis.undo_swap("production")
    await redis.wake("production")
    assert await ask(redis, "production", "GET", "a") == "1"
    await redis.swap("production", COMMIT)
    await redis.swapped("production")
    await redis.undo_swap("production")  # it holds
    await redis.wake("production")
    assert await ask(redis, "production", "GET", "a") == ""
    await redis.snapshot("production", new_snapshot())
    for version in ("production", COMMIT, COMMIT):
        await redis.drop(version)
    assert redis.awake == [] and list((tmp_path / "apps" / "shop" / "redis").iterdir()) == []


async def test_an_app_may_do_what_apps_do_and_nothing_that_servers_do(redis: Redis, tmp_path: Path) -> None:
    await begin(redis, "production")
    for words in (
        ("KEYS", "*"), ("INFO",), ("FLUSHALL",), ("CLIENT", "SETNAME", "web"), ("CONFIG", "GET", "maxmemory"),
        ("EVAL", "return 1", "0"), ("SELECT", "3"), ("MEMORY", "DOCTOR"), ("CLIENT", "LIST"), ("ACL", "WHOAMI"),
    ):  # fmt: skip
        try:
            await ask(redis, "production", *words)
        except Refusal as problem:
            pytest.fail(f"{words}: {problem}")
        except OSError as problem:
            assert "unexpected kind" in str(problem)  # a list, which our own client cannot read
    for words in (
        ("CONFIG", "SET", "dir", str(tmp_path)), ("CONFIG", "REWRITE"), ("MODULE", "LOAD", "/tmp/x.so"), ("SAVE",),
        ("DEBUG", "SLEEP", "1"), ("SHUTDOWN",), ("REPLICAOF", "127.0.0.1", "1"), ("BGSAVE",), ("BGREWRITEAOF",),
        ("ACL", "SETUSER", "default", "+@all"), ("SLAVEOF", "127.0.0.1", "1"), ("PSYNC", "?", "-1"), ("SYNC",),
        ("MIGRATE", "127.0.0.1", "1", "a", "0", "1"), ("CLUSTER", "RESET"), ("ACL", "LIST"),
    ):  # fmt: skip
        with pytest.raises(Refusal, match=r"NOPERM|not allowed"):
            await ask(redis, "production", *words)
    with pytest.raises(Refusal, match="WRONGPASS"):
        async with talk(redis.reached("production")[0], "default", "guess"):
            pass


async def test_it_says_no_before_it_reaches_its_limit_of_memory(tmp_path: Path, engine: Engine) -> None:
    small = servers(tmp_path, engine, memory=64_000_000)
    await begin(small, "production")
    with pytest.raises(Refusal, match="OOM"):
        for number in range(60):
            await ask(small, "production", "SET", f"key {number}", "x" * 900_000)
    assert await ask(small, "production", "GET", "key 0") == "x" * 900_000
    await small.close()


async def test_a_link_in_place_of_its_copy_leads_nowhere(redis: Redis, tmp_path: Path) -> None:
    """Somebody found a hole in the server, and makes of its folder what he likes."""
    await begin(redis, "production")
    data, secret = tmp_path / "apps" / "shop" / "redis" / "production" / "data", tmp_path / "secret"
    secret.write_text("the server's")
    (data / "dump.rdb").symlink_to(secret)
    (data / "more").symlink_to(secret)
    await redis.unfold("production", None, tmp_path / "copy.rdb")
    assert (tmp_path / "copy.rdb").read_bytes().startswith(MAGIC)
    await redis.rest("production", never)
    await redis.fork(COMMIT, "production")
    assert (data.parents[1] / COMMIT / "data" / "more").is_symlink()
    assert secret.read_text() == "the server's"


async def test_without_a_server_it_says_what_to_install(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.fork("production", None)
    monkeypatch.setattr("lazycloud.data.redis.PROGRAMS", ("no-such-server",))
    assert "no redis-server" in missing()
    with pytest.raises(StepFailed, match=r"no redis-server.*the package redis-server"):
        await redis.wake("production")
    with pytest.raises(StepFailed, match="beside containers"):
        await Redis(redis._folder).wake("production")


async def test_what_a_killed_control_had_half_made_is_cleared_away(redis: Redis) -> None:
    for name in (".making-x", ".dropping-x", f"{COMMIT}.snapshots/.making-y"):
        (redis._folder / name / "data").mkdir(parents=True)
    await redis.open()
    assert [one.name for one in redis._folder.rglob("*")] == [f"{COMMIT}.snapshots"]


def test_commands_and_facts_are_written_and_read_as_the_protocol_says() -> None:
    assert command("SET", "é", "") == "*3\r\n$3\r\nSET\r\n$2\r\né\r\n$0\r\n\r\n".encode()
    assert facts("# Memory\r\nused_memory:12\r\nos:Linux a:b\r\n") == {"used_memory": "12", "os": "Linux a:b"}


async def test_a_server_that_does_not_speak_redis_is_told_apart() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        with pytest.raises(ConnectionError, match="unexpected kind"):
            async with talk(server.sockets[0].getsockname()[1], "a", "b"):
                pass
