"""Listens, and ignores TERM and INT."""

import os
import signal
import socket
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))):
    print("deaf", flush=True)
    time.sleep(600)
