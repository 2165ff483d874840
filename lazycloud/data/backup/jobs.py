"""Runs the job of backups: a process of its own, which gives way to others, and can be ended."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from lazycloud.blobs.store import Missing, StoreFailed
from lazycloud.data.backup.chunks import Damaged
from lazycloud.data.backup.manifest import Untrusted
from lazycloud.errors import LazycloudError, NotFound
from lazycloud.processes import CommandFailed, run

NICENESS = 5  # on a busy machine a backup is late, but not for ever
TIMEOUT = 6 * 3600.0  # seconds: the first backup of much data, to a slow disk
ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
KINDS = {kind.kind: kind for kind in (Missing, StoreFailed, Damaged, Untrusted, NotFound)}

Json = dict[str, Any]


async def run_job(do: str, store: str, key_file: Path, **order: Any) -> Json:
    """Its facts. Raises what went wrong there as the error that it was. `store` is a URL."""
    said: list[str] = []
    order = {"do": do, "store": store, "key_file": str(key_file), **order}
    words = [sys.executable, "-I", "-m", "lazycloud.data.backup.job", json.dumps(order)]
    try:
        await run(words, Path("/"), ENVIRONMENT, said.append, TIMEOUT, niceness=NICENESS)
    except CommandFailed as problem:
        why = problem.last[-1] if problem.last else "it was ended"
        raise LazycloudError(f"The backup's {do} broke off: {why}.") from problem
    try:
        answer = json.loads("".join(said).strip().rpartition("\n")[2])
    except ValueError as problem:
        raise LazycloudError(f"The backup's job gave no answer: {''.join(said)[-200:]}") from problem
    if error := answer.get("error"):
        raise KINDS.get(error["kind"], LazycloudError)(error["sentence"], error["advice"])
    return dict(answer)
