"""An index never changes what a filter finds: values of all kinds, and those at the ends of their ranges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lazycloud.errors import BadInput
from lazycloud.versionbase import expressions, upkeep
from tests.versionbase.test_engine import MAIN, Database, steps

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = [0, 1, -1, 2, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]
DOUBLES = [0.0, -0.0, 1.0, 1.5, 0.1, 2.0**53, 2.0**63, 2.0**64, 1e300, 5e-324]
DECIMALS = ["1", "1.0", "1.5", "0", "0.1", "9007199254740993", "1e-300", "1." + "0" * 70 + "1"]
TEXTS = ["", "a", "ab", "a\0", "a\0b", "b", "é", "😀", "\uffff", "x" * 399, "x" * 500, "x" * 500 + "y"]
SCALARS = [None, True, False, *NUMBERS, *DOUBLES, *map(Decimal, DECIMALS), *TEXTS]
SCALARS += [b"", b"a", b"\0", b"\xff", NOW, NOW + timedelta(microseconds=1)]
VALUES = [*SCALARS, [], [1], {}, {"x": 1}]
OPERATORS = ["==", "<", "<=", ">", ">="]
PATHS = ["doc.a", 'doc["b"]', "doc.n.x", "key"]


def documents(random: Random) -> dict[str, dict[str, Any]]:
    made = {}
    for number in range(300):
        document = {name: random.choice(VALUES) for name in "ab" if random.random() < 0.8}
        inner = {"x": random.choice(VALUES)} if random.random() < 0.8 else random.choice(VALUES)
        made[f"{random.choice(['a', 'ab', 'b', 'é', ''])}{number}"] = document | {"n": inner}
    return made


def part(random: Random) -> str:
    path, op, name = random.choice(PATHS), random.choice(OPERATORS), random.choice("pq")
    return random.choice(
        [
            f"{path} {op} {name}",
            f"{name} {op} {path}",
            f"{path} in [p, q, 1]",
            f"{path} in l",
            f"{path}.startsWith(dyn({name}))",
            f"{path} {op} -1",
            f"{path} {op} timestamp('2026-01-01T00:00:00Z')",
            f"{path} {op} {name} + dyn(1)",
            f"({path} {op} {name} || doc.b == q)",
            f"!({path} {op} {name})",
            f"{path} {op} doc.b",
            "doc.a",
        ]
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_an_index_changes_nothing_that_is_found(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    database = Database(tmp_path / "store.sqlite")
    database.change(lambda: database.storage.begin(MAIN))
    stored = documents(random)
    database.insert("things", stored)
    for path in ("a", "b", "n.x"):
        steps(upkeep.create_index(database.engine, MAIN, "things", path))
    scans = set()
    for _ in range(600):
        text = " && ".join(part(random) for _ in range(random.randint(1, 3)))
        params = {"p": random.choice(SCALARS), "q": random.choice(SCALARS), "l": random.choices(VALUES, k=3)}
        try:
            test = expressions.compile(text, frozenset(params)).test(params)
        except BadInput:  # a key that is less than -1
            continue
        found = database.keys("things", filter=text, params=params)
        assert sorted(found) == sorted(key for key in stored if test(key, stored[key])), (text, params)
        scans.add(database.explain("things", filter=text, params=params)["scan"])
    assert scans == {"index", "key", "collection"}
    database.engine.close()
