"""Walls by bubblewrap: a process sees an allow-list of files, processes of its own only, and has no rights.

Namespaces of users, processes, IPC, host name and control groups are its own; the network is the machine's, for
the routers, and maybe a database on this machine, are reached by it. A process has one user and one group, which are
the server's outside; inside it is nobody's root, so that programs do not try what only root can.

What a commit says of its environment (LD_PRELOAD, PATH …) must mean nothing to the programs that build the walls:
they get a clean one, and the app's own is put on inside. A filter of system calls and Landlock come on top.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from lazycloud.findings import Finding, Weight
from lazycloud.walls import landlock, seccomp
from lazycloud.walls.machine import (
    EMPTY_FILES,
    EMPTY_FOLDERS,
    LIVE,
    OWN,
    READ_ONLY,
    covers,
    etc,
    kernel,
    settings,
    system,
    toolchain,
)
from lazycloud.walls.view import View

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
TRY_TIMEOUT = 30.0
TRIAL = "lazycloud-walls-"
TRIES = 3  # on a machine in trouble one may fail, and to go without walls is not for a moment
FOLDER = "walls"  # of the home: what every sandbox is shown of ours
USER, NAME = 1000, "app"  # who a server's root is inside
TOLD = (
    "DATA_DIR",
    "HOME",
    "LAZYCLOUD_BUILD",
    "PORT",
)  # what processes are known again by (processes.end_strays)
TEMPORARY = "/tmp"  # noqa: S108 - inside
PACKED = "LAZYCLOUD_ENVIRONMENT"
FILTER = 9  # the descriptor by which bwrap reads the filter: it is opened anew at each start
# A shell opens the filter, and later another puts on the app's environment: 0.5 ms each.
_WITH_FILTER = f'exec {FILTER}<"$0"; exec "$@"'
_WITH_ENVIRONMENT = f'eval "${PACKED}"; unset {PACKED}; exec "$@"'
_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def missing() -> str:
    """Why commands cannot be walled here, in a sentence; "" if they can. Tries it once: blocks for some 20 ms."""
    return _missing()


def findings() -> list[Finding]:
    """For `lazycloud doctor`."""
    if why := missing():
        return [Finding(Weight.UNSAFE, "sandbox", why, advice())]
    if why := landlock.missing():
        said = f"Sandboxes have no second wall: {why[0].lower()}{why[1:]}"
        return [Finding(Weight.LIMITED, "sandbox", said, "Use Linux 6.12 or newer, and install perl.")]
    return [Finding(Weight.FINE, "sandbox", "Workers and builds run in sandboxes.")]


def advice() -> str:
    """What to do about what is missing."""
    if _bwrap() is None:
        return "Install bubblewrap (Debian and most others: the package bubblewrap)."
    if _restricted_by_apparmor():
        return (
            "Allow it bwrap by an AppArmor profile, or all programs: "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return (
        "Let this user make namespaces (sysctl user.max_user_namespaces; in a container, its own system-call "
        "filter and masked /proc forbid it)."
    )


@dataclass(frozen=True)
class Enclosed:
    """`words` come before a command, and `environment` is what all of it is started with."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Sandbox:
    """`home` is the server's folder; the machine's tools are found by `environ`, what it gives to builds of its own.

    Neither may come from a commit.
    """

    home: Path
    environ: Mapping[str, str]

    @property
    def stood_before(self) -> bool:
        """Whether this home has had walls: who got used to them is not left without them unasked."""
        return (self.home / FOLDER).is_dir()

    def enclose(self, view: View, folder: Path, environment: Mapping[str, str]) -> Enclosed:
        """What puts a command behind walls, in `folder`; `environment` is all that it gets there."""
        return Enclosed(self.words(view, folder), packed(environment))

    def enclose_parent(self, view: View, folder: Path, environment: Mapping[str, str]) -> Enclosed:
        """The same for a command that cannot make walls, but whose forks go behind those that it is given (`cell`).

        bwrap's own processes outlive it for its forks, and are not known again by what it was given.
        """
        told = {name: value for name, value in packed(environment).items() if name not in TOLD}
        return Enclosed(self.words(view, folder, entering=True), told)

    def cell(self, view: View, folder: Path) -> list[str]:
        """Words before a command that only waits: walls for a fork to come. They want nothing of an app's."""
        return [str(_bwrap()), *self.arguments(view, folder, entered=True), "--as-pid-1", "--"]

    def entering(self) -> dict[str, Any]:
        """What a fork has to do to itself behind such walls: see workers/preload/inside/entering.py."""
        return {
            "filter": seccomp.program().hex(),
            "read_only": READ_ONLY,
            "empty_files": EMPTY_FILES,
            "empty_folders": EMPTY_FOLDERS,
        }

    def words(self, view: View, folder: Path, entering: bool = False) -> tuple[str, ...]:
        """The words before a command. They want an environment that is `packed`."""
        filtering = self._entering_filter if entering else self._filter
        opening = ("/bin/sh", "-c", _WITH_FILTER, str(filtering)) if filtering else ()
        limiting = ("--seccomp", str(FILTER)) if filtering else ()
        inside = (*landlock.words(), "/bin/sh", "-c", _WITH_ENVIRONMENT, "sh")
        arguments = self.arguments(view, folder, entering)
        return (*opening, str(_bwrap()), *arguments, *limiting, "--", *inside)

    def arguments(self, view: View, folder: Path, entering: bool = False, entered: bool = False) -> list[str]:
        """bwrap's own arguments: namespaces and files, without filter and command.

        `entering`: below its namespace of users there may be others. `entered`: whoever comes brings a /proc along.
        """
        network = () if view.network else ("--unshare-net",)
        files = self._files(view, entered)
        return [*_namespaces(entering), *network, *files, "--remount-ro", "/", "--chdir", str(folder)]

    def _files(self, view: View, entered: bool) -> Iterator[str]:
        yield from _system()
        if entered:  # a part of it could be shown again without its covers
            yield from ("--remount-ro", "/proc")
        else:
            yield from _covers()
        yield from ("--ro-bind", str(self._etc_of_installs if view.settings else self._etc), "/etc")
        for name in LIVE:
            if Path("/etc", name).is_file():
                yield from ("--ro-bind", f"/etc/{name}", f"/etc/{name}")
        yield from ("--dir", "/run", "--dir", "/var")
        for words in sorted(self._shown(view), key=lambda words: len(Path(words[-1]).parts)):
            yield from words
        for place in (*OWN, *view.fresh):
            if place.is_dir() and not place.is_symlink():
                yield from ("--tmpfs", str(place))

    def _shown(self, view: View) -> Iterator[tuple[str, ...]]:
        own = outside(view.home, self._tools + (self._settings if view.settings else ()))
        for place in dict.fromkeys((*(one for one in own if not one.is_relative_to("/etc")), *view.read)):
            yield from _bind("--ro-bind-try", place)
        for place in view.write:
            yield from _bind("--bind", place)
        for source, place in view.copies:
            yield ("--bind", str(source), str(place))
        if view.scratch:
            yield from _bind("--bind", view.scratch)
        if view.scratch and not view.home.resolve().is_relative_to(TEMPORARY):
            yield from (("--bind", str(view.scratch), place) for place in (TEMPORARY, f"/var{TEMPORARY}"))
        else:  # what is mounted in it must not be led elsewhere by what a process left there before
            yield from (("--tmpfs", place) for place in (TEMPORARY, f"/var{TEMPORARY}"))

    @cached_property
    def _tools(self) -> tuple[Path, ...]:
        return toolchain(self.environ)

    @cached_property
    def _settings(self) -> tuple[Path, ...]:
        return settings(self.environ)

    @cached_property
    def _filter(self) -> Path | None:
        content = seccomp.program()
        return self._kept(f"filter-{_digest(content)}", content) if content else None

    @cached_property
    def _entering_filter(self) -> Path | None:
        content = seccomp.program(entering=True)
        return self._kept(f"filter-{_digest(content)}", content) if content else None

    @cached_property
    def _etc(self) -> Path:
        return etc(self.home / FOLDER, _names())

    @cached_property
    def _etc_of_installs(self) -> Path:
        more = (place for place in (*self._tools, *self._settings) if place.is_relative_to("/etc"))
        return etc(self.home / FOLDER, _names(), more)

    def _kept(self, name: str, content: bytes) -> Path:
        """A small file of ours, made when it is not there."""
        path = self.home / FOLDER / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                file.write(content)
            os.chmod(file.name, 0o444)  # noqa: PTH101
            os.replace(file.name, path)  # noqa: PTH105
        return path


