"""A build that writes without end hurts neither the server nor who watches."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout, counter
from tests.e2e.server import BROWSER, PATIENCE

MB = 1_000_000
LINES = f"yes 'a line of output that goes on and on' | head -c {100 * MB}"
ENDLESS = f"head -c {100 * MB} /dev/zero | tr '\\\\0' x"


@pytest.mark.slow
async def test_200_mb_of_output_are_cut_everywhere_and_control_answers_meanwhile(
    up: Up, checkout: Checkout
) -> None:
    production = checkout.commit(counter("production"))
    build = f'[build]\ncommand = "{LINES}; {ENDLESS}; echo; echo the end"\n'
    flood = checkout.commit(counter("flood", **{"lazycloud.toml": build}))
    server = up(checkout.path, "--production", production)
    assert await server.named("production")
    control = server.children()["control"]
    before, most, slowest, looks = control.memory_info().rss, 0, 0.0, 0
    begins = time.monotonic()

    async def is_built() -> bool:
        nonlocal most, slowest, looks
        began = time.monotonic()
        state = (await server.inspect(flood))["state"]
        slowest, looks = max(slowest, time.monotonic() - began), looks + 1
        most = max(most, control.memory_info().rss)
        return state == "ready"

    await server.get(flood, **BROWSER)
    await server.until(is_built, 3 * PATIENCE)
    assert most - before < 50 * MB
    # Whoever asks is not kept waiting for the flood to end; how long that takes, the machine says.
    assert looks > 10 and slowest < max(2, (time.monotonic() - begins) / 4)
    assert sum(file.stat().st_size for file in server.home.glob("state.sqlite*")) < 6 * MB
    (log,) = (server.home / "apps/shop/logs").glob(f"shop.{flood}.deploy.log")
    assert 16 * MB < log.stat().st_size < 18 * MB
    text = log.read_text()
    assert "the output is cut here" in text and "\nthe end\n" in text
