"""What a deploy wrote: bounded in memory for those who watch, whole (up to a bound) in a file."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from lazycloud.deployments.steps import StepName

SHOWN = 256 * 1024  # characters that a page which opens now is given: the newest
TOLD = 1024 * 1024  # characters of one step that become events: a flood must not fill the database
KEPT = 16 * 1024 * 1024  # characters of one step in the file; its newest follow, SHOWN of them
CHUNK = 16 * 1024  # characters in one event
PAUSE = 0.05  # seconds over which output is gathered into one event

Tell = Callable[[StepName, str], None]


class Transcript:
    """One attempt's output. `tell` is called with what is new, a few times a second at the most."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self.path = path
        self._tell = tell
        self._shown: deque[tuple[StepName, str]] = deque()
        self._shown_size = 0
        self._told = 0
        self._kept = 0
        self._gathered: list[str] = []
        self._step = StepName.SOURCE
        self._timer: asyncio.TimerHandle | None = None
        self._file: TextIO | None = None

    def begin(self) -> None:
        """Start anew: what the attempt before wrote is gone."""
        self.close()
        self._shown.clear()
        self._shown_size = self._told = self._kept = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", errors="replace")
        except OSError:
            self._file = None  # a full disk is the deploy's to report, in memory this log goes on

    def write(self, step: StepName, text: str) -> None:
        if step is not self._step:
            self._end_step()
            self._step = step
        self._keep(text)
        for start in range(0, len(text), CHUNK):
            self._show(step, text[start : start + CHUNK])

    def flush(self) -> None:
        """Tell what was gathered."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        text = "".join(self._gathered)
        self._gathered.clear()
        if text:
            self._tell(self._step, text)
        if self._file:
            try:
                self._file.flush()
            except OSError:
                self._file = None

    def forget(self) -> None:
        """Nobody watches a deploy that went well: the file has it."""
        self._end_step()
        self._shown.clear()
        self._shown_size = 0

    def close(self) -> None:
        self._end_step()
        if self._file:
            with contextlib.suppress(OSError):  # the disk is full; what it took is there
                self._file.close()
            self._file = None

    def shown(self) -> list[dict[str, str]]:
        """The newest output, as the landing page takes it."""
        return [{"step": step.value, "text": text} for step, text in self._shown]

    def _end_step(self) -> None:
        """Of output that was cut the newest is told and kept all the same: the reason of a failure is there."""
        newest = "".join(text for step, text in self._shown if step is self._step)
        if self._told > TOLD:
            self._gathered.append(newest[-CHUNK:])
        if self._kept > KEPT:
            self._put(newest)
        self._told = self._kept = 0
        self.flush()

    def _show(self, step: StepName, text: str) -> None:
        self._shown.append((step, text))
        self._shown_size += len(text)
        while self._shown_size > SHOWN:
            self._shown_size -= len(self._shown.popleft()[1])
        if self._told > TOLD:
            return
        self._told += len(text)
        self._gathered.append(text)
        if self._told > TOLD:
            self._gathered.append("\n… there is more: the whole log has it.\n")
        if sum(map(len, self._gathered)) >= CHUNK:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self.flush)

    def _keep(self, text: str) -> None:
        if self._file is None or self._kept > KEPT:
            return
        self._kept += len(text)
        self._put(text)
        if self._kept > KEPT:
            self._put("\n… the output is cut here, and goes on with its newest lines.\n")

    def _put(self, text: str) -> None:
        if self._file:
            try:
                self._file.write(text)
            except OSError:
                self._file = None
