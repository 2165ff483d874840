"""A fork becomes the worker: what `python` would have made of it before the first line of the app's command."""

from __future__ import annotations

import array
import json
import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from lazycloud.workers.preload.inside.recording import Recorder
    from lazycloud.workers.preload.inside.title import Room, strings
else:
    from recording import Recorder
    from title import Room, strings


LARGEST = 1 << 18  # bytes of an order; more than a socket takes
DESCRIPTORS = 32  # that come with a message, at most


class Order:
    """What a worker is to be, as control says it on `report`. `log` and `permit` come with it: descriptors; so do
    `doors`, of the control group that it is to be in."""

    def __init__(self, message: dict[str, Any], report: int, log: int, permit: int, *doors: int) -> None:
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


def receive(connection: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """A message, b"" at the end, and the descriptors that came with it."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(DESCRIPTORS * descriptors.itemsize)
    try:
        message, extra, _, _ = connection.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", []
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return message, list(descriptors)


def become(
    report: int,
    room: Room,
    main: dict[str, Any],
    enter: Callable[[], None] | None,
    hidden: Callable[[Order], str],
) -> Order:
    """Turn this fork into the worker that is ordered on `report`. Ends the process if it may not begin.

    `main` is the namespace that a fresh `__main__` begins with. `enter` goes behind walls, and returns in another
    process. `hidden` tells, of the files as the worker sees them, why it would not be as a plain start is.
    """
    try:
        if enter:
            enter()
        order = _await_order(report)
        if not room.fits(*order.titles()):
            _refuse(report, "its command and variables are too long")
        if why := hidden(order):
            _refuse(report, why)
        _settle(order, room)
        _settle_python(order, main)
        _renew()
    except BaseException as problem:
        _refuse(report, f"{type(problem).__name__}: {problem}")
    _begin(order)
    return order


def _await_order(report: int) -> Order:
    os.write(report, b"waits\n")  # the kernel adds the pid, as whoever reads it counts
    with socket.socket(fileno=os.dup(report)) as connection:
        message, descriptors = receive(connection, LARGEST)
    if not message:  # nobody needs it any more
        os._exit(0)
    return Order(json.loads(message), report, *descriptors)


def _refuse(report: int, why: str) -> NoReturn:
    try:
        os.write(report, f"refused {why}\n".encode("utf-8", "replace"))
    finally:
        os._exit(1)


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
    os.write(order.report, b"started\n")
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
