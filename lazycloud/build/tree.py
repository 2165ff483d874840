"""The files of a commit, as those who plan see them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Set
from functools import cached_property

from lazycloud.build.listing import SUBMODULE
from lazycloud.build.patterns import matches, reaches


class Tree:
    """`paths` of all files with `/`; `read` gives a regular file's bytes, None for what is none.

    `ids`, asked for when they are needed, say by path what a file is: its mode and the id of its object.
    """

    def __init__(
        self,
        paths: Iterable[str],
        read: Callable[[str], bytes | None],
        ids: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._files = set(paths)
        self._find_ids = ids
        self.read = read

    @property
    def paths(self) -> Set[str]:
        """Those of all files."""
        return self._files

    def fingerprint(self, pattern: str) -> str:
        """Of the files that a pattern means: their names, modes and contents. "" when there are none.

        A submodule's own files are not known here: its commit stands for them, and .gitmodules for where it is from.
        """
        found = sorted(path for path in self._files if matches(pattern, path))
        if modules := [path for path in self._submodules if reaches(pattern, path)]:
            found = sorted({*found, *modules, ".gitmodules"})
        content = "".join(f"{path}\0{self._ids.get(path, '')}\0" for path in found)
        return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:32] if found else ""

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        return path in self._files or path in self._folders

    def text(self, path: str) -> str | None:
        """A regular file as text, bytes that are no UTF-8 replaced; None if there is none such."""
        content = self.read(path)
        return None if content is None else content.decode("utf-8-sig", "replace")

    def names(self, folder: str = "") -> list[str]:
        """What lies directly in a folder, sorted: files and folders."""
        prefix = f"{folder}/" if folder else ""
        start = len(prefix)
        return sorted({path[start:].partition("/")[0] for path in self._files if path.startswith(prefix)})

    def first(self, *paths: str) -> str | None:
        """The first of these that is a file."""
        return next((path for path in paths if path in self._files), None)

    @cached_property
    def _ids(self) -> Mapping[str, str]:
        return self._find_ids()

    @cached_property
    def _submodules(self) -> list[str]:
        return [path for path, what in self._ids.items() if what.startswith(f"{SUBMODULE} ")]

    @cached_property
    def _folders(self) -> set[str]:
        found = {"."}
        for folder in {path.rpartition("/")[0] for path in self._files}:
            while folder and folder not in found:
                found.add(folder)
                folder = folder.rpartition("/")[0]
        return found
