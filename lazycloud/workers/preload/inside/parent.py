"""A Python that has imported what workers need, and waits: each worker is a fork of it.

Run by the Python of an app's environment, which may be 3.8, with nothing of lazycloud's to import but what lies
beside this file; a fork runs the app's command at the end of it, so that Python ends as it always does.

Arguments: the number of an inherited SOCK_SEQPACKET socket to control, settings in JSON, and room to write
later titles into. When control is gone, so is this process; its workers live on.
"""

from __future__ import annotations

FRESH = {**globals(), "__doc__": None}  # what a `__main__` begins with
del FRESH["annotations"]

import sys

BARE = frozenset(sys.modules)  # what each Python has imported before the app can say a word

import gc
import importlib
import importlib.machinery
import json
import logging  # noqa: F401 - it notes the time of its import, which a fork renews
import os
import random  # noqa: F401 - it seeds itself at a fork
import runpy
import select
import signal
import socket
import time

TYPE_CHECKING = False
HERE = os.path.dirname(os.path.abspath(__file__))
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from lazycloud.workers.preload.inside.becoming import LARGEST, Order, become, receive
    from lazycloud.workers.preload.inside.entering import Walls
    from lazycloud.workers.preload.inside.title import Room, strings
    from lazycloud.workers.preload.inside.trial import FAILS, NICENESS, Trial
else:
    sys.path.insert(0, HERE)
    from becoming import LARGEST, Order, become, receive
    from entering import Walls
    from title import Room, strings
    from trial import FAILS, NICENESS, Trial

    sys.path[:] = [place for place in sys.path if place != HERE]
    sys.path_importer_cache.pop(HERE, None)
    for name in ("becoming", "entering", "recording", "title", "trial"):
        del sys.modules[name]  # the app may have modules called so

NOTED = 400000  # bytes of notes that are read: workers write no more than half of that in one environment
PATCHERS = frozenset({"gevent.monkey", "eventlet.patcher"})  # they change what is to be imported after them
NEVER = frozenset({"__main__", "antigravity", "this", "sitecustomize", "usercustomize"})
# These keep what differs, which a fork makes anew (see becoming.py), or read it through one that does.
RENEWED = ("multiprocessing.process", "sysconfig", "wsgiref.handlers", "zoneinfo")
SITE = frozenset({"sitecustomize", "usercustomize"})


