"""How `lazycloud up` knows that control and its routers not only run but move: each beats once a second.

A beat is a byte in a pipe, written by the event loop that does the work: a process that is stopped, or whose loop
is stuck, beats no more. Its parent counts its own looks and not time: when both were away (a suspended
machine, a stopped parent), nobody is blamed.
"""

from __future__ import annotations

import asyncio
import os

EVERY = 1.0  # seconds between two beats, and between two looks


def beat(pipe: int) -> None:
    """Begin in the running event loop, and go on until nobody listens any more."""
    os.set_blocking(pipe, False)
    os.set_inheritable(pipe, False)
    loop = asyncio.get_running_loop()

    def again() -> None:
        try:
            os.write(pipe, b".")
        except BlockingIOError:
            pass  # it is full: whoever should listen was away for long
        except OSError:
            os.close(pipe)
            return
        loop.call_later(EVERY, again)

    again()


class Pulse:
    """The other end, a look a time.

    `has_begun`: whether a beat has ever come. A start may take longer than any pause later.
    """

    def __init__(self, pipe: int, has_begun: bool = False) -> None:
        os.set_blocking(pipe, False)
        self.pipe = pipe
        self.has_begun = has_begun
        self._missed = 0

    def missed(self) -> int:
        """How many looks in a row have found no beat."""
        try:
            beats = os.read(self.pipe, 1 << 16)
        except BlockingIOError:
            beats = b""
        self.has_begun = self.has_begun or bool(beats)
        self._missed = 0 if beats else self._missed + 1
        return self._missed

    def close(self) -> None:
        os.close(self.pipe)
