"""Requests at random, right and wrong: each has an answer, none is the server's fault, and nothing is left."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lazycloud.versionbase import verification
from lazycloud.versionbase.requests import KINDS
from tests.versionbase.talking import Client, serving
from tests.waiting import until

REQUESTS = 2000
TEXTS = [
    "",
    "k",
    "c",
    "at desc",
    "doc.n > 1",
    "@",
    "x@y",
    "\0",
    "é",
    "a.b",
    "x" * 600,
    "1+",
    "size(doc)",
    "v1@s",
]
NUMBERS = [0, -1, 2, 2**31, 2**53, 2**64 - 1, -(2**63), 0.5, float("inf"), float("nan"), True, None]
NAMES = ["n", "type", "required", "collection", "key", "document", "$bytes", "$ref", ""]
FITTING: dict[str, list[Any]] = {
    "collection": ["c", "d"],
    "keys": [["k", "l"]],
    "documents": [
        [{"n": 1}],
        [{"n": 2}, {"a": None}],
        [{"collection": "c", "key": "k", "document": {"n": 1}}],
    ],
    "key": ["k"],
    "document": [{"n": 3}],
    "set": [{"n": 4}],
    "remove": [["a"]],
    "filter": ["doc.n > 0", ""],
    "map": ["doc.n"],
    "order": ["n desc"],
    "path": ["n", "a"],
    "snapshot": ["s"],
    "name": ["n", "s"],
    "version": ["production", "v1", "v2"],
    "other": ["v1", "v2"],
    "source": ["production", ""],
    "from": ["s", "v1", "production@s"],
    "in": [1, 2, 10_000],
    "schema": [{"type": "object"}, None, {"required": ["n"]}],
    "since": [0, 1, 5],
    "window": [64],
}


def anything(of: Random, depth: int = 0) -> Any:
    kind = of.randrange(6 if depth < 4 else 3)
    if kind < 3:
        return of.choice([of.choice(TEXTS), of.choice(NUMBERS), b"\xff" * 10, datetime.now(UTC)])
    if kind == 3:
        return [anything(of, depth + 1) for _ in range(of.randrange(4))]
    return {of.choice(NAMES): anything(of, depth + 1) for _ in range(of.randrange(4))}


def members(of: Random, do: str, begun: int) -> dict[str, Any]:
    """Of a request: half of them fit, more or less. `begun`: the number of the last transaction."""
    is_wild, made = of.random() < 0.5, {}
    for name in sorted(KINDS[do].members):
        chance = of.random()
        if name == "in" and not is_wild:
            if do in ("commit", "abort") or chance < 0.1:
                made[name] = begun
        elif name in FITTING and chance < (0.6 if is_wild else 0.95):
            made[name] = of.choice(FITTING[name])
        elif is_wild and chance < 0.8:
            made[name] = anything(of)
    return made


async def outcome(client: Client, number: int, do: str) -> str:
    """`ok`, or the kind of its error."""
    while True:
        frame = await client.read()
        if frame["id"] != number:
            continue  # more of what was cancelled
        if "part" not in frame:
            return str(frame["error"]["kind"]) if "error" in frame else "ok"
        if do == "watch":
            await client.send(id=number, do="cancel")
        else:
            await client.send(id=number, more=1)


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_asked_is_answered(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    of, done, begun = Random(seed), set(), 0
    async with serving(tmp_path) as served:
        async with served.client() as client:
            for _ in range(REQUESTS):
                do = of.choice(sorted(KINDS))
                asked = members(of, do, begun)
                if do == "drop" and asked.get("version") == "production":
                    continue
                number = await client.begin(do, **asked)
                kind = await outcome(client, number, do)
                assert kind != "failed", (do, asked)
                if kind == "ok":
                    done.add(do)
                    begun += do == "begin"
        assert {*KINDS} - done <= {"watch"}  # which has no end
        await until(lambda: not served.engine.pinned())
        assert [found for found in verification.verify(served.engine.storage) if isinstance(found, str)] == []
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
