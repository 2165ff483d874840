"""Whether a module can be imported ahead: tried in a fork, which ends afterwards whatever it did.

A module is left to the worker if its import asks for what differs between workers (their variables, arguments,
folder, pid, the time, randomness), or leaves what a fork does not inherit well (threads, descriptors, signal
handlers), or reaches outside. Then so is each module that imports it: its own trial meets the same.
"""

from __future__ import annotations

import importlib
import os
import random
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLEAN = "clean"
FAILS = "fails: "  # the beginning of why a module was not there, or did not want to be imported
# Whoever asks for randomness by these has names made that are to be unique within one process only.
HARMLESS = frozenset({("opentelemetry.context", "create_key")})
HARMLESS_DEPTH = 4  # frames between it and os.urandom
PATIENCE = 20.0  # seconds for one import, at low priority
NICENESS = 10
VARYING = frozenset(
    {
        "PORT", "HOST", "COMMIT_ID", "DATABASE_URL", "DATA_DIR", "HOME", "TMPDIR", "PWD", "PYTHONPATH",
        "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT", "REDIS_URL",
        "VERSIONBASE_URL",
    }
)  # fmt: skip
OURS = "LAZYCLOUD_"
OUTSIDE = frozenset(
    {
        "os.chdir", "os.exec", "os.fork", "os.forkpty", "os.kill", "os.posix_spawn", "os.putenv", "os.system",
        "os.unsetenv", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "subprocess.Popen", "socket.bind",
        "socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
    }
)  # fmt: skip
CACHING = frozenset({"os.mkdir", "os.rename"})  # what Python does itself to keep what it compiled
SYSTEM = ("/usr/", "/lib", "/etc/", "/proc/", "/sys/", "/dev/")


class Trial:
    """`withheld` are names of variables that workers have and this process has not."""

    def __init__(self, withheld: frozenset[str]) -> None:
        self._withheld = VARYING | withheld
        self._places = _own_places()

    def __call__(self, name: str, dirty: dict[str, str]) -> dict[str, str]:
        """Why the module must not be imported ahead, and which others for the same reason; empty if it may be.

        `dirty` is what is known of others: who imports one of them is no better.
        """
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            _be_the_fork(lambda: self._try(name, dirty, writable), writable)
        os.close(writable)
        try:
            said = _read(readable, PATIENCE)
        finally:
            os.close(readable)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        why, *others = (said or "its trial did not end well\n").split("\n")[:-1]
        return dict.fromkeys([name, *others], why) if why != CLEAN else {}

    def _try(self, name: str, dirty: dict[str, str], writable: int) -> str:
        os.nice(NICENESS)
        before, modules = _state(), set(sys.modules)
        watch = _Watch(self._withheld, self._places, writable)
        watch.begin({each for each, why in dirty.items() if not why.startswith(FAILS)})
        try:
            importlib.import_module(name)
        finally:
            watch.end()
        for what, value in _state().items():
            if value != before[what]:
                return f"changes {what}"
        for new in [each for each in sys.modules if each not in modules]:
            if trouble := self._trouble_with(new):
                return trouble
        return CLEAN

    def _trouble_with(self, name: str) -> str:
        module = sys.modules[name]
        spec = getattr(module, "__spec__", None)
        places = list(getattr(module, "__path__", ()))
        if spec is not None and spec.has_location and spec.origin:
            places.append(spec.origin)
        for place in places:
            if not os.path.abspath(place).startswith(self._places):
                return f"{name} lies outside of the environment"
        for value in list(getattr(module, "__dict__", {}).values()):
            kind = type(value)  # not isinstance(): a lazy object asks itself what it is, and begins to work
            if issubclass(kind, random.Random) and kind is not random.SystemRandom:
                return f"{name} has randomness of its own"
            if value is sys.modules["__main__"]:
                return f"{name} knows __main__"
        return ""


class _Watch:
    """Ends the process at the first thing that must not be, between `begin` and `end`, and tells what it was."""

    def __init__(self, withheld: frozenset[str], places: tuple[str, ...], writable: int) -> None:
        self._withheld = withheld
        self._places = places
        self._writable = writable
        self._on = False

    def begin(self, dirty: set[str]) -> None:
        sys.meta_path.insert(0, _Barrier(self, dirty))
        self._environment()
        self._arguments()
        for owner, name in (
            (os, "getcwd"), (os, "getcwdb"), (os, "getpid"), (os, "getppid"), (os, "urandom"),
            (random, "_urandom"), (time, "time"), (time, "time_ns"),
        ):  # fmt: skip
            self._call(owner, name)
        sys.addaudithook(self._audit)
        self._on = True

    def end(self) -> None:
        self._on = False

    def note(self, what: str) -> None:
        """All modules whose import is under way have met it."""
        if not self._on:
            return
        self._on = False
        names, frame = [], sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_name == "<module>":
                names.append(str(frame.f_globals.get("__name__")))
            frame = frame.f_back  # type: ignore[assignment]
        _say(self._writable, [what, *(name for name in names if name != "__main__")])
        os._exit(0)

    def variable(self, name: object) -> None:
        text = os.fsdecode(name) if isinstance(name, (bytes, str)) else ""
        if text in self._withheld or text.startswith(OURS):
            self.note(f"reads {text}")

    def _environment(self) -> None:
        """Below `os.environ`, which modules may know by another name, and `os.environb`, which shares it."""
        watched = _Variables(os.environ._data)  # type: ignore[attr-defined]
        watched.watch = self
        os.environ._data = watched  # type: ignore[attr-defined]
        os.environb._data = watched  # type: ignore[attr-defined]

    def _arguments(self) -> None:
        watched = _Arguments(sys.argv)
        watched.watch = self
        sys.argv = watched

    def _call(self, owner: object, name: str) -> None:
        plain = getattr(owner, name)

        def watched(*args: object, **named: object) -> object:
            if not _is_harmless():
                self.note(f"asks {name.lstrip('_')}()")
            return plain(*args, **named)

        setattr(owner, name, watched)

    def _audit(self, event: str, details: tuple[object, ...]) -> None:
        if not self._on:
            return
        if event in OUTSIDE:
            if not (event in CACHING and details and "__pycache__" in str(details[0])):
                self.note(event)
        elif event == "open":
            self._opened(*details)
        elif event in ("os.listdir", "os.scandir"):
            self._named(details[0] if details else None)

    def _opened(self, path: object, mode: object = None, flags: object = 0, *_: object) -> None:
        if isinstance(path, int):
            return
        self._named(path)
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        if writes and "__pycache__" not in str(path) and not str(path).startswith("/dev/"):
            self.note(f"writes {path!s}")

    def _named(self, path: object) -> None:
        text = os.fsdecode(path) if isinstance(path, (bytes, str)) or hasattr(path, "__fspath__") else "."
        if not f"{text}/".startswith((*self._places, *SYSTEM)):
            self.note(f"opens {text}")


