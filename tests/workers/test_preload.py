"""A fork of a preloaded parent is, to the app and to everybody else, what a plain start is."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uv

from lazycloud.processes import end_strays, identify
from lazycloud.workers.ports import Ports
from lazycloud.workers.preload import parent as parent_module
from lazycloud.workers.preload import parents
from lazycloud.workers.preload.parents import Parents
from lazycloud.workers.preload.start import Venv
from lazycloud.workers.process import ProcessWorker as Worker
from tests.waiting import until

from .preloading import Stand, environ, fetch, reported

COMMON = ("json", "random", "flask", "http.server")
GREETING = "from flask import Flask\napp = Flask(__name__)\napp.get('/')(lambda: 'hello')\n"


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    await stand.close()


def comparable(report: dict[str, Any], worker: Worker) -> dict[str, Any]:
    """Without what differs between any two starts."""
    own = {str(worker.record.port): "<port>", worker.record.log_path.name: "<log>"}
    text = repr({name: value for name, value in report.items() if name != "random"})
    text = re.sub(r" at 0x\w+", "", text)
    for value, stand_in in own.items():
        text = text.replace(value, stand_in)
    text = re.sub(r"scratch/\d+", "scratch/<n>", re.sub(r"data/\d+", "data/<n>", text))
    return dict(eval(re.sub(r"('?COMMIT_ID'?[:=] ?'?)\d+", r"\1<n>", text)))


@pytest.mark.parametrize(
    ("command", "env"),
    [
        ("python reports.py listen --name 'two words' $PORT", {}),
        ("python3 -u ./reports.py", {"LEVEL": "debug"}),
        ("python -I -B reports.py", {"PYTHONPATH": "lib", "PYTHONWARNINGS": "error"}),
        ("python -m reports a", {"PYTHONPATH": "lib:/nowhere"}),
        ("exec python -m inner.reports", {"PYTHONWARNINGS": "error", "PYTHONHASHSEED": "7"}),
        ("reports 'x y'", {"TZ": "Asia/Tokyo", "PYTHONUNBUFFERED": ""}),
        ("reports-long", {"PYTHONSAFEPATH": "1", "LANG": "C"}),
    ],
)
async def test_an_app_cannot_tell_a_fork_from_a_plain_start(
    stand: Stand, command: str, env: dict[str, str]
) -> None:
    source = (Path(__file__).parents[1] / "apps" / "reports.py").read_text()
    (stand.app / "inner").mkdir()
    for place in (stand.app, stand.app / "inner"):
        (place / "reports.py").write_text(source)
    stand.path = own_venv(stand.folder)
    for name, head in (
        ("reports", f"#!{stand.path}/bin/python3\n"),
        ("reports-long", f"#!/bin/sh\n'''exec' \"{stand.path}/bin/python\" \"$0\" \"$@\"\n' '''\n"),
    ):
        script = stand.path / "bin" / name
        script.write_text(head + source)
        script.chmod(0o755)
    await stand.preloaded(command, "json", "random", "http.server", "zoneinfo", "wsgiref.handlers", env=env)
    plain = await stand.start(command, plain=True, env=env)
    fork = await stand.start(command, env=env)
    assert fork.record.preloaded, stand.said
    assert not plain.record.preloaded
    await asyncio.gather(plain.ready(), fork.ready())
    one, other = comparable(reported(plain), plain), comparable(reported(fork), fork)
    assert {name: other[name] for name in other if other[name] != one[name]} == {}, one
    assert reported(fork)["random"] != reported(await again(stand, command, env))["random"]


async def again(stand: Stand, command: str, env: dict[str, str]) -> Worker:
    worker = await stand.start(command, env=env)
    await worker.ready()
    return worker


def own_venv(folder: Path, python: str = sys.executable) -> Path:
    """An environment without packages."""
    place = folder / "venv"
    making = [
        uv.find_uv_bin(),
        "venv",
        "--quiet",
        "--offline",
        "--no-project",
        "--python",
        python,
        str(place),
    ]
    subprocess.run(making, check=True)
    return place


def other_python(version: str) -> str | None:
    """On PATH by its version, or where pyenv keeps it."""
    kept = (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")
    for python in filter(None, (*map(str, kept), shutil.which(f"python{version}"))):
        if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
            return python
    return None


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.12", "3.13", "3.14"])
async def test_other_pythons_cannot_tell_either(stand: Stand, version: str) -> None:
    python = other_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not on this machine")
    stand.path = own_venv(stand.folder, python)
    names = ("json", "http.server", "zoneinfo", "multiprocessing.process")
    parent = await stand.preloaded("python reports.py", *names)
    assert "http.server" in stand.verdict(parent)["clean"]
    for command in ("python reports.py", "python -m reports"):
        plain, fork = await stand.start(command, plain=True), await stand.start(command)
        assert fork.record.preloaded, stand.said
        await asyncio.gather(plain.ready(), fork.ready())
        assert comparable(reported(fork), fork) == comparable(reported(plain), plain)
        os.kill(fork.record.pid, signal.SIGTERM)
        assert (await fork.ended()).status == -signal.SIGTERM
    plain, fork = [await stand.start("python reports.py raise", plain=how) for how in (True, False)]
    assert (await plain.ended()).status == (await fork.ended()).status == 1
    texts = [worker.record.log_path.read_text().partition("\n")[2] for worker in (plain, fork)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("what", "status"),
    [("exit", 3), ("sentence", 1), ("raise", 1), ("chained", 1), ("interrupt", -signal.SIGINT)],
)
async def test_it_ends_as_python_does_and_its_status_is_known(stand: Stand, what: str, status: int) -> None:
    command = f"python reports.py {what}"
    await stand.preloaded(command, *COMMON)
    plain, fork = await stand.start(command, plain=True), await stand.start(command)
    assert fork.record.preloaded, stand.said
    assert (await plain.ended()).status == (await fork.ended()).status == status
    texts = [worker.record.log_path.read_text().partition("\n")[2] for worker in (plain, fork)]
    assert texts[0] == texts[1]
    assert "thread ended\natexit ran" in texts[1]


async def test_an_error_in_the_script_itself_is_told_as_python_tells_it(stand: Stand) -> None:
    (stand.app / "broken.py").write_text("import os\nthis is no Python\n")
    await stand.preloaded("python broken.py", *COMMON)
    plain, fork = await stand.start("python broken.py", plain=True), await stand.start("python broken.py")
    assert (await plain.ended()).status == (await fork.ended()).status == 1
    assert fork.record.preloaded
    assert plain.record.log_path.read_text() == fork.record.log_path.read_text()


async def test_a_signal_ends_it_and_is_told(stand: Stand) -> None:
    await stand.preloaded("python reports.py", *COMMON)
    for number in (signal.SIGTERM, signal.SIGKILL):
        worker = await stand.start("python reports.py")
        await worker.ready()
        os.kill(worker.record.pid, number)
        assert (await worker.ended()).status == -number


async def test_the_first_worker_teaches_and_the_next_is_preloaded(stand: Stand) -> None:
    (stand.app / "app.py").write_text(GREETING)
    command = "python -m gunicorn --bind $HOST:$PORT app:app"
    first = await stand.start(command)
    assert not first.record.preloaded
    await first.ready()
    assert await fetch(first) == "hello"
    (parent,) = stand.parents._parents.values()
    await until(lambda: parent.modules)
    verdict = stand.verdict(parent)
    assert "flask" in verdict["clean"]
    assert verdict["dirty"]["gunicorn.config"] == "reads PORT"
    assert "app" not in verdict["clean"]
    second = await stand.start(command)
    assert second.record.preloaded
    await second.ready()
    assert await fetch(second) == "hello"


async def test_gunicorn_binds_to_the_port_of_each_start_by_its_default(stand: Stand) -> None:
    (stand.app / "app.py").write_text(GREETING)
    await stand.preloaded(
        "gunicorn app:app", "gunicorn.app.wsgiapp", "gunicorn.config", "gunicorn.util", "flask"
    )
    other = await stand.start("gunicorn app:app", env={"WEB_CONCURRENCY": "1"})
    assert not other.record.preloaded  # other variables: another parent
    workers = [await stand.start("gunicorn app:app") for _ in range(2)]
    for worker in workers:
        assert worker.record.preloaded, stand.said
        await worker.ready()
        assert await fetch(worker) == "hello"


async def test_modules_whose_import_depends_on_the_worker_are_left_to_it(stand: Stand) -> None:
    stand.path = own_venv(stand.folder)
    packages = next((stand.path / "lib").iterdir()) / "site-packages"
    modules = {
        "reads_home": "import os\nos.path.expanduser('~')",
        "reads_all": "import os\ncopy = dict(os.environ)",
        "reads_setting": "import os\nlevel = os.environ.get('LEVEL')",
        "begins_thread": "import threading\nthreading.Timer(9, print).start()",
        "keeps_file": "import os\nfile = open(os.devnull)",
        "handles": "import signal\nsignal.signal(signal.SIGUSR1, print)",
        "knows_pid": "import os\npid = os.getpid()",
        "knows_time": "import time\nbegan = time.time()",
        "is_secret": "import secrets\nkey = secrets.token_hex()",
        "rolls": "import random\ndice = random.Random()",
        "speaks": "print('hello')",
        "runs": "import subprocess\nsubprocess.run(['true'])",
        "reads_arguments": "import sys\ndebug = '--debug' in sys.argv",
        "reads_file": "try:\n    open('settings.ini')\nexcept OSError:\n    pass",
        "sets": "import os\nos.environ['X'] = '1'",
        "fails": "raise RuntimeError('not today')",
        "imports_one": "import knows_pid",
        "may_import_one": "try:\n    import knows_pid\nexcept ImportError:\n    pass",
    }
    for name, text in modules.items():
        (packages / f"{name}.py").write_text(text)
    parent = await stand.preloaded("python reports.py", *modules)
    verdict = stand.verdict(parent)
    assert verdict["clean"] == ["reads_setting"], verdict
    assert verdict["dirty"] == {
        "reads_home": "reads HOME",
        "reads_all": "reads all variables",
        "begins_thread": "changes threads",
        "keeps_file": "changes descriptors",
        "handles": "changes signals",
        "knows_pid": "asks getpid()",
        "knows_time": "asks time()",
        "is_secret": "asks urandom()",
        "rolls": "rolls has randomness of its own",
        "speaks": "changes its output",
        "runs": "subprocess.Popen",
        "reads_arguments": "reads sys.argv",
        "reads_file": "opens settings.ini",
        "sets": "os.putenv",
        "fails": "fails: RuntimeError: not today",
        "imports_one": "imports knows_pid",
        "may_import_one": "imports knows_pid",
    }


async def test_the_next_parent_trusts_the_verdict_and_tries_only_what_is_new(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", "http.server")
    kept = stand.venv.memory / "verdicts" / f"{parent.key}.json"
    await stand.parents.close()
    stand.parents = Parents()
    kept.write_text(kept.read_text().replace('"dirty": {', '"dirty": {"csv": "said so"').replace("}}", "}}"))
    parent = await stand.preloaded("python reports.py", "http.server", "csv", "wave")
    assert stand.verdict(parent)["clean"] == ["http.server", "wave"]
    assert stand.verdict(parent)["dirty"] == {"csv": "said so"}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("python reports.py *.txt", "its command line needs a shell for '*'"),
        ("python reports.py > out.txt", "its command line needs a shell for '>'"),
        ("python reports.py ${LEVEL:-info}", "its command line needs a shell for '$'"),
        ("python -c 'import reports'", "is no script and no module"),
        ("python -x reports.py", "is no script and no module"),
        ("/bin/sh -c 'exec python reports.py'", "sh is no script of the environment's Python"),
        ("/usr/bin/env python reports.py", "env is no script of the environment's Python"),
        ("LEVEL=info python reports.py", "LEVEL=info was not found on PATH"),
    ],
)
async def test_what_no_fork_can_stand_for_is_started_plainly_and_says_why(
    stand: Stand, command: str, reason: str
) -> None:
    worker = await stand.start(command)
    assert not worker.record.preloaded
    assert len(stand.said) == 1
    assert stand.said[0].startswith("Started without preloading: ")
    assert reason in stand.said[0]


@pytest.mark.parametrize("name", ["flask.py", "flask/__init__.py", "_winapi.py"])
async def test_a_file_of_the_app_that_hides_what_was_imported_makes_a_plain_start(
    stand: Stand, name: str
) -> None:
    (stand.app / "flask").mkdir()
    await stand.preloaded("python reports.py", "flask", "subprocess", "shutil")
    worker = await stand.start("python reports.py")
    assert worker.record.preloaded, stand.said  # a folder alone hides nothing
    (stand.app / name).write_text("")
    worker = await stand.start("python reports.py")
    assert not worker.record.preloaded
    assert "hides a module that was imported ahead" in stand.said[-1]


async def test_variables_that_do_not_fit_make_a_plain_start(stand: Stand) -> None:
    command = f"python reports.py {'x' * 20000}"
    await stand.preloaded(command, "json")
    worker = await stand.start(command)
    await worker.ready()
    assert stand.said == ["Started without preloading: its command and variables are too long.\n"]


async def test_a_parent_that_hangs_is_ended_and_the_worker_started_once(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parent_module, "PATIENCE", 0.3)
    monkeypatch.setattr(parent_module, "DOUBT", 0.3)
    parent = await stand.preloaded("python reports.py", *COMMON)
    os.kill(parent.pid, signal.SIGSTOP)
    worker = await stand.start("python reports.py")
    await worker.ready()
    assert not worker.record.preloaded
    assert stand.said == [
        "Started without preloading: the Python that waited for it did not answer in time.\n"
    ]
    await until(lambda: identify(parent.pid) is None)


async def test_a_parent_that_was_killed_is_replaced(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", *COMMON)
    survivor = await stand.start("python reports.py")
    await survivor.ready()
    os.kill(parent.pid, signal.SIGKILL)
    plain = await stand.start("python reports.py")
    await plain.ready()
    assert not plain.record.preloaded
    assert survivor.is_running
    assert await fetch(survivor) == ""
    os.kill(survivor.record.pid, signal.SIGTERM)
    assert (await survivor.ended()).status is None  # nobody could know
    (next_parent,) = stand.parents._parents.values()
    await until(lambda: next_parent.modules)
    assert (await stand.start("python reports.py")).record.preloaded


async def test_workers_outlive_their_parent_and_are_adopted(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", *COMMON)
    worker = await stand.start("python reports.py")
    await worker.ready()
    await stand.parents.close()
    assert identify(parent.pid) is None
    worker.leave()
    stand.workers.remove(worker)
    adopted = await Worker.adopt(worker.record, Ports())
    assert adopted
    assert adopted.record.preloaded
    await adopted.stop()


async def test_strays_are_found_among_forks_and_parents(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", *COMMON)
    worker = await stand.start("python reports.py")
    await worker.ready()
    variables = environ(worker.record.pid)
    assert variables["PORT"] == str(worker.record.port)
    assert variables["DATA_DIR"].startswith(str(stand.folder / "apps"))
    assert psutil.Process(worker.record.pid).cmdline()[-1] == "reports.py"
    end_strays(stand.folder / "apps", spare={worker.record.pid})
    await until(lambda: identify(parent.pid) is None)
    assert worker.is_running
    end_strays(stand.folder / "apps", spare=set())
    assert (await worker.ended()).status is None


async def test_parents_are_bounded_and_one_that_goes_waits_for_its_workers(stand: Stand) -> None:
    stand.parents = Parents(limit=1)
    first = await stand.preloaded("python reports.py", "json")
    worker = await stand.start("python reports.py")
    second = await stand.preloaded("python reports.py", "json", env={"LEVEL": "debug"})
    assert list(stand.parents._parents.values()) == [second]
    assert identify(first.pid)
    os.kill(worker.record.pid, signal.SIGTERM)
    assert (await worker.ended()).status == -signal.SIGTERM
    await until(lambda: identify(first.pid) is None)


async def test_a_parent_that_was_only_slow_goes_on(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = await stand.preloaded("python reports.py", *COMMON)
    os.kill(parent.pid, signal.SIGSTOP)
    with monkeypatch.context() as patched:
        patched.setattr(parent_module, "PATIENCE", 0.3)
        assert not (await stand.start("python reports.py")).record.preloaded
    assert not (await stand.start("python reports.py")).record.preloaded
    assert stand.said[-1].endswith("does not answer just now.\n")
    os.kill(parent.pid, signal.SIGCONT)
    await until(lambda: parent._doubt is None)
    assert (await stand.start("python reports.py")).record.preloaded
    assert len(psutil.Process(parent.pid).children()) == 1  # who was late has not begun a second time


async def test_a_new_environment_begins_with_what_the_last_one_learned(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parents, "FIRST_WORKER", 0.0)
    await stand.preloaded("python reports.py", "wave", "csv")
    memory = stand.venv.memory.parent.parent / "newer" / "preload"

    class Newer(Stand):
        @property
        def venv(self) -> Any:
            return stand.venv.__class__(self.path, memory)

    newer = Newer(stand.folder)
    start = newer.make_start("python reports.py")
    newer.parents.prepare(start)
    (parent,) = newer.parents._parents.values()
    await until(lambda: parent.modules)
    assert newer.verdict(parent)["clean"] == ["wave", "csv"]
    await newer.close()


async def test_a_start_that_is_cancelled_leaves_nothing_running(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", *COMMON)
    starting = asyncio.create_task(stand.start("python reports.py"))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await until(lambda: not psutil.Process(parent.pid).children())


async def test_nobody_waits_in_an_environment_that_is_removed(stand: Stand) -> None:
    parent = await stand.preloaded("python reports.py", "http.server")
    await stand.parents.leave(stand.venv.memory.parent.with_name("another"))
    assert not parent.is_gone
    await stand.parents.leave(stand.venv.memory.parent)
    assert parent.is_gone and not psutil.pid_exists(parent.pid)


def test_what_another_environment_noted_may_go_while_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, modules in (("older", "json\n"), ("newer", "csv\n")):
        notes = tmp_path / name / "preload/imports"
        notes.parent.mkdir(parents=True)
        notes.write_text(modules)
    changed = parents._changed

    def going(path: Path) -> float:
        at = 2.0 if "newer" in str(path) else 1.0
        if at == 2.0:
            path.unlink()
            assert changed(path) == 0.0
        return at

    monkeypatch.setattr(parents, "_changed", going)
    own, guess = parents._notes(Venv(tmp_path / "own", tmp_path / "own/preload"))
    assert not own.exists()
    assert guess.read_text() == "json\n"
