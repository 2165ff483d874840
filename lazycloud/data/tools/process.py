"""A task in a process of its own: started, listened to, and ended with its deadline or with who asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lazycloud
from lazycloud import trees
from lazycloud.errors import BadInput, DiskFull, LazycloudError, StepFailed
from lazycloud.processes import signal_group
from lazycloud.walls.sandbox import SYSTEM_PATH, Sandbox
from lazycloud.walls.view import View

MODULE = "lazycloud.data.tools"
SCRATCH = ".scratch-"
MOST_TOLD = 64_000_000  # bytes that a task may answer with: far more than its own bounds allow
ERRORS: dict[str, type[LazycloudError]] = {kind.__name__: kind for kind in (BadInput, DiskFull, StepFailed)}


@dataclass(frozen=True)
class Limits:
    """Of one task. `seconds` till it is killed; `memory` in bytes; `disk`: bytes of the largest file it may write."""

    seconds: float = 120.0
    memory: int = 1_000_000_000
    disk: int = 100_000_000_000


USUAL = Limits()


async def run(
    task: str,
    order: Mapping[str, Any],
    room: Path,
    see: Sequence[Path],
    walls: Sandbox | None,
    limits: Limits,
    reach: Sequence[Path] | None = None,
) -> dict[str, Any]:
    """Do a task; what it tells. `room` is a folder for what is only needed meanwhile, on the disk of the data.

    Behind walls it sees, and may write to, the folders in `see`. It has no network, unless `reach` says what it is
    to read for that: a certificate, or the folder of a socket. Raises what the task raised, and StepFailed when it
    took too long or died. All of it is killed when this returns, or is cancelled.
    """
    with _scratch(room) as scratch:
        told = {"task": task, "order": order, "memory": limits.memory, "disk": limits.disk}
        words, environment = _command(walls, see, scratch, reach)
        answer, errors, status = await _ask(words, environment, json.dumps(told), limits.seconds, task)
    return _answer(task, answer, errors, status)


def _command(
    walls: Sandbox | None, see: Sequence[Path], scratch: Path, reach: Sequence[Path] | None
) -> tuple[list[str], Mapping[str, str]]:
    """-I: nothing of where lazycloud was started, or of its environment, is for a task to import."""
    words = [sys.executable, "-I", "-m", MODULE]
    environment = {
        "PATH": SYSTEM_PATH,
        "LANG": "C.UTF-8",
        "SQLITE_TMPDIR": str(scratch),
        "TMPDIR": str(scratch),
    }
    if walls is None:
        return words, environment
    own = (Path(sys.prefix), Path(sys.base_prefix), Path(lazycloud.__file__).parent)
    read, network = (*own, *(reach or ())), reach is not None
    view = View(walls.home, read=read, write=tuple(see), network=network, scratch=scratch)
    enclosed = walls.enclose(view, scratch, environment)
    return [*enclosed.words, *words], enclosed.environment


async def _ask(
    words: Sequence[str], environment: Mapping[str, str], order: str, seconds: float, task: str
) -> tuple[bytes, bytes, int]:
    """Its input stays open until it has answered: when that closes, nobody waits for it any more, and it ends."""
    process = await _started(words, environment)
    assert process.stdin and process.stdout and process.stderr
    try:
        with contextlib.suppress(ConnectionError, RuntimeError):  # it died already, which its status tells
            process.stdin.write(order.encode() + b"\n")
        async with asyncio.timeout(seconds):
            answer, errors = await asyncio.gather(
                _most(process.stdout, MOST_TOLD, task), _most(process.stderr, MOST_TOLD, task)
            )
            status = await process.wait()
    except TimeoutError:
        raise StepFailed(
            f"To {task} the data took more than {seconds:g} s, and was given up.",
            "Ask for less of it: for one table, or without rows.",
        ) from None
    finally:
        signal_group(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
    return answer, errors, status


async def _started(words: Sequence[str], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Nothing of it is left when the caller is cancelled meanwhile: it may have children by then."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *words,
            cwd="/",
            env=dict(environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        process = await starting
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()
        raise


async def _most(stream: asyncio.StreamReader, most: int, task: str) -> bytes:
    found = bytearray()
    while chunk := await stream.read(1 << 16):
        found += chunk
        if len(found) > most:
            raise StepFailed(f"To {task} the data told more than {most} bytes, and was given up.")
    return bytes(found)


def _answer(task: str, answer: bytes, errors: bytes, status: int) -> dict[str, Any]:
    """What it told. One that was taken over by what it read may say anything: it is only ever data."""
    try:
        told = json.loads(answer)
        if "problem" not in told:
            return dict(told["done"])
        problem = told["problem"]
        kind = ERRORS.get(problem["kind"], StepFailed)
        sentence, advice = str(problem["sentence"]), str(problem["advice"])
    except (ValueError, KeyError, TypeError):
        raise _died(task, errors, status) from None
    raise kind(sentence, advice)


def _died(task: str, errors: bytes, status: int) -> StepFailed:
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return StepFailed(
        f"The process that was to {task} the data ended {how}.",
        "If the data are sound, this is a fault of lazycloud's.",
        errors.decode(errors="replace").splitlines()[-20:],
    )


@contextlib.contextmanager
def _scratch(room: Path) -> Iterator[Path]:
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=room))
    try:
        yield scratch
    finally:
        trees.remove(scratch)
