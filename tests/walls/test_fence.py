"""The fence around builds: asked of the kernel."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from threading import Barrier

import pytest

from lazycloud.walls.fence import Fence, words
from lazycloud.walls.groups import Group, Groups
from lazycloud.walls.ports import Wall, missing

TRY = """
import socket, sys
def attempt(does, port):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try: getattr(one, does)(("127.0.0.1", port))
        except OSError as problem: return problem.strerror
    return "done"
print(*(attempt(does, int(port)) for does in ("connect", "bind") for port in sys.argv[1:]), sep=",")
"""
REFUSED = "Operation not permitted"


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Groups]:
    groups = Groups(tmp_path)
    if why := missing(groups):
        pytest.skip(f"no wall between ports: {why}")
    yield groups
    assert not [left for base in groups.bases.values() for left in base.glob("build-*")]
    groups.close()


@pytest.fixture
def server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        yield server.getsockname()[1]


def attempts(prefix: list[str], *ports: int) -> list[str]:
    command = [*prefix, sys.executable, "-c", TRY, *map(str, ports)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip().split(",")


def test_what_is_behind_it_reaches_no_worker_and_listens_on_no_port_of_ours(
    groups: Groups, server: int
) -> None:
    fence = Fence(groups, Wall(range(server, server + 1)))
    kept = Fence(groups, Wall(range(1, 2), (server,)))
    assert attempts([], server) == ["done", "done"]
    for one, told in ((fence, [REFUSED, REFUSED]), (kept, ["done", REFUSED])):
        group = one.make("build")
        assert group
        assert attempts(list(words(group)), server) == told
        one.end(group)
        assert not any(folder.exists() for folder in group.folders)


def test_networks_of_workers_are_those_of_when_a_build_begins(groups: Groups, server: int) -> None:
    networks: list[IPv4Network] = []
    fence = Fence(groups, Wall(range(1, 2)), lambda: tuple(networks))
    for told in ("done", REFUSED):
        group = fence.make("build")
        assert group
        assert attempts(list(words(group)), server)[0] == told
        fence.end(group)
        networks.append(IPv4Network("127.0.0.0/24"))


def test_a_build_and_workers_may_begin_at_once(groups: Groups, tmp_path: Path) -> None:
    several = [groups, *(Groups(tmp_path) for _ in range(7))]
    for one in several:
        assert one.unified
    for _ in range(5):
        (tmp_path / "groups").unlink(missing_ok=True)
        together = Barrier(len(several))

        def make(one: Groups, together: Barrier = together) -> Group | None:
            together.wait()
            return one.make_uncounted("build")

        with ThreadPoolExecutor(len(several)) as threads:
            for group in threads.map(make, several):
                assert group
                assert group.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["groups"]


def test_what_it_has_left_running_ends_with_it(groups: Groups) -> None:
    fence = Fence(groups, Wall(range(1, 2)))
    group = fence.make("build")
    assert group
    command = [*words(group), "/bin/sh", "-c", "setsid sleep 1000 >&- 2>&- & echo $!"]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout
    assert group.pids()
    assert said
    fence.end(group)
    assert group.pids() == []


def test_where_the_kernel_allows_none_there_is_none(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: Wall, group: object, own: int, reaches: object = ()) -> None:
        raise PermissionError(1, REFUSED)

    monkeypatch.setattr(Wall, "attach", forbidden)
    fence = Fence(groups, Wall(range(1, 2)))
    assert fence.make("build") is None
    assert fence.make("build") is None
