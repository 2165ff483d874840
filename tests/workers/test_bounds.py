"""Workers within bounds: what goes beyond them is ended and says why, and nothing of it is left."""

import asyncio
import os
import statistics
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lazycloud.errors import StepFailed
from lazycloud.processes import identify, unheard
from lazycloud.walls import sandbox
from lazycloud.walls.groups import Groups
from lazycloud.walls.ports import Wall, missing
from lazycloud.workers.bounds import Bounds
from lazycloud.workers.engine import Processes, Sandboxed
from lazycloud.workers.ports import RANGE
from lazycloud.workers.process import ProcessWorker
from lazycloud.workers.readiness import NotReady
from lazycloud.workers.record import Record
from lazycloud.workers.worker import Worker
from lazycloud.workforce import Limits
from tests.waiting import PATIENCE, until

from .conftest import launch
from .preloading import Stand


@dataclass
class Bounded:
    """A server's engine, and the workers that a test started."""

    folder: Path
    groups: Groups
    engine: Processes
    workers: list[Worker] = field(default_factory=list)

    async def start(self, command: str = "greedy.py", **options: Any) -> ProcessWorker:
        worker = await self.engine.start(self.launch(command, **options), unheard)
        assert isinstance(worker, ProcessWorker)
        self.workers.append(worker)
        return worker

    def launch(self, command: str, **options: Any) -> Any:
        """With data in a folder of its own, or where `data` says."""
        (data,) = options.pop("data", (self.folder / "data",))
        data.mkdir(exist_ok=True)
        made = launch(self.folder, command, name="shop/3f2a9c1d0b", data=(data,), **options)
        return replace(made, environment={**made.environment, "DATA_DIR": str(data)})

    async def ended(self, worker: Worker) -> str:
        async with asyncio.timeout(PATIENCE):
            return (await worker.ended()).words

    @property
    def left(self) -> list[Path]:
        return [place for base in self.groups.bases.values() for place in base.glob("*/")]


async def ask(worker: Worker, path: str) -> str:
    """What it answers; "" if it ends instead."""

    def get() -> str:
        try:
            with urllib.request.urlopen(f"http://{worker.address}/{path}", timeout=PATIENCE) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    return await asyncio.to_thread(get)


@pytest.fixture
async def bounded(tmp_path: Path) -> AsyncIterator[Bounded]:
    groups = Groups(tmp_path)
    if set(groups.bases) < {"memory", "pids", "cpu"}:
        pytest.skip("no control groups can be made here")
    made = Bounded(tmp_path, groups, Processes(Bounds(groups, Wall(RANGE))))
    yield made
    await asyncio.gather(*(worker.stop() for worker in made.workers))
    bases = groups.bases.values()
    await made.engine.close()
    assert not any(base.exists() for base in bases)


async def test_a_worker_and_all_that_it_starts_is_in_its_group(bounded: Bounded) -> None:
    worker = await bounded.start()
    await worker.ready()
    assert worker.record.group.startswith("shop-3f2a9c1d0b-")
    assert worker.record.group in await ask(worker, "group")
    daemon = int(await ask(worker, "daemon"))
    assert worker.usage().processes == 2
    await worker.stop()
    assert identify(daemon) is None
    assert worker.how_it_ended == "was ended by SIGTERM"


async def test_one_that_takes_too_much_memory_is_ended_by_the_kernel_and_says_so(bounded: Bounded) -> None:
    worker = await bounded.start(limits=Limits(memory=150_000_000))
    await worker.ready()
    assert await ask(worker, "memory") == ""
    assert await bounded.ended(worker) == "was ended because it reached its limit of memory (150 MB)"
    await worker.stop()
    assert worker.how_it_ended == "was ended because it reached its limit of memory (150 MB)"


async def test_one_that_takes_too_much_memory_before_it_is_ready_is_told_so(bounded: Bounded) -> None:
    worker = await bounded.start("huge.py", limits=Limits(memory=60_000_000))
    with pytest.raises(NotReady) as caught:
        await worker.ready()
    assert str(caught.value).startswith(
        "The app was ended because it reached its limit of memory (60 MB) before it was ready."
    )


async def test_the_whole_worker_ends_when_a_process_of_it_took_too_much_memory(bounded: Bounded) -> None:
    """A server whose child was taken away would start it again and again."""
    script = "import os, time\nif os.fork() == 0: x = bytearray(300_000_000)\ntime.sleep(600)"
    (bounded.folder / "parent.py").write_text(script)
    worker = await bounded.start(f"python3 {bounded.folder}/parent.py", limits=Limits(memory=150_000_000))
    assert await bounded.ended(worker) == "was ended because it reached its limit of memory (150 MB)"


