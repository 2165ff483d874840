"""Readiness: what a worker that is not ready does instead is told apart."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from lazycloud.workers import readiness
from lazycloud.workers.ports import Ports
from lazycloud.workers.process import ProcessWorker as Worker
from lazycloud.workers.readiness import NotReady, Why
from tests.waiting import PATIENCE, accepts, until

from .conftest import Start, launch


async def test_it_is_ready_as_soon_as_it_listens_and_not_before(start: Start) -> None:
    before = time.monotonic()
    worker = await start("ok.py 0.5")
    await worker.ready()
    assert time.monotonic() - before > 0.4
    with closing(socket.create_connection(("127.0.0.1", worker.record.port), 5)):
        pass


@pytest.mark.parametrize(
    ("host", "dial"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.1.1", "127.0.1.1"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
async def test_the_address_is_where_it_can_be_dialled(start: Start, host: str, dial: str) -> None:
    worker = await start(f"ok.py 0 {host}", health="/")
    await worker.ready()
    assert worker.address == f"{dial}:{worker.record.port}"
    with closing(socket.create_connection((worker.record.host, worker.record.port), 5)):
        pass


async def test_that_it_listens_is_noticed_within_milliseconds(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def sleeping(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    script = tmp_path / "late.py"
    script.write_text(
        "import os, socket, time\ntime.sleep(0.3)\n"
        "s = socket.create_server((os.environ['HOST'], int(os.environ['PORT'])))\n"
        "print(time.monotonic(), flush=True)\ntime.sleep(600)\n"
    )
    late = []
    for _ in range(5):
        worker = await start(f"{sys.executable} {script}")
        with monkeypatch.context() as patched:
            patched.setattr(asyncio, "sleep", sleeping)
            await worker.ready()
        noticed = time.monotonic()
        await until(worker.last_lines)
        late.append(noticed - float(worker.last_lines()[-1]))
    assert 0 < max(pauses) < 0.006
    assert min(late) < 0.1, late  # the shortest: other processes of this machine are busy, too


async def test_one_that_exits_is_said_to_with_its_last_lines(start: Start) -> None:
    worker = await start("crashing.py")
    with pytest.raises(NotReady) as failed:
        await worker.ready()
    assert failed.value.why is Why.EXITED
    assert failed.value.sentence == "The app ended with exit status 1 before it was ready."
    assert "there is no setting called FOO" in failed.value.last


async def test_one_that_exits_well_is_told_to_stay_in_the_foreground(start: Start) -> None:
    with pytest.raises(NotReady, match=r"exit status 0 before it was ready.*foreground"):
        await (await start("true")).ready()


async def test_an_unknown_command_is_said_to_be_unknown(start: Start) -> None:
    with pytest.raises(NotReady, match="was not found") as failed:
        await (await start("no-such-program --port $PORT")).ready()
    assert any("no-such-program" in line for line in failed.value.last)


async def test_one_that_listens_elsewhere_is_told_where_and_early(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "ELSEWHERE_PATIENCE", 1.0)
    worker = await start("elsewhere.py", ready_timeout=5 * PATIENCE)
    with pytest.raises(NotReady) as failed:
        await asyncio.wait_for(worker.ready(), PATIENCE)
    (port,) = worker.last_lines()
    assert failed.value.why is Why.ELSEWHERE
    assert failed.value.sentence == (
        f"The app listens on 127.0.0.1:{port}, not on the port it was given in PORT ({worker.record.port})."
    )
    assert failed.value.advice == "Let it listen on $PORT."


async def test_one_that_listens_elsewhere_first_and_then_where_it_should_is_ready(start: Start) -> None:
    script = (
        "import os, socket, time; a = socket.create_server(('127.0.0.1', 0)); time.sleep(0.6);"
        "b = socket.create_server(('127.0.0.1', int(os.environ['PORT']))); time.sleep(600)"
    )
    worker = await start(f'{sys.executable} -c "{script}"')
    await worker.ready()


async def test_one_that_is_silent_past_the_deadline_is_said_to_be(start: Start) -> None:
    worker = await start("silent.py", ready_timeout=0.5)
    await until(worker.last_lines)
    with pytest.raises(NotReady) as failed:
        await worker.ready()
    assert failed.value.why is Why.SILENT
    assert f"in PORT ({worker.record.port}) within 0.5 s" in failed.value.sentence
    assert failed.value.last == ("thinking",)
    assert worker.is_running  # whoever started it stops it


async def test_a_health_path_that_answers_500_until_the_deadline_is_said_to(start: Start) -> None:
    said: list[str] = []
    worker = await start("lying.py 500", health="/up", ready_timeout=1)
    await until(lambda: accepts(worker.record.port))
    with pytest.raises(NotReady) as failed:
        await worker.ready(said.append)
    assert failed.value.why is Why.UNHEALTHY
    assert "its health path /up answered 500, until 1 s had passed" in failed.value.sentence
    assert said == ["/up answered 500\n"]


async def test_a_health_path_that_answers_well_in_the_end_is_enough(start: Start) -> None:
    before = time.monotonic()
    worker = await start("lying.py 503 0.7", health="/up")
    await worker.ready()
    assert time.monotonic() - before > 0.6


@pytest.mark.parametrize("status", [200, 204, 302, 399])
async def test_any_answer_below_400_is_well(start: Start, status: int) -> None:
    await (await start(f"lying.py {status}", health="/")).ready()


async def test_a_health_path_that_never_answers_is_said_to(start: Start) -> None:
    worker = await start("dies_after.py 600", health="/", ready_timeout=1)
    await until(lambda: accepts(worker.record.port))
    with pytest.raises(NotReady, match="did not answer within") as failed:
        await worker.ready()
    assert failed.value.why is Why.UNHEALTHY


async def test_one_that_dies_during_its_health_check_is_said_to_have_exited(start: Start) -> None:
    worker = await start("dies_after.py 1", health="/")
    with pytest.raises(NotReady) as failed:
        await worker.ready()
    assert failed.value.why is Why.EXITED


async def test_what_a_health_path_holds_cannot_end_its_line(start: Start) -> None:
    path = "/up\r\nX-Other: 1\r\n ä"
    await (await start("lying.py 200", health=path)).ready()


async def test_waiting_can_be_cancelled(start: Start) -> None:
    worker = await start("silent.py")
    waiting = asyncio.create_task(worker.ready())
    await until(worker.last_lines)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert worker.is_running


@pytest.fixture
def stranger() -> Iterator[int]:
    """A port on which somebody else's process listens."""
    script = (
        "import socket, sys, time; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.kill()


class Late(Ports):
    """Gives out the stranger's port first: as if the stranger had come after the look."""

    def __init__(self, *first: int) -> None:
        super().__init__()
        self.first = list(first)

    def take(self) -> int:
        return self.first.pop(0) if self.first else super().take()


@pytest.mark.parametrize("command", ["ok.py", "silent.py"])
async def test_a_port_that_somebody_elses_process_has_is_never_taken_for_the_workers(
    tmp_path: Path, stranger: int, command: str
) -> None:
    ports = Late(stranger, stranger, stranger)
    worker = await Worker.start(launch(tmp_path, command), ports)
    try:
        with pytest.raises(NotReady) as failed:
            await worker.ready()
        assert failed.value.why is Why.PORT_TAKEN
        assert ports.first == []
    finally:
        await worker.stop()


async def test_a_worker_counts_as_running_while_it_moves_to_another_port(
    tmp_path: Path, stranger: int
) -> None:
    """Else nobody watches over it from then on."""
    worker = await Worker.start(launch(tmp_path, "silent.py"), Late(stranger))
    ready, first = asyncio.create_task(worker.ready()), worker.record
    try:
        seen = []
        while worker.record == first:
            seen.append(worker.is_running)
            await asyncio.sleep(0.001)
        assert all(seen) and worker.is_running
    finally:
        ready.cancel()
        await asyncio.gather(ready, return_exceptions=True)
        await worker.stop()


async def test_another_port_is_chosen_when_somebody_took_the_first(tmp_path: Path, stranger: int) -> None:
    worker = await Worker.start(launch(tmp_path, "ok.py"), Late(stranger))
    try:
        first = worker.record
        await worker.ready()
        assert worker.record.port != stranger
        assert worker.record.pid != first.pid
        assert worker.is_running
    finally:
        await worker.stop()


async def test_a_runner_that_gives_its_child_a_session_is_ready_when_the_child_listens(start: Start) -> None:
    app = launch(Path(), "ok.py").command
    worker = await start(f"setsid --wait {app} & wait", stop_timeout=1)
    await worker.ready()
    for child in psutil.Process(worker.record.pid).children(recursive=True):
        child.kill()
