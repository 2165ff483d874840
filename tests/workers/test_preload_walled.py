"""A fork of a preloaded parent behind walls is what a plain start behind the same walls is."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lazycloud.processes import Identity, end_strays, identify, is_running
from lazycloud.walls import sandbox
from lazycloud.workers.ports import Ports
from lazycloud.workers.preload import cell
from lazycloud.workers.process import ProcessWorker as Worker
from lazycloud.workers.process import is_environment, prepare
from tests.waiting import until

from .conftest import APPS
from .preloading import Stand, fetch, reported
from .test_preload import comparable, own_venv

pytestmark = pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing())


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand.walled(tmp_path)
    yield stand
    await stand.close()


@pytest.mark.parametrize(
    ("command", "env"),
    [
        ("python3 -u ./reports.py --name 'two words'", {"LEVEL": "debug"}),
        ("python -I -B reports.py", {"PYTHONPATH": "lib", "PYTHONWARNINGS": "error"}),
        ("exec python -m reports a", {"PYTHONPATH": "lib:/nowhere", "PYTHONHASHSEED": "7"}),
    ],
)
async def test_an_app_cannot_tell_a_fork_from_a_plain_start(
    stand: Stand, command: str, env: dict[str, str]
) -> None:
    stand.path = own_venv(stand.folder)
    (stand.app / "reports.py").write_text((APPS / "reports.py").read_text())
    await stand.preloaded(command, "json", "random", "http.server", "zoneinfo", "wsgiref.handlers", env=env)
    plain = await stand.start(command, plain=True, env=env)
    fork = await stand.start(command, env=env)
    assert fork.record.preloaded, stand.said
    await asyncio.gather(plain.ready(), fork.ready())
    one, other = comparable(reported(plain), plain), comparable(reported(fork), fork)
    # It leads a session, as without walls; that of a plain start bwrap leads.
    assert other.pop("leads") == [True, True]
    assert {name: other[name] for name in other if other[name] != one[name]} == {}, one


@pytest.mark.parametrize(("what", "status"), [("exit", 3), ("raise", 1), ("interrupt", -signal.SIGINT)])
async def test_it_ends_as_python_does_and_its_status_is_known(stand: Stand, what: str, status: int) -> None:
    command = f"python reports.py {what}"
    await stand.preloaded(command, "json")
    plain, fork = await stand.start(command, plain=True), await stand.start(command)
    assert fork.record.preloaded, stand.said
    assert (await plain.ended()).status == (await fork.ended()).status == status
    texts = [worker.record.log_path.read_text().partition("\n")[2] for worker in (plain, fork)]
    assert texts[0] == texts[1]
    assert "thread ended\natexit ran" in texts[1]


async def test_a_signal_ends_it_and_is_told(stand: Stand) -> None:
    await stand.preloaded("python reports.py", "json")
    for number in (signal.SIGTERM, signal.SIGKILL):
        worker = await stand.start("python reports.py")
        await worker.ready()
        os.kill(worker.record.pid, number)
        assert (await worker.ended()).status == -number


async def test_the_first_worker_teaches_and_the_next_is_preloaded(stand: Stand) -> None:
    (stand.app / "app.py").write_text(
        "import http.server, os, wave\n"
        "address = (os.environ['HOST'], int(os.environ['PORT']))\n"
        "http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    first = await stand.start("python app.py")
    assert not first.record.preloaded
    await first.ready()
    assert "app.py" in await fetch(first)
    (parent,) = stand.parents._parents.values()
    await until(lambda: parent.modules)
    assert {"http.server", "wave"} <= {*stand.verdict(parent)["clean"]}
    second = await stand.start("python app.py")
    assert second.record.preloaded, stand.said
    await second.ready()
    assert "app.py" in await fetch(second)
    assert second.usage().processes == 1
    assert second.usage().memory < first.usage().memory


async def test_workers_outlive_their_parent_are_adopted_and_leave_nothing(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", "json")
    worker = await stand.start("python reports.py")
    await worker.ready()
    everyone = inhabitants(parent.pid, worker.record.pid)
    assert len(everyone) == 5  # bwrap's first, the parent, who waits, who reaps, the worker
    await stand.parents.close()
    assert identify(parent.pid) is None
    worker.leave()
    stand.workers.remove(worker)
    adopted = await Worker.adopt(worker.record, Ports())
    assert adopted
    assert await fetch(adopted) == ""
    assert any(map(is_running, everyone))
    await adopted.stop()
    assert (await adopted.ended()).status is None
    await until(lambda: not any(map(is_running, everyone)))


def inhabitants(*pids: int) -> list[Identity]:
    """All that live in the same namespaces of processes."""
    namespaces = {processes_of(pid) for pid in pids}
    return [one for pid in psutil.pids() if processes_of(pid) in namespaces and (one := identify(pid))]


def processes_of(pid: int) -> Path:
    """Which namespace of processes it is in."""
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return Path()


async def test_what_a_parent_is_given_is_not_lost_on_the_way_to_it(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", "json")
    opened = {int(place.name): place.readlink() for place in Path(f"/proc/{parent.pid}/fd").iterdir()}
    (control,) = (number for number, place in opened.items() if str(place).startswith("socket:"))
    assert control > sandbox.FILTER  # which a shell opens


async def test_one_parent_that_is_killed_takes_no_worker_along(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", "json")
    survivor = await stand.start("python reports.py")
    await survivor.ready()
    parent.kill()
    await until(lambda: identify(parent.pid) is None)
    assert await fetch(survivor) == ""
    await survivor.stop()


async def test_what_an_app_left_running_ends_with_it(stand: Stand) -> None:
    (stand.app / "daemon.py").write_text(
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
        "    if os.fork() == 0:\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    if os.fork():\n"
        "        os._exit(0)\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    while True: time.sleep(100)\n"
        "os.wait()\n"
        "print('up', flush=True)\n"
        "time.sleep(100)\n"
    )
    await stand.preloaded("python daemon.py", "json")
    worker = await stand.start("python daemon.py")
    await until(lambda: "up" in worker.last_lines())
    await until(lambda: len(psutil.Process(worker.record.pid).children()) == 0)
    everyone = inhabitants(worker.record.pid)
    assert len(everyone) == 3  # with the one that reaps, and has reaped
    await worker.stop()
    await until(lambda: not any(map(is_running, everyone)))


async def test_a_fork_waits_behind_its_walls_for_a_worker_that_is_expected(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", "json")
    launch = stand.launch("python reports.py")
    assert launch.view
    data, making = launch.view.write[0], stand.folder / "making"
    data.rename(making)  # as data are while they are copied
    early = replace(launch, view=replace(launch.view, write=(), copies=((making, data),)))
    prepare(early, stand.parents)
    (task,) = stand.parents._ahead._tasks.values()
    waiting = await task
    making.rename(data)
    worker = await stand.start("python reports.py")
    await worker.ready()
    assert worker.record.preloaded, stand.said
    assert worker.record.pid == waiting.pid
    assert len(psutil.Process(parent.pid).children()) == 1
    os.kill(worker.record.pid, signal.SIGTERM)
    assert (await worker.ended()).status == -signal.SIGTERM


@pytest.mark.parametrize("what", ["data", "release", "nothing"])
async def test_a_fork_that_sees_something_else_than_it_should_is_not_used(stand: Stand, what: str) -> None:
    parent = await stand.preloaded("python reports.py", "json")
    launch = stand.launch("python reports.py")
    assert launch.view
    if what == "release":
        launch = replace(launch, view=replace(launch.view, read=(*launch.view.read, stand.folder)))
    prepare(launch, stand.parents)
    (task,) = stand.parents._ahead._tasks.values()
    waiting = await task
    if what == "data":
        launch.view.write[0].rename(stand.folder / "dropped")
    if what == "nothing":
        stand.parents._ahead.close()
    worker = await stand.start("python reports.py")
    await worker.ready()
    assert worker.record.preloaded, stand.said
    assert worker.record.pid != waiting.pid
    await until(lambda: identify(waiting.pid) is None)
    assert len(psutil.Process(parent.pid).children()) == 1


async def test_strays_are_found_among_forks_and_parents(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", "json")
    worker = await stand.start("python reports.py")
    await worker.ready()
    end_strays(stand.folder / "apps", spare={worker.record.pid})
    await until(lambda: identify(parent.pid) is None)
    assert worker.is_running
    assert await fetch(worker) == ""
    end_strays(stand.folder / "apps", spare=set())
    await worker.ended()


async def test_a_file_of_the_app_that_hides_what_was_imported_makes_a_plain_start(stand: Stand) -> None:
    await stand.preloaded("python reports.py", "flask")
    (stand.app / "flask.py").write_text("")
    worker = await stand.start("python reports.py")
    assert not worker.record.preloaded
    assert "hides a module that was imported ahead" in stand.said[-1]
    await worker.ready()


async def test_without_walls_for_a_fork_it_is_started_plainly_behind_walls(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stand.preloaded("python reports.py", "json")
    monkeypatch.setattr(cell, "WAITING", ("/bin/false",))
    worker = await stand.start("python reports.py")
    assert stand.said == [
        "Started without preloading: its walls could not be made; parent.log of its environment says why.\n"
    ]
    await worker.ready()
    assert worker.record.walled


async def test_only_an_environment_of_this_home_is_shown_to_a_parent(tmp_path: Path) -> None:
    home = tmp_path / "home"
    real = home / "apps" / "shop" / "environments" / "key" / "venv"
    real.mkdir(parents=True)
    link = real.with_name("link")
    link.symlink_to(home)
    assert is_environment(real, home)
    assert not is_environment(link, home)
    assert not is_environment(real.parent / ".." / ".." / "data", home)
    assert not is_environment(home / "apps" / "shop" / "data" / "venv", home)
    with pytest.raises(ValueError, match="not in the subpath"):
        is_environment(Path("/root/venv"), home)


HOSTILE = """
import ctypes, json, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
memory, secret, other = sys.argv[1:]
def tried(what):
    try:
        return repr(what())
    except OSError as problem:
        return type(problem).__name__
