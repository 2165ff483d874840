"""Control groups: what a worker may use with all its processes, and the end of all of them.

A group is a folder of the kernel's in each hierarchy that counts something. On most machines one hierarchy (v2)
counts everything; on older ones each controller has its own (v1), perhaps with a v2 beside them that counts nothing
but knows members and ends them at a stroke. Each start has a group of its own, below one folder for each server,
whose place the server's home remembers: what a killed control left is found by it, whatever it forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import re
import resource
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from lazycloud.findings import Finding, Weight
from lazycloud.workforce import Limits

T = TypeVar("T")

CONTROLLERS = ("memory", "pids", "cpu")
UNIFIED = "v2"
OWN_LEAF = (
    "lazycloud-server"  # where the server's own processes go when their group is to have groups below it
)
PERIOD = 100_000  # microseconds over which a share of the processor is counted, the kernel's default
LAST_PATIENCE = (
    5.0  # seconds for killed processes to be gone; one in the midst of a disk's work takes its time
)
POLL = 0.005  # seconds
HASTE, HASTE_PAUSE = (
    0.5,
    0.006,
)  # seconds: how long it is kept quick to enter a group, and how often that takes a try
MORE_LIKELY = (
    300  # of 1000: how much sooner than the server's own processes the kernel ends one when memory is short
)
SPARE_PROCESSES = 512  # of those that the user may have, which workers leave for the server
PROCESSES_FACTOR = 16  # where nothing counts by worker: workers that reach their limit at a time


class Group:
    """Made by `Groups`. `name` tells it from all others of the server; `places` has a folder for each controller."""

    def __init__(self, name: str, places: Mapping[str, Path]) -> None:
        self.name = name
        self._places = dict(places)

    def __repr__(self) -> str:
        return f"<Group {self.name}: {', '.join(self._places)}>"

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(self._places.values()))

    @property
    def unified(self) -> Path | None:
        """Its folder in the v2 hierarchy, to which programs can be attached."""
        return self._places.get(UNIFIED)

    def bounds(self, controller: str) -> bool:
        """Whether the kernel counts that here: one of CONTROLLERS."""
        return controller in self._places

    @property
    def doors(self) -> tuple[Path, ...]:
        """Files: who writes 0 into all of them has entered, with all that it forks from then on."""
        return tuple(folder / "cgroup.procs" for folder in self.folders)

    def add(self, pid: int) -> None:
        """Move a process in; what it has forked before stays where it is. Raises OSError."""
        for door in self.doors:
            door.write_text(str(pid))

    def pids(self) -> list[int]:
        return sorted({pid for door in self.doors for pid in _numbers(door)})

    def kill(self) -> None:
        """KILL all that is in it, however it was forked. They are gone a moment later."""
        if "pids" in self._places:  # else one that forks faster than we look would go on for ever
            with contextlib.suppress(OSError):
                (self._places["pids"] / "pids.max").write_text("0")
        if self.unified:
            with contextlib.suppress(OSError):  # before Linux 5.14
                (self.unified / "cgroup.kill").write_text("1")
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def end(self, seconds: float = LAST_PATIENCE) -> bool:
        """Kill, wait until all are gone, and remove it. Blocks; False if some would not go in time."""
        deadline = time.monotonic() + seconds
        while not self.remove():
            if time.monotonic() > deadline:
                return False
            self.kill()
            time.sleep(POLL)
        return True

    def remove(self) -> bool:
        """Whether it is gone; it cannot go as long as something runs in it."""
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as problem:
                if problem.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                return False
        return True

    def memory_ended(self) -> bool:
        """Whether the kernel has ended something in it because it reached its limit of memory."""
        place = self._places.get("memory")
        if place is None:
            return False
        file = "memory.events" if place == self.unified else "memory.oom_control"
        return _field(place / file, "oom_kill") > 0

    def processes_refused(self) -> int:
        """How many forks have failed in it because it reached its limit of processes."""
        place = self._places.get("pids")
        return 0 if place is None else _field(place / "pids.events", "max")

    def _limit(self, limits: Limits) -> None:
        for controller, place in self._places.items():
            for file, value in _settings(controller, place == self.unified, limits):
                try:
                    (place / file).write_text(value)
                except OSError:
                    if file not in OPTIONAL:
                        raise


def group_of(pid: int, proc: Path = Path("/proc")) -> Group | None:
    """The group that somebody else has made for a process, such as an engine of containers; None without one."""
    theirs, ours = (Hierarchies.read(proc / "self", proc / one) for one in (str(pid), "self"))
    places = {
        name: tree.own for name, tree in theirs.single.items() if _is_apart(tree, ours.single.get(name))
    }
    if theirs.unified and _is_apart(theirs.unified, ours.unified):
        own = theirs.unified.own
        places |= {UNIFIED: own, **dict.fromkeys(_controllers(own), own)}
    return Group(str(pid), places) if places else None


def _is_apart(tree: Hierarchy, ours: Hierarchy | None) -> bool:
    return tree.own != tree.top and (ours is None or tree.own != ours.own)


OPTIONAL = ("memory.swap.max", "memory.memsw.limit_in_bytes", "memory.oom.group")
"""What not every kernel has: a machine need not count swap."""


def _settings(controller: str, is_unified: bool, limits: Limits) -> Iterator[tuple[str, str]]:
    """The files of a controller, and what is written to them, in that order."""
    if controller == "memory" and limits.memory:
        size = str(limits.memory)
        if is_unified:
            yield "memory.max", size
            yield "memory.swap.max", "0"  # one that swaps at its limit would keep the disk from all others
            yield "memory.oom.group", "1"
        else:
            yield "memory.limit_in_bytes", size
            yield "memory.memsw.limit_in_bytes", size  # of both together
    elif controller == "pids" and limits.processes:
        yield "pids.max", str(limits.processes)
    elif controller == "cpu" and limits.cpu:
        quota = max(1000, int(limits.cpu * PERIOD))  # the kernel takes no less than a millisecond
        if is_unified:
            yield "cpu.max", f"{quota} {PERIOD}"
        else:
            yield "cpu.cfs_period_us", str(PERIOD)
            yield "cpu.cfs_quota_us", str(quota)


class Groups:
    """All groups of one server. The constructor touches nothing; groups are made where this process may.

    With a `purpose` they are others than those of the server, and nothing remembers them. Thread-safe as far as
    different groups are concerned.
    """

    def __init__(self, home: Path, proc: Path = Path("/proc/self"), purpose: str = "") -> None:
        self._note = None if purpose else home / "groups"
        self._name = "lazycloud-" + hashlib.sha256(os.fsencode(home) + purpose.encode()).hexdigest()[:12]
        self._proc = proc
        self._leaving: list[Group] = []
        self._hastening = 0.0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Groups {self._name}: {self.kind or 'none'}>"

    @property
    def kind(self) -> str:
        """What holds limits here: "v2", "v1", or "" for nothing that the kernel does."""
        if not set(CONTROLLERS) & set(self.bases):
            return ""
        return "v2" if self.bases["memory" if "memory" in self.bases else "pids"] == self.unified else "v1"

    @property
    def unified(self) -> Path | None:
        return self.bases.get(UNIFIED)

    @cached_property
    def bases(self) -> dict[str, Path]:
        """The folder below which the groups lie, for each controller that there is. Made at the first question."""
        hierarchies = Hierarchies.read(self._proc)
        bases: dict[str, Path] = {}
        if hierarchies.unified:
            found = _unified_base(hierarchies.unified, self._name)
            if found:
                bases[UNIFIED], counted = found
                bases |= dict.fromkeys(counted, bases[UNIFIED])
        for controller in CONTROLLERS:
            if controller not in bases and controller in hierarchies.single:
                base = hierarchies.single[controller].own / self._name
                with contextlib.suppress(OSError):
                    base.mkdir(exist_ok=True)
                    bases[controller] = base
        return bases

    def make(self, name: str, limits: Limits) -> Group | None:
        """A new, empty group for what is called so; None where there can be none. Raises OSError."""
        self._sweep()
        if not self.bases:
            return None
        group = self._made(name, self.bases)
        try:
            group._limit(limits)
        except BaseException:
            self.drop(group)
            raise
        return group

    def make_uncounted(self, name: str) -> Group | None:
        """One in the v2 hierarchy only, without limits, for programs to be attached to; None where there is none.

        Raises OSError. Where it counts, the processor comes to it last.
        """
        self._sweep()
        if self.unified is None:
            return None
        group = self._made(name, {UNIFIED: self.unified})
        with contextlib.suppress(OSError):  # what has no weight of its own has that of its processes
            (self.unified / group.name / "cpu.weight").write_text("1")
        return group

    def _made(self, name: str, bases: Mapping[str, Path]) -> Group:
        self._remember()
        shown = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
        group = self._at(f"{shown}-{secrets.token_hex(4)}", bases)
        try:
            for folder in group.folders:
                folder.mkdir(parents=True)
        except BaseException:
            self.drop(group)
            raise
        return group

    def find(self, name: str) -> Group | None:
        """One that an earlier control made, by its `name`."""
        for bases in self._known():
            group = self._at(name, bases)
            if name and any(folder.is_dir() for folder in group.folders):
                return group
        return None

    def drop(self, group: Group) -> None:
        """It is needed no more: removed now, or, while something dies in it, later."""
        if not group.remove():
            with self._lock:
                self._leaving.append(group)

    def end_others(self, spare: Iterable[str] = ()) -> list[str]:
        """End all groups of this server but those named; the names of those in which something ran. Blocks."""
        spared, ended = set(spare), []
        for bases in self._known():
            names = {entry.name for base in set(bases.values()) for entry in _folders(base)}
            for name in sorted(names - spared):
                group = self._at(name, bases)
                if group.pids():
                    ended.append(name)
                group.end()
        self._sweep()
        return ended

    def close(self) -> None:
        """Leave nothing behind where no group is left. Blocks while something dies in those that were dropped."""
        with self._lock:
            self._leaving = [group for group in self._leaving if not group.end()]
        left = []
        for bases in self._known():
            for base in set(bases.values()):
                with contextlib.suppress(FileNotFoundError):
                    try:
                        base.rmdir()
                    except OSError:
                        left.append(bases)
        if self._note and not left:
            self._note.unlink(missing_ok=True)
        self.__dict__.pop("bases", None)

    def hasten(self) -> None:
        """Somebody will enter a group in a moment. Blocks as long as that is kept quick: for a thread.

        The kernel waits for all processors before it lets the first enter, some 12 ms, and then lets in who comes
        in the next ones at once. So we move where we are already, again and again.
        """
        begun = self._hastening > time.monotonic()
        self._hastening = time.monotonic() + HASTE
        own = self._own_door
        while own and not begun and time.monotonic() < self._hastening:
            try:
                own.write_text("0")
            except OSError:
                return
            time.sleep(HASTE_PAUSE)

    def entered(self) -> None:
        """Haste is no longer needed."""
        self._hastening = 0.0

    @cached_property
    def _own_door(self) -> Path | None:
        hierarchies = Hierarchies.read(self._proc)
        tree = hierarchies.unified or next(iter(hierarchies.single.values()), None)
        return tree.own / "cgroup.procs" if tree and self.bases else None

    def _at(self, name: str, bases: Mapping[str, Path]) -> Group:
        return Group(name, {controller: base / name for controller, base in bases.items()})

    def _sweep(self) -> None:
        with self._lock:
            self._leaving = [group for group in self._leaving if not group.remove()]

    def _known(self) -> list[dict[str, Path]]:
        """The bases of this server, and those of earlier ones, which may have been started elsewhere."""
        try:
            stored = json.loads(self._note.read_text()) if self._note else []
            known = [{name: Path(path) for name, path in bases.items()} for bases in stored]
        except (OSError, ValueError, AttributeError):  # none yet, or cut off by a full disk
            known = []
        return known if not self.bases or self.bases in known else [self.bases, *known]

    def _remember(self) -> None:
        if self._note is None:
            return
        known = self._known()
        alive = [bases for bases in known if any(base.is_dir() for base in bases.values())]
        text = json.dumps([{name: str(path) for name, path in bases.items()} for bases in alive])
        with contextlib.suppress(OSError):
            if self._note.read_text() == text:
                return
        aside = self._note.with_suffix(
            f".{secrets.token_hex(4)}"
        )  # its own: a build and a worker begin at once
        aside.write_text(text)
        aside.replace(self._note)


@dataclass(frozen=True)
class Hierarchy:
    """A mounted tree of groups: `top` as it is mounted, `own` where this process is."""

    top: Path
    own: Path


@dataclass(frozen=True)
class Hierarchies:
    """`single`: v1, by the controller that each has."""

    unified: Hierarchy | None
    single: Mapping[str, Hierarchy]

    @classmethod
    def read(cls, proc: Path, of: Path | None = None) -> Hierarchies:
        """As they are mounted for the process whose folder is `proc`; `own` are the groups of another, if `of` is."""
        try:
            mounts = (proc / "mountinfo").read_text().splitlines()
            lines = ((of or proc) / "cgroup").read_text().splitlines()
        except OSError:
            return cls(None, {})
        paths: dict[str, str] = {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            paths |= dict.fromkeys(controllers.split(","), path)
        unified: Hierarchy | None = None
        single: dict[str, Hierarchy] = {}
        for mount in mounts:
            left, _, right = mount.partition(" - ")
            kind, _, options = right.split(" ", 2)
            root, top = left.split(" ")[3:5]
            if kind == "cgroup2" and "" in paths:
                unified = unified or _hierarchy(root, Path(top), paths[""])
            elif kind == "cgroup":
                for controller in set(options.split(",")) & set(CONTROLLERS) & set(paths):
                    single.setdefault(controller, _hierarchy(root, Path(top), paths[controller]))
        return cls(unified, single)


def _hierarchy(root: str, top: Path, path: str) -> Hierarchy:
    """`root` is what of the tree is mounted: a container sees its own part, and may see the paths of the whole."""
    inside = os.path.relpath(path, root)
    return Hierarchy(top, top if inside.startswith("..") else top / inside)


def _unified_base(tree: Hierarchy, name: str) -> tuple[Path, set[str]] | None:
    """A folder for groups, and what can be counted in it. The closest to us that has all controllers, else the top's
    if we may, else the closest with fewer."""
    own = tree.own.parent if tree.own.name == OWN_LEAF else tree.own
    complete = _controllers(own) == _controllers(tree.top)
    for parent in (own, tree.top) if complete else (tree.top, own):
        base, counted = parent / name, _controllers(parent)
        existed = base.is_dir()
        try:
            base.mkdir(exist_ok=True)
            _delegate(parent, counted, tree.top)
            _delegate(base, counted, tree.top)
            return base, counted
        except OSError:
            if not existed:
                with contextlib.suppress(OSError):
                    base.rmdir()
    return None


def _controllers(folder: Path) -> set[str]:
    return set(_text(folder / "cgroup.controllers").split()) & set(CONTROLLERS)


def _delegate(folder: Path, controllers: set[str], top: Path) -> None:
    """Let the groups in a folder count. Where the server's own processes are in the way, they go into one of them."""
    control = folder / "cgroup.subtree_control"
    missing = controllers - set(_text(control).split())
    if not missing:
        return
    order = " ".join(f"+{controller}" for controller in sorted(missing))
    try:
        control.write_text(order)
    except OSError as problem:
        if problem.errno != errno.EBUSY or not _is_given_to_us(folder, top):
            raise
        leaf = folder / OWN_LEAF
        leaf.mkdir(exist_ok=True)
        for pid in _numbers(folder / "cgroup.procs"):
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(str(pid))
        control.write_text(order)


