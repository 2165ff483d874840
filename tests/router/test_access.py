from __future__ import annotations

import hashlib

import pytest

from lazycloud.router.access import for_worker, grant_of, preview_cookie, previews, sign, token_valid

KEY = b"key"
GOOD = sign(KEY, "a.localhost", "l0", 1000)


def test_a_signed_cookie_names_its_grant_on_its_host_until_it_expires() -> None:
    assert grant_of(KEY, "a.localhost", GOOD, 999) == "l0"
    assert grant_of(KEY, "a.localhost", GOOD, 1000) == ""
    assert grant_of(KEY, "b.localhost", GOOD, 999) == ""
    assert grant_of(b"other", "a.localhost", GOOD, 999) == ""
    assert grant_of(b"", "a.localhost", sign(b"", "a.localhost", "l0", 1000), 999) == ""


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "1000",
        "1000.",
        "x.y",
        "9999.l0.00",
        "²000.l0.ab",
        "1e9.l0.ab",
        "-1.l0.ab",
        "9" * 5000 + ".l.a",
    ],
)
def test_a_forged_cookie_is_not_valid(value: str) -> None:
    assert grant_of(KEY, "a.localhost", value, 1) == ""


def test_another_expiry_or_another_grant_breaks_the_seal() -> None:
    _, _, seal = GOOD.split(".")
    assert grant_of(KEY, "a.localhost", f"2000.l0.{seal}", 999) == ""
    assert grant_of(KEY, "a.localhost", f"1000.l1.{seal}", 999) == ""


def test_a_token_is_compared_by_its_hash_and_nothing_matches_no_token() -> None:
    assert token_valid(b"secret", hashlib.sha256(b"secret").hexdigest())
    assert not token_valid(b"other", hashlib.sha256(b"secret").hexdigest())
    assert not token_valid(b"", "")


def test_other_cookies_are_left_byte_for_byte() -> None:
    assert for_worker(b'a=b;  c="d" ;lazycloud_other=1') == b'a=b;  c="d" ;lazycloud_other=1'
    assert for_worker(b"a=b;  c=d; lazycloud_preview=x ;e=f") == b"a=b;  c=d;e=f"
    assert for_worker(b"lazycloud_session=x; a=b") == b"a=b"
    assert for_worker(b"lazycloud_session =x; lazycloud_preview") == b""
    assert for_worker(b"__Host-lazycloud_session=x; a=b; __Host-lazycloud_preview=y") == b"a=b"


def test_every_copy_of_the_cookie_is_looked_at_up_to_a_few() -> None:
    name = preview_cookie(secure=False)
    assert previews(b"a=1; lazycloud_preview=x; lazycloud_preview = y", name) == ["x", "y"]
    assert len(previews(b";".join([b"lazycloud_preview=x"] * 50), name)) == 4


def test_over_https_only_a_cookie_counts_that_no_other_host_can_set() -> None:
    name = preview_cookie(secure=True)
    assert previews(b"lazycloud_preview=x; __Host-lazycloud_preview=y", name) == ["y"]
