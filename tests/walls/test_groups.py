"""Control groups: what is bounded, who is in, and that all of it can be ended."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lazycloud.processes import identify
from lazycloud.walls.groups import OWN_LEAF, Group, Groups, entering, findings
from lazycloud.workforce import Limits
from tests.waiting import PATIENCE, wait

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        print(os.getpid(), flush=True)
        for number in (1, 2): os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        time.sleep(600)
    os._exit(0)
os.wait()
"""


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Groups]:
    groups = Groups(tmp_path)
    if set(groups.bases) < {"memory", "pids", "cpu"}:
        pytest.skip("no control groups can be made here")
    yield groups
    groups.end_others()
    groups.close()


def made(groups: Groups, limits: Limits | None = None) -> Group:
    group = groups.make("shop/3f2a9c1d0b:3f2a9c1d0b", limits or Limits())
    assert group
    return group


def run(group: Group, script: str, limits: Limits | None = None) -> subprocess.CompletedProcess[str]:
    words = entering(group, limits or Limits())
    return subprocess.run(
        [*words, sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_a_command_is_in_its_group_before_it_runs_and_so_is_what_it_forks(groups: Groups) -> None:
    group = made(groups)
    paths = run(group, "import os; os.system('cat /proc/self/cgroup')").stdout
    assert paths.count(f"/{group.name}\n") == len(group.folders)


def test_a_group_is_named_for_its_worker_and_each_start_has_its_own(groups: Groups) -> None:
    first, second = made(groups), made(groups)
    assert first.name.startswith("shop-3f2a9c1d0b-3f2a9c1d0b-")
    assert first.name != second.name


def test_memory_is_bounded_and_the_group_tells_that_it_was(groups: Groups) -> None:
    limits = Limits(memory=64_000_000)
    group = made(groups, limits)
    assert run(group, "x = bytearray(20_000_000)").returncode == 0
    assert not group.memory_ended()
    assert run(group, "x = bytearray(200_000_000)").returncode == -signal.SIGKILL
    assert group.memory_ended()


def test_processes_are_bounded_and_the_group_tells_how_many_forks_failed(groups: Groups) -> None:
    group = made(groups, Limits(processes=5))
    script = (
        "import os, time\n"
        "made = 0\n"
        "try:\n"
        "    while made < 50:\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "        made += 1\n"
        "except BlockingIOError: pass\n"
        "print(made, flush=True); os.killpg(0, 9)"
    )
    words = entering(group, Limits(processes=5))
    done = subprocess.run(
        [*words, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        start_new_session=True,
        check=False,
    )
    assert done.stdout == "4\n"
    assert group.processes_refused() == 1


def test_the_processor_is_bounded(groups: Groups) -> None:
    group = made(groups, Limits(cpu=0.2))
    began = time.monotonic()
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time())"
    spent = float(run(group, spin).stdout)
    assert spent / (time.monotonic() - began) < 0.3


def test_each_process_has_its_limits_of_files_and_leaves_no_core(groups: Groups) -> None:
    limits = Limits(files=123)
    said = run(
        made(groups, limits),
        "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_CORE))",
        limits,
    )
    assert said.stdout == "(123, 123) (0, 0)\n"


def test_without_a_group_each_process_has_limits_all_the_same() -> None:
    limits = Limits(files=10_000_000, processes=100)
    words = entering(None, limits)
    script = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE)[0], r.getrlimit(r.RLIMIT_NPROC)[0])"
    done = subprocess.run([*words, sys.executable, "-c", script], capture_output=True, text=True, check=True)
    files, processes = map(int, done.stdout.split())
    assert files == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert processes == 1600


def test_a_command_that_cannot_enter_its_group_does_not_run(groups: Groups) -> None:
    group = made(groups)
    assert group.end()
    done = run(group, "print('ran')")
    assert (done.returncode, done.stdout) == (125, "")


def test_the_kernel_ends_workers_sooner_than_the_server(groups: Groups) -> None:
    assert run(made(groups), "print(open('/proc/self/oom_score_adj').read())").stdout.split() == ["300"]


def test_daemons_that_have_left_the_session_end_with_their_group(groups: Groups) -> None:
    group = made(groups)
    daemon = int(run(group, DAEMON).stdout)
    assert group.pids() == [daemon]
    assert os.getsid(daemon) != os.getsid(0)
    assert not group.remove()
    assert group.end()
    assert identify(daemon) is None
    assert not any(folder.exists() for folder in group.folders)
    assert group.end()


def test_what_forks_faster_than_one_can_look_ends_too(groups: Groups) -> None:
    limits = Limits(processes=50)
    group = made(groups, limits)
    assert group.bounds("pids"), "no fork bomb without a limit"
    script = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass\n"
    process = subprocess.Popen(
        [*entering(group, limits), sys.executable, "-c", script], stderr=subprocess.DEVNULL
    )
    wait(group.processes_refused, "the limit")
    assert len(group.pids()) >= 40
    assert group.end()
    process.wait(PATIENCE)


