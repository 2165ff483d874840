"""Listens on a port that the machine chose, and not on the one it was given."""

import socket
import time

with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    time.sleep(600)
