"""A versionbase at work: transactions begin at what a branch is, and end in one thread that commits them in groups.

All but the commits is done by whoever calls, for a time that is short, or in iterators which say None now and then,
or a Future that is to be waited for; so one thread can serve many.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

from lazycloud.errors import LazycloudError
from lazycloud.versionbase import catalogue, tree
from lazycloud.versionbase.nodes import Nodes
from lazycloud.versionbase.problems import Gone, OverLimit
from lazycloud.versionbase.storage import Branch, Storage
from lazycloud.versionbase.transactions import Transaction
from lazycloud.versionbase.tree import Change

log = logging.getLogger(__name__)

GROUP = 1000  # transactions that are committed together, at most
GROUP_SIZE = 16 << 20  # bytes beyond which no further one is
SHRUNK = 64 << 10  # bytes of what is kept of a collection, which may become less where nothing may be added

T = TypeVar("T")


class Engine:
    """Over a storage, of which it is the one user."""

    def __init__(self, storage: Storage, demand_room: Callable[[], None] = lambda: None) -> None:
        """`demand_room` raises DiskFull where no more is to be written."""
        self.storage = storage
        self.ask_for_look: Callable[[], None] = lambda: None  # called in the committing thread (`tending`)
        self._demand_room = demand_room
        self._waiting: queue.SimpleQueue[_Attempt | Callable[[], None] | None] = queue.SimpleQueue()
        self._committing = threading.Thread(target=self._commit_all, name="versionbase-commits", daemon=True)
        self._pinned: Counter[int] = Counter()
        self._pinning = threading.Lock()
        self._listeners: dict[str, list[Callable[[], None]]] = {}

    def open(self) -> None:
        """Raises Conflict if another has it, LazycloudError in words for what is not right with it."""
        self.storage.open()
        self._committing.start()

    def close(self) -> None:
        """What was to be committed before is."""
        self._waiting.put(None)
        if self._committing.is_alive():
            self._committing.join()
        self.storage.close()

    # Transactions

    def transaction(self, version: str, at: str = "", write: bool = True, birth: str = "") -> Transaction:
        """Of a version as it is now, or was at a snapshot; to be closed by `close_transaction`.

        `birth`: of the version that is meant, if one of its name may have been made since. Raises Gone, NotFound.
        """
        return Transaction(self.storage, self.pinned_at(version, at, birth), write and not at)

    def close_transaction(self, transaction: Transaction) -> None:
        """Whatever becomes of it. Once."""
        self.unpin(transaction.begun.root)

    def commit(self, transaction: Transaction) -> Future[int]:
        """The version's sequence with it; on the disk then. Raises Conflict when what it read is not so any more."""
        return self._queue(_Attempt(self.storage, transaction, None))

    def perform(
        self, version: str, work: Callable[[Transaction], T], birth: str = "", takes_back: bool = False
    ) -> Future[tuple[T, int]]:
        """A transaction of one step: what the step returns, and the sequence with it.

        It is never a conflict: the step is taken again when what it read is not so any more. So it may be taken in
        another thread too, and does nothing but what it does with the transaction. What it raises, the future does.
        One that `takes_back` what was done before is done whatever the version has.
        """
        try:
            transaction = self.transaction(version, birth=birth)
        except LazycloudError as problem:
            return _failed(problem)
        attempt = _Attempt(self.storage, transaction, work, takes_back)
        try:
            attempt.result = work(transaction)
        except Exception as problem:
            self.close_transaction(transaction)
            return _failed(problem)
        root = transaction.begun.root  # all that is remembered: a document may be large
        attempt.future.add_done_callback(lambda _: self.unpin(root))
        return self._queue(attempt)

    def change(self, what: Callable[[], T]) -> Future[T]:
        """Something that changes branches as a whole, between two groups of commits. Raises what it raises."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(what())
            except BaseException as problem:
                future.set_exception(problem)

        self._waiting.put(run)
        return future

    def _queue(self, attempt: _Attempt) -> Future[Any]:
        if not attempt.transaction.tree.is_changed:
            attempt.future.set_result(attempt.told(attempt.transaction.begun.sequence))
        else:
            self._waiting.put(attempt)
        return attempt.future

    # In the committing thread

    def _commit_all(self) -> None:
        going_on = True
        while going_on:
            first = self._waiting.get()
            group: list[_Attempt] = []
            size = 0
            while True:
                if isinstance(first, _Attempt):
                    group.append(first)
                    size += first.transaction.tree.size
                else:
                    self._commit(group)
                    group, size = [], 0
                    if first is None:
                        going_on = False
                        break
                    first()
                if len(group) >= GROUP or size > GROUP_SIZE:
                    break
                try:
                    first = self._waiting.get_nowait()
                except queue.Empty:
                    break
            self._commit(group)

    def _commit(self, group: Sequence[_Attempt]) -> None:
        if self.storage.stored.limit:
            group = self._within_limits(group)
        if not group:
            return
        try:
            self._demand_room()
            results = self.storage.commit(group)
        except BaseException as problem:
            if not isinstance(problem, LazycloudError):
                log.exception("A group of %d transactions could not be committed.", len(group))
            for attempt in group:
                attempt.future.set_exception(problem)
            return
        for attempt, result in zip(group, results, strict=True):
            if failed := attempt.problem or (result if isinstance(result, Exception) else None):
                attempt.future.set_exception(failed)
            elif isinstance(result, Branch):
                attempt.future.set_result(attempt.told(result.sequence))
        for branch in {attempt.branch for attempt in group}:
            self.notify(branch)
        if (stored := self.storage.stored).limit and any(
            stored.is_worth_a_look(birth) for birth in {attempt.birth for attempt in group}
        ):
            self.ask_for_look()

    def _within_limits(self, group: Sequence[_Attempt]) -> list[_Attempt]:
        """Those that may be committed; the others are told why not."""
        admitted: list[_Attempt] = []
        adding: Counter[str] = Counter()  # by those, to what each version has
        for attempt in group:
            try:
                self._demand_within_limit(attempt, adding[attempt.birth])
            except LazycloudError as problem:
                attempt.future.set_exception(problem)
            else:
                adding[attempt.birth] += attempt.transaction.tree.size
                admitted.append(attempt)
        return admitted

    def _demand_within_limit(self, attempt: _Attempt, adding: int) -> None:
        """Raises OverLimit."""
        stored = self.storage.stored
        has = stored.of(attempt.birth) + adding
        if has + attempt.transaction.tree.size <= stored.most or not attempt.adds:
            return
        if stored.refuse(attempt.birth):
            self.ask_for_look()
        raise OverLimit(
            f"The version {attempt.branch[:80]} has {has / 1e6:,.1f} MB of its own, and may have "
            f"{stored.most / 1e6:,.1f} MB: this would add to it.",
            "Delete documents, or snapshots: what that gives back can be used some seconds later. "
            "Who runs the server can allow more: `disk` of [workers], or --version-limit.",
        )

    # Who reads a root, and who waits for another

    def pin(self, root: int) -> None:
        """Its nodes are kept until it is unpinned as often."""
        with self._pinning:
            self._pinned[root] += 1

    def unpin(self, root: int) -> None:
        with self._pinning:
            self._pinned[root] -= 1
            if not self._pinned[root]:
                del self._pinned[root]

    def pinned_at(self, version: str, at: str = "", birth: str = "") -> Branch:
        """Where a version is, or was at a snapshot, pinned. Raises Gone, NotFound."""
        found = self.storage.at(version, at)
        if birth and found.birth != birth:
            raise Gone(
                f"The version {version[:80]} was dropped, and made again.",
                "Connect again, with its new key.",
            )
        self.pin(found.root)  # in time: whatever is dropped meanwhile, the storage keeps a root for a while
        return found

    @contextlib.contextmanager
    def pinning(self, version: str, at: str = "", birth: str = "") -> Iterator[Branch]:
        """The same, as long as it is looked at."""
        pinned = self.pinned_at(version, at, birth)
        try:
            yield pinned
        finally:
            self.unpin(pinned.root)

    def pinned(self) -> set[int]:
        """Roots that somebody reads."""
        with self._pinning:
            return set(self._pinned)

    def listen(self, version: str, listener: Callable[[], None]) -> Callable[[], None]:
        """Called after each commit of a version, in the committing thread; what is returned ends that."""
        self._listeners.setdefault(version, []).append(listener)

        def end() -> None:
            listeners = self._listeners.get(version, [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self._listeners.pop(version, None)

        return end

    def notify(self, version: str) -> None:
        """It has changed."""
        for listener in list(self._listeners.get(version, ())):
            try:
                listener()
            except Exception:
                log.exception("Who watches %s could not be told of a change.", version)


class _Attempt:
    """A transaction to be committed, a `storage.Wishing`: its changes are right once `holds` has said so."""

    def __init__(
        self,
        nodes: Nodes,
        transaction: Transaction,
        work: Callable[[Transaction], Any] | None,
        takes_back: bool = False,
    ) -> None:
        self._nodes = nodes
        self._takes_back = takes_back
        self.transaction = transaction
        self._work = work
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # once it is queued, nobody takes it back
        self.result: Any = None
        self.problem: Exception | None = None

    def told(self, sequence: int) -> Any:
        """What its future has, once it is committed."""
        return sequence if self._work is None else (self.result, sequence)

    @property
    def branch(self) -> str:
        return self.transaction.begun.name

    @property
    def birth(self) -> str:
        return self.transaction.begun.birth

    @property
    def root(self) -> int:
        return self.transaction.begun.root

    @property
    def adds(self) -> bool:
        """Whether there is more with it: deleting writes nodes, too, but ends when all is deleted."""
        return not self._takes_back and any(
            value is not None and not self._shrinks(key, value)
            for key, value in self.transaction.tree.changes
        )

    def _shrinks(self, key: bytes, value: bytes) -> bool:
        """Of what is kept of a collection, as where an index is dropped."""
        if not key.startswith(catalogue.COLLECTIONS[0]) or len(value) > SHRUNK:
            return False
        before = tree.get(self._nodes, self.root, key)
        return before is not None and len(value) < len(before)

    @property
    def cuts(self) -> Sequence[tuple[bytes, bytes]]:
        return () if self.problem else self.transaction.tree.cuts

    @property
    def changes(self) -> Sequence[Change]:
        return () if self.problem else self.transaction.tree.changes

    def holds(self, root: int) -> bool:
        """Whether it may be done at another root; one of a single step is done there, again."""
        if self.transaction.tree.holds(root):
            return True
        if self._work is None:
            return False
        begun = self.transaction.begun
        self.transaction = Transaction(self._nodes, replace(begun, root=root))
        try:
            self.result = self._work(self.transaction)
        except Exception as problem:
            self.problem = problem
        return True


def _failed(problem: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(problem)
    return future
