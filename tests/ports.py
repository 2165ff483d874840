"""Ports for who must say one before it listens."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

LEAST, MOST = 20_000, 32_000  # below those that the kernel gives to who asks for any, and to every client


def free_port() -> int:
    """One of all addresses of this machine that nobody listens on; it stays free for a while."""
    while True:
        port = random.randrange(LEAST, MOST)
        with suppress(OSError), socket.create_server(("", port)):
            return port
