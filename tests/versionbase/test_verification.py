"""A store that is sound has no problems; each way in which it may be spoilt has its sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from lazycloud.versionbase import verification
from lazycloud.versionbase.nodes import Inner, Leaf, Node, encode
from lazycloud.versionbase.storage import Storage, Wish
from lazycloud.versionbase.tables import branches, commits, nodes, snapshots
from lazycloud.versionbase.verification import Checked, verify


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    """With a tree of three levels, a fork, a snapshot and commits."""
    storage = Storage(f"sqlite:///{tmp_path}/versionbase.sqlite")
    storage.open()
    storage.begin("production")
    put(storage, {b"%08d" % number: b"x" * 40 for number in range(20_000)})
    storage.snapshot("production", "s1")
    storage.fork("abc", "production")
    put(storage, {b"%08d" % number: b"y" * 40 for number in range(0, 20_000, 1000)})
    yield storage
    storage.close()


def put(storage: Storage, changes: dict[bytes, bytes | None]) -> None:
    root = storage.branch("production").root
    storage.commit([Wish("production", root, sorted(changes.items()), lambda root: True)])


def problems(storage: Storage) -> list[str]:
    return [found for found in verify(storage) if isinstance(found, str)]


def spoil(storage: Storage, number: int, data: bytes | Node | None) -> None:
    if data is None:
        write(storage, delete(nodes).where(nodes.c.number == number))
    else:
        content = data if isinstance(data, bytes) else encode(data)
        write(storage, update(nodes).where(nodes.c.number == number).values(data=content))


def write(storage: Storage, statement: object) -> None:
    storage.database.change(lambda connection: connection.execute(statement), lambda _: False)  # type: ignore[call-overload]


def first_leaf(storage: Storage) -> tuple[int, Leaf, Inner]:
    parent, number = None, storage.branch("abc").root
    while isinstance(node := storage.load(number), Inner):
        parent, number = node, node.children[1]
    assert parent is not None
    return number, node, parent


def test_a_sound_store_has_no_problems(storage: Storage) -> None:
    *_, checked = verify(storage)
    assert isinstance(checked, Checked)
    assert problems(storage) == []
    assert checked.roots == 3  # empty, and before and after the second commit
    assert checked.entries > 20_000


@pytest.mark.parametrize("bit", [0, 31, 32, 40, 8000])
def test_one_bit_that_is_another_is_found(storage: Storage, bit: int) -> None:
    number, _, _ = first_leaf(storage)
    data = bytearray(
        storage.database.read(select(nodes.c.data).where(nodes.c.number == number)).scalar() or b""
    )
    data[bit // 8] ^= 1 << bit % 8
    spoil(storage, number, bytes(data))
    (found,) = problems(storage)
    assert f"Node {number} of" in found
    assert "is damaged. It is not as it was written" in found


def test_a_node_that_is_gone_is_found(storage: Storage) -> None:
    number, _, _ = first_leaf(storage)
    spoil(storage, number, None)
    (found,) = problems(storage)
    assert f"Node {number} of" in found
    assert "is not there" in found
    spoil(storage, storage.branch("production").root, None)
    assert any("below commit 2 of production" in found for found in problems(storage))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda leaf: Leaf(leaf.keys[::-1], leaf.values), "keys do not ascend"),
        (lambda leaf: Leaf([leaf.keys[0], *leaf.keys[:-1]], leaf.values), "keys do not ascend"),
        (lambda leaf: Leaf([*leaf.keys[:-1], b"9"], leaf.values), "outside of what its parent says"),
        (lambda leaf: Leaf([b"0", *leaf.keys[1:]], leaf.values), "outside of what its parent says"),
        (lambda leaf: Leaf(leaf.keys[1:], leaf.values[1:]), "its parent says"),
        (lambda leaf: Leaf(leaf.keys, leaf.values[1:]), "not as many keys"),
        (lambda leaf: Leaf(leaf.keys, [b"x" * 1000] * len(leaf.keys)), "larger than a node may be"),
        (lambda leaf: Inner(leaf.keys[:1], [1], [len(leaf.keys)]), "not as deep"),
    ],
)
def test_a_node_that_is_not_in_its_place_is_found(storage: Storage, change: object, sentence: str) -> None:
    number, leaf, _ = first_leaf(storage)
    spoil(storage, number, change(leaf))  # type: ignore[operator]
    (found,) = problems(storage)
    assert f"Node {number}: " in found
    assert sentence in found


def test_rows_that_refer_to_nothing_are_found(storage: Storage) -> None:
    write(storage, update(commits).where(commits.c.birth == storage.branch("abc").birth).values(root=99_999))
    write(storage, insert(branches).values(birth="!", name="def", source="", made=0.0))
    write(storage, insert(snapshots).values(birth="?", id="lost", name="", root=1, sequence=1, at=0.0))
    found = "\n".join(problems(storage))
    assert "commit 1 of abc refers to node 99999, which was never made" in found
    assert "Version def has no commit" in found
    assert "Snapshot lost is of no version" in found


def test_others_change_and_collect_meanwhile(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "STEP", 0)
    steps = verify(storage)
    while (first := next(steps)) == Checked(0, 0, 0):
        pass
    storage.drop("abc")
    storage.drop_snapshot("production", "s1")
    put(storage, {b"%08d" % number: b"z" * 40 for number in range(20_000)})
    sum(storage.expire(float("inf")))
    sum(storage.collect(grace=0))
    assert [found for found in (first, *steps) if isinstance(found, str)] == []
    assert sum(storage.collect(grace=0)) > 100
    assert problems(storage) == []
