from __future__ import annotations

import json
from ipaddress import ip_network

import pytest

from lazycloud.errors import BadInput
from lazycloud.router.settings import read_settings

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
