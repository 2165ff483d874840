"""Ports: nobody else's, and not given twice."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from lazycloud.errors import Busy
from lazycloud.workers.ports import RANGE, Ports, is_free


def test_a_port_is_from_the_range_and_not_one_the_kernel_gives_to_connections() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    taken = {Ports().take() for _ in range(20)}
    assert len(taken) > 10
    assert all(port in RANGE and not low <= port <= high for port in taken)


def test_a_port_is_not_given_twice_and_again_only_after_others() -> None:
    candidates = [Ports().take() for _ in range(4)]
    ports = Ports(set(candidates))
    count = len(set(candidates))
    taken = [ports.take() for _ in range(count)]
    assert sorted(taken) == sorted(set(candidates))
    with pytest.raises(Busy, match=f"None of the {count} ports"):
        ports.take()
    ports.give_back(taken[0])
    ports.give_back(taken[0])
    for port in taken[1:]:
        ports.give_back(port)
    assert ports.take() == taken[0] if count == 2 else ports.take() in taken


def test_a_port_that_is_held_is_not_given() -> None:
    port = Ports().take()
    ports = Ports([port])
    ports.hold(port)
    with pytest.raises(Busy):
        ports.take()


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "127.0.0.2"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::"),
    ],
)
def test_a_port_on_which_somebody_listens_is_not_free(family: socket.AddressFamily, host: str) -> None:
    port = Ports().take()
    assert is_free(port)
    with closing(socket.create_server((host, port), family=family)):
        assert not is_free(port)
        with pytest.raises(Busy):
            Ports([port]).take()
    assert is_free(port)