def _is_given_to_us(folder: Path, top: Path) -> bool:
    """Whether all processes there are the server's or its container's: systemd says so of what it delegates."""
    if folder == top and (folder / "cgroup.type").exists():
        return True  # the top of a container; the machine's own has no type
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


async def made_in_thread(make: Callable[[], T], not_wanted: Callable[[T], None]) -> T:
    """What `make` gives. If its caller is cancelled meanwhile, that is `not_wanted` when it comes."""
    making = asyncio.ensure_future(asyncio.to_thread(make))

    def ended(making: asyncio.Future[T]) -> None:
        if not making.cancelled() and making.exception() is None:
            not_wanted(making.result())

    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(ended)
        raise


def entering(group: Group | None, limits: Limits, by_itself: bool = False) -> tuple[str, ...]:
    """Words before a command: it runs within the group, and each of its processes within the limits of one.

    A shell does it before it becomes the command, so that not one instruction of it runs outside. `by_itself`: the
    command is ours, and enters the group when it has become what is to be in there.
    """
    doors = map(str, group.doors) if group and not by_itself else ()
    return ("/bin/sh", "-c", _ENTER.format(limits=_shell_limits(group, limits)), "enter", *doors, "--")


_ENTER = (
    'while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; '
    f"echo {MORE_LIKELY} >/proc/self/oom_score_adj; "
    '{limits} exec "$@"'
)


