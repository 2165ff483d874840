"""`python bench/source.py`: what it takes to write a commit's files, beside the same by hand."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop

from command import Command
from figures import Column, Figure, Verdict, compare
from lazycloud.build.commit import Commit
from lazycloud.build.repository import Repository
from lazycloud.build.tree import Tree
from run import Row

COUNTS = (100, 10_000, 50_000)
TOTAL = 200_000_000  # bytes of a tree, but no file is larger than LARGEST
LARGEST = 20_000
CHANGED = 5  # files from one commit to the next
IMAGE = 8 << 30  # of a file system that is made for this; sparse
BY_HAND = "git worktree add"
NEXT, BOUND = "next, links", 0.150  # seconds, at 10,000 files
_WALL = Column("seconds", "ms", "{:,.0f}", 1000)
_CPU = Column("cpu", "CPU ms", "{:,.0f}", 1000)
_RATIO = Column(f"x {BY_HAND}", f"× {BY_HAND}", "{:.2f}")


class Repositories:
    """A repository for each number of files, of two commits: `HEAD~1`, and `HEAD` with a few files changed."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def make(self, count: int) -> Path:
        path = self._home / f"repository-{count}"
        path.mkdir()
        _git(path, "init", "--quiet", "--initial-branch=main")
        size = min(LARGEST, TOTAL // count)
        places = [path / f"part{n // 500}/module{n // 25}/file{n}.js" for n in range(count)]
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(
                os.urandom(size // 4).hex() * 2
            )  # half of it compresses away, as it does in sources
        self._commit(path)
        for place in places[:: count // CHANGED]:
            place.write_text("changed")
        self._commit(path)
        _git(path, "repack", "-adq")
        return path

    def _commit(self, path: Path) -> None:
        _git(path, "add", "--all")
        _git(
            path,
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@localhost",
            "commit",
            "--quiet",
            "-m",
            "bench",
        )


class Writer:
    """Writes commits of one repository to `home`, each into a folder of its own. Nothing is removed meanwhile:
    ext4 looks long for a free inode where many were freed a moment ago."""

    def __init__(self, repository: Path, home: Path) -> None:
        self._path = repository
        self._home = home
        self._count = 0

    def by_hand(self, command: str) -> None:
        place = self._folder()
        subprocess.run(["sh", "-ec", command, "-", self._path, place], check=True, stdout=subprocess.DEVNULL)

    async def write(self, revision: str, neighbours: Sequence[Path], linked: bool) -> Path:
        """As a deploy does: what is planned is read from the tree first."""
        repository = Repository(str(self._path), self._home / "ours")
        await repository.open()
        commit = await repository.revision(revision)
        with self.measured():
            await self._step(repository, commit, place := self._folder(), neighbours, linked)
        return place

    async def _step(
        self, repository: Repository, commit: Commit, place: Path, neighbours: Sequence[Path], linked: bool
    ) -> None:
        place.mkdir()
        await repository.look(commit, _look)
        await repository.write_source(commit, place / "tree", lambda text: None, neighbours, linked)

    @contextmanager
    def measured(self) -> Iterator[None]:
        os.sync()
        busy, began = _cpu(), time.perf_counter()
        yield
        self.last = {"seconds": time.perf_counter() - began, "cpu": _cpu() - busy}

    def _folder(self) -> Path:
        self._count += 1
        return self._home / f"r{self._count}"


HANDS = {
    BY_HAND: 'git -C "$1" worktree add --quiet --detach "$2" HEAD',
    "git archive | tar x": 'mkdir "$2" && git -C "$1" archive HEAD | tar x -C "$2"',
}


async def measure_case(case: str, writer: Writer, rounds: int, copies: str) -> list[Row]:
    """Medians of all ways, which take turns."""
    samples: dict[str, list[dict[str, float]]] = {}

    def note(name: str) -> None:
        samples.setdefault(name, []).append(writer.last)

    base, sealed = [await writer.write("HEAD~1", (), linked) for linked in (False, True)]
    for _ in range(rounds):
        for name, command in HANDS.items():
            with writer.measured():
                writer.by_hand(command)
            note(name)
        await writer.write("HEAD", (), linked=False)
        note("first")
        await writer.write("HEAD", [base], linked=False)
        note(f"next, {copies}")
        await writer.write("HEAD", [sealed], linked=True)
        note(NEXT)
    return [
        Row(case, name, {key: statistics.median(each[key] for each in taken) for key in taken[0]})
        for name, taken in samples.items()
    ]


def judge(rows: Sequence[Row]) -> list[Verdict]:
    return [
        Verdict(f"{row.case}, {row.peer}: seconds", row.values["seconds"], BOUND)
        for row in rows
        if row.peer == NEXT and row.case.startswith("10,000 files")
    ]


def source(given: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=given.folder) as name:
        home = Path(name)
        repositories = Repositories(home)
        for count in given.files:
            path = repositories.make(count)
            for kind in ("", *given.disk):
                with disk(home, kind) as place:
                    case = f"{count:,} files" + (f", {kind}" if kind else "")
                    copies = "reflinks" if kind in ("xfs", "btrfs") else "copies"
                    writer = Writer(path, place)
                    rows += uvloop.run(measure_case(case, writer, given.rounds, copies))
    compare(rows, "seconds", BY_HAND)
    return rows


FIGURE = Figure(
    "source",
    "The source step: a next commit with a few files changed, beside the same by git",
    "10,000 files and 200 MB, by links: at most 150 ms",
    (_WALL, _CPU, _RATIO),
    source,
    judge,
)


def main() -> int:
    """Exits 0 when it ran, whether or not the target is met."""
    command = Command("source", __doc__, [FIGURE])
    add = command.parser.add_argument
    add("--files", type=int, nargs="+", default=COUNTS, metavar="N", help="how many files a commit has")
    add("--rounds", type=int, default=5, help="of which the median is shown")
    add("--folder", type=Path, metavar="FOLDER", help="where to write; the temporary folder without")
    disks = "also on a new ext4, xfs or btrfs, in a file; needs root"
    add("--disk", nargs="*", default=[], metavar="KIND", help=disks)
    given = command.parse()
    machine = command.describe()
    return command.write(given, machine, f"--rounds {given.rounds}", command.measured(given, given.figures))


@contextmanager
def disk(home: Path, kind: str) -> Iterator[Path]:
    """A folder to write to, on a new file system of that kind if one is named."""
    place = Path(tempfile.mkdtemp(dir=home))
    if not kind:
        yield place
        return
    image = home / f"{kind}.image"
    with image.open("wb") as file:
        file.truncate(IMAGE)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        image.unlink()


def _look(tree: Tree) -> object:
    return tree.exists("package.json"), tree.names()


def _git(path: Path, *words: str) -> None:
    subprocess.run(["git", "-C", path, *words], check=True)


def _cpu() -> float:
    """Seconds of this process and of those it waited for."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


if __name__ == "__main__":
    sys.exit(main())
