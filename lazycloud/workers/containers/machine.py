"""What of this machine a container sees, read-only: what every walled process sees, as folders to be mounted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from lazycloud.walls.machine import FOLDERS, PROGRAMS, ROOT, etc, toolchain

ENGINES_OWN = (
    "hostname",
    "hosts",
    "resolv.conf",
)  # of /etc: it mounts them there, and needs a place for each


class Machine:
    """Looked at once. `environ` is what the server's own programs are found by, never what a commit says; `kept` is a
    folder of the server's, `users` are files of /etc, by name."""

    def __init__(self, environ: Mapping[str, str], kept: Path, users: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        self._kept = kept
        self._users = dict(users)

    @cached_property
    def system(self) -> list[tuple[Path, Path]]:
        """The programs and settings that come with the machine, and where they are shown."""
        merged = [ROOT / name for name in FOLDERS if name != "sbin" and not (ROOT / name).is_symlink()]
        folders = [place for place in (*merged, *PROGRAMS) if place.is_dir()]
        settings = etc(self._kept, {**dict.fromkeys(ENGINES_OWN, ""), **self._users})
        return [*((place, place) for place in folders), (settings, Path("/etc"))]

    @cached_property
    def tools(self) -> tuple[Path, ...]:
        """What else apps are built with and run by."""
        return toolchain(self._environ)


def shown(places: Iterable[Path]) -> list[tuple[Path, Path]]:
    """At their own paths and at those that links on the way lead to; with file systems that are mounted below,
    which a read-only mount would leave as they are."""
    found = dict.fromkeys(path for place in places if place.exists() for path in (place, place.resolve()))
    outer = [path for path in found if not any(other in path.parents for other in found)]
    inner = [point for point in _mount_points() if any(path in point.parents for path in outer)]
    return [(path, path) for path in (*outer, *inner)]


def _mount_points() -> Iterator[Path]:
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if point.is_dir() or point.is_file():
            yield point
