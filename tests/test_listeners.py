from __future__ import annotations

import socket

from lazycloud.config import Listen
from lazycloud.listeners import open_listeners


def test_only_the_first_socket_takes_connections_before_there_are_routers() -> None:
    (listener,) = open_listeners([Listen("127.0.0.1", 0)], routers=3)
    try:
        accepts = [each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for each in listener.sockets]
        assert accepts == [1, 0, 0]
        assert len({each.getsockname() for each in listener.sockets}) == 1
    finally:
        listener.close()
