"""The wall between ports: asked of the kernel, for each kind of address."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from lazycloud.walls.groups import Group, Groups, entering
from lazycloud.walls.ports import Code, Wall, addresses, findings, missing
from lazycloud.workforce import Limits
from tests.waiting import PATIENCE

ATTEMPTS = """
import json, socket, sys
def attempt(what, host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, getattr(socket, what.split()[1])) as one:
        one.settimeout(60)
        try: getattr(one, what.split()[0])((host, port))
        except OSError as problem: return problem.strerror
    return "done"
print(json.dumps([attempt(*each) for each in json.loads(sys.argv[1])]))
"""
REFUSED = "Operation not permitted"
STREAM, DATAGRAM = "SOCK_STREAM", "SOCK_DGRAM"


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    groups = Groups(tmp_path)
    if why := missing(groups):
        pytest.skip(f"no wall between ports: {why}")
    group = groups.make("shop", Limits())
    assert group
    yield group
    assert group.end()
    groups.close()


def attempts(group: Group, *wanted: tuple[str, str, int]) -> list[str]:
    words = [*entering(group, Limits()), sys.executable, "-c", ATTEMPTS, json.dumps(wanted)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return list(json.loads(done.stdout))


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Another worker, on all addresses of the machine, of both kinds."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        yield server


def test_a_worker_reaches_no_other_by_any_address_of_the_machine(
    group: Group, listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    own = [
        socket.inet_ntop(socket.AF_INET if len(one) == 4 else socket.AF_INET6, one)
        for one in addresses()
        if not one.startswith(b"\xfe\x80")  # link-local ones need to be told the link as well
    ]
    hosts = ["127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", *own]
    hosts += [f"::ffff:{host}" for host in own if ":" not in host]
    wanted = [(f"connect {kind}", host, port) for host in hosts for kind in (STREAM, DATAGRAM)]
    assert attempts(group, *wanted) == ["done"] * len(wanted)  # without the wall, all are open
    Wall(range(port, port + 1)).attach(group, 1)
    assert attempts(group, *wanted) == [REFUSED] * len(wanted)


def test_a_worker_reaches_itself_and_what_is_no_worker(group: Group, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    Wall(range(port - 10, port + 10)).attach(group, port)
    assert attempts(group, ("connect SOCK_STREAM", "127.0.0.1", port)) == ["done"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        if number not in range(port - 10, port + 10):
            assert attempts(group, ("connect SOCK_STREAM", "127.0.0.1", number)) == ["done"]


def test_ports_of_other_machines_are_none_of_the_walls_business(group: Group) -> None:
    Wall(range(20_000, 30_000)).attach(group, 20_000)
    said = attempts(group, ("connect SOCK_DGRAM", "192.0.2.77", 20_001))
    assert REFUSED not in said


def test_nobody_reaches_a_network_where_only_workers_are(group: Group, listening: socket.socket) -> None:
    networks = tuple(map(IPv4Network, ("192.0.2.64/26", "198.51.100.0/24", "203.0.113.128/25")))
    Wall(range(20_000, 30_000), networks=networks).attach(group, 20_000)
    within = ("192.0.2.77", "::ffff:192.0.2.127", "198.51.100.255", "203.0.113.128", "::ffff:203.0.113.255")
    beside = (
        "192.0.2.63",
        "::ffff:192.0.2.128",
        "198.51.101.0",
        "203.0.113.127",
        "2001:db8::c000:24d",
        "::1",
    )
    wanted = [(f"connect {DATAGRAM}", host, 80) for host in (*within, *beside)]
    said = attempts(group, *wanted)
    assert said[: len(within)] == [REFUSED] * len(within)
    assert REFUSED not in said[len(within) :]
    port = listening.getsockname()[1]
    assert attempts(group, (f"connect {STREAM}", "127.0.0.1", port)) == ["done"]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_worker_listens_on_its_own_port_and_on_no_other_workers(group: Group, host: str) -> None:
    Wall(range(20_000, 30_000), kept=(8_888,)).attach(group, 29_990)
    wanted = [("bind SOCK_STREAM", host, port) for port in (29_990, 29_991, 20_000, 8_888, 0, 19_999, 30_000)]
    assert attempts(group, *wanted) == ["done", REFUSED, REFUSED, REFUSED, "done", "done", "done"]


def test_what_listens_nowhere_may_use_no_port_of_workers(group: Group) -> None:
    Wall(range(20_000, 30_000)).attach(group, 0)
    wanted = [("bind SOCK_STREAM", "127.0.0.1", 20_000), ("bind SOCK_STREAM", "127.0.0.1", 0)]
    assert attempts(group, *wanted) == [REFUSED, "done"]


def test_who_is_in_no_group_reaches_all(group: Group, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    Wall(range(port, port + 1)).attach(group, 1)
    with socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_program_grows_with_addresses_but_not_beyond_what_the_kernel_takes() -> None:
    many = [bytes([10, 0, number >> 8, number & 255]) for number in range(5000)]
    many += [bytes(12) + one for one in many]
    programs = Wall(range(20_000, 30_000)).programs(20_000, many)
    assert all(len(code) % 8 == 0 and len(code) // 8 < 4096 for _, code in programs)


def test_a_jump_that_leads_nowhere_is_a_bug() -> None:
    code = Code()
    code.equal(1, "nowhere")
    with pytest.raises(KeyError):
        code.end("allow")


def test_whether_there_is_a_wall_here_is_told(tmp_path: Path, group: Group) -> None:
    (one,) = findings(tmp_path)
    assert one.sentence == "A worker can neither listen on another's port nor reach it."
    assert not (tmp_path / "groups").exists() or group.folders[0].is_dir()


def test_a_worker_connects_to_a_server_of_its_own_and_does_not_listen_there(
    group: Group, listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    Wall(range(port - 10, port + 10)).attach(group, port - 1, (port,))
    hosts = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    assert attempts(group, *[(f"connect {STREAM}", host, port) for host in hosts]) == ["done"] * 3
    assert attempts(group, (f"bind {STREAM}", "127.0.0.1", port)) == [REFUSED]
    assert attempts(group, (f"connect {STREAM}", "127.0.0.1", port + 1)) == [REFUSED]
