"""Listens, and ends by itself with status 3 as soon as there is a file `die` in its folder."""

import os
import socket
import sys
import time
from pathlib import Path

with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))):
    while not Path("die").exists():
        time.sleep(0.01)
sys.exit(3)
