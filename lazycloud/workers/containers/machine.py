"""What of this machine a container sees, read-only: its programs, and what they were installed with.

An app's release names programs of the machine: a virtual environment leads to the Python that made it, PATH to
Node.js. Whatever lies outside of /usr is found by following these names.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import lazycloud
from lazycloud.walls.view import View
from lazycloud.workers.containers.root import MERGED

# Of /etc, what programs need and everybody may read: no keys, no passwords, no names of users.
SETTINGS = (
    "alternatives", "ca-certificates", "crypto-policies", "fonts", "java-*", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "magic", "mime.types", "os-release", "php", "pki/ca-trust/extracted",
    "pki/tls/cert.pem", "pki/tls/certs", "protocols", "python3*", "services", "ssl/cert.pem", "ssl/certs",
    "ssl/openssl.cnf", "timezone",
)  # fmt: skip
INTERPRETERS = ("python3", "python", "node", "php", "ruby", "sh")
PROGRAM_FOLDERS = ("bin", "sbin", "shims")
LIBRARIES = ("lib", "lib64", "libexec")
LONGEST_CHAIN = 20  # links from a name to its program


def system() -> list[Path]:
    """The programs and libraries that come with the machine."""
    folders = [Path("/usr"), *(Path("/", name) for name in MERGED if not Path("/", name).is_symlink())]
    settings = [place for name in SETTINGS for place in sorted(Path("/etc").glob(name))]
    return [place for place in (*folders, Path("/nix/store"), *settings) if place.exists()]


def toolchains(command: str, environment: Mapping[str, str], view: View) -> list[Path]:
    """What the command and its environment lead to outside of /usr and of the view."""
    found = _Found(view)
    path = environment.get("PATH", "")
    for entry in filter(None, path.split(":")):
        found.add(Path(entry))
        found.add_program(Path(entry) / "python" if (Path(entry).parent / "pyvenv.cfg").is_file() else None)
    for name in (_first_word(command), *INTERPRETERS):
        found.add_program(Path(program) if (program := shutil.which(name, path=path)) else None)
    if _first_word(command) == sys.executable:  # a static site: ours serves it
        found.add_whole(Path(sys.prefix), Path(sys.base_prefix), *map(Path, lazycloud.__path__))
    return found.places


def with_inner(places: Iterable[Path]) -> list[Path]:
    """And other file systems that are mounted below them: a read-only mount would leave those as they are."""
    places = list(places)
    inner = [
        Path(point) for point in _mount_points() if any(place in Path(point).parents for place in places)
    ]
    return [*places, *inner]


class _Found:
    def __init__(self, view: View) -> None:
        self.places: list[Path] = []
        self._view = view
        self._home = Path.home()

    def add(self, folder: Path) -> None:
        """A folder of programs, with the installation that it belongs to."""
        if folder.is_absolute() and folder.is_dir():
            prefix = folder.parent
            whole = folder.name in PROGRAM_FOLDERS and any((prefix / name).is_dir() for name in LIBRARIES)
            self.add_whole(prefix if whole and not self._is_private(prefix) else folder)

    def add_program(self, program: Path | None) -> None:
        """With all links on the way to it."""
        for place in _chain(program) if program else ():
            self.add(place.parent)

    def add_whole(self, *places: Path) -> None:
        self.places += [place for place in places if not self._is_there(place)]

    def _is_there(self, place: Path) -> bool:
        """Already, or better not: of the server's own folder only stand-ins for programs are to be seen."""
        known = [Path("/usr"), *self._view.read, *self._view.write, *self.places]
        known += [Path("/", name) for name in (*MERGED, "sbin")]
        if any(place == one or one in place.parents for one in known):
            return True
        inside = place == self._view.home or self._view.home in place.parents
        return inside and self._view.home / "cache" / "tools" not in place.parents

    def _is_private(self, prefix: Path) -> bool:
        """Whether more than an installation may lie there: a person's home, or the server's."""
        homes = (self._home, self._view.home)
        return prefix.name == ".local" or any(prefix == home or prefix in home.parents for home in homes)


def _chain(program: Path) -> Iterator[Path]:
    for _ in range(LONGEST_CHAIN):
        yield program
        if not program.is_symlink():
            break
        program = program.parent / program.readlink()
    yield program.resolve()


def _first_word(command: str) -> str:
    try:
        return next(iter(shlex.split(command)), "")
    except ValueError:  # quotes that do not end: the shell will say so
        return ""


def _mount_points() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield line.split()[4].encode().decode("unicode_escape")
