"""The holder's process, as who started it sees it: commands go there, answers come back, and its end is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lazycloud import processes

PROGRAM = Path(__file__).with_name("holder") / "__main__.py"
# Of this machine's Python nothing but its own library: it starts in 20 ms, and nothing of a site has a say in it.
COMMAND = (sys.executable, "-I", "-S", str(PROGRAM))
DEADLINE = 20.0  # seconds for an answer: a holder that hangs may stand in its app's way, and is killed
GOODBYE = 1.0  # seconds for it to end by itself


class Enclosed(Protocol):
    """What a command is put behind walls by: see `walls.sandbox`."""

    @property
    def words(self) -> Sequence[str]: ...

    @property
    def environment(self) -> Mapping[str, str]: ...


class HolderLost(Exception):
    """It has ended, or was killed because it hung: nothing is held any more."""


class Refusal(Exception):
    """It answered that something cannot be done now.

    `kind`: busy, damaged, full, gone, late, lost (nothing is held any more), mode, order, other.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why


class Holder:
    """One process. It is gone for good once `lost` is set."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self.lost = asyncio.Event()
        self._process = process
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read(), name=f"answers of holder {process.pid}")

    def __repr__(self) -> str:
        return f"<Holder {self.pid}{' lost' if self.lost.is_set() else ''}>"

    @classmethod
    async def start(cls, enclose: Enclosed | None = None, command: Sequence[str] = COMMAND) -> Holder:
        """Raises HolderLost if it cannot be started."""
        words = (*(enclose.words if enclose else ()), *command)
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                cwd="/",
                env=dict(enclose.environment) if enclose else {},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as problem:
            raise HolderLost(str(problem)) from problem
        return cls(process)

    async def ask(self, key: str, do: str, within: float = DEADLINE, **arguments: Any) -> dict[str, Any]:
        """The answer to a command about the database `key`. Raises Refusal, HolderLost.

        One that does not answer `within` seconds is killed, and nothing is held any more.
        """
        if self.lost.is_set():
            raise HolderLost("It has ended.")
        assert self._process.stdin
        number = next(self._numbers)
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answered
        line = json.dumps({"id": number, "key": key, "do": do, **arguments})
        self._process.stdin.write(f"{line}\n".encode())
        try:
            async with asyncio.timeout(within):
                answer = await answered
        except TimeoutError:
            self.kill()
            raise HolderLost(f"It did not answer within {within:g} s.") from None
        finally:
            self._asked.pop(number, None)
        if "error" in answer:
            raise Refusal(answer["error"], answer["why"])
        return answer

    async def demand_alive(self) -> None:
        """Return when it has answered: until now it held what it held. Raises HolderLost."""
        await self.ask("", "ping")

    def kill(self) -> None:
        processes.kill_session(self.pid)
        self._lose()

    async def close(self) -> None:
        """Let it end without closing anything, or kill it. Idempotent."""
        self._lose()
        with contextlib.suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()
        try:
            async with asyncio.timeout(GOODBYE):
                await self._process.wait()
        except TimeoutError:
            processes.kill_session(self.pid)
            await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        assert self._process.stdout
        try:
            while line := await self._process.stdout.readline():
                answer = json.loads(line)
                waiting = self._asked.get(answer["id"])
                if waiting and not waiting.done():
                    waiting.set_result(answer)
        except (ValueError, KeyError, TypeError, OSError):  # no holder of ours talks like that
            processes.signal_group(self.pid, signal.SIGKILL)
        finally:
            self._lose()

    def _lose(self) -> None:
        self.lost.set()
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(HolderLost("It has ended."))
