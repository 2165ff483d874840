from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from lazycloud.errors import BadInput
from lazycloud.router.settings import LIMITS, read_limits, read_settings

SETTINGS_PAGE = Path(__file__).parents[2] / "docs/settings.md"
GOOD = {"listen_fds": [3], "control": "/c", "link": "/l"}


def test_settings_are_read_from_json() -> None:
    settings = read_settings(
        json.dumps({**GOOD, "trusted_proxies": ["10.0.0.0/8"], "sweep": 1, "preview_key": "00ff"})
    )
    assert settings.listen_fds == (3,)
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"),)
    assert settings.preview_key == b"\x00\xff"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        (json.dumps({**GOOD, "heldmax": 1}), "heldmax"),
        (json.dumps({"listen_fds": [], "control": "/c"}), "link"),
        (json.dumps({**GOOD, "control": 5}), "control"),
        (json.dumps({**GOOD, "held_max": True}), "held_max"),
        (json.dumps({**GOOD, "preview_key": "xyz"}), "preview_key"),
        (json.dumps({**GOOD, "trusted_proxies": ["everywhere"]}), "trusted_proxies"),
        (json.dumps({**GOOD, "listen_fds": ["a"]}), "listen_fds"),
    ],
)
def test_the_key_that_is_wrong_is_named(given: str, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        read_settings(given)


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("body_max", 5, 5),
        ("body_max", "10 MB", 10_000_000),
        ("body_max", "1.5GiB", 3 << 29),
        ("head_max", "64 KiB", 65536),
        ("head_max", "8 kb", 8000),
        ("head_max", "300 B", 300),
        ("pool_max", 3, 3),
        ("keep_alive", 5, 5.0),
        ("robots", ["Bot/"], ["bot/"]),
        ("robots", [], []),
    ],
)
def test_an_operator_s_limits_are_read(name: str, value: object, read: object) -> None:
    assert read_limits({name: value}) == {name: read}
    read_settings(json.dumps({**GOOD, **read_limits({name: value})}))


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("bodymax", 5, "Did you mean `body_max`?"),
        ("colour", 5, "It has: ahead_max, answer_timeout"),
        ("listen_fds", [3], "has no setting `listen_fds`"),
        ("preview_key", "00", "has no setting `preview_key`"),
        ("held_max", 5, "above all tables"),
        ("body_max", "many", "a size such as"),
        ("body_max", "10 XB", "a size such as"),
        ("body_max", True, "a size such as"),
        ("body_max", -1, "a size such as"),
        ("body_max", 0, "more than 0"),
        ("pool_max", 1.5, "a whole number"),
        ("pool_max", "5", "a whole number"),
        ("keep_alive", 0, "a number of seconds"),
        ("keep_alive", float("inf"), "a number of seconds"),
        ("keep_alive", float("nan"), "a number of seconds"),
        ("keep_alive", True, "a number of seconds"),
        ("robots", "bot", "a list of words"),
        ("robots", [1], "a list of words"),
    ],
)
def test_a_limit_that_is_wrong_is_named_with_what_to_do(name: str, value: object, sentence: str) -> None:
    with pytest.raises(BadInput) as problem:
        read_limits({name: value})
    assert sentence in str(problem.value)
    assert name in str(problem.value)


def test_every_limit_is_documented_with_its_default() -> None:
    part = SETTINGS_PAGE.read_text().partition("## Of the routers")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", part, re.MULTILINE))
    assert rows.keys() == LIMITS.keys()
    for name, field in LIMITS.items():
        text = rows[name].strip("`")
        if text == "none":
            assert field.default is None, name
        else:
            given = text if text.endswith("iB") else json.loads(text)
            default = list(field.default) if name == "robots" else field.default
            assert read_limits({name: given}) == {name: default}