def test_a_process_can_be_moved_in(groups: Groups) -> None:
    group = made(groups)
    with subprocess.Popen(["sleep", "600"]) as process:
        group.add(process.pid)
        assert group.pids() == [process.pid]
        group.kill()


def test_groups_are_found_again_and_those_that_nobody_wants_are_ended(groups: Groups, tmp_path: Path) -> None:
    wanted, stray, empty = made(groups), made(groups), made(groups)
    daemons = [int(run(group, DAEMON).stdout) for group in (wanted, stray)]
    later = Groups(tmp_path)
    found = later.find(wanted.name)
    assert found and found.folders == wanted.folders
    assert later.find("never-made") is None
    assert later.find("") is None
    assert later.end_others({wanted.name}) == [stray.name]
    assert [identify(pid) is None for pid in daemons] == [False, True]
    assert later.find(empty.name) is None
    later.close()
    assert found.pids() == [daemons[0]]
    assert found.end()


def test_groups_of_a_server_that_was_started_elsewhere_are_found(groups: Groups, tmp_path: Path) -> None:
    """In another session of systemd's, its groups have other places."""
    stray = made(groups)
    daemon = int(run(stray, DAEMON).stdout)
    elsewhere = Groups(tmp_path, proc=tmp_path / "nothing is mounted")
    assert elsewhere.bases == {}
    assert elsewhere.end_others() == [stray.name]
    assert identify(daemon) is None
    elsewhere.close()
    assert not stray.folders[0].parent.exists()
    assert not (tmp_path / "groups").exists()


def test_a_group_in_which_something_dies_is_removed_later(groups: Groups) -> None:
    group = made(groups)
    with subprocess.Popen([*entering(group, Limits()), "sleep", "600"]) as process:
        while not group.pids():
            os.sched_yield()
        groups.drop(group)
        process.kill()
    other = made(groups)
    assert not any(folder.exists() for folder in group.folders)
    assert all(folder.exists() for folder in other.folders)


def test_entering_is_quick_once_it_was_announced(groups: Groups) -> None:
    groups.hasten()  # it ends by itself
    groups.entered()
    made(groups)


def test_a_machine_without_groups_has_none(tmp_path: Path) -> None:
    groups = Groups(tmp_path, proc=tmp_path)
    assert groups.make("shop", Limits()) is None
    assert groups.kind == ""
    assert groups.end_others() == []
    groups.close()


def fake_v2(tmp_path: Path, own: str = "/") -> tuple[Path, Path]:
    """What /proc tells of a machine with v2 alone, and its tree, of plain files."""
    proc, top = tmp_path / "proc", tmp_path / "tree"
    (top / own[1:]).mkdir(parents=True)
    proc.mkdir()
    (proc / "cgroup").write_text(f"0::{own}\n")
    (proc / "mountinfo").write_text(f"30 20 0:26 / {top} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
    for folder in {top, top / own[1:]}:
        (folder / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (folder / "cgroup.subtree_control").write_text("")
        (folder / "cgroup.procs").write_text("")
    return proc, top


def test_v2_bounds_all_in_one_folder(tmp_path: Path) -> None:
    proc, top = fake_v2(tmp_path, "/system.slice/lazycloud.service")
    groups = Groups(tmp_path, proc=proc)
    assert groups.kind == "v2"
    group = made(groups, Limits(memory=512_000_000, cpu=1.5, processes=100))
    (folder,) = group.folders
    own = top / "system.slice/lazycloud.service"
    assert folder.parent.parent == own
    assert group.unified == folder
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "memory.max": "512000000",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "100",
        "cpu.max": "150000 100000",
    }
    assert (own / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (folder.parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    (folder / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 1\n")
    (folder / "pids.events").write_text("max 7\n")
    assert group.memory_ended()
    assert group.processes_refused() == 7


def test_a_server_whose_processes_made_way_finds_its_groups_beside_them(tmp_path: Path) -> None:
    proc, top = fake_v2(tmp_path, f"/system.slice/lazycloud.service/{OWN_LEAF}")
    unit = top / "system.slice/lazycloud.service"
    for name in ("cgroup.controllers", "cgroup.subtree_control", "cgroup.procs"):
        (unit / name).write_text((top / name).read_text())
    assert Groups(tmp_path, proc=proc).bases["memory"].parent == unit


def test_a_container_that_sees_the_paths_of_the_whole_machine_uses_what_is_mounted(tmp_path: Path) -> None:
    proc, top = fake_v2(tmp_path)
    (proc / "cgroup").write_text("0::/docker/0123\n")
    mounted = f"30 20 0:26 /docker/0123 {top} rw - cgroup2 cgroup2 rw\n"
    (proc / "mountinfo").write_text(mounted)
    assert Groups(tmp_path, proc=proc).bases["memory"].parent == top


def test_what_holds_limits_here_is_told(tmp_path: Path, groups: Groups) -> None:
    (one,) = findings(tmp_path)
    assert one.sentence == f"Control groups ({groups.kind}) hold the limits of workers."
    assert made(groups).folders[0].is_dir()  # the server's own were left alone
