from __future__ import annotations

import hashlib

import pytest

from lazycloud.router.access import for_worker, previews, sign, token_valid, valid

KEY = b"key"


def test_a_signed_cookie_is_good_for_its_host_until_it_expires() -> None:
    value = sign(KEY, "a.localhost", 1000)
    assert valid(KEY, "a.localhost", value, 999)
    assert not valid(KEY, "a.localhost", value, 1000)
    assert not valid(KEY, "b.localhost", value, 999)
    assert not valid(b"other", "a.localhost", value, 999)
    assert not valid(b"", "a.localhost", sign(b"", "a.localhost", 1000), 999)


@pytest.mark.parametrize(
    "value", ["", ".", "1000", "1000.", "x.y", "9999.00", "²000.ab", "1e9.ab", "-1.ab", "9" * 5000 + ".a"]
)
def test_a_forged_cookie_is_not_valid(value: str) -> None:
    assert not valid(KEY, "a.localhost", value, 1)


def test_another_expiry_breaks_the_seal() -> None:
    seal = sign(KEY, "a.localhost", 1000).partition(".")[2]
    assert not valid(KEY, "a.localhost", f"2000.{seal}", 999)


def test_a_token_is_compared_by_its_hash_and_nothing_matches_no_token() -> None:
    assert token_valid(b"secret", hashlib.sha256(b"secret").hexdigest())
    assert not token_valid(b"other", hashlib.sha256(b"secret").hexdigest())
    assert not token_valid(b"", "")


def test_other_cookies_are_left_byte_for_byte() -> None:
    assert for_worker(b'a=b;  c="d" ;lazycloud_other=1') == b'a=b;  c="d" ;lazycloud_other=1'
    assert for_worker(b"a=b;  c=d; lazycloud_preview=x ;e=f") == b"a=b;  c=d;e=f"
    assert for_worker(b"lazycloud_session=x; a=b") == b"a=b"
    assert for_worker(b"lazycloud_session =x; lazycloud_preview") == b""


def test_every_copy_of_the_cookie_is_looked_at_up_to_a_few() -> None:
    assert previews(b"a=1; lazycloud_preview=x; lazycloud_preview = y") == ["x", "y"]
    assert len(previews(b";".join([b"lazycloud_preview=x"] * 50))) == 4
