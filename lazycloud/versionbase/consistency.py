"""Whether what a tree holds fits together: each document is in each index where it is to be, and nothing else is.

A tree is compared with one that is known to be in order (the empty one is): only what differs is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lazycloud.errors import BadInput
from lazycloud.versionbase import catalogue, tree
from lazycloud.versionbase.catalogue import Collection, Index
from lazycloud.versionbase.nodes import Nodes
from lazycloud.versionbase.tree import EMPTY
from lazycloud.versionbase.values import decode


def check(nodes: Nodes, root: int, known: int = EMPTY) -> Iterator[str]:
    """Problems, as sentences; "" for each thing that was looked at. Indexes that are being built are not."""
    try:
        collections, before = _collections(nodes, root), _collections(nodes, known)
    except (msgspec.MsgspecError, ValueError) as problem:
        yield f"The record of a collection cannot be read: {problem}."
        return
    counted = len(collections)
    for name, collection in collections.items():
        origin = known if before.get(name) == collection else EMPTY
        yield from _documents(nodes, origin, root, collection)
        documents = tree.count(nodes, root, *catalogue.documents(name))
        counted += documents
        for index in collection.indexes:
            entries = tree.count(nodes, root, *catalogue.entries(name, index.number))
            counted += entries
            if index.built is None:
                yield from _entries(nodes, origin, root, collection, index)
                if entries != documents:
                    yield f"The index {index.name} of {name} has {entries} entries for {documents} documents."
    strays = tree.count(nodes, root) - counted
    if strays:
        yield f"{strays} entries are of no collection that there is."


def _collections(nodes: Nodes, root: int) -> dict[str, Collection]:
    found = tree.scan(nodes, root, *catalogue.COLLECTIONS)
    named = {key[1:].decode(): catalogue.decode_collection(data) for key, data in found}
    for name, collection in named.items():
        if collection.name != name:
            raise ValueError(f"that of {name} is of {collection.name}")
    return named


def _documents(nodes: Nodes, origin: int, root: int, collection: Collection) -> Iterator[str]:
    """Each that is new can be read, and is in each index."""
    ready = [index for index in collection.indexes if index.built is None]
    for tree_key, _, data in tree.differences(nodes, origin, root, *catalogue.documents(collection.name)):
        yield ""
        if data is None:
            continue
        _, key = catalogue.parts(tree_key)
        try:
            document = decode(data)
        except BadInput as problem:
            yield f"The document {key[:80]!r} of {collection.name} cannot be read: {problem.sentence}"
            continue
        for index in ready:
            place, wanted = catalogue.entry(collection.name, index, document, key)
            if tree.get(nodes, root, place) != wanted:
                yield f"The index {index.name} of {collection.name} lacks the document {key[:80]!r}."


def _entries(nodes: Nodes, origin: int, root: int, collection: Collection, index: Index) -> Iterator[str]:
    """Each that is new is of a document that says so; each that is gone is not."""
    span = catalogue.entries(collection.name, index.number)
    for place, before, data in tree.differences(nodes, origin, root, *span):
        yield ""
        entry = place, before if data is None else data
        key = _key_of(collection, index, *entry)
        if _is_said(nodes, root, collection, index, key, entry) != (data is not None):
            what = "has" if data is not None else "lacks"
            yield f"The index {index.name} of {collection.name} {what} {key[:80]!r}; its documents say otherwise."


def _key_of(collection: Collection, index: Index, place: bytes, data: bytes | None) -> str:
    """ "" if it is none: no document has that."""
    try:
        return catalogue.key_of_entry(collection.name, index, place, data or b"")
    except UnicodeDecodeError:
        return ""


def _is_said(
    nodes: Nodes, root: int, collection: Collection, index: Index, key: str, entry: tuple[bytes, bytes | None]
) -> bool:
    """Whether a document says what an entry says."""
    data = tree.get(nodes, root, catalogue.document_key(collection.name, key))
    try:
        return data is not None and catalogue.entry(collection.name, index, decode(data), key) == entry
    except BadInput:
        return False  # which is a problem of its own
