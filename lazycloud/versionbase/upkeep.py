"""What takes many transactions: an index that is built, a schema that what is there must fit, and what is collected.

All are iterators: they yield a Future that is to be waited for, or None to let others have a turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

import msgspec

from lazycloud.errors import BadInput, LazycloudError
from lazycloud.versionbase import catalogue
from lazycloud.versionbase.catalogue import Index
from lazycloud.versionbase.engine import Engine
from lazycloud.versionbase.problems import Exists, Gone
from lazycloud.versionbase.transactions import Transaction, schema_of
from lazycloud.versionbase.values import decode

BATCH = 200  # documents that are put into an index in one transaction

Steps = Iterator["Future[Any] | None"]


def create_index(
    engine: Engine, version: str, collection: str, path: str, unique: bool = False, name: str = ""
) -> Steps:
    """It is kept right from the first step on, and used once it is built; one that was begun is gone on with.

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

    def build(transaction: Transaction) -> Index:
        return _built_further(transaction, collection, called)

    first = engine.perform(version, begin)
    yield first
    index = first.result()[0]
    while index.built is not None:
        step = engine.perform(version, build)
        yield step
        try:
            index = step.result()[0]
        except Exists:
            undo = engine.perform(version, lambda transaction: transaction.drop_index(collection, called))
            yield undo
            undo.result()
            raise


def _built_further(transaction: Transaction, collection: str, name: str) -> Index:
    """The index with some more documents in it."""
    of = transaction.collection(collection)
    index = of.index(name)
    if index is None:
        raise Gone(f"The index {name} of {collection} was dropped while it was built.")
    if index.built is None:
        return index
    begin, end = catalogue.documents(collection)
    last = index.built
    scan = transaction.tree.view().scan(begin + last.encode() + b"\0" if last else begin, end)
    found = [
        (tree_key[len(begin) :].decode(), decode(data)) for tree_key, data in itertools.islice(scan, BATCH)
    ]
    further = msgspec.structs.replace(index, built=found[-1][0] if len(found) == BATCH else None)
    transaction.save_index(of, further, found)
    return further


def set_schema(
    engine: Engine, version: str, collection: str, schema: Mapping[str, Any] | None, check: bool = True
) -> Steps:
    """Whatever is written from the first step on fits it. With `check`, what is there is looked at then.

    Where something does not fit, the schema that was before is put back: raises Invalid.
    """
    before: list[bytes | None] = []

    def begin(transaction: Transaction) -> None:
        before[:] = [transaction.collection(catalogue.check_name(collection)).schema]
        transaction.set_schema(collection, schema)

    first = engine.perform(version, begin)
    yield first
    first.result()
    if schema is None or not check:
        return
    transaction = engine.transaction(version, write=False)
    try:
        yield from _all_fit(transaction, collection)
    except LazycloudError:
        undo = engine.perform(version, lambda transaction: _put_back(transaction, collection, before[0]))
        yield undo
        undo.result()
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


def _put_back(transaction: Transaction, collection: str, schema: bytes | None) -> None:
    transaction.save_schema(transaction.collection(collection), schema)
