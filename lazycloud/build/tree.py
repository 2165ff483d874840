"""The files of a commit, as those who plan see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import PurePosixPath


class Tree:
    """`paths` of all files with `/`; `read` gives a regular file's bytes, None for what is none."""

    def __init__(self, paths: Iterable[str], read: Callable[[str], bytes | None]) -> None:
        self._files = set(paths)
        self._folders = {str(parent) for path in self._files for parent in PurePosixPath(path).parents}
        self.read = read

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
        paths = self._files | self._folders
        return sorted(
            {path[len(prefix) :].split("/")[0] for path in paths if path.startswith(prefix)} - {"", "."}
        )

    def first(self, *paths: str) -> str | None:
        """The first of these that is a file."""
        return next((path for path in paths if path in self._files), None)
