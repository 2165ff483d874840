"""Whatever strangers send: every server behind the router sees what was sent, or sees nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import fuzz, judge
from .peers import Peer, read_all
from .trial import Trial

MINUTES = float(os.environ.get("LAZYCLOUD_FUZZ_MINUTES", "0"))  # 0: a bounded run, the same every time
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 60 * MINUTES)]  # to make a failure small takes time


def test_what_the_router_forwards_every_server_sees_as_it_was_sent(trial: Trial, peers: list[Peer]) -> None:
    def check(pieces: list[bytes]) -> None:
        outcome = trial.run(trial.send(pieces))
        judge.judge_requests(b"".join(pieces), outcome)
        for stream in outcome.streams:
            if stream.raws:
                trial.run(read_all(peers, stream.raws, stream.requests))

    examine(fuzz.sent(), check, examples=400)


def test_no_answer_reaches_a_client_whole_unless_the_worker_gave_it_whole(trial: Trial) -> None:
    def check(told: judge.Told) -> None:
        said, ended = trial.run(trial.tell(told.method, told.minor, told.says, closes=told.closes))
        judge.judge_answer(told, said, ended, trusted=trial.speaker.trusted)

    examine(fuzz.told(), check, examples=300)


def examine(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], examples: int) -> None:
    """Try so many examples, always the same; or, for half of MINUTES, others every time."""
    until = time.monotonic() + 30 * MINUTES
    options = settings(
        max_examples=examples,
        derandomize=not MINUTES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run = options(given(strategy)(check))
    run()
    while time.monotonic() < until:
        run()
