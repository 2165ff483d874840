"""The leaves of a tree, as git lists them: found, and judged by their names. Pure but for `read_listing`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

from lazycloud.build.git import Git
from lazycloud.errors import StepFailed

FILE, EXECUTABLE, SYMLINK, SUBMODULE = "100644", "100755", "120000", "160000"
_REFUSED = frozenset({b"", b".", b"..", b".git", b"git~1"})  # the last is what Windows shares call .git

Leaf = tuple[bytes, bytes, bytes]  # line, folder (b"" for the root) and name


@dataclass(frozen=True)
class Entry:
    """A leaf of a tree: `path` from its root with `/`, `object` the blob, or the commit of a submodule."""

    mode: str
    object: str
    path: str


class Listing:
    """All leaves of one tree.

    They stay the lines that git wrote, `mode type object<TAB>path`: whether ten thousand of them are those of
    another tree is then one comparison of sets, and no object is made for each.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content  # each line ends with a zero byte

    @cached_property
    def lines(self) -> list[bytes]:
        return self.content.split(b"\0")[:-1]

    @cached_property
    def leaves(self) -> list[Leaf]:
        cut = [path_of(line).rpartition(b"/") for line in self.lines]
        return [(line, folder, name) for line, (folder, _, name) in zip(self.lines, cut, strict=True)]

    @cached_property
    def folders(self) -> set[bytes]:
        """All folders but the root; the places of submodules are none."""
        return _with_those_above({folder for _, folder, _ in self.leaves if folder})

    @property
    def names(self) -> list[str]:
        """The paths as text, as the operating system's names are."""
        return os.fsdecode(b"\0".join(map(path_of, self.lines))).split("\0") if self.lines else []

    def ids(self) -> dict[str, str]:
        """By path, the mode and the object."""
        entries = map(entry_of, self.lines)
        return {entry.path: f"{entry.mode} {entry.object}" for entry in entries}

    def of_mode(self, mode: str) -> list[Entry]:
        """Few, as those of symlinks and submodules are."""
        start = f"{mode} ".encode()
        if start not in self.content:
            return []
        return [entry_of(line) for line in self.lines if line.startswith(start)]

    def find(self, path: str) -> Entry | None:
        """The leaf with that path."""
        wanted = b"\t%s\0" % os.fsencode(path)
        end = self.content.find(wanted)
        while end >= 0:
            line = self.content[self.content.rfind(b"\0", 0, end) + 1 : end + len(wanted) - 1]
            if path_of(line) == wanted[1:-1]:
                return entry_of(line)
            end = self.content.find(wanted, end + 1)  # that was the end of a name with a tab in it
        return None

    def check(self) -> None:
        """Raises StepFailed for a name that could lead out of the folder, or into a file that is none."""
        names = {name for _, _, name in self.leaves} | {folder.rpartition(b"/")[2] for folder in self.folders}
        paths = [path_of(line) for line in self.lines]
        wrong = {name for name in names if name.lower() in _REFUSED}
        if wrong or any(path.startswith(b"/") for path in paths):
            path = next(
                path for path in paths if wrong.intersection(path.split(b"/")) or path.startswith(b"/")
            )
            raise StepFailed(
                f"The commit has a file named {printable(path)}, which cannot be written safely.",
                "Remove it from the tree and commit again.",
            )
        files = set(paths)
        if len(files) < len(paths) or not self.folders.isdisjoint(files):
            twice = (path for path in paths if path in self.folders or paths.count(path) > 1)
            raise StepFailed(f"The commit has {printable(next(twice))} twice, with different meanings.")


def leaf_of(line: bytes) -> Leaf:
    folder, _, name = path_of(line).rpartition(b"/")
    return line, folder, name


def path_of(line: bytes) -> bytes:
    return line.partition(b"\t")[2]


def object_of(line: bytes) -> bytes:
    return line.partition(b"\t")[0].rpartition(b" ")[2]


def entry_of(line: bytes) -> Entry:
    head, _, path = line.partition(b"\t")
    mode, _, object_id = head.split(b" ")
    return Entry(mode.decode(), object_id.decode(), os.fsdecode(path))


def permissions(line: bytes, sealed: bool) -> int:
    """Of the file that is written for a leaf; nobody has the right to write to a sealed one."""
    mode = 0o755 if line.startswith(b"100755") else 0o644
    return mode & 0o555 if sealed else mode


def placed(line: bytes, place: bytes) -> bytes:
    """The same leaf as seen from further up: `place` is where its root is, with a `/` at its end."""
    return line.replace(b"\t", b"\t" + place, 1)


async def read_listing(git: Git, tree: str) -> Listing:
    """Of the tree (or commit) with the full id `tree`. Raises GitFailed if it is not there."""
    return Listing(await git.run("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", tree))


def _with_those_above(folders: set[bytes]) -> set[bytes]:
    found = set(folders)
    for folder in folders:
        above, slash, _ = folder.rpartition(b"/")
        while slash and above not in found:
            found.add(above)
            above, slash, _ = above.rpartition(b"/")
    return found


def printable(path: bytes | str) -> str:
    """A path that a stranger chose, in quotes, for a sentence or a log."""
    shown = os.fsencode(path).decode(errors="backslashreplace")
    return f"“{''.join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)}”"