def _shell_limits(group: Group | None, limits: Limits) -> str:
    """No core files: they would be as large as the app's memory, and hold its secrets."""
    words = ["ulimit -c 0;"]
    if limits.files:
        words.append(f"ulimit -n {_at_most(resource.RLIMIT_NOFILE, limits.files)};")
    if limits.processes and not (group and group.bounds("pids")):
        most = all_processes(limits)
        words.append(f"ulimit -u {most} 2>/dev/null || ulimit -p {most} 2>/dev/null;")  # bash or dash
    return " ".join(words)


def file_limits(limits: Limits) -> list[tuple[int, int]]:
    """For a process that is no child of a shell's: numbers of rlimits, and their values."""
    files = [(resource.RLIMIT_NOFILE, _at_most(resource.RLIMIT_NOFILE, limits.files))] if limits.files else []
    return [(resource.RLIMIT_CORE, 0), *files]


def all_processes(limits: Limits) -> int:
    """What a user's processes may be together for a worker to fork where nothing counts them by worker.

    The kernel compares the sum over the user with the limit of the one that forks: where workers have a lower
    one than the server, that can still start what is needed when an app has taken all that workers may.
    """
    return max(1, _at_most(resource.RLIMIT_NPROC, PROCESSES_FACTOR * limits.processes, SPARE_PROCESSES))


