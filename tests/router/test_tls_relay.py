"""Tests of the other files once more, by clients that speak TLS: what differs there is the transport."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority

from . import test_bytes, test_process
from .stage import Control, Router
from .test_bytes import (  # noqa: F401
    test_a_body_over_the_limit_is_a_413,
    test_a_slow_reader_slows_the_worker_down_after_a_bounded_buffer,
    test_an_answer_that_comes_before_the_upload_ends_is_delivered,
    test_server_sent_events_arrive_chunk_by_chunk,
)
from .test_failure import (  # noqa: F401
    test_a_body_that_stops_coming_is_cut,
    test_a_client_that_goes_away_cancels_its_request_to_the_worker,
    test_a_head_in_drips_does_not_prolong_its_deadline,
    test_an_idle_connection_is_closed_without_a_word,
    test_an_upload_that_stops_coming_is_a_408,
    test_the_connection_goes_on_after_an_own_answer,
)
from .test_framing import (  # noqa: F401
    test_a_worker_of_1_0_that_ends_by_closing_is_relayed_whole,
    test_an_answer_that_breaks_in_the_middle_is_never_relayed_as_if_whole,
    test_pipelined_requests_are_answered_in_order,
    test_what_is_sent_ahead_without_end_is_not_read_without_end,
)
from .test_upgrades import (  # noqa: F401
    echo,
    test_a_slow_side_slows_the_other_down,
    test_a_tunnel_dies_on_both_sides_when_one_side_dies,
    test_a_websocket_keeps_its_subprotocol_and_has_no_message_limit,
    test_bytes_next_to_the_101_are_not_lost_in_either_direction,
    test_no_timeout_fires_on_a_tunnel,
    test_the_workers_close_reaches_the_client,
)


@pytest.fixture
async def start(control: Control, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Router]]]:
    """Starts routers that speak TLS, and whose clients do."""
    authority = Authority(tmp_path)
    files = authority.issue("app.localhost")
    routers: list[Router] = []

    async def start_router(**settings: Any) -> Router:
        router = Router(control, authority.trust)
        await router.start(tls=[tuple(map(str, files))], public_scheme="https", **settings)
        routers.append(router)
        return router

    yield start_router
    for router in routers:
        await router.stop()


@pytest.mark.slow
async def test_200_mb_stream_up_through_bounded_memory(router: Router, serve) -> None:
    await test_bytes.test_200_mb_stream_up_through_bounded_memory(router, serve, "sized")


@pytest.mark.slow
async def test_200_mb_stream_down_through_bounded_memory(router: Router, serve) -> None:
    await test_bytes.test_200_mb_stream_down_through_bounded_memory(router, serve, "chunked")


async def test_a_stop_finishes_what_is_in_flight(router: Router, serve) -> None:
    await test_process.test_a_stop_finishes_what_is_in_flight_and_exits_0(router, serve, signal.SIGTERM)
