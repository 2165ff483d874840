"""Holds 60 MB, and turns one core for as long as it runs."""

import os
import socket

held = bytearray(os.urandom(1)) * 60_000_000
with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))):
    while held:
        pass
