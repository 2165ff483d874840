"""What was, and what has become of it: how two trees differ, a document's history, and changes as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lazycloud.errors import NotFound
from lazycloud.versionbase import catalogue, expressions, tree
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.nodes import Damaged
from lazycloud.versionbase.problems import Gone
from lazycloud.versionbase.storage import Branch
from lazycloud.versionbase.transactions import Document
from lazycloud.versionbase.values import Value, decode

PAGE = 200  # commits that are asked for at a time


@dataclass(frozen=True)
class Change:
    """Of a document; None where it was not, or is no more."""

    collection: str
    key: str
    old: Document | None
    new: Document | None

    def shown(self) -> dict[str, Any]:
        """As the protocol has it."""
        return {"collection": self.collection, "key": self.key, "old": self.old, "new": self.new}


def differences(engine: Engine, one: Branch, other: Branch, collection: str = "") -> Iterator[Change]:
    """Of the documents, from one to the other. Costs what differs. Whoever calls has both roots pinned."""
    if collection:
        catalogue.check_name(collection)
    begin, end = catalogue.documents(collection)
    for tree_key, old, new in tree.differences(engine.storage, one.root, other.root, begin, end):
        name, key = catalogue.parts(tree_key)
        yield Change(name, key, _document(old), _document(new))


def history(
    engine: Engine, version: str, collection: str, key: str, limit: int | None = None, birth: str = ""
) -> Iterator[dict[str, Any] | None]:
    """What a document was after each commit that changed it, the latest first, as far as commits are kept.

    None now and then. The last one may have been so for longer than is known.
    """
    place = catalogue.document_key(catalogue.check_name(collection), catalogue.check_key(key))
    with engine.pinning(version, birth=birth) as now:
        pending: tuple[int, float, bytes | None] | None = None
        left = limit
        for commit in commits_back(engine, now):
            if left == 0:
                return
            if commit is None:
                yield None
                continue
            sequence, root, at = commit
            try:
                data = tree.get(engine.storage, root, place)
            except Damaged:  # expired and collected meanwhile
                break
            if pending is not None and pending[2] != data:
                yield _moment(*pending)
                left = None if left is None else left - 1
            pending = sequence, at, data
            yield None
        if pending is not None and left != 0 and (pending[2] is not None or limit != left):
            yield _moment(*pending)


def commits_back(engine: Engine, now: Branch) -> Iterator[tuple[int, int, float] | None]:
    """Sequence, root and time (seconds since 1970) of the commits that are kept, the latest first."""
    until = now.sequence
    while True:
        page = engine.storage.commits_until(now.name, until, PAGE)
        if engine.storage.branch(now.name).birth != now.birth:  # it has been removed, and another made
            raise Gone(f"The version {now.name[:80]} is there no more.")
        yield from page
        if len(page) < PAGE:
            return
        until = page[-1][0] - 1
        yield None


def _moment(sequence: int, at: float, data: bytes | None) -> dict[str, Any]:
    return {"sequence": sequence, "at": at, "document": _document(data)}


class Watch:
    """The changes of a version after a sequence, as they come. To be closed."""

    def __init__(
        self,
        engine: Engine,
        version: str,
        since: int | None,
        collection: str = "",
        test: Callable[[str, Document], bool] | None = None,
        woken: Callable[[], None] = lambda: None,
    ) -> None:
        """`test` is asked of what a document was and of what it is. `woken` is called, in another thread, when there
        may be more. Raises Gone if so old commits are not kept any more, NotFound."""
        if collection:
            catalogue.check_name(collection)
        self._engine = engine
        self._span = catalogue.documents(collection)
        self._test = test
        self._end = engine.listen(version, woken)
        self._version = version
        try:
            self._seen = self._start(since)
        except BaseException:
            self._end()
            raise
        engine.pin(self._seen.root)

    @property
    def sequence(self) -> int:
        """Of the last commit whose changes were all told."""
        return self._seen.sequence

    def poll(self) -> Iterator[dict[str, Any] | None]:
        """What is new, as the protocol has it; None now and then.

        Raises Gone when the version is dropped, or commits went by faster than they were read.
        """
        while (now := self._now()).sequence != self._seen.sequence:
            page = self._engine.storage.commits(self._version, self._seen.sequence, PAGE)
            self._now()  # else they may be of another version, which was made just now
            if not page or page[0][0] != self._seen.sequence + 1:
                if self._now().sequence == now.sequence:
                    raise _gone(self._version, self._seen.sequence)
                continue
            for sequence, root, at in page:
                yield from self._told(Branch(self._version, root, sequence, now.birth), at)

    def close(self) -> None:
        self._end()
        self._engine.unpin(self._seen.root)

    def _now(self) -> Branch:
        """Raises Gone: one of the same name, made later, is another."""
        try:
            now = self._engine.storage.branch(self._version)
        except NotFound:
            now = None
        if now is None or now.birth != self._seen.birth:
            raise Gone(f"The version {self._version[:80]} is there no more.")
        return now

    def _told(self, now: Branch, at: float) -> Iterator[dict[str, Any] | None]:
        storage = self._engine.storage
        self._engine.pin(now.root)
        seen, self._seen = self._seen, now
        try:
            for tree_key, old, new in tree.differences(storage, seen.root, now.root, *self._span):
                name, key = catalogue.parts(tree_key)
                change = Change(name, key, _document(old), _document(new))
                yield {"sequence": now.sequence, "at": at, **change.shown()} if self._wants(change) else None
        except Damaged:
            raise _gone(self._version, seen.sequence) from None
        finally:
            self._engine.unpin(seen.root)

    def _wants(self, change: Change) -> bool:
        if self._test is None:
            return True
        sides = (change.old, change.new)
        return any(side is not None and self._test(change.key, side) for side in sides)

    def _start(self, since: int | None) -> Branch:
        now = self._engine.storage.branch(self._version)
        if since is None or since == now.sequence:
            return now
        if since > now.sequence:
            raise Gone(
                f"{self._version[:80]} is at sequence {now.sequence}, and has no {since}: that was of other data.",
                "Read what is there now, and watch from then on.",
            )
        known = self._engine.storage.commits(self._version, since - 1, 1)
        if not known or known[0][0] != since:
            raise _gone(self._version, since)
        return Branch(self._version, known[0][1], since, now.birth)


def watch(
    engine: Engine,
    version: str,
    since: int | None,
    collection: str,
    filter_: str,
    params: dict[str, Value],
    woken: Callable[[], None],
) -> Watch:
    """A `Watch` of what a filter is true of. Raises BadInput, Gone, NotFound."""
    test = expressions.compile(filter_, frozenset(params)).test(params) if filter_.strip() else None
    return Watch(engine, version, since, collection, test, woken)


def _document(data: bytes | None) -> Document | None:
    return decode(data) if data is not None else None


def _gone(version: str, sequence: int) -> Gone:
    return Gone(
        f"What {version[:80]} was at sequence {sequence} is kept no more.",
        "Read what is there now, and watch from then on.",
    )
