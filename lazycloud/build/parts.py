"""What a commit's tree is made of: the commit's own files, and those of its submodules, each from where they are."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from lazycloud.build.git import Git, GitFailed
from lazycloud.build.listing import FILE, SUBMODULE, Leaf, Listing, leaf_of, placed, printable, read_listing
from lazycloud.build.submodules import Origin, Submodule, Submodules, is_allowed, parse_modules
from lazycloud.errors import StepFailed
from lazycloud.processes import Output

DEPTH = 10  # submodules within submodules
REMEMBERED = 8 << 20  # bytes of listings: of some 100,000 files


@dataclass(frozen=True)
class Part:
    """A tree within the tree that is written: the commit's own at b"", a submodule's at b"libs/one/".

    `git` has its objects. `remote` is where they came from, None where there is nowhere to ask for more.
    """

    git: Git
    listing: Listing
    place: bytes
    remote: str | None

    @cached_property
    def leaves(self) -> list[Leaf]:
        """As seen from the root of the whole."""
        if not self.place:
            return self.listing.leaves
        return [leaf_of(placed(line, self.place)) for line in self.listing.lines]

    @property
    def folders(self) -> set[bytes]:
        """Those to make, but for the root of the whole."""
        own = {self.place + folder for folder in self.listing.folders}
        return own | {self.place + os.fsencode(entry.path) for entry in self.listing.of_mode(SUBMODULE)}


class Listings:
    """Of trees that were asked for lately. A tree's id says all that is in it, so none of them gets old."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self._limit = limit
        self._known: OrderedDict[str, bytes] = OrderedDict()  # bytes only: what is made of them is larger

    async def of(self, git: Git, tree: str) -> Listing:
        """The listing of the tree (or commit) with that full id. Raises GitFailed if it is not there."""
        content = self._known.get(tree)
        if content is None:
            content = (await read_listing(git, tree)).content
        self._known[tree] = content
        self._known.move_to_end(tree)
        while sum(map(len, self._known.values())) > self._limit:
            self._known.popitem(last=False)
        return Listing(content)


class Parts:
    """Finds the parts of trees."""

    def __init__(self, listings: Listings, submodules: Submodules) -> None:
        self._listings = listings
        self._submodules = submodules

    async def find(self, origin: Origin, tree: str, output: Output) -> list[Part]:
        """The tree itself first, then its submodules. Clones those that are nowhere on this machine.

        Raises StepFailed for a refused name and for a submodule that cannot be had.
        """
        return await self._find(origin, tree, b"", origin.url, output, 0)

    async def _find(
        self, origin: Origin, tree: str, place: bytes, remote: str | None, output: Output, depth: int
    ) -> list[Part]:
        listing = await self._listings.of(origin.git, tree)
        await asyncio.to_thread(listing.check)  # of fifty thousand files it takes a while
        parts = [Part(origin.git, listing, place, remote)]
        modules = listing.of_mode(SUBMODULE)
        if modules and depth == DEPTH:
            raise StepFailed(f"The submodules are more than {DEPTH} deep, at {printable(modules[0].path)}.")
        known = await _modules(origin.git, listing) if modules else {}
        for entry in modules:
            if entry.path not in known:
                output(
                    f"warning: {entry.path} is a submodule that .gitmodules does not name; it is left empty\n"
                )
                continue
            inner = await self._submodules.find(origin, known[entry.path], entry.object, output)
            # The commit's content names it, so that it leads to other machines only, and to no program.
            remote = inner.url if inner.url and is_allowed(inner.url) else None
            below = place + os.fsencode(entry.path) + b"/"
            parts += await self._find(inner, entry.object, below, remote, output, depth + 1)
        return parts


async def _modules(git: Git, listing: Listing) -> dict[str, Submodule]:
    entry = listing.find(".gitmodules")
    if entry is None or entry.mode != FILE:
        return {}
    try:
        return parse_modules(await git.run("config", "-z", f"--blob={entry.object}", "--list"))
    except GitFailed as failed:
        raise StepFailed(
            f".gitmodules cannot be read: {failed.sentence}", "Mend it and commit again."
        ) from failed
