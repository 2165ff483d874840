"""Who listens where, as the kernel says in both of its ways."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lazycloud.workers import listeners as module
from lazycloud.workers.listeners import Listener, descendants, listeners, owned_by


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """On one port: of IPv4, on one address and on all; of IPv6, on one."""
    with ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = first.getsockname()[1]
        second = stack.enter_context(socket.create_server(("127.0.0.2", port)))
        third = stack.enter_context(socket.create_server(("::1", port), family=socket.AF_INET6))
        yield [first, second, third]


@pytest.mark.parametrize("way", ["sock_diag", "/proc/net/tcp"])
def test_each_listening_socket_of_a_port_is_told(
    sockets: list[socket.socket], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "sock_diag":
        monkeypatch.setattr(module, "SOCK_DIAG", 31)  # a protocol that no kernel has
    port = sockets[0].getsockname()[1]
    found = listeners(port)
    assert {str(one) for one in found} == {f"127.0.0.1:{port}", f"127.0.0.2:{port}", f"[::1]:{port}"}
    assert {one.inode for one in found} == {os.fstat(one.fileno()).st_ino for one in sockets}
    assert {one.inode for one in found} <= owned_by([os.getpid()])


def test_both_ways_tell_the_same(sockets: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    def ours(found: list[Listener]) -> set[Listener]:
        return owned & set(found)

    owned = set(listeners(sockets[0].getsockname()[1]))
    asked = ours(listeners())
    monkeypatch.setattr(module, "SOCK_DIAG", 31)
    assert ours(listeners()) == asked == owned


def test_descendants_are_children_and_theirs() -> None:
    script = "import subprocess, sys; subprocess.run(['sh', '-c', 'echo $$; read x; true'])"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        grandchild = int(process.stdout.readline())
        assert list(descendants(process.pid)) == [grandchild]
        assert {process.pid, grandchild} <= set(descendants(os.getpid()))
        process.communicate(b"\n")
    assert not Path(f"/proc/{grandchild}").exists()