async def test_a_fork_bomb_is_ended_with_all_that_it_forked(bounded: Bounded) -> None:
    worker = await bounded.start(limits=Limits(processes=60))
    await worker.ready()
    assert worker.bound.group and worker.bound.group.bounds("pids"), "no fork bomb without a limit"
    asking = asyncio.create_task(ask(worker, "fork"))
    assert await bounded.ended(worker) == "was ended because it went on forking at its limit of 60 processes"
    await asking
    await worker.stop()


async def test_one_whose_data_grows_too_large_is_ended(bounded: Bounded) -> None:
    worker = await bounded.start(limits=Limits(disk=50_000_000))
    await worker.ready()
    asking = asyncio.create_task(ask(worker, "disk"))
    assert (
        await bounded.ended(worker) == "was ended because its data took more than the limit of disk (50 MB)"
    )
    assert worker.outgrew
    await asking
    assert (bounded.folder / "data" / "filler").stat().st_size < 1_000_000_000


async def test_what_a_worker_writes_takes_a_bounded_part_of_the_disk(bounded: Bounded) -> None:
    worker = await bounded.start(limits=Limits(log=4_000_000))
    await worker.ready()
    file = worker.record.log_path
    takes, began = [], time.monotonic()
    await ask(worker, "log")
    while file.stat().st_size < 500_000_000:
        assert time.monotonic() - began < PATIENCE
        takes.append(file.stat().st_blocks * 512)
        await asyncio.sleep(0.001)
    rate = file.stat().st_size / (time.monotonic() - began)
    # Who looked four times a second would find what is written in an eighth of one.
    assert statistics.median(takes) < 4_000_000 + 0.06 * rate
    await until(lambda: file.stat().st_blocks * 512 < file.stat().st_size / 2)
    await worker.stop()  # and the child, which goes on writing, with it
    await until(lambda: file.stat().st_blocks * 512 <= 4_000_000)
    assert worker.last_lines(2)[0].startswith("a line that says nothing")


async def test_a_worker_can_use_no_port_but_its_own(bounded: Bounded) -> None:
    if why := missing(bounded.groups):
        pytest.skip(why)
    other = await bounded.start("ok.py")
    await other.ready()
    script = bounded.folder / "hostile.py"
    script.write_text(
        "import os, socket, sys\n"
        "for what in ('connect', 'bind'):\n"
        "    try: getattr(socket.socket(), what)(('127.0.0.1', int(sys.argv[1])))\n"
        "    except OSError as problem: print(what, problem.strerror)\n"
    )
    port = other.address.partition(":")[2]
    hostile = await bounded.start(f"python3 {script} {port}")
    await hostile.ended()
    assert hostile.last_lines() == ["connect Operation not permitted", "bind Operation not permitted"]


async def test_a_fork_of_a_waiting_python_is_in_a_group_of_its_own(bounded: Bounded) -> None:
    stand = Stand(bounded.folder, parents=bounded.engine._parents)
    options = {"limits": Limits(memory=200_000_000), "name": "shop/forked"}
    for _ in range(2):  # the first one of a bare Python
        made = stand.launch("python greedy.py", **options)
        worker = await bounded.engine.start(made, stand.said.append)
        bounded.workers.append(worker)
        await worker.ready()
        assert not any("without preloading" in line for line in stand.said), stand.said
        assert worker.record.group.startswith("shop-forked-")
        told = await ask(worker, "group")
        assert told.count(worker.record.group) >= 3
        assert "waits-" not in told
    (parent,) = stand.parents._parents.values()
    assert "/waits-" in Path(f"/proc/{parent.pid}/cgroup").read_text()
    assert await ask(worker, "memory") == ""
    assert "limit of memory" in await bounded.ended(worker)
    assert bounded.workers[0].is_running
    await stand.parents.close()
    await until(lambda: identify(parent.pid) is None)
    assert bounded.workers[0].is_running


@pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing())
async def test_a_walled_fork_and_who_waits_for_it_are_in_its_group(bounded: Bounded) -> None:
    stand = Stand.walled(bounded.folder)
    assert stand.walls
    engine = Sandboxed(stand.walls, Bounds(bounded.groups, Wall(RANGE)))
    stand.parents = engine._parents
    parent = await stand.preloaded("python greedy.py", "json")
    made = stand.launch("python greedy.py", limits=Limits(memory=200_000_000), name="shop/forked")
    for early in (True, False):
        if early:
            engine.prepare(made)
        worker = await engine.start(made, stand.said.append)
        assert isinstance(worker, ProcessWorker)
        bounded.workers.append(worker)
        await worker.ready()
        assert worker.record.preloaded, stand.said
        await until(lambda: worker.usage().processes == 3)  # noqa: B023 - the worker, who waits for it, who reaps
    assert "/waits-" in Path(f"/proc/{parent.pid}/cgroup").read_text()
    assert await ask(worker, "memory") == ""
    assert "limit of memory" in await bounded.ended(worker)
    await worker.stop()
    await stand.parents.close()  # with it goes its group
    await until(lambda: identify(parent.pid) is None)
    assert await ask(bounded.workers[0], "group")
    await bounded.workers[0].stop()
    assert bounded.workers[0].how_it_ended == "is gone"  # nobody was left to tell
    bounded.groups._sweep()


async def test_a_worker_is_found_again_with_its_group_and_strays_of_others_end(bounded: Bounded) -> None:
    worker, killed = await bounded.start(), await bounded.start()
    await asyncio.gather(worker.ready(), killed.ready())
    daemon = int(await ask(killed, "daemon"))
    worker.leave()
    killed.leave()
    os.kill(killed.record.pid, 9)
    await until(lambda: identify(killed.record.pid) is None)
    groups = Groups(bounded.folder)
    engine = Processes(Bounds(groups))
    found = await engine.adopt(Record.from_dict(worker.record.as_dict()))
    assert await engine.adopt(Record.from_dict(killed.record.as_dict())) is None
    assert isinstance(found, ProcessWorker)
    await engine.restored()
    assert identify(daemon) is None
    assert found.is_running
    assert found.bound.group and worker.record.pid in found.bound.group.pids()
    assert found.bound.limits == worker.bound.limits
    await found.stop()
    assert bounded.left == []
    await engine.close()


async def test_a_command_of_the_app_runs_within_the_same_bounds_and_leaves_nothing(bounded: Bounded) -> None:
    lines: list[str] = []
    pid_file = bounded.folder / "pid"
    made = bounded.launch("ok.py", limits=Limits(memory=100_000_000))
    await bounded.engine.run(
        made,
        f"cat /proc/self/cgroup; setsid sh -c 'echo $$ > {pid_file}; exec sleep 600' &"
        f" until test -s {pid_file}; do sleep 0.02; done",
        lines.append,
        PATIENCE,
    )
    assert "/shop-3f2a9c1d0b-command-" in "".join(lines)
    assert identify(int(pid_file.read_text())) is None
    hungry = "python3 -c 'bytearray(300_000_000)'"
    with pytest.raises(StepFailed, match=r"was ended because it reached its limit of memory \(100 MB\)"):
        await bounded.engine.run(made, hungry, lines.append, PATIENCE)


@pytest.fixture
async def unbounded(tmp_path: Path) -> AsyncIterator[Bounded]:
    """A machine on which no group can be made."""
    made = Bounded(tmp_path, Groups(tmp_path, proc=tmp_path), Processes(Bounds()))
    yield made
    await asyncio.gather(*(worker.stop() for worker in made.workers))
    await made.engine.close()


async def test_where_nothing_counts_the_watch_does(unbounded: Bounded) -> None:
    hungry = await unbounded.start(limits=Limits(memory=150_000_000))
    await hungry.ready()
    asking = asyncio.create_task(ask(hungry, "memory"))
    assert await unbounded.ended(hungry) == "was ended because it reached its limit of memory (150 MB)"
    await asking
    script = "import os, time\nfor _ in range(30):\n  if os.fork() == 0: time.sleep(600)\ntime.sleep(600)"
    (unbounded.folder / "many.py").write_text(script)
    many = await unbounded.start(f"python3 {unbounded.folder}/many.py", limits=Limits(processes=20))
    assert await unbounded.ended(many) == "was ended because it had more than its limit of 20 processes"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_who_fills_the_disk_is_ended_also_without_a_limit_of_his_own(
    small_disk: Path, unbounded: Bounded
) -> None:
    """And not the neighbour, whose data is there as well."""
    filler = await unbounded.start(data=(small_disk,))
    (small_disk / "other").mkdir()
    quiet = await unbounded.start(data=(small_disk / "other",))
    await asyncio.gather(quiet.ready(), filler.ready())
    asking = asyncio.create_task(ask(filler, "disk"))
    how = await unbounded.ended(filler)
    assert how.startswith("was ended because the disk is all but full, and its data grew by ")
    await asking
    assert quiet.is_running
