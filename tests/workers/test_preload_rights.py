"""What a package of an app can do with the rights that a fork has for a moment, on its way behind its walls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lazycloud.walls import sandbox
from lazycloud.workers.preload.parent import NOTES, interpreter
from lazycloud.workers.preload.parents import LEARNED
from tests.waiting import until

from .preloading import Stand
from .test_preload import own_venv

pytestmark = pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing())

EVIL = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
begin = os.setsid  # what entering calls first
READ_ONLY, NO_SUID, NO_DEVICES, NO_PROGRAMS, AGAIN, BIND = 1, 2, 4, 8, 32, 4096
def called(name, *arguments):
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return 'done' if getattr(libc, name)(*given) == 0 else os.strerror(ctypes.get_errno())
def opened(place):
    try:
        os.close(os.open(place, os.O_WRONLY | (os.O_CREAT if place.endswith('planted') else 0), 0o644))
        return 'open'
    except OSError as problem:
        return problem.strerror
def evil():
    os.setsid = begin
    if os.fork():
        os.wait()
        return begin()
    entered = [called('setns', namespace, 0) for namespace in sys._getframe(1).f_locals['outer']]
    called('unshare', 0x20000000)
    if os.fork():
        os.wait()
        os._exit(0)
    tree = {tree!r}
    found = {{'entered': entered}}
    found['writable'] = called('mount', b'none', os.fsencode(tree), None, AGAIN | BIND, None)
    found['planted'] = opened(tree + '/planted')
    found['programs'] = called('mount', b'none', b'/usr', None, AGAIN | BIND | NO_SUID | NO_DEVICES, None)
    found['folder'] = called('mount', b'none', b'/run', b'tmpfs', 0, None)
    found['groups'] = called('mount', b'none', b'/run', b'cgroup2', NO_SUID | NO_DEVICES | NO_PROGRAMS, None)
    found['uncovered'] = called('umount2', b'/proc', 2)
    found['shown again'] = called('mount', b'/proc', b'/run', None, BIND, None)
    found['kernel shown again'] = opened('/run/sys/kernel/hostname')
    found['open proc'] = called('mount', b'proc', b'/proc', b'proc', NO_SUID | NO_DEVICES | NO_PROGRAMS, None)
    found['closed proc'] = called('mount', b'proc', b'/proc', b'proc', 15, None)
    found['kernel'] = opened('/proc/sys/kernel/hostname')
    print(json.dumps(found), file=sys.stderr, flush=True)
    os._exit(0)
os.setsid = evil
"""


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand.walled(tmp_path)
    yield stand
    await stand.close()


async def test_a_package_opens_no_walls_with_the_rights_of_a_fork_that_enters(stand: Stand) -> None:
    stand.path = own_venv(stand.folder)
    (packages,) = stand.path.glob("lib/python*/site-packages")
    (packages / "evil.py").write_text(EVIL.format(tree=str(stand.app)))
    await stand.preloaded("python reports.py", "json", "ctypes", "evil")
    worker = await stand.start("python reports.py")
    await worker.ready()
    assert worker.record.preloaded, stand.said
    log = (stand.venv.memory / "parent.log").read_text().splitlines()
    found = json.loads(next(line for line in log if line.startswith("{")))
    assert set(found.pop("entered")) == {"done"}
    assert found.pop("shown again") == found.pop("closed proc") == "done"
    for name in ("planted", "kernel", "kernel shown again"):
        assert found.pop(name) == "Read-only file system", name
    assert set(found.values()) == {"Operation not permitted"}, found
    assert not (stand.app / "planted").exists()


def test_an_environment_shows_the_folders_of_its_python_and_no_others(tmp_path: Path) -> None:
    home, venv, project = tmp_path / "home", tmp_path / "home" / "venv", tmp_path / "project"
    (venv / "bin").mkdir(parents=True)
    (project / "bin").mkdir(parents=True)
    for place in (project / "program", project / "bin" / "python3.11", home / "python3"):
        place.write_text("")
    python = venv / "bin" / "python"
    for leads_to, shown in (
        (project / "bin" / "python3.11", [project]),
        (project / "program", []),
        (home / "python3", []),
        (home / "bin" / "python", []),
        (Path.home() / "python", []),
        (Path("/python"), []),
    ):
        python.unlink(missing_ok=True)
        python.symlink_to(leads_to)
        assert interpreter(home, python) == shown, leads_to


TALKATIVE = """
import sys
frame = sys._getframe()
while 'self' not in frame.f_locals or not hasattr(frame.f_locals['self'], '_control'):
    frame = frame.f_back
speak = frame.f_locals['self']._control.send
for _ in range(20):
    speak({message!r})
"""


@pytest.mark.parametrize(
    "message", [b"no JSON", b"[]", b'{"is": "preloaded", "modules": "x"}', b'{"is": "up"}']
)
async def test_a_parent_that_says_what_it_was_not_asked_for_is_ended(stand: Stand, message: bytes) -> None:
    troubles: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, trouble: troubles.append(trouble))
    stand.path = own_venv(stand.folder)
    (packages,) = stand.path.glob("lib/python*/site-packages")
    (packages / "talkative.py").write_text(TALKATIVE.format(message=message))
    memory = stand.venv.memory
    memory.mkdir(parents=True)
    (memory / NOTES).write_text("json\ntalkative\n")
    (memory / LEARNED).touch()
    start = stand.make_start("python reports.py")
    stand.parents.prepare(start)
    parent = stand.parents._parents[start.key]
    await until(lambda: parent.is_gone)
    worker = await stand.start("python reports.py")
    await worker.ready()
    assert not worker.record.preloaded
    assert troubles == []
