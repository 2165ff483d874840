"""Two children share its socket; each needs half a second to end at TERM, and says so."""

import os
import signal
import socket
import sys
import time


def say(text: str) -> None:
    """One write: print makes two of them when unbuffered, and both children write to one log."""
    os.write(1, f"{text}\n".encode())


def end(number: int, frame: object) -> None:
    time.sleep(0.5)
    say(f"child {os.getpid()} ended properly")
    sys.exit()


there, here = os.pipe()
with socket.socket() as server:
    server.bind(("127.0.0.1", int(os.environ["PORT"])))
    for _ in range(2):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, end)
            say(f"child {os.getpid()}")
            os.write(here, b".")
            time.sleep(600)
    for _ in range(2):
        os.read(there, 1)
    server.listen()  # whoever sees it listen finds the children
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent is gone at once
    time.sleep(600)
