from __future__ import annotations

import pytest

from lazycloud.router import known
from lazycloud.router.known import Known


def test_what_comes_a_second_time_is_kept() -> None:
    memory: Known[int] = Known()
    memory.keep(b"a", 1)
    assert (memory.get(b"a"), len(memory)) == (None, 0)
    memory.keep(b"a", 1)
    assert (memory.get(b"a"), len(memory)) == (1, 1)


def test_what_strangers_say_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "ROOM", 20_000)
    monkeypatch.setattr(known, "SEEN_MAX", 100)
    memory: Known[int] = Known()
    most = 0
    for number in range(1000):
        for _ in range(2):
            memory.keep(b"%d" % number, number)
        assert memory.get(b"%d" % number) == number
        most = max(most, len(memory))
    assert 10 < most < 20
    assert len(memory._seen) <= 100


def test_what_is_long_is_not_kept() -> None:
    memory: Known[int] = Known()
    for _ in range(3):
        memory.keep(b"a" * 1025, 1)
    assert len(memory) == 0


def test_what_is_kept_already_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "ROOM", 10_000)
    memory: Known[int] = Known()
    for _ in range(100):
        memory.keep(b"a", 1)
        memory.keep(b"b", 2)
    assert (memory.get(b"a"), memory.get(b"b")) == (1, 2)


def test_what_is_cut_into_many_parts_counts_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "ROOM", 100_000)
    memory: Known[int] = Known()
    for number in range(20):
        for _ in range(2):
            memory.keep(b"%d" % number + b"\r\na:" * 200, number)
    assert len(memory) < 5
