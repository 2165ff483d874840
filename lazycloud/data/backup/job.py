"""Making, verifying and unfolding backups, in a process of its own: it can be ended, and holds nobody up.

The order comes as JSON in the first argument, the last line of output is the answer: facts, or `error`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lazycloud.blobs.keys import SigningKey, parse_public, public_text
from lazycloud.blobs.store import BACKUPS, Missing, Store, open_store
from lazycloud.data.backup import layering, reading
from lazycloud.data.backup.chunks import Damaged
from lazycloud.data.backup.making import Making
from lazycloud.data.backup.manifest import Backup, Entry, Untrusted, scope
from lazycloud.data.layers import Layers
from lazycloud.errors import LazycloudError, NotFound, Unavailable

Json = dict[str, Any]


def make(order: Mapping[str, Any]) -> Json:
    """`roots` into the store; facts of it.

    `layers`: a file that has those of databases by path, or ""; `known`: the name of an earlier backup with such.
    `full`: these databases are files, too, and are kept as such; `unlike` are those whose layers say something else.
    """
    began = time.monotonic()
    making = Making(_store(order), order["app"], _key(order), frozenset(order["again"]), order["examine"])
    roots = {name: Path(place) for name, place in order["roots"].items()}
    layers, full = _layers(order["layers"]), order["full"]
    kept, known = ({}, {}) if full else (layers, _known(order))
    backup = making.make(roots, order["at"], order["note"], order["facts"], kept, known)
    manifest = reading.load(_store(order), backup, [_key(order).public])
    readable = [path for path in layers if path in manifest.databases]  # as files, which there are of `full`
    unlike = [path for path in readable if not _are(layers[path], roots, path)]
    return {
        **_view(backup),
        "size": manifest.size,
        "chunks": len(manifest.chunks),
        "put": making.put,
        "put_bytes": making.put_bytes,
        "note": manifest.note,
        "full": full or not layers,
        "unlike": unlike,
        "sound": making.sound,
        "seconds": time.monotonic() - began,
    }


def show(order: Mapping[str, Any]) -> Json:
    """What there is, the newest first; of `app`, or of all."""
    found = reading.backups(_store(order))
    key = _key(order)
    own = {one.scope for one in found if one.scope == scope(one.app, key.public)}
    shown = [{**_view(one), "own": one.scope in own} for one in found if order.get("app") in (None, one.app)]
    return {"backups": shown, "key": public_text(key.public)}


def verify(order: Mapping[str, Any]) -> Json:
    """Read all of an app's, or of this server's."""
    store, trusted = _store(order), _trusted(order)
    found = [one for one in reading.backups(store) if order.get("app") in (None, one.app)]
    if not order["foreign"]:
        found = [one for one in found if one.scope == scope(one.app, _key(order).public)]
    return asdict(reading.verify(store, found, trusted, order["expected"]))


def unfold(order: Mapping[str, Any]) -> Json:
    """Into the folder `target`."""
    store = _store(order)
    backup = Backup.named(order["name"])
    if backup is None:
        raise NotFound("The store has no such backup.")
    manifest = reading.unfold(store, backup, _trusted(order), Path(order["target"]))
    return {**_view(backup), "size": manifest.size, "note": manifest.note, "facts": dict(manifest.facts)}


def forget(order: Mapping[str, Any]) -> Json:
    key = _key(order)
    ours = scope(order["app"], key.public)
    return {"freed": reading.forget(_store(order), ours, order["ids"], _trusted(order))}


def _layers(place: str) -> dict[str, Layers]:
    stored = json.loads(Path(place).read_text()) if place else {}
    return {path: Layers.from_json(text) for path, text in stored.items()}


def _are(layers: Layers, roots: Mapping[str, Path], path: str) -> bool:
    """Whether they say what the file does that was read from what the app uses; or there is no room to ask."""
    root, _, name = path.partition("/")
    try:
        return layering.are(layers, roots[root] / name)
    except Unavailable:
        return False
    except OSError:
        return True


def _known(order: Mapping[str, Any]) -> dict[str, Entry]:
    """What an earlier backup has in layers; nothing if it is not to be read any more: then all is read anew."""
    backup = Backup.named(order["known"])
    if not order["layers"] or backup is None or backup.scope != scope(order["app"], _key(order).public):
        return {}
    try:
        return layering.paths(reading.load(_store(order), backup, [_key(order).public]).entries)
    except (Missing, Damaged, Untrusted):
        return {}


def _view(backup: Backup) -> Json:
    return {"id": backup.id, "name": backup.name, "app": backup.app, "scope": backup.scope, "at": backup.at}


def _store(order: Mapping[str, Any]) -> Store:
    return open_store(order["store"], BACKUPS)


def _key(order: Mapping[str, Any]) -> SigningKey:
    return SigningKey.of(Path(order["key_file"]))


def _trusted(order: Mapping[str, Any]) -> list[bytes]:
    return [_key(order).public, *map(parse_public, order.get("trusted", ()))]


DO: dict[str, Callable[[Mapping[str, Any]], Json]] = {
    "make": make,
    "show": show,
    "verify": verify,
    "unfold": unfold,
    "forget": forget,
}


def main() -> None:
    order = json.loads(sys.argv[1])
    try:
        answer = DO[order["do"]](order)
    except LazycloudError as problem:
        answer = {"error": {"kind": problem.kind, "sentence": problem.sentence, "advice": problem.advice}}
    except OSError as problem:
        answer = {
            "error": {"kind": "error", "sentence": f"The machine could not do it: {problem}.", "advice": ""}
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