class _Barrier:
    """The first of the finders: nobody passes who imports what is known to be dirty."""

    def __init__(self, watch: _Watch, dirty: set[str]) -> None:
        self._watch = watch
        self._dirty = dirty

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self._dirty:
            self._watch.note(f"imports {name}")


def _is_harmless() -> bool:
    """Whether one of the functions that ask now does so for something that may be the same in each worker."""
    frame = sys._getframe(2)
    for _ in range(HARMLESS_DEPTH):
        if frame is None:
            break
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in HARMLESS:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class _Variables(dict):  # type: ignore[type-arg]
    watch: _Watch

    def __getitem__(self, name: object) -> object:
        self.watch.variable(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.watch.variable(name)
        return super().__contains__(name)

    def get(self, name: object, default: object = None) -> object:
        self.watch.variable(name)
        return super().get(name, default)

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.watch.note("reads all variables")
        return super().__iter__()

    def __len__(self) -> int:
        self.watch.note("reads all variables")
        return super().__len__()

    def __setitem__(self, name: object, value: object) -> None:
        self.watch.note("sets variables")
        super().__setitem__(name, value)

    def __delitem__(self, name: object) -> None:
        self.watch.note("sets variables")
        super().__delitem__(name)


class _Arguments(list):  # type: ignore[type-arg]
    watch: _Watch

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.watch.note("reads sys.argv")
        return super().__getitem__(index)

    def __contains__(self, value: object) -> bool:
        self.watch.note("reads sys.argv")
        return super().__contains__(value)

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.watch.note("reads sys.argv")
        return super().__iter__()

    def __len__(self) -> int:
        self.watch.note("reads sys.argv")
        return super().__len__()


def _state() -> dict[str, object]:
    """What the process is, beside its modules."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        lines = [line.split(":", 1) for line in file.read().splitlines()]
    status = {name: value.strip() for name, value in lines}
    hooks = (
        sys.excepthook,
        sys.displayhook,
        sys.stdin,
        sys.stdout,
        sys.stderr,
        sys.gettrace(),
        sys.getprofile(),
    )
    return {
        "threads": sorted(os.listdir("/proc/self/task")),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "children": _children(),
        "signals": [status.get(name) for name in ("SigBlk", "SigIgn", "SigCgt", "ShdPnd")],
        "signal handlers": [signal.getsignal(number) for number in range(1, signal.NSIG)],
        "timers": signal.getitimer(signal.ITIMER_REAL),
        "its output": [os.fstat(number).st_size for number in (1, 2)],
        "the umask": status.get("Umask"),
        "sys.path": list(sys.path),
        "the interpreter's hooks": [id(hook) for hook in hooks],
    }


def _children() -> str:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _own_places() -> tuple[str, ...]:
    """Folders whose files belong to this Python or its environment, each with a slash behind it."""
    found = {sys.prefix, os.path.dirname(os.__file__)}
    found.update(place for place in sys.path if place.startswith((sys.base_prefix, sys.base_exec_prefix)))
    return tuple(f"{place.rstrip('/')}/" for place in found if place)


def _be_the_fork(work: Callable[[], str], writable: int) -> None:
    why = f"{FAILS}in a way of its own"
    try:
        why = work()
    except BaseException as problem:
        why = f"{FAILS}{type(problem).__name__}: {problem}"
    finally:
        try:
            _say(writable, [why])
        finally:
            os._exit(0)


def _say(writable: int, lines: list[str]) -> None:
    """At once, so that nothing is read of it by halves; a name that is cut is nobody's."""
    text = "\n".join(line.replace("\n", " ") for line in lines)[:3000]
    os.write(writable, f"{text}\n".encode("utf-8", "replace"))


def _read(readable: int, seconds: float) -> str:
    """All that the fork says until it closes; what it began that holds the pipe open only costs patience."""
    poll = select.poll()
    poll.register(readable, select.POLLIN)
    if not poll.poll(int(seconds * 1000)):
        return ""
    return os.read(readable, 16384).decode("utf-8", "replace")
