"""What takes many transactions: an index that is built, and a schema that what is there must fit.

Both are iterators: they yield a Future that is to be waited for, or None to let others have a turn.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import msgspec

from lazycloud.errors import BadInput, LazycloudError
from lazycloud.versionbase import catalogue, tree
from lazycloud.versionbase.catalogue import Index
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.problems import Exists, Gone
from lazycloud.versionbase.transactions import Transaction, schema_of
from lazycloud.versionbase.values import decode

BATCH = 200  # documents that are put into an index in one transaction
PASS = 100_000  # that are sorted before: neighbours in the index are put there together
RUN = 100  # that are read without a turn for others

Steps = Iterator["Future[Any] | None"]


def create_index(
    engine: Engine,
    version: str,
    collection: str,
    path: str,
    unique: bool = False,
    name: str = "",
    birth: str = "",
) -> Steps:
    """It is kept right from the first step on, and used once it is built; one that was begun is gone on with.

    Documents are put there in the index's order, many thousands at a time: in their own, each would rewrite a leaf.
    The last that is yielded is done, with the index. Raises Exists where a unique one cannot be, BadInput.
    """
    wanted = catalogue.check_path(path)
    called = catalogue.check_name(name or "_".join(wanted)[:64])

    def begin(transaction: Transaction) -> Index:
        of = transaction.collection(catalogue.check_name(collection))
        there = of.index(called)
        if there is None:
            if len(of.indexes) >= catalogue.INDEXES:
                raise BadInput(f"{of.name} has {catalogue.INDEXES} indexes already: no collection has more.")
            there = Index(of.next, called, wanted, unique, built="")
            transaction.save_index(of, there)
        elif (there.path, there.unique) != (wanted, unique):
            raise Exists(
                f"{of.name} has another index {called} already.", "Drop it, or name this one otherwise."
            )
        return there

    first = engine.perform(version, begin, birth)
    yield first
    yield from build(engine, version, collection, first.result()[0], birth)


def unbuilt(engine: Engine, version: str, birth: str = "") -> list[tuple[str, Index]]:
    """Indexes that were begun, with their collections. Raises Gone, NotFound."""
    transaction = engine.transaction(version, write=False, birth=birth)
    try:
        return [
            (of.name, index)
            for of in transaction.collections()
            for index in of.indexes
            if index.built is not None
        ]
    finally:
        engine.close_transaction(transaction)


def build(engine: Engine, version: str, collection: str, index: Index, birth: str = "") -> Steps:
    """One that was begun. As `create_index`; raises Gone if it is dropped meanwhile."""
    try:
        while index.built is not None:
            keys, last = yield from _next_keys(engine, version, collection, index, birth)
            while some := list(itertools.islice(keys, BATCH)):
                further = partial(_built_further, collection, index, some, index.built)
                step = engine.perform(version, further, birth)
                yield step
                step.result()
            step = engine.perform(version, partial(_built_further, collection, index, (), last), birth)
            yield step
            index = step.result()[0]
    except Exists:
        undo = engine.perform(version, partial(_dropped, collection, index), birth, takes_back=True)
        yield undo
        undo.result()
        raise


def _dropped(collection: str, index: Index, transaction: Transaction) -> None:
    """This one, and none that was made since under its name."""
    there = transaction.collection(collection).index(index.name)
    if there is not None and there.number == index.number:
        transaction.drop_index(collection, index.name)


def _next_keys(
    engine: Engine, version: str, collection: str, index: Index, birth: str
) -> Generator[None, None, tuple[Iterator[str], str | None]]:
    """Of documents that are not in the index yet, in its order; and the last one's in theirs, None if that is all.

    They are those that are there now: what is written meanwhile is put there by who writes it.
    """
    begin, end = catalogue.documents(collection)
    after = begin + index.built.encode() + b"\0" if index.built else begin
    runs: list[list[tuple[bytes, str]]] = []  # each in order, and short enough to be sorted at once
    last = ""
    with engine.pinning(version, birth=birth) as branch:
        scan = itertools.islice(tree.scan(engine.storage, branch.root, after, end), PASS)
        while run := [_place(collection, index, begin, *entry) for entry in itertools.islice(scan, RUN)]:
            last = run[-1][1]
            runs.append(sorted(run))
            yield None
    is_all = sum(map(len, runs)) < PASS
    return (key for _, key in heapq.merge(*runs)), None if is_all else last


def _place(collection: str, index: Index, begin: bytes, tree_key: bytes, data: bytes) -> tuple[bytes, str]:
    key = tree_key[len(begin) :].decode()
    return catalogue.entry(collection, index, decode(data), key)[0], key


def _built_further(
    collection: str, index: Index, keys: Sequence[str], built: str | None, transaction: Transaction
) -> Index:
    """The index with the documents of these keys, as they are now; it is built up to there."""
    of = transaction.collection(collection)
    there = of.index(index.name)
    if there is None or there.number != index.number:
        raise Gone(f"The index {index.name} of {collection} was dropped while it was built.")
    if there.built is None:
        return there
    documents = zip(keys, transaction.get(collection, keys), strict=True)
    further = msgspec.structs.replace(there, built=built)
    transaction.save_index(
        of, further, [(key, document) for key, document in documents if document is not None]
    )
    return further


def set_schema(
    engine: Engine,
    version: str,
    collection: str,
    schema: Mapping[str, Any] | None,
    check: bool = True,
    birth: str = "",
    strict: bool = True,
) -> Steps:
    """Whatever is written from the first step on fits it. With `check`, what is there is looked at then.

    Where something does not fit, the schema that was before is put back: raises Invalid. So it is where nobody waits
    for the end of that.
    """
    before: list[bytes | None] = []

    def begin(transaction: Transaction) -> None:
        before[:] = [transaction.collection(catalogue.check_name(collection)).schema]
        transaction.set_schema(collection, schema, strict)

    def put_back(transaction: Transaction) -> None:
        transaction.save_schema(transaction.collection(collection), before[0])

    first = engine.perform(version, begin, birth)
    yield first
    first.result()
    if schema is None or not check:
        return
    transaction = engine.transaction(version, write=False, birth=birth)
    try:
        yield from _all_fit(transaction, collection)
    except LazycloudError:
        undo = engine.perform(version, put_back, birth, takes_back=True)
        yield undo
        undo.result()
        raise
    except GeneratorExit:  # by a deadline, or its client
        engine.perform(version, put_back, birth, takes_back=True)
        raise
    finally:
        engine.close_transaction(transaction)


def _all_fit(transaction: Transaction, collection: str) -> Iterator[None]:
    of = transaction.collection(collection)
    begin, end = catalogue.documents(collection)
    for number, (tree_key, data) in enumerate(transaction.tree.view().scan(begin, end)):
        try:
            schema_of(of.schema or b"{}").check(decode(data))
        except LazycloudError as problem:
            key = tree_key[len(begin) :].decode()
            raise type(problem)(
                f"{collection}, document {key[:80]!r}, which is there: {problem.sentence}",
                "Mend the document, or the schema.",
            ) from None
        if number % 16 == 15:
            yield None
