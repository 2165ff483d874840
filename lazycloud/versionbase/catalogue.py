"""What a tree holds, by key: collections, their documents, and the entries of their indexes.

    c NAME                                 a collection: its indexes and its schema (a `Collection`)
    d NAME 0 KEY                           a document
    i NAME 0 NUMBER VALUE KEY              an index's entry: the length of KEY, in two bytes
    i NAME 0 NUMBER VALUE                  the same of a unique index, where there is a value: KEY

NUMBER is two bytes. VALUE is 0 for a document that lacks the member, 1 for null, else 2 and the value as
`values.ordered` has it; of a long one as much as `LONGEST`, and a hash.

Names of collections, not numbers of them, so that two versions which made one apart can be compared.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any

import msgspec

from lazycloud.errors import BadInput
from lazycloud.versionbase.values import MISSING, Value, at_path, ordered

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
KEY_LENGTH = 512  # bytes
PATH_LENGTH = 200  # characters
INDEXES = 64  # of a collection
LONGEST = 400  # bytes of a value in an index: those that are alike until there are in no order

Path = tuple[str, ...]
"""The members that lead to a value, from the document on."""

Span = tuple[bytes, bytes]
"""Keys of the tree from the first to before the second."""


class Index(msgspec.Struct, frozen=True, omit_defaults=True):
    number: int
    name: str
    path: Path
    unique: bool = False
    built: str | None = None  # while it is being built: the last key that is in it; None once all are

    def shown(self) -> dict[str, Any]:
        """As the protocol has it."""
        state = "ready" if self.built is None else "building"
        return {"name": self.name, "path": ".".join(self.path), "unique": self.unique, "state": state}


class Collection(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    indexes: tuple[Index, ...] = ()
    next: int = 1  # the number of the next index: none is used twice
    schema: bytes | None = None  # JSON

    def index(self, name: str) -> Index | None:
        return next((index for index in self.indexes if index.name == name), None)

    def with_index(self, index: Index) -> Collection:
        """In the place of one of that number, if there is one."""
        others = tuple(one for one in self.indexes if one.number != index.number)
        indexes = tuple(sorted((*others, index), key=lambda one: one.number))
        return msgspec.structs.replace(self, indexes=indexes, next=max(self.next, index.number + 1))

    def without(self, index: Index) -> Collection:
        return msgspec.structs.replace(
            self, indexes=tuple(one for one in self.indexes if one.number != index.number)
        )


def collection_key(name: str) -> bytes:
    return b"c" + name.encode()


COLLECTIONS: Span = (b"c", b"d")


def documents(name: str) -> Span:
    """Of one collection; of all of them with the name ""."""
    return (b"d" + name.encode() + b"\0", b"d" + name.encode() + b"\1") if name else (b"d", b"e")


def document_key(name: str, key: str) -> bytes:
    return b"d" + name.encode() + b"\0" + key.encode()


def parts(tree_key: bytes) -> tuple[str, str]:
    """The collection and the key of a document's key in the tree."""
    name, _, key = tree_key[1:].partition(b"\0")
    return name.decode(), key.decode()


def indexes(name: str) -> Span:
    return b"i" + name.encode() + b"\0", b"i" + name.encode() + b"\1"


def entries(name: str, number: int) -> Span:
    """Of one index."""
    begin = _index(name, number)
    return begin, after(begin)


def _index(name: str, number: int) -> bytes:
    return b"i" + name.encode() + b"\0" + number.to_bytes(2)


LACKING, NULL, PRESENT = b"\0", b"\1", b"\2"


def in_index(value: Value | object) -> bytes:
    """No such value begins another's."""
    if value is MISSING or value is None:
        return LACKING if value is MISSING else NULL
    whole = ordered(value)
    if len(whole) > LONGEST:
        whole = whole[:LONGEST] + hashlib.sha256(whole).digest()
    return PRESENT + whole


def entry(collection: str, index: Index, document: dict[str, Value], key: str) -> tuple[bytes, bytes]:
    """Of a document in an index: where, and what."""
    place, text = in_index(at_path(document, index.path)), key.encode()
    begin = _index(collection, index.number) + place
    if index.unique and place[:1] == PRESENT:
        return begin, text
    return begin + text, len(text).to_bytes(2)


def key_of_entry(collection: str, index: Index, tree_key: bytes, data: bytes) -> str:
    if index.unique and tree_key[len(collection) + 4 : len(collection) + 5] == PRESENT:
        return data.decode()
    return tree_key[-int.from_bytes(data) :].decode()


def values(collection: str, index: Index, begin: bytes, end: bytes) -> Span:
    """The entries whose VALUE is from `begin` to before `end`."""
    place = _index(collection, index.number)
    return place + begin, place + end


def after(begin: bytes) -> bytes:
    """What is behind all that begins so."""
    stripped = begin.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])


def check_name(name: object) -> str:
    """Raises BadInput for what names no collection."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadInput(
            f"{str(name)[:80]!r} is no name of a collection: letters, digits, _, . and -, 64 at most."
        )
    return name


def check_key(key: object) -> str:
    """Raises BadInput for what is no key of a document."""
    if isinstance(key, str) and key and "\0" not in key:
        try:
            if len(key.encode()) <= KEY_LENGTH:
                return key
        except UnicodeEncodeError:
            pass
    raise BadInput(f"{str(key)[:80]!r} is no key: a text of 1 to {KEY_LENGTH} bytes, without NUL.")


def check_path(path: object) -> Path:
    """Of `a.b`. Raises BadInput."""
    members = tuple(path.removeprefix("doc.").split(".")) if isinstance(path, str) else ()
    if not all(members) or not members or len(str(path)) > PATH_LENGTH:
        raise BadInput(
            f"{str(path)[:80]!r} is no path: names of members with a dot between, as in `author.name`."
        )
    return members


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Collection)


def encode_collection(collection: Collection) -> bytes:
    return _encoder.encode(collection)


@lru_cache(1000)
def decode_collection(data: bytes) -> Collection:
    return _decoder.decode(data)
