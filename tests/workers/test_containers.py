"""Workers in containers of a real engine."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lazycloud.container import Container
from lazycloud.errors import BadInput, StepFailed
from lazycloud.findings import Weight
from lazycloud.processes import CommandFailed, unheard
from lazycloud.walls.view import View
from lazycloud.workers import readiness
from lazycloud.workers.containers.engine import Containers
from lazycloud.workers.containers.findings import findings, look
from lazycloud.workers.containers.worker import ContainerWorker
from lazycloud.workers.errand import STDERR, STDOUT, Errand, Terminal
from lazycloud.workers.readiness import NotReady
from lazycloud.workers.record import Record
from lazycloud.workers.worker import Launch
from lazycloud.workforce import Limits
from tests.dockerd import Dockerd, base_image
from tests.e2e import remains
from tests.tools import needs
from tests.waiting import PATIENCE, until

from .conftest import APPS, launch

pytestmark = [needs("dockerd", "docker"), pytest.mark.slow]

Begin = Callable[..., Awaitable[ContainerWorker]]


class Home:
    """A server's folder, with apps in it that see only what they are given of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("data", "scratch", "others"):
            (path / name).mkdir(parents=True)
        (path / "token").write_text("the server's")

    def launch(self, command: str, **options: Any) -> Launch:
        view = View(self.path, (APPS,), (self.path / "data",), scratch=self.path / "scratch")
        return launch(
            self.path, command, **{"view": view, "name": "shop.3f2a", "stop_timeout": 20, **options}
        )

    async def engine(self, dockerd: Dockerd, **settings: Any) -> Containers:
        containers = Containers(Container(socket=str(dockerd.socket), **settings), self.path, os.environ)
        await containers.open()
        return containers


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
async def engine(dockerd: Dockerd, home: Home) -> AsyncIterator[Containers]:
    """It must leave nothing."""
    containers = await home.engine(dockerd)
    yield containers
    await containers.restored()
    await containers.close()
    assert dockerd.containers() == []
    assert dockerd.docker("network", "ls", "-q", "--filter", "type=custom") == ""


@pytest.fixture
async def start(engine: Containers, home: Home) -> AsyncIterator[Begin]:
    started: list[ContainerWorker] = []

    async def begin(command: str, **options: Any) -> ContainerWorker:
        worker = await engine.start(home.launch(command, **options), unheard)
        assert isinstance(worker, ContainerWorker)
        started.append(worker)
        return worker

    yield begin
    for worker in started:
        await worker.stop()


async def get(worker: ContainerWorker) -> Any:
    """What ok.py answers: its environment."""

    def ask() -> Any:
        with urllib.request.urlopen(f"http://{worker.address}/", timeout=PATIENCE) as answer:
            return json.load(answer)

    return await asyncio.to_thread(ask)


async def lines(engine: Containers, launched: Launch, command: str, timeout: float = PATIENCE) -> list[str]:
    """What a command wrote."""
    said: list[str] = []
    await engine.run(launched, command, said.append, timeout)
    return "".join(said).splitlines()


async def test_a_worker_answers_at_its_address_with_its_environment_and_is_found_again(
    engine: Containers, home: Home, dockerd: Dockerd
) -> None:
    worker = await engine.start(home.launch("ok.py", health="/"), unheard)
    assert isinstance(worker, ContainerWorker)
    await worker.ready()
    environment = await get(worker)
    assert environment["COMMIT_ID"] == "3f2a9c1d0b"
    assert environment["HOST"] == "0.0.0.0" and worker.address.endswith(f":{environment['PORT']}")
    assert worker.last_lines()[0] == "up"
    usage = await asyncio.to_thread(worker.usage)
    assert usage.memory > 1_000_000 and usage.processes == 3  # the app, its shell, and the container's init
    assert not any(name.startswith("TINI") for name in environment)

    stored = Record.from_dict(json.loads(json.dumps(worker.record.as_dict())))
    worker.leave()
    later = await home.engine(dockerd)
    assert len(later._found) == 1
    again = await later.adopt(stored)
    assert again and (await get(worker))["COMMIT_ID"] == "3f2a9c1d0b"
    await later.restored()
    assert len(dockerd.containers()) == 1
    os.kill(again.record.pid, signal.SIGKILL)
    assert (await again.ended()).status == -9
    assert again.how_it_ended == "was ended by SIGKILL"
    assert await later.adopt(stored) is None  # and what is left of it goes
    assert dockerd.containers() == []
    await later.close()


