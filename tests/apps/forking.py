"""Two children share its socket; each needs half a second to end at TERM, and says so."""

import os
import signal
import socket
import sys
import time


def end(number: int, frame: object) -> None:
    time.sleep(0.5)
    print(f"child {os.getpid()} ended properly", flush=True)
    sys.exit()


with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))):
    for _ in range(2):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, end)
            print(f"child {os.getpid()}", flush=True)
            time.sleep(600)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent is gone at once
    time.sleep(600)
