"""Names of databases: short enough, and no two the same."""

from __future__ import annotations

import pytest

from lazycloud.data.names import PRODUCTION, new_snapshot
from lazycloud.data.postgres.naming import MOST_BYTES, Facts, Kind, Naming

KEY = bytes(32)


def test_names_that_would_be_cut_to_the_same_differ() -> None:
    naming, long = Naming("a" * 60, KEY), "0123456789abcdef" * 4
    names = [naming.version(long[:-1] + digit) for digit in "abc"] + [naming.version(f"rehearsal-{long}")]
    names += [naming.version(PRODUCTION), naming.snapshot(PRODUCTION, new_snapshot()), naming.new(Kind.SPARE)]
    names += [Naming("a" * 59 + "b", KEY).version(PRODUCTION), Naming("a" * 60, b"other").version(PRODUCTION)]
    assert len(set(names)) == len(names)
    assert all(len(name.encode()) <= MOST_BYTES and name.isascii() for name in names)
    assert naming.version(long) == Naming("a" * 60, KEY).version(long)


def test_what_is_half_made_is_told_by_its_name() -> None:
    naming = Naming("making-of", KEY)
    assert naming.is_half_made(naming.new(Kind.MAKING))
    assert not naming.is_half_made(naming.version(PRODUCTION))
    assert not Naming("other", KEY).is_half_made(naming.new(Kind.MAKING))


def test_passwords_are_of_the_key_and_the_role() -> None:
    passwords = {Naming("shop", key).password(role) for key in (KEY, b"other") for role in ("one", "two")}
    assert len(passwords) == 4 and all(len(password) == 64 for password in passwords)


@pytest.mark.parametrize(
    "text", [None, "", "of a person", "{}", "[]", '{"kind": "odd"}', '{"kind": "spare", "odd": 1}']
)
def test_a_comment_that_is_not_ours_says_nothing(text: str | None) -> None:
    assert Facts.of_comment(text).kind is Kind.MAKING


def test_facts_come_back_from_their_comment() -> None:
    facts = Facts(Kind.TEMPLATE, at=12.5, lsn="0/16B3748", seconds=0.5)
    assert Facts.of_comment(facts.to_comment()) == facts