async def test_what_an_earlier_control_did_not_write_down_is_removed(
    start: Begin, home: Home, dockerd: Dockerd
) -> None:
    worker = await start("ok.py")
    later = await home.engine(dockerd)
    await later.restored()
    assert dockerd.containers() == []
    assert not worker.is_running
    await later.close()


async def test_it_sees_its_own_files_and_nothing_else_of_the_server(engine: Containers, home: Home) -> None:
    launched = home.launch("ok.py")
    path = f"{home.path}/others:{launched.environment['PATH']}"  # as a commit may say: it shows nothing more
    launched = replace(launched, environment={**launched.environment, "PATH": path})
    look = await lines(engine, launched, f"ls {home.path}; touch {home.path}/data/new && echo made")
    assert look == ["data", "scratch", "made"]
    assert (home.path / "data/new").stat().st_uid == os.getuid()
    forbidden = (
        f"touch {APPS}/new",
        f"cat {home.path}/token",
        "touch /usr/new",
        "touch /new",
        "cat /etc/shadow",
        "mount -t tmpfs none /mnt",
        f"kill -0 {os.getpid()}",
        "mknod /tmp/disk b 8 0",
    )
    tried = "; ".join(f"({command}) 2>/dev/null && echo {number}" for number, command in enumerate(forbidden))
    assert await lines(engine, launched, f"{tried}; echo all") == ["all"]
    status = await lines(engine, launched, "cat /proc/self/status")
    assert {"NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t2"} <= set(
        status
    )


async def test_it_does_not_reach_another_worker(start: Begin, engine: Containers, home: Home) -> None:
    worker = await start("ok.py")
    await worker.ready()
    await get(worker)
    host, _, port = worker.address.rpartition(":")
    knock = f"import socket; socket.create_connection(('{host}', {port}), 1)"
    with pytest.raises(CommandFailed) as caught:
        await lines(engine, home.launch("ok.py"), f'python3 -c "{knock}"')
    assert "TimeoutError" in caught.value.last[-1]


async def test_the_memory_limit_ends_it_and_is_named(start: Begin, engine: Containers, home: Home) -> None:
    limits = Limits(memory=50_000_000, cpu=0.5, processes=20, files=64)
    hog = 'python3 -c "x = [bytearray(1000000) for _ in range(1000)]"'
    worker = await start(hog, limits=limits)
    because = "was ended because it reached its limit of memory (50 MB)"
    with pytest.raises(NotReady, match=re.escape(f"The app {because} before it was ready")):
        await worker.ready()
    assert (await worker.ended()).words == because
    with pytest.raises(CommandFailed, match="was ended because it reached its limit of memory"):
        await lines(engine, home.launch("ok.py", limits=limits), hog)
    bomb = 'python3 -c "import os\nwhile True: os.fork()"'
    with pytest.raises(CommandFailed) as caught:
        await lines(engine, home.launch("ok.py", limits=limits), bomb)
    assert any("temporarily unavailable" in line for line in caught.value.last)
    assert await lines(engine, home.launch("ok.py", limits=limits), "ulimit -n") == ["64"]


async def test_a_limit_that_only_a_child_or_its_data_goes_beyond_ends_it_too(
    start: Begin, home: Home
) -> None:
    hog = """python3 -c 'x = [bytearray(1000000) for _ in range(1000)]'; sleep 600"""
    worker = await start(hog, limits=Limits(memory=50_000_000))
    assert (await worker.ended()).words == "was ended because it reached its limit of memory (50 MB)"
    writing = f"cat /dev/zero | head -c 3000000 > {home.path}/data/much; sleep 600"
    filler = await start(writing, limits=Limits(disk=1_000_000), data=(home.path / "data",))
    assert (
        await filler.ended()
    ).words == "was ended because its data took more than the limit of disk (1 MB)"