def packed(environment: Mapping[str, str]) -> dict[str, str]:
    """What the walls are built with: an app's variables in one of them, but for those that it is known again by."""
    told = {name: environment[name] for name in TOLD if name in environment}
    exports = (
        f"export {name}={shlex.quote(value)}" for name, value in environment.items() if _NAMES.fullmatch(name)
    )
    return {**told, "PATH": SYSTEM_PATH, PACKED: "\n".join(["unset PATH", *exports])}


def _names() -> dict[str, str]:
    """Other users are nobody's business, but many programs look up their own."""
    user, group = identity()
    users = f"{NAME}:x:{user}:{group}::/tmp:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"
    return {"passwd": users, "group": f"{NAME}:x:{group}:\nnogroup:x:65534:\n"}


def identity() -> tuple[int, int]:
    """The user and the group that a walled process is for itself."""
    return (USER, USER) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def _bind(how: str, place: Path) -> Iterator[tuple[str, ...]]:
    """At its own path, and at the one that links on the way to it lead to."""
    for path in dict.fromkeys((place, place.resolve())):
        yield (how, str(place), str(path))


def outside(home: Path, places: Iterable[Path]) -> list[Path]:
    """Those that neither hold the server's folder nor lie in it."""
    real = home.resolve()
    return [
        place
        for place in places
        if not (real.is_relative_to(place.resolve()) or place.resolve().is_relative_to(real))
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _namespaces(entering: bool) -> list[str]:
    user, group = identity()
    sealed = _has("--disable-userns") and not entering
    return [
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        *(("--disable-userns",) if sealed else ()),
        "--uid", str(user), "--gid", str(group), "--cap-drop", "ALL",
    ]  # fmt: skip


@cache
def _system() -> tuple[str, ...]:
    return (*system(), *kernel())


@cache
def _covers() -> tuple[str, ...]:
    return tuple(covers())


@cache
def _bwrap() -> str | None:
    return shutil.which("bwrap", path=SYSTEM_PATH)


@cache
def _has(option: str) -> bool:
    """Whether this bwrap has an option: 0.8 brought the newest that is used."""
    helped = subprocess.run([str(_bwrap()), "--help"], capture_output=True, text=True, check=False)
    return option in helped.stdout + helped.stderr


@cache
def _missing() -> str:
    if _bwrap() is None:
        return "bwrap is not on this machine, by which workers and builds are walled off."
    for _ in range(TRIES):
        if not (why := _tried()):
            break
    return why


def _tried() -> str:
    _clear_trials()
    with tempfile.TemporaryDirectory(prefix=f"{TRIAL}{os.getpid()}-") as folder:
        sandbox, view = Sandbox(Path(folder), {}), View(Path(folder))
        words = [*sandbox.words(view, Path("/")), "/bin/true"]
        try:
            tried = subprocess.run(
                words,
                env=packed({}),
                cwd="/",
                capture_output=True,
                text=True,
                timeout=TRY_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            return f"bwrap, by which workers and builds are walled off, does not work here: {problem}."
    last = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
    return "" if tried.returncode == 0 else f"Workers and builds cannot be walled off: {last.rstrip('.')}."


def _clear_trials() -> None:
    """Folders of processes that were killed while they tried it."""
    for left in Path(tempfile.gettempdir()).glob(f"{TRIAL}*"):
        pid = left.name.removeprefix(TRIAL).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)


def _restricted_by_apparmor() -> bool:
    with suppress(OSError):
        return Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").read_text().strip() == "1"
    return False
