"""Symlinks of a tree: written last, when no file can be written through them, and none leads out."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

from lazycloud.build.listing import printable
from lazycloud.errors import StepFailed

TARGET_SIZE = 4096  # PATH_MAX


def check_target(path: bytes, target: bytes) -> None:
    """Raises StepFailed for a symlink that leads out of the tree, read without following others."""
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if target.startswith(b"/") or end == b".." or end.startswith(b"../"):
        raise leads_out(path, target)


class Symlinks:
    """`links`, targets by path, are those of one tree, whose root is the folder `root`."""

    def __init__(self, root: bytes, links: Mapping[bytes, bytes]) -> None:
        self._root = root
        self._links = links

    def write(self) -> None:
        for path, target in self._links.items():
            check_target(path, target)
        for path, target in self._links.items():
            os.symlink(target, self._root + b"/" + path)  # noqa: PTH211 - bytes

    def check(self) -> None:
        """When all there will be is there: one may lead out by way of another, which its own text does not tell."""
        root = os.path.realpath(self._root)
        for path, target in self._links.items():
            place = self._root + b"/" + path
            end = os.path.realpath(place)
            if end != root and not end.startswith(root + b"/"):
                os.unlink(place)  # noqa: PTH108 - bytes
                raise leads_out(path, target)


def leads_out(path: bytes, target: bytes | str) -> StepFailed:
    return StepFailed(
        f"The symlink {printable(path)} leads out of the commit's tree, to {printable(target)}.",
        "Let it point to a file of the repository by a relative path.",
    )
