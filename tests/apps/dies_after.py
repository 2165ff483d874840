"""Listens, and ends by itself with status 3. `dies_after.py SECONDS`."""

import os
import socket
import sys
import time

with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))):
    time.sleep(float(sys.argv[1]))
sys.exit(3)