async def test_one_that_does_not_hear_term_is_killed_after_its_timeout(
    start: Begin, dockerd: Dockerd
) -> None:
    worker = await start("deaf.py", stop_timeout=0.5)
    await until(lambda: worker.last_lines() == ["deaf"])
    await asyncio.gather(worker.stop(), worker.stop())
    assert dockerd.containers() == []
    assert worker.how_it_ended == "was ended by SIGKILL"


async def test_all_its_processes_are_asked_to_end_and_have_the_time_to(start: Begin) -> None:
    worker = await start("forking.py")
    await until(lambda: len(worker.last_lines()) == 2)
    await worker.stop()
    assert sum("ended properly" in line for line in worker.last_lines()) == 2
    compound = await start("cd / && python3 -c 'import time; print(1, flush=True); time.sleep(600)' && true")
    await until(worker.last_lines)
    await compound.stop()
    assert compound.how_it_ended == "was ended by SIGTERM"


async def test_one_that_is_not_ready_says_why(start: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "ELSEWHERE_PATIENCE", 1.0)
    with pytest.raises(NotReady, match="ended with exit status 1 before it was ready"):
        await (await start("crashing.py")).ready()
    worker = await start("ok.py 0 127.0.0.1")
    with pytest.raises(
        NotReady, match=r"listens on 127.0.0.1:\d+, not on the host it was given in HOST \(0.0.0.0\)"
    ):
        await worker.ready()
    with pytest.raises(NotReady, match=r"was not found \(exit status 127\) before"):
        await (await start("nothing-of-that-name")).ready()


async def test_a_command_is_streamed_and_ends_at_its_timeout_and_when_it_is_cancelled(
    engine: Containers, home: Home, dockerd: Dockerd
) -> None:
    launched = home.launch("ok.py")
    assert await lines(engine, launched, "echo größer; echo oops >&2; pwd") == [
        "größer",
        "oops",
        str(home.path),
    ]
    with pytest.raises(CommandFailed, match="ended with exit status 3") as caught:
        await lines(engine, launched, "echo last; exit 3")
    assert caught.value.last == ("last",)
    with pytest.raises(CommandFailed, match="did not end within 1 s"):
        await lines(engine, launched, "sleep 600", timeout=1)
    said: list[str] = []
    task = asyncio.create_task(engine.run(launched, "echo on; sleep 600", said.append, PATIENCE))
    await until(lambda: said)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert dockerd.containers() == []


async def test_an_engine_that_dies_takes_its_workers_along_and_starts_them_when_it_is_back(
    start: Begin, dockerd: Dockerd, engine: Containers, home: Home
) -> None:
    first, second = await start("ok.py"), await start("ok.py")
    await first.ready()
    await second.ready()
    dockerd.kill()
    assert first.is_running, "the kernel knows nothing of an engine"
    await second.stop()
    assert not second.is_running
    assert second.how_it_ended == "ended with the container engine, which does not answer"
    said: list[str] = []
    starting = asyncio.create_task(engine.start(home.launch("ok.py"), said.append))
    await until(lambda: said)
    assert "does not answer" in said[0] and "Waiting for it" in said[0]
    await asyncio.to_thread(dockerd.start)
    again = await starting
    await again.ready()
    await asyncio.wait_for(first.ended(), PATIENCE)
    await again.stop()


SLOW_RUNTIME = """#!/bin/sh
runc "$@"
status=$?
case " $* " in *" start "*) while [ -e {held} ]; do sleep 0.05; done ;; esac
exit $status
"""


