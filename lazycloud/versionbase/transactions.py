"""What is done with documents in one transaction: read at one moment, and written all at once or not at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from lazycloud.errors import BadInput, LazycloudError, NotFound
from lazycloud.versionbase import catalogue, queries, schema_words
from lazycloud.versionbase.catalogue import Collection, Index
from lazycloud.versionbase.nodes import Nodes
from lazycloud.versionbase.problems import Exists, ReadOnly
from lazycloud.versionbase.queries import Query
from lazycloud.versionbase.schemas import Schema
from lazycloud.versionbase.scratch import Scratch
from lazycloud.versionbase.storage import Branch
from lazycloud.versionbase.uuid7 import uuid7
from lazycloud.versionbase.values import Value, decode, encode_document

Document = dict[str, Value]


class Transaction:
    """Of a branch as it was at `begun`. All of it raises BadInput for what cannot be."""

    def __init__(self, nodes: Nodes, begun: Branch, write: bool = True) -> None:
        self.begun = begun
        self.tree = Scratch(nodes, begun.root)
        self._write = write
        self._collections: dict[str, Collection | None] = {}

    # Documents

    def get(self, collection: str, keys: Sequence[str]) -> list[Document | None]:
        name = catalogue.check_name(collection)
        return [self._document(name, catalogue.check_key(key)) for key in keys]

    def insert(
        self, collection: str, documents: Sequence[Document], keys: Sequence[str] | None = None
    ) -> list[str]:
        """Their keys: those, or new ones. Raises Exists, Invalid, TooLarge."""
        name = catalogue.check_name(collection)
        chosen = [uuid7() for _ in documents] if keys is None else [catalogue.check_key(key) for key in keys]
        if len(chosen) != len(documents):
            raise BadInput(f"There are {len(documents)} documents and {len(chosen)} keys for them.")
        with self._writing():
            into = self._made(name)
            for key, document in zip(chosen, documents, strict=True):
                if self.tree.get(catalogue.document_key(name, key)) is not None:
                    raise Exists(f"{name} has a document {key[:80]!r} already.")
                self._put(into, key, None, document)
        return chosen

    def replace(self, collection: str, key: str, document: Document, create: bool = False) -> None:
        """Raises NotFound unless there is one, or it may be created; Exists, Invalid, TooLarge."""
        name = catalogue.check_name(collection)
        with self._writing():
            before = self._document(name, catalogue.check_key(key))
            if before is None and not create:
                raise _missing(name, key)
            self._put(self._made(name), key, before, document)

    def update(
        self, collection: str, key: str, members: Mapping[str, Value], remove: Iterable[str] = ()
    ) -> Document:
        """Give it members new values, and take some from it: the document that it is then. Raises as `replace`."""
        name, gone = catalogue.check_name(collection), set(remove)
        with self._writing():
            before = self._document(name, catalogue.check_key(key))
            if before is None:
                raise _missing(name, key)
            document = {member: value for member, value in before.items() if member not in gone} | dict(
                members
            )
            self._put(self._made(name), key, before, document)
        return document

    def delete(self, collection: str, keys: Sequence[str]) -> int:
        """How many there were."""
        name, deleted = catalogue.check_name(collection), 0
        with self._writing():
            for key in keys:
                before = self._document(name, catalogue.check_key(key))
                if before is not None:
                    self.tree.put(catalogue.document_key(name, key), None)
                    self._index(self._made(name), key, before, None)
                    deleted += 1
        return deleted

    def find(self, collection: str, query: Query) -> Iterator[tuple[str, Value] | None]:
        """Keys with documents, or with what they are mapped to; None now and then, to let others have a turn.

        They are those that are there now: what this transaction writes meanwhile is not among them.
        """
        return queries.find(self.tree.view(), self.collection(catalogue.check_name(collection)), query)

    def count(self, collection: str, query: Query) -> Iterator[int | None]:
        """How many `find` would find is the last that it yields."""
        return queries.count(self.tree.view(), self.collection(catalogue.check_name(collection)), query)

    def explain(self, collection: str, query: Query) -> dict[str, Any]:
        """How `find` would look for them."""
        return queries.explain(self.tree.view(), self.collection(catalogue.check_name(collection)), query)

    # Collections

    def collections(self) -> list[Collection]:
        """By name."""
        found = self.tree.view().scan(*catalogue.COLLECTIONS)
        return [catalogue.decode_collection(data) for _, data in found]

    def collection(self, name: str) -> Collection:
        """One that nobody has made yet is an empty one."""
        if name not in self._collections:
            data = self.tree.get(catalogue.collection_key(name))
            self._collections[name] = catalogue.decode_collection(data) if data is not None else None
        return self._collections[name] or Collection(name)

    def documents(self, collection: str) -> int:
        """How many there are. What the transaction reads so does not bind it."""
        return self.tree.view().count(*catalogue.documents(catalogue.check_name(collection)), noted=False)

    def shown(self, collection: Collection) -> dict[str, Any]:
        """As the protocol has it."""
        return {
            "name": collection.name,
            "documents": self.documents(collection.name),
            "indexes": [index.shown() for index in collection.indexes],
            "schema": json.loads(collection.schema) if collection.schema else None,
        }

    def drop_collection(self, collection: str) -> bool:
        """With its documents, indexes and schema. Whether it was there."""
        name = catalogue.check_name(collection)
        with self._writing():
            if self.tree.get(catalogue.collection_key(name)) is None:
                return False
            self.tree.put(catalogue.collection_key(name), None)
        self.tree.cut(catalogue.documents(name))
        self.tree.cut(catalogue.indexes(name))
        self._collections[name] = None
        return True

    def set_schema(self, collection: str, schema: Mapping[str, Any] | None, strict: bool = True) -> None:
        """Of what is written from now on. Raises BadInput for what is no JSON Schema, or, if `strict`, has a slip."""
        data = None
        if schema is not None:
            Schema(dict(schema))
            if strict:
                schema_words.check(dict(schema))
            data = msgspec.json.encode(schema)
        self.save_schema(self.collection(catalogue.check_name(collection)), data)

    def drop_index(self, collection: str, name: str) -> bool:
        """Whether it was there."""
        with self._writing():
            of = self.collection(catalogue.check_name(collection))
            index = of.index(name)
            if index is None:
                return False
            self._save(of.without(index))
        self.tree.cut(catalogue.entries(of.name, index.number))
        return True

    # The rest

    def save_index(
        self, collection: Collection, index: Index, entries: Sequence[tuple[str, Document]] = ()
    ) -> None:
        """With entries of documents that are there. Raises Exists where a unique one has another's already."""
        with self._writing():
            for key, document in entries:
                self._add_entry(collection, index, *catalogue.entry(collection.name, index, document, key))
            self._save(collection.with_index(index))

    def save_schema(self, collection: Collection, schema: bytes | None) -> None:
        with self._writing():
            self._save(msgspec.structs.replace(collection, schema=schema))

    def _save(self, collection: Collection) -> None:
        self._collections[collection.name] = collection
        self.tree.put(catalogue.collection_key(collection.name), catalogue.encode_collection(collection))

    def _add_entry(self, collection: Collection, index: Index, place: bytes, data: bytes) -> None:
        """Of a document that is there. Raises Exists where a unique index has another one's already."""
        other = self.tree.get(place) if index.unique else None
        if other is not None and other != data:
            raise Exists(
                f"{collection.name} has a document whose {'.'.join(index.path)} is the same: "
                f"{other.decode()[:80]!r}.",
                f"The index {index.name} is unique.",
            )
        self.tree.put(place, data)

    def _made(self, name: str) -> Collection:
        """It is there from the first document on."""
        found = self.collection(name)
        if self._collections[name] is None:
            self._save(found)
        return found

    def _document(self, name: str, key: str) -> Document | None:
        data = self.tree.get(catalogue.document_key(name, key))
        return decode(data) if data is not None else None

    def _put(self, into: Collection, key: str, before: Document | None, document: Document) -> None:
        try:
            data = encode_document(document)
            if into.schema is not None:
                schema_of(into.schema).check(document)
        except LazycloudError as problem:
            raise type(problem)(
                f"{into.name}, document {key[:80]!r}: {problem.sentence}", problem.advice
            ) from None
        self.tree.put(catalogue.document_key(into.name, key), data)
        self._index(into, key, before, document)

    def _index(self, of: Collection, key: str, before: Document | None, document: Document | None) -> None:
        for index in of.indexes:
            old = catalogue.entry(of.name, index, before, key) if before is not None else None
            new = catalogue.entry(of.name, index, document, key) if document is not None else None
            if old == new:
                continue
            if old is not None and (not index.unique or self.tree.get(old[0]) == old[1]):
                self.tree.put(old[0], None)  # while it is built, a unique one may have another's there
            if new is not None:
                self._add_entry(of, index, *new)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A request that fails has changed nothing."""
        if not self._write:
            raise ReadOnly("This transaction only reads: nothing can be written in it.")
        known = dict(self._collections)
        try:
            with self.tree.step():
                yield
        except BaseException:
            self._collections = known
            raise


@lru_cache(200)
def schema_of(data: bytes) -> Schema:
    return Schema(msgspec.json.decode(data))


def _missing(collection: str, key: str) -> NotFound:
    return NotFound(f"{collection} has no document {key[:80]!r}.")
