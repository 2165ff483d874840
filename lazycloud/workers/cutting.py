"""Cuts workers' logs as they are written: between two looks of the watch a fast disk takes many times their limit.

A thread of its own that sleeps while nobody writes, and goes on while control's loop does not.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from lazycloud.workers.logs import cut

PAUSE = 0.01  # seconds after each look; what a log takes beyond its limit is what can be written meanwhile
IN_MODIFY = 2  # of inotify(7)
EVENT = struct.Struct("iIII")  # the same: watch, mask, cookie, length of the name that follows
SOME = 65536  # bytes of events that are read at a time

log = logging.getLogger(__name__)


class Cutter:
    """Nothing runs before the first log is added. Without inotify, of which a user has so many, it does nothing."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._events = self._end = -1
        self._thread: threading.Thread | None = None
        self._logs: dict[int, tuple[Path, int]] = {}  # by watch
        self._writers: Counter[int] = Counter()  # workers, by watch

    def add(self, file: Path, most: int) -> int:
        """Keep a log to `most` bytes of the disk; what to `remove` it by. Of none that is not there: -1."""
        if not self._open():
            return -1
        watch = self._libc.inotify_add_watch(self._events, os.fsencode(file), IN_MODIFY)
        if watch >= 0:
            self._logs[watch] = file, most
            self._writers[watch] += 1
        return int(watch)

    def remove(self, watch: int) -> None:
        """One of those that write it is gone."""
        self._writers[watch] -= 1
        if self._writers[watch] <= 0:
            del self._writers[watch]
            if self._logs.pop(watch, None):
                self._libc.inotify_rm_watch(self._events, watch)

    def close(self) -> None:
        """Blocks until the last cut is done."""
        if self._thread:
            os.eventfd_write(self._end, 1)
            self._thread.join()
            os.close(self._events)
            os.close(self._end)
            self._thread = None

    def _open(self) -> bool:
        if self._thread is None:
            try:
                self._begin()
            except (OSError, RuntimeError) as problem:  # there may be no thread, either
                log.warning("Logs are cut a few times a second only: %s.", problem)
                return False
        return True

    def _begin(self) -> None:
        with ExitStack() as opened:
            self._events = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._events < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            opened.callback(os.close, self._events)
            self._end = os.eventfd(0)
            opened.callback(os.close, self._end)
            thread = threading.Thread(target=self._run, name="cut logs", daemon=True)
            thread.start()
            opened.pop_all()
        self._thread = thread

    def _run(self) -> None:
        written, end = select.poll(), select.poll()
        for one in (written, end):
            one.register(self._end, select.POLLIN)
        written.register(self._events, select.POLLIN)
        while not end.poll(PAUSE * 1000):
            written.poll()
            for watch in set(self._read()):
                if watch in self._logs:
                    with suppress(OSError, KeyError):  # the watch says what is wrong; it was removed just now
                        cut(*self._logs[watch])

    def _read(self) -> Iterator[int]:
        """The watches of what was written."""
        with suppress(BlockingIOError):
            events, at = os.read(self._events, SOME), 0
            while at < len(events):
                watch, _, _, length = EVENT.unpack_from(events, at)
                at += EVENT.size + length
                yield watch