@pytest.fixture
def held(dockerd: Dockerd, tmp_path: Path) -> Iterator[Path]:
    """While this file is there, the engine does not hear that a container has started, though it runs."""
    file, runtime, settings = tmp_path / "held", tmp_path / "runtime", dockerd.folder / "settings.json"
    runtime.write_text(SLOW_RUNTIME.format(held=file))
    runtime.chmod(0o755)
    before = settings.read_text()
    settings.write_text(json.dumps({"runtimes": {"slow": {"path": str(runtime)}}, "default-runtime": "slow"}))
    dockerd.kill()
    dockerd.start()
    file.touch()
    yield file
    file.unlink(missing_ok=True)
    settings.write_text(before)
    dockerd.kill()
    dockerd.start()


async def test_nothing_runs_on_of_a_start_in_whose_midst_the_engine_died(
    held: Path, engine: Containers, dockerd: Dockerd, home: Home
) -> None:
    said: list[str] = []
    launched = home.launch("ok.py")
    starting = asyncio.create_task(engine.start(launched, said.append))
    await until(lambda: launched.log.exists() and launched.log.read_text() == "up\n")
    before = {one.pid for one in remains.processes(str(home.path / "worker.log"))}
    assert before
    dockerd.kill()
    held.unlink()
    await until(lambda: said)
    assert not before & {one.pid for one in remains.processes(str(home.path / "worker.log"))}
    await asyncio.to_thread(dockerd.start)
    worker = await starting
    await worker.ready()
    assert launched.log.read_text() == "up\n" * 2
    await worker.stop()
    assert dockerd.containers() == []


async def test_what_the_engine_was_not_there_to_remove_goes_when_it_is_back(
    start: Begin, dockerd: Dockerd
) -> None:
    worker = await start("ok.py")
    await worker.ready()
    dockerd.kill()
    await worker.stop()
    await asyncio.to_thread(dockerd.start)
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(dockerd.containers):
            await asyncio.sleep(0.05)


async def test_no_engine_is_said_with_what_to_do(home: Home, tmp_path: Path) -> None:
    engine = Containers(Container(socket=str(tmp_path / "nothing.sock")), home.path, os.environ)
    with pytest.raises(BadInput, match=r"nothing\.sock does not answer"):
        await engine.open()
    engine = Containers(Container(socket="tcp://elsewhere:2375"), home.path, os.environ)
    with pytest.raises(BadInput, match="data lie on this machine"):
        await engine.open()


def test_what_an_engine_lacks_is_found(dockerd: Dockerd, tmp_path: Path) -> None:
    told = findings(Container(socket=str(dockerd.socket)))
    assert told[-1].weight is Weight.FINE and "the engine is" in told[-1].sentence
    (nothing,) = findings(Container(socket=str(tmp_path / "none.sock")))
    assert nothing.weight is Weight.BROKEN and "none.sock does not answer" in nothing.sentence
    poor = look({"BridgeNfIptables": False, "PidsLimit": False, "SecurityOptions": ["name=seccomp"]})
    assert [one.weight for one in poor] == [Weight.UNSAFE, Weight.LIMITED, Weight.FINE]


def test_an_engine_whose_processes_are_not_to_be_seen_is_refused(dockerd: Dockerd) -> None:
    opening = "import asyncio, sys; from lazycloud.workers.containers.daemon import Daemon; "
    opening += "asyncio.run(Daemon(sys.argv[1]).open())"
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", opening, str(dockerd.socket)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "runs outside of the container that lazycloud is in" in done.stderr


async def test_an_image_of_the_settings_is_used_and_must_be_there(home: Home, dockerd: Dockerd) -> None:
    with pytest.raises(StepFailed, match="has no image nowhere:1"):
        await home.engine(dockerd, image="nowhere:1")
    assert dockerd.docker("network", "ls", "-q", "--filter", "type=custom") == ""


async def told(errand: Errand, text: bytes = b"") -> dict[int, bytes]:
    """What it writes, until that was among it, or to its end."""
    written = {STDOUT: b"", STDERR: b""}
    async with asyncio.timeout(PATIENCE):
        while (piece := await errand.read(1000))[0]:
            written[piece[0]] += piece[1]
            if text and text in written[piece[0]]:
                return written
    assert not text, written
    return written


