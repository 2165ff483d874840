"""Packing, taking and verifying, in a process of its own.

It can be ended in the middle, its memory is its own, and hashing a thousand files holds no other thread up.
The order comes as JSON in the first argument, the last line of output is the answer: facts, or `error`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lazycloud.blobs.keys import SigningKey, parse_public
from lazycloud.blobs.store import open_store
from lazycloud.build.artifacts.envelope import Envelope, open_envelope, verify_body
from lazycloud.build.artifacts.manifest import ArtifactRefused
from lazycloud.build.artifacts.pack import Subject, artifact_name, pack
from lazycloud.build.artifacts.unpack import demand_fit, unpack
from lazycloud.build.disk import FULL, disk_full
from lazycloud.errors import LazycloudError

Json = dict[str, Any]


def push(order: Mapping[str, Any]) -> Json:
    """Pack a folder, and put it into the store."""
    subject, scratch = Subject.from_dict(order["subject"]), Path(order["scratch"])
    with tempfile.TemporaryFile(dir=scratch) as file:
        manifest = pack(subject, SigningKey.of(Path(order["key_file"])), file, scratch)
        size = file.tell()
        file.seek(0)
        open_store(order["store"]).put(subject.name, file)
    return {"name": subject.name, "size": size, "content": manifest.body.content}


def take(order: Mapping[str, Any]) -> Json:
    """Get a folder from the store, and make it here if nothing speaks against it."""
    subject = Subject.from_dict(order["subject"])
    with tempfile.TemporaryFile(dir=order["scratch"]) as file:
        open_store(order["store"]).get(subject.name, file)
        envelope = _judged(file, order)
        demand_fit(envelope.manifest, subject)
        verify_body(file, envelope)
        unpack(file, envelope, subject, Path(order["aside"]))
    return _facts(envelope, subject.name)


def verify(order: Mapping[str, Any]) -> Json:
    """Whether what the store has under a name is whole, and of somebody trusted."""
    with tempfile.TemporaryFile(dir=order["scratch"]) as file:
        open_store(order["store"]).get(order["name"], file)
        envelope = _judged(file, order)
        verify_body(file, envelope)
    manifest = envelope.manifest
    if order["name"] != (name := artifact_name(manifest.kind, manifest.key)):
        raise ArtifactRefused(f"It is {name}, under a name that is not its own.")
    return _facts(envelope, order["name"])


def verify_file(path: Path, trusted: list[str]) -> Json:
    """The same of a file that somebody has. Raises ArtifactRefused, OSError."""
    with path.open("rb") as file:
        envelope = open_envelope(file, [parse_public(text) for text in trusted])
        verify_body(file, envelope)
    return _facts(envelope, artifact_name(envelope.manifest.kind, envelope.manifest.key))


def _judged(file: Any, order: Mapping[str, Any]) -> Envelope:
    file.seek(0)
    return open_envelope(file, [parse_public(text) for text in order["trusted"]])


def _facts(envelope: Envelope, name: str) -> Json:
    manifest = envelope.manifest
    return {
        "name": name,
        "signer": envelope.signer,
        "size": envelope.body_at + manifest.body.size,
        "content": manifest.body.content,
        "provenance": dict(manifest.provenance),
    }


ORDERS: dict[str, Callable[[Mapping[str, Any]], Json]] = {"push": push, "take": take, "verify": verify}


def main() -> None:
    order = json.loads(sys.argv[1])
    with suppress(ImportError, OSError):  # after everything else that wants the disk
        import psutil

        if order["do"] == "push":
            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)
    try:
        answer = ORDERS[order["do"]](order)
    except LazycloudError as problem:
        answer = _error(problem)
    except OSError as problem:
        full = problem.errno in FULL
        answer = _error(disk_full(Path(order["scratch"])) if full else LazycloudError(f"{problem}."))
    print(json.dumps(answer))


def _error(problem: LazycloudError) -> Json:
    return {"error": {"kind": problem.kind, "sentence": problem.sentence, "advice": problem.advice}}


if __name__ == "__main__":
    main()