def _at_most(number: int, value: int, spare: int = 0) -> int:
    _, most = resource.getrlimit(number)
    return value if most == resource.RLIM_INFINITY else min(value, most - spare)


def findings(home: Path) -> list[Finding]:
    """What holds the limits of workers on this machine."""
    groups = Groups(home, purpose="doctor")
    counted, kind = set(groups.bases) & set(CONTROLLERS), groups.kind
    groups.close()
    advice = "As a service of systemd, give it Delegate=yes (docs/server.md); root has them anyway."
    if not counted:
        return [
            Finding(
                Weight.LIMITED,
                "limits",
                "No control groups can be made here: memory and processes of workers are only watched,"
                " and their share of the processor has no limit.",
                advice,
            )
        ]
    if missing := [name for name in CONTROLLERS if name not in counted]:
        shown = " and ".join(missing)
        sentence = f"Control groups of {kind or 'this kind'} hold limits, but not of {shown}."
        return [Finding(Weight.LIMITED, "limits", sentence, advice)]
    return [Finding(Weight.FINE, "limits", f"Control groups ({kind}) hold the limits of workers.")]


def _folders(base: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(base) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _numbers(file: Path) -> list[int]:
    return [int(word) for word in _text(file).split()]


def _field(file: Path, name: str) -> int:
    for line in _text(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