def called(name, *arguments):
    return 'done' if getattr(libc, name)(*arguments) == 0 else os.strerror(ctypes.get_errno())
print(json.dumps({
    'processes': sorted(int(name) for name in os.listdir('/proc') if name.isdigit()),
    'descriptors': sorted(name for name in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{name}')),
    'notes': 'its own' if open(memory + '/imports', 'a').tell() == 0 else 'its parent reads them',
    'verdict': tried(lambda: open(memory + '/verdicts/x', 'w')),
    'secret': tried(lambda: open(secret)),
    'other': tried(lambda: os.listdir(other)),
    'parent': os.getppid(),
    'first': tried(lambda: os.readlink('/proc/1/root')),
    'kernel': tried(lambda: open('/proc/sys/kernel/hostname', 'w')),
    'keys': tried(lambda: open('/proc/keys').read()),
    'mount': called('mount', b'none', b'/tmp', b'tmpfs', 0, None),
    'umount': called('umount2', b'/proc', 2),
    'unshare': called('unshare', 0x10000000),
    'rights': [line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')],
    'user': os.getuid() == 0,
}), flush=True)
"""


async def test_a_hostile_app_reaches_neither_its_parent_nor_others(stand: Stand) -> None:
    (stand.app / "hostile.py").write_text(HOSTILE)
    secret = stand.folder / "secret"
    secret.write_text("of the server")
    other = stand.folder / "apps" / "it" / "data" / "0"
    await stand.preloaded("python hostile.py x x x", "json", "ctypes")
    neighbour = await stand.start("python reports.py")
    await neighbour.ready()
    for plain in (True, False):
        worker = await stand.start(f"python hostile.py {stand.venv.memory} {secret} {other}", plain=plain)
        assert worker.record.preloaded is not plain, stand.said
        await worker.ended()
        assert reported(worker) == {
            "processes": [1, 2],
            "descriptors": ["0", "1", "2"],
            "notes": "its own",
            "verdict": "FileNotFoundError",
            "secret": "FileNotFoundError",
            "other": "FileNotFoundError",
            "parent": 1 if plain else 0,
            "first": "PermissionError",
            "kernel": "OSError",
            "keys": "PermissionError",
            "mount": "Operation not permitted",
            "umount": "Operation not permitted",
            "unshare": "Operation not permitted",
            "rights": ["0000000000000000"] * 5,
            "user": False,
        }, plain
    assert await fetch(neighbour) == ""
