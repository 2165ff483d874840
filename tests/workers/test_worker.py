"""A worker: started, adopted, ended, stopped."""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lazycloud.errors import StepFailed
from lazycloud.processes import identify, members
from lazycloud.workers.ports import Ports
from lazycloud.workers.process import ProcessWorker as Worker
from lazycloud.workers.record import Record
from tests.waiting import PATIENCE, until

from .conftest import Start, launch


def get(worker: Worker) -> Any:
    """What ok.py answers: its environment."""
    with urllib.request.urlopen(f"http://{worker.address}/", timeout=PATIENCE) as answer:
        return json.load(answer)


async def test_a_worker_answers_at_its_address_with_its_environment_and_no_other(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAZYCLOUD_SECRET", "ours")
    worker = await start("ok.py")
    await worker.ready()
    environment = await asyncio.to_thread(get, worker)
    assert environment["COMMIT_ID"] == "3f2a9c1d0b"
    assert worker.address == f"{environment['HOST']}:{environment['PORT']}"
    assert environment["HOME"] == environment["TMPDIR"] == str(tmp_path)
    shells = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    ours = {"PATH", "LANG", "HOME", "TMPDIR", "PYTHONUNBUFFERED", "COMMIT_ID", "HOST", "PORT"}
    assert set(environment) - shells == ours


async def test_its_process_leads_a_session_and_is_the_app_itself_and_not_a_shell(start: Start) -> None:
    worker = await start("ok.py")
    await worker.ready()
    pid = worker.record.pid
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert list(members(pid)) == [pid]


async def test_nothing_of_ours_is_open_in_it(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        worker = await start("ok.py")
        await worker.ready()
        targets = {place.readlink().name for place in Path(f"/proc/{worker.record.pid}/fd").iterdir()}
    assert "secret" not in targets
    assert {"null", "worker.log"} <= targets


async def test_output_is_appended_to_the_log_and_last_lines_are_its_own(start: Start, tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text("an earlier worker's line\n")
    worker = await start("crashing.py 4")
    ended = await asyncio.wait_for(worker.ended(), PATIENCE)
    assert (ended.status, ended.words) == (4, "ended with exit status 4")
    assert worker.how_it_ended == ended.words
    assert sorted(worker.last_lines()) == ["reading settings", "there is no setting called FOO"]
    assert len(worker.last_lines(1)) == 1
    assert (tmp_path / "worker.log").read_text().startswith("an earlier worker's line\n")


async def test_a_worker_that_dies_later_is_seen_to(start: Start, tmp_path: Path) -> None:
    worker = await start("dies_when.py")
    await worker.ready()
    assert worker.is_running
    assert worker.how_it_ended == "runs"
    (tmp_path / "die").touch()
    assert (await asyncio.wait_for(worker.ended(), PATIENCE)).status == 3
    assert not worker.is_running


async def test_a_signal_that_ended_it_is_named(start: Start) -> None:
    worker = await start("ok.py")
    await worker.ready()
    os.kill(worker.record.pid, signal.SIGKILL)
    assert (await asyncio.wait_for(worker.ended(), PATIENCE)).words == "was ended by SIGKILL"
    assert "was ended by SIGKILL" in repr(worker)


async def test_stop_ends_it_by_term_and_may_be_called_again_and_at_once(start: Start, ports: Ports) -> None:
    worker = await start("ok.py")
    await worker.ready()
    await asyncio.gather(worker.stop(), worker.stop())
    await worker.stop()
    assert worker.how_it_ended == "was ended by SIGTERM"
    assert repr(ports).startswith("<Ports 0 of")


async def test_a_worker_that_is_deaf_to_term_is_killed(start: Start) -> None:
    worker = await start("deaf.py", stop_timeout=0.3)
    await worker.ready()
    await until(worker.last_lines)
    before = time.monotonic()
    await worker.stop()
    assert 0.3 <= time.monotonic() - before < PATIENCE / 2
    assert worker.how_it_ended == "was ended by SIGKILL"


async def test_children_end_properly_even_if_their_parent_is_gone_at_once(start: Start) -> None:
    worker = await start("forking.py")
    await worker.ready()
    await until(lambda: len(worker.last_lines()) == 2)
    await worker.stop()
    assert sum("ended properly" in line for line in worker.last_lines()) == 2
    assert not list(members(worker.record.pid))


async def test_children_that_a_dead_worker_left_are_ended_by_stop(start: Start) -> None:
    worker = await start("forking.py", stop_timeout=0.2)
    await worker.ready()
    await until(lambda: len(worker.last_lines()) == 2)
    os.kill(worker.record.pid, signal.SIGKILL)
    await asyncio.wait_for(worker.ended(), PATIENCE)
    await worker.stop()
    assert not list(members(worker.record.pid))


async def test_a_worker_outlives_the_process_that_started_it_and_is_adopted(
    tmp_path: Path, ports: Ports
) -> None:
    script = """
import asyncio, json, sys
from pathlib import Path
from lazycloud.workers.ports import Ports
from lazycloud.workers.process import ProcessWorker as Worker
from lazycloud.workers.worker import Launch
async def main():
    command = f"{sys.executable} {sys.argv[1]}"
    here = Path(sys.argv[2])
    worker = await Worker.start(Launch(command, here, {"A": "1"}, here / "worker.log", stop_timeout=2), Ports())
    await worker.ready()
    print(json.dumps(worker.record.as_dict()), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    app = Path(__file__).parents[1] / "apps" / "ok.py"
    control = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(app), str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert control.stdout
    record = Record.from_dict(json.loads(await control.stdout.readline()))
    control.kill()
    await control.wait()
    worker = await Worker.adopt(record, ports)
    assert worker
    assert worker.is_running
    assert (await asyncio.to_thread(get, worker))["A"] == "1"
    assert worker.usage().processes == 1
    await worker.ready()
    await worker.stop()
    assert (await worker.ended()).words == "is gone"
    assert await Worker.adopt(record, ports) is None


async def test_a_record_survives_json_and_fields_that_are_not_known(start: Start) -> None:
    record = (await start("ok.py", health="/up")).record
    stored = json.loads(json.dumps(record.as_dict()))
    assert Record.from_dict({**stored, "colour": "red"}) == record


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
async def test_a_later_process_with_the_same_pid_is_not_adopted_and_left_alone(
    start: Start, ports: Ports, change: dict[str, Any]
) -> None:
    worker = await start("ok.py")
    await worker.ready()
    assert await Worker.adopt(replace(worker.record, **change), ports) is None
    assert worker.is_running


async def test_what_a_worker_left_while_nobody_watched_is_ended_when_it_is_looked_for(
    start: Start, ports: Ports
) -> None:
    worker = await start("forking.py")
    await worker.ready()
    os.kill(worker.record.pid, signal.SIGKILL)
    await asyncio.wait_for(worker.ended(), PATIENCE)
    assert list(members(worker.record.pid))
    assert await Worker.adopt(replace(worker.record, address="127.0.0.1:1"), ports) is None
    assert list(members(worker.record.pid))  # not surely its: they were given another port
    assert await Worker.adopt(worker.record, ports) is None
    await until(lambda: not list(members(worker.record.pid)))


async def test_a_worker_that_is_left_runs_on_and_can_be_adopted_by_this_process(
    tmp_path: Path, ports: Ports
) -> None:
    worker = await Worker.start(launch(tmp_path, "ok.py"), ports)
    await worker.ready()
    worker.leave()
    again = await Worker.adopt(worker.record, ports)
    assert again
    await again.stop()
    assert again.how_it_ended == "was ended by SIGTERM"


async def test_a_folder_that_is_missing_is_said(tmp_path: Path, ports: Ports) -> None:
    with pytest.raises(StepFailed, match=r"could not be started in .*gone"):
        await Worker.start(replace(launch(tmp_path, "ok.py"), folder=tmp_path / "gone"), ports)
    assert repr(ports).startswith("<Ports 0 of")


async def test_no_descriptor_is_left_open_after_a_worker(start: Start) -> None:
    def open_now() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_now()
    for command in ("ok.py", "crashing.py"):
        worker = await start(command)
        await worker.stop()
        assert identify(worker.record.pid) is None
    assert open_now() == before


async def test_usage_counts_memory_and_cpu_of_all_its_processes(start: Start) -> None:
    def spent() -> tuple[float, float]:
        """Seconds of a clock, and of a core."""
        return time.monotonic(), sum(psutil.Process(worker.record.pid).cpu_times()[:2])

    worker = await start("huge.py")
    await worker.ready()
    first = spent()
    worker.usage()
    begin = spent()
    await until(lambda: spent()[1] - begin[1] > 0.3)  # others may use this core, too
    end = spent()
    usage = await asyncio.to_thread(worker.usage)
    last = spent()
    assert 60_000_000 < usage.memory < 120_000_000
    least, most = (end[1] - begin[1]) / (last[0] - first[0]), (last[1] - first[1]) / (end[0] - begin[0])
    assert 100 * least - 10 < usage.cpu < 100 * most + 10
    assert usage.cpu > 0
    assert usage.processes == 1
    await worker.stop()
    assert worker.usage().memory == worker.usage().processes == 0


async def test_memory_that_processes_share_is_counted_once(start: Start) -> None:
    alone, forking = await start("ok.py"), await start("forking.py")
    await asyncio.gather(alone.ready(), forking.ready())
    await until(lambda: forking.usage().processes == 3)
    assert forking.usage().memory < 2.5 * alone.usage().memory
