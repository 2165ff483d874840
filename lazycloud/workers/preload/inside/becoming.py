"""A fork becomes the worker: what `python` would have made of it before the first line of the app's command."""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lazycloud.workers.preload.inside.recording import Recorder
    from lazycloud.workers.preload.inside.title import Room, strings
else:
    from recording import Recorder
    from title import Room, strings


class Order:
    """What a worker is to be, as control says it. `log`, `report`, `permit`: descriptors; so are `doors`, of the
    control group that it is to be in."""

    def __init__(self, message: dict[str, Any], log: int, report: int, permit: int, *doors: int) -> None:
        self.program: str = message["program"]  # what sys.executable will be
        self.arguments: list[str] = message["arguments"]  # the whole line, sys.orig_argv
        self.module: str | None = message["module"]
        self.script: str | None = message["script"]  # as it stands on the line; one of the two is given
        self.rest: list[str] = message["rest"]  # the arguments behind it
        self.name: str = message["name"]  # of the process, for ps
        self.folder: str = message["folder"]
        self.environment: dict[str, str] = message["environment"]
        self.record: str | None = message["record"]
        self.log, self.report, self.permit, self.doors = log, report, permit, doors

    @property
    def file(self) -> str:
        """Absolute, and as it stands: Python leaves a ./ in it alone."""
        return os.path.join(os.path.realpath(self.folder), self.script or "")

    def own_places(self) -> list[str]:
        """What comes first on sys.path, before the environment's own."""
        is_safe = sys.flags.isolated or getattr(sys.flags, "safe_path", False)
        first = [] if is_safe else [self._first_place()]
        given = "" if sys.flags.ignore_environment else self.environment.get("PYTHONPATH", "")
        named = [os.path.join(self.folder, place) for place in given.split(":")] if given else []
        return first + list(dict.fromkeys(os.path.normpath(place) for place in named))

    def _first_place(self) -> str:
        if self.script is None:
            return os.path.realpath(self.folder)
        return os.path.dirname(os.path.realpath(self.file))

    def titles(self) -> tuple[bytes, bytes]:
        """The command line and the variables as they stand in memory."""
        return strings(self.arguments), strings([f"{key}={value}" for key, value in self.environment.items()])


def become(order: Order, room: Room, main: dict[str, Any]) -> None:
    """Turn this fork into the worker. Returns as it, ready to run; ends the process if it may not begin.

    `main` is the namespace that a fresh `__main__` begins with.
    """
    try:
        _settle(order, room)
        _settle_python(order, main)
        _renew()
    except BaseException as problem:
        os.write(order.report, f"refused {type(problem).__name__}: {problem}\n".encode())
        os._exit(1)
    _begin(order)


def _settle(order: Order, room: Room) -> None:
    """As a process: its session, output, folder, variables."""
    for door in order.doors:
        os.write(door, b"0")
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(order.log, 1)
    os.dup2(order.log, 2)
    os.chdir(order.folder)
    coerced = os.environ.get("LC_CTYPE")  # which Python sets itself at its start, where no locale is
    os.environ.clear()
    os.environ.update(order.environment)
    if coerced is not None:
        os.environ["LC_CTYPE"] = coerced
    room.write(*order.titles(), order.name)


def _settle_python(order: Order, main: dict[str, Any]) -> None:
    sys.executable = order.program
    sys.argv[:] = [order.script or "-m", *order.rest]  # the same list: it may be some function's default
    if sys.version_info >= (3, 10):
        sys.orig_argv[:] = order.arguments
    own = order.own_places()
    sys.path[:] = own + [place for place in sys.path if place not in own[1:]]
    module = type(sys)("__main__")
    module.__dict__.update(main)
    if "__annotations__" in main:
        module.__annotations__ = {}
    if order.module is not None:
        for name in ("__file__", "__cached__"):
            module.__dict__.pop(name, None)
    else:
        file = order.file if sys.version_info >= (3, 9) else order.script
        module.__file__ = file
        module.__loader__ = type(main["__loader__"])("__main__", file)
    sys.modules["__main__"] = module
    if order.record:
        sys.meta_path.insert(0, Recorder(order.record))


def _renew() -> None:
    """What modules keep since their import, and each process is to have of its own. `random` sees to itself.

    Which modules these are, of those that parent.py imports without a trial, is to be the same here and there.
    """
    loaded: Any = sys.modules
    start = loaded["logging"]._startTime
    loaded["logging"]._startTime = time.time_ns() if isinstance(start, int) else time.time()
    if "site" in loaded and loaded["site"].USER_BASE is not None:  # below HOME
        loaded["site"].USER_BASE = loaded["site"].USER_SITE = None
        loaded["site"].getusersitepackages()
    if "sysconfig" in loaded and getattr(loaded["sysconfig"], "_CONFIG_VARS", None):
        loaded["sysconfig"]._CONFIG_VARS["userbase"] = loaded["sysconfig"]._getuserbase()
    if "wsgiref.handlers" in loaded:
        loaded["wsgiref.handlers"].BaseHandler.os_environ = loaded["wsgiref.handlers"].read_environ()
    if "multiprocessing.process" in loaded:
        loaded["multiprocessing.process"].current_process().authkey = os.urandom(32)
        loaded["multiprocessing.process"].ORIGINAL_DIR = os.getcwd()
    if "numpy.random" in loaded:
        loaded["numpy.random"].seed()


def _begin(order: Order) -> None:
    """Take the permit, and say who began. Without one, control has started the app in another way."""
    if os.read(order.permit, 1) != b"1":
        os._exit(1)
    with open("/proc/self/stat", "rb") as file:
        started = int(file.read().rpartition(b")")[2].split()[19])
    os.write(order.report, f"started {os.getpid()} {started}\n".encode())
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
