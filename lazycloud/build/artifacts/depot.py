"""What stages and the API speak to: takes from the store, and puts into it in the background."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lazycloud.blobs.keys import SigningKey, public_text
from lazycloud.blobs.store import Missing, Store, Stored, StoreFailed, open_store
from lazycloud.build.artifacts.pack import Subject
from lazycloud.build.artifacts.place import Place
from lazycloud.build.artifacts.unpack import aside_of
from lazycloud.build.marker import remove
from lazycloud.errors import BadInput, LazycloudError
from lazycloud.processes import CommandFailed, Output, run

NICENESS = 19
JOB_TIMEOUT = 1800.0
ANSWER_TIMEOUT = 10.0  # of a store that is only asked what it has: a mounted disk may hang
AWAY = 30.0  # seconds for which a store that failed is not asked again by deploys
WAITING_MOST = 64  # of what is to be put; more are left to the next deploy that uses them
ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}

KINDS = {kind.kind: kind for kind in (Missing, StoreFailed)}
"""Errors of a job that are told apart here."""

T = TypeVar("T")
log = logging.getLogger(__name__)


class Depot:
    """One for all apps of a server."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._away_until = 0.0
        self._known: set[str] = set()  # names that are in the store
        self._waiting: dict[str, Subject] = {}
        self._hanging: list[Future[Any]] = []  # questions that were given up, and still hold a thread
        self._turn = asyncio.Lock()  # one is packed at a time
        self._pushing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        return bool(self._place.store)

    @property
    def public_key(self) -> str:
        """The own one; the pair is made when it is first asked for."""
        return public_text(SigningKey.of(self._place.key_file).public)

    @property
    def trusted(self) -> list[str]:
        """All public keys that count, the own one first."""
        return list(dict.fromkeys((self.public_key, *self._place.trusted)))

    async def take(self, subject: Subject, output: Output) -> bool:
        """Make a folder from the store, if it is there and may be used. What speaks against it is only said."""
        if not self.is_open or time.monotonic() < self._away_until:
            return False
        try:
            if not await self._ask(lambda store: store.exists(subject.name)):
                return False
            facts = await self.pull(subject)
        except Missing:
            return False
        except StoreFailed as problem:
            self._away_until = time.monotonic() + AWAY
            output(f"warning: {problem}\n")
            return False
        except (LazycloudError, OSError) as problem:
            output(
                f"warning: {subject.name} of the artifact store was refused: {problem} Made here instead.\n"
            )
            return False
        output(self._taken(facts))
        return True

    async def pull(self, subject: Subject) -> dict[str, Any]:
        """The same, by somebody's wish: raises what speaks against it, and Missing."""
        aside = aside_of(subject)
        try:
            facts = await self._run("take", subject=asdict(subject), trusted=self.trusted, aside=str(aside))
        except BaseException:
            # Of a job that was ended in the middle.
            await asyncio.shield(asyncio.to_thread(remove, aside))
            raise
        self._known.add(subject.name)
        return facts

    async def push(self, subject: Subject) -> dict[str, Any]:
        """Pack a complete folder and put it into the store, whatever is there. Raises LazycloudError."""
        async with self._turn:
            key_file = str(self._place.key_file)
            facts = await self._run("push", subject=asdict(subject), key_file=key_file)
        self._known.add(subject.name)
        return facts

    def offer(self, subject: Subject) -> None:
        """Put it into the store some time, unless it is there."""
        wanted = self.is_open and self._place.pushes and subject.name not in self._known
        if wanted and len(self._waiting) < WAITING_MOST:
            self._waiting.setdefault(subject.name, subject)
            if self._pushing is None or self._pushing.done():
                self._pushing = asyncio.create_task(self._push_all(), name="push artifacts")

    async def verify(self, name: str) -> dict[str, Any]:
        """Raises ArtifactRefused as LazycloudError, Missing, StoreFailed."""
        return await self._run("verify", name=name, trusted=self.trusted)

    async def list(self) -> list[Stored]:
        """What the store has, newest first. Raises StoreFailed, BadInput without a store."""
        stored = await self._ask(lambda store: list(store.list()))
        return sorted(stored, key=lambda one: -one.at)

    async def exists(self, name: str) -> bool:
        return await self._ask(lambda store: store.exists(name))

    async def close(self) -> None:
        """What is being put is given up; what waits is put when it is next used."""
        self._waiting.clear()
        if self._pushing:
            self._pushing.cancel()
            await asyncio.gather(self._pushing, return_exceptions=True)

    async def _push_all(self) -> None:
        while self._waiting:
            name, subject = next(iter(self._waiting.items()))
            try:
                if await self._ask(lambda store, name=name: store.exists(name)):  # type: ignore[misc]
                    self._known.add(name)
                else:
                    await self.push(subject)
            except (LazycloudError, OSError) as problem:
                log.warning("%s was not put into the artifact store: %s", name, problem)
                if not isinstance(problem, StoreFailed):
                    self._known.add(name)  # it would fail again
            finally:
                self._waiting.pop(name, None)

    async def _ask(self, question: Callable[[Store], T]) -> T:
        """Raises StoreFailed when it does not answer; it is asked nothing more then until it has."""
        store = open_store(self._demand_store())
        self._hanging = [each for each in self._hanging if not each.done()]
        if self._hanging:
            raise _no_answer()
        answer = _in_a_thread(partial(question, store))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), ANSWER_TIMEOUT)
        except TimeoutError as problem:
            self._hanging.append(answer)
            raise _no_answer() from problem

    async def _run(self, do: str, **order: Any) -> dict[str, Any]:
        """A job in a process of its own; its facts. Raises its error again."""
        scratch = self._place.scratch
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        order = {"do": do, "store": self._demand_store(), "scratch": str(scratch), **order}
        said: list[str] = []
        words = [sys.executable, "-I", "-m", "lazycloud.build.artifacts.job", json.dumps(order)]
        environment = ENVIRONMENT | {"HOME": str(scratch), "TMPDIR": str(scratch)}
        try:
            await run(words, Path("/"), environment, said.append, JOB_TIMEOUT, niceness=NICENESS)
        except CommandFailed as problem:
            why = problem.last[-1] if problem.last else "it was ended"
            raise LazycloudError(f"The artifact's {do} broke off: {why}.") from problem
        answer = _answer("".join(said))
        if error := answer.get("error"):
            raise KINDS.get(error["kind"], LazycloudError)(error["sentence"], error["advice"])
        return answer

    def _demand_store(self) -> str:
        if not self._place.store:
            raise BadInput(
                "This server has no artifact store.",
                'Give it one in config.toml: [artifacts] store = "file:///srv/artifacts"',
            )
        return self._place.store

    def _taken(self, facts: dict[str, Any]) -> str:
        made, signer = facts["provenance"], facts["signer"]
        by = "this server" if signer == self.public_key else signer
        commit = f" for commit {made['commit'][:10]}" if made.get("commit") else ""
        where = f"made on {made.get('host', 'another machine')}{commit}"
        return f"Taken from the artifact store: {facts['size'] / 1e6:.1f} MB, {where}, signed by {by}.\n"


def _in_a_thread(work: Callable[[], T]) -> Future[T]:
    """A thread of its own: one that hangs takes none from others, and keeps no process from its end."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as problem:
            future.set_exception(problem)

    threading.Thread(target=run, name="ask the artifact store", daemon=True).start()
    return future


def _no_answer() -> StoreFailed:
    return StoreFailed(f"The artifact store did not answer within {ANSWER_TIMEOUT:g} s.", "Is its disk away?")


def _answer(said: str) -> dict[str, Any]:
    """The last line of a job."""
    try:
        answer = json.loads(said.strip().rpartition("\n")[2])
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise LazycloudError(f"The artifact's job gave no answer: {said[-200:]}")
    return answer
