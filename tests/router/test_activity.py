from __future__ import annotations

import pytest

from lazycloud.router import activity
from lazycloud.router.activity import Clock


def test_time_in_which_the_router_did_not_run_counts_against_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((100.0, 101.0, 102.5, 162.5, 163.5))
    monkeypatch.setattr(activity.time, "monotonic", lambda: next(times))
    clock = Clock(step=2.0)
    seen = [clock.now]
    for _ in range(4):
        clock.tick()
        seen.append(clock.now)
    assert seen == [100, 101, 102.5, 104.5, 105.5]