class Missed:
    """The last of the finders: told of all that no other one found."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if path is None:
            self.names.add(name)


class Parent:
    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self._control = control
        self._notes: list[str] = settings[
            "notes"
        ]  # files that workers, or those of another environment, wrote
        self._verdict: str = settings["verdict"]
        self._version: str = f"{settings['version']} {sys.version}"
        self._withheld = frozenset(settings["withheld"])
        self._walls = Walls(settings["walls"]) if settings["walls"] else None
        if self._walls:  # away from bwrap's processes, which are to stay for those who live on
            os.setsid()
        for door in settings["doors"]:
            os.write(door, b"0")
            os.close(door)
        self._room = Room()
        self._children: dict[int, int] = {}  # pid -> where its end is to be told
        self._missed = Missed()
        self._app_places: list[str] = []
        self._work: Iterator[None] | None = None
        self._retired = False
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)

    def serve(self) -> Order | None:
        """In a fork, what it is to run; in this process, None once there is nothing left to do."""
        self._tell({"is": "up"})
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not (self._retired and not self._children):
            ready = {number for number, _ in poll.poll(0 if self._work else None)}
            if self._wake in ready:
                self._reap()
            if self._control.fileno() in ready:
                message, descriptors = receive(self._control, LARGEST)
                if not message:
                    return None
                if order := self._obey(json.loads(message), descriptors):
                    return order
            if not ready and self._work and next(self._work, self) is self:
                self._work = None
        return None

    def _obey(self, message: dict[str, Any], descriptors: list[int]) -> Order | None:
        if message["do"] == "retire":
            self._retired = True
        elif message["do"] == "answer":
            self._tell({"is": "up"})
        elif message["do"] == "preload":
            self._work = self._preload()
        elif message["do"] == "fork":
            return self._answer(*descriptors, outer=message["outer"])
        return None

    def _answer(self, report: int, *namespaces: int, outer: int) -> Order | None:
        """In a fork that was asked for, what it is to run. It goes behind walls by `namespaces`, if there are any."""
        if self._fork(report):
            walls, before, after = self._walls, list(namespaces[:outer]), list(namespaces[outer:])
            enter = (lambda: walls.enter(before, after, self._room)) if walls else None
            return become(report, self._room, FRESH, enter, self._hidden)
        for number in namespaces:
            os.close(number)
        if report not in self._children.values():
            os.close(report)
        return None

    def _fork(self, report: int) -> bool:
        """Whether this is the fork."""
        try:
            if len(os.listdir("/proc/self/task")) > 1:
                raise RuntimeError("what was imported ahead has begun a thread")
            pid = os.fork()
        except (OSError, RuntimeError) as problem:
            os.write(report, f"refused {problem}\n".encode())
            return False
        if pid:
            self._children[pid] = report
            return False
        self._control.close()  # this process may live as long as the worker does
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self._missed]
        return True

    def _hidden(self, order: Order) -> str:
        """Why what was imported is not what the worker would import; "" if it is."""
        names = {name.partition(".")[0] for name in set(sys.modules) - BARE} | self._missed.names
        places = order.own_places()
        # Most servers put the folder in front of all others, and some apps do so with one of its folders.
        others = [os.path.normpath(os.path.join(order.folder, place)) for place in ("", *self._app_places)]
        for place in dict.fromkeys([*places, *others]):
            if found := _shadowing(place, names | SITE if place in places[1:] else names):
                return f"{os.path.join(place, found)} hides a module that was imported ahead"
        return ""

    def _preload(self) -> Iterator[None]:
        """Import one module after the other; between two of them, workers are started."""
        began, modules = time.monotonic(), len(sys.modules)
        _come_after_others(NICENESS)
        names, set_by_app = self._read_notes()
        clean, dirty = self._read_verdict()
        known = len(clean) + len(dirty)
        trial = Trial(self._withheld | set_by_app)
        finder: Any = self._missed
        sys.meta_path.append(finder)
        if not PATCHERS.intersection(names):
            for name in [*(name for name in RENEWED if name in names), *names]:
                if name in sys.modules or name in dirty or name in NEVER or name.endswith(".__main__"):
                    continue  # a __main__ is a program: its import runs it
                if name not in clean and name not in RENEWED:
                    if found := trial(name, dirty):
                        dirty.update((each, why) for each, why in found.items() if each not in sys.modules)
                        yield
                        continue
                    clean.append(name)
                start = time.monotonic()
                try:
                    importlib.import_module(name)
                    if name == "sysconfig":
                        sys.modules[name].get_config_vars()  # else the next who asks for them reads HOME
                except Exception as problem:  # it went well in its trial
                    clean = [each for each in clean if each != name]
                    dirty[name] = f"{FAILS}{type(problem).__name__}: {problem}"
                time.sleep(min(time.monotonic() - start, 0.2))  # half a core at most: others are at work
                yield
        sys.meta_path.remove(finder)
        _come_after_others(0)
        gc.collect()
        gc.freeze()  # the collector will not write to these pages: they stay shared
        if len(clean) + len(dirty) > known:
            self._write_verdict(clean, dirty)
        seconds = time.monotonic() - began
        self._tell({"is": "preloaded", "modules": len(sys.modules) - modules, "seconds": round(seconds, 3)})

    def _read_notes(self) -> tuple[list[str], frozenset[str]]:
        """The names of modules, in the order of their imports, and the variables that apps set by themselves."""
        lines: dict[str, None] = {}
        for path in self._notes:
            try:
                with open(path, encoding="utf-8", errors="surrogateescape") as file:
                    lines.update(dict.fromkeys(file.read(NOTED).splitlines()))
            except OSError:
                continue
        self._app_places = [line[1:] for line in lines if line.startswith("+")]
        names = [line for line in lines if line and line[0] not in "=+"]
        return names, frozenset(line[1:] for line in lines if line.startswith("="))

    def _read_verdict(self) -> tuple[list[str], dict[str, str]]:
        try:
            with open(self._verdict, encoding="utf-8") as file:
                verdict = json.load(file)
            if verdict["version"] == self._version:
                return list(verdict["clean"]), dict(verdict["dirty"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none yet, or one that was cut off: it is made again
        return [], {}

    def _write_verdict(self, clean: list[str], dirty: dict[str, str]) -> None:
        aside = f"{self._verdict}.{os.getpid()}"
        with open(aside, "w", encoding="utf-8") as file:
            json.dump({"version": self._version, "clean": clean, "dirty": dirty}, file, indent=1)
        os.replace(aside, self._verdict)

    def _reap(self) -> None:
        os.read(self._wake, 4096)
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            report = self._children.pop(pid, None)
            if report is not None:
                try:
                    os.write(report, f"ended {status}\n".encode())
                except BrokenPipeError:
                    pass  # nobody asks any more
                os.close(report)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(message).encode())
        except OSError:
            pass  # control is gone, which the next look will show


def _come_after_others(niceness: int) -> None:
    """The share of the processor that this session has; a worker has a session, and so a share, of its own.

    Niceness itself could not be taken back. Where the kernel does not group processes by session, nothing happens.
    """
    for _ in range(2):
        try:
            with open("/proc/self/autogroup", "w", encoding="ascii") as file:
                file.write(f"{niceness}\n")
            return
        except BlockingIOError:  # a user may change one group in a tenth of a second
            time.sleep(0.11)
        except OSError:
            return


def _shadowing(place: str, names: set[str]) -> str:
    """What in a folder would be imported under one of the names."""
    try:
        entries = list(os.scandir(place))
    except OSError:
        return ""
    for entry in entries:
        stem, _, rest = entry.name.partition(".")
        if stem not in names:
            continue
        if rest and f".{rest}" in importlib.machinery.all_suffixes():
            return entry.name
        if (
            not rest
            and entry.is_dir()
            and any(
                os.path.exists(os.path.join(entry.path, f"__init__{suffix}"))
                for suffix in importlib.machinery.all_suffixes()
            )
        ):
            return entry.name
    return ""


def _begin() -> Order | None:
    settings = json.loads(sys.argv[2])
    for name in settings["forget"]:
        os.environ.pop(name, None)
    parent = Parent(socket.socket(fileno=int(sys.argv[1])), settings)
    title = strings(["lazycloud: preloaded", settings["verdict"]])
    variables = strings([f"{key}={value}" for key, value in os.environ.items()])
    if parent._room.fits(title, variables):
        parent._room.write(title, variables, "preloaded")
    gc.collect()
    gc.freeze()
    return parent.serve()


def _untraced() -> None:
    """What goes wrong in the app is told without the lines that led to it here."""
    hook = sys.excepthook

    def trimmed(kind: Any, problem: Any, trace: Any) -> None:
        sys.excepthook = hook
        inner = trace.tb_next if trace is not None else None
        problem.__traceback__ = sys.last_traceback = inner
        hook(kind, problem, inner)

    sys.excepthook = trimmed


if (order := _begin()) is not None:
    try:
        if order.module is not None:
            runpy._run_module_as_main(order.module)  # type: ignore[attr-defined]
        else:
            with open(order.file, "rb") as source:
                text = source.read()
            main = sys.modules["__main__"]
            exec(compile(text, main.__file__ or "", "exec"), main.__dict__)  # noqa: S102
    except BaseException:
        _untraced()
        raise