async def test_somebodys_command_has_its_streams_and_its_status(
    engine: Containers, home: Home, dockerd: Dockerd
) -> None:
    errand = await engine.spawn(home.launch("x"), "cat; echo wrong >&2; exit 3", None)
    text = os.urandom(300_000)
    writing = asyncio.create_task(errand.write(text))
    reading = asyncio.create_task(told(errand))
    await writing
    errand.close_input()
    assert await reading == {STDOUT: text, STDERR: b"wrong\n"}
    assert await errand.ended() == 3
    await errand.end()
    errand.close()
    assert dockerd.containers() == []


async def test_somebodys_command_has_a_terminal_with_its_size_and_ctrl_c(
    engine: Containers, home: Home, dockerd: Dockerd
) -> None:
    line = "stty size; echo $TERM; while :; do read line && stty size; done"
    errand = await engine.spawn(home.launch("x"), line, Terminal(31, 97, "xterm"))
    await told(errand, b"xterm")
    errand.resize(50, 132)
    async with asyncio.timeout(PATIENCE):
        while True:  # the engine is told of the size on another connection
            await errand.write(b"\r")
            if b"50 132" in (await errand.read(1000))[1]:
                break
    await errand.write(b"\x03")
    assert await errand.ended() in (130, -signal.SIGINT)
    await errand.end()
    errand.close()
    assert dockerd.containers() == []


async def test_nothing_is_left_of_somebodys_command_that_is_ended(
    engine: Containers, home: Home, dockerd: Dockerd
) -> None:
    for terminal in (None, Terminal(24, 80, "xterm")):
        launched = home.launch("x", stop_timeout=1)
        errand = await engine.spawn(
            launched, "trap '' TERM HUP; sleep 1000 & echo ready; wait; wait", terminal
        )
        await told(errand, b"ready")
        await asyncio.gather(errand.end(), errand.end())
        errand.close()
        assert dockerd.containers() == []
    with pytest.raises(StepFailed):
        await engine.spawn(replace(launched, image="no-such-image"), "true", None)
    assert dockerd.containers() == []


async def test_what_is_built_of_a_dockerfile_ends_at_its_timeout_and_has_the_network_it_may_have(
    engine: Containers, home: Home, dockerd: Dockerd
) -> None:
    base_image(dockerd, "base")
    said: list[str] = []

    async def build(dockerfile: str, timeout: float = 2 * PATIENCE, network: bool = True) -> None:
        (home.path / "others/Dockerfile").write_text(f"FROM base\n{dockerfile}\n")
        files = ["Dockerfile"]
        await engine.images.build(
            "shop", "key", home.path / "others", files, *files, said.append, timeout, network
        )

    with pytest.raises(StepFailed, match="took longer than 10 s") as caught:
        await build("RUN echo on; sleep 600", timeout=10)
    assert caught.value.last[-1] == "on"
    task = asyncio.create_task(build("RUN echo once more; sleep 600"))
    await until(lambda: any("once more\n" in text for text in said))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not dockerd.containers())
    assert not await engine.images.has("shop", "key")

    said.clear()
    await build("RUN ls /sys/class/net", network=False)
    assert "lo\n" in said and "eth0" not in "".join(said)
    await build("RUN ls -d /sys/class/net/*")
    assert "/sys/class/net/eth0\n" in "".join(said)
    assert await engine.images.has("shop", "key")
    launched = replace(home.launch("x", image=engine.images.name("shop", "key")), command="")
    with pytest.raises(StepFailed, match="No command specified"):
        await engine.start(launched, unheard)
    await build('CMD ["sh", "-c", "echo said; echo wrong >&2; exit 3"]')
    worker = await engine.start(launched, unheard)
    assert (await worker.ended()).words == "ended with exit status 3"
    assert sorted(worker.last_lines()) == ["said", "wrong"]
    await worker.stop()
    await engine.leave(home.path / "apps/shop/releases/key")
    assert not await engine.images.has("shop", "key")
