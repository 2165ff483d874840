"""What a version has beside its folder, kept by a server of its own: the seam behind which such stand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Provider(Protocol):
    """Keeps data of the versions of one app. `version` and `id` are names that `data.names` has checked.

    Everything is idempotent and safe to repeat after a crash. Raises StepFailed for what its user can mend, in words.
    """

    name: str  # as lazycloud.toml names it

    async def open(self) -> None:
        """Reach the server, and remove what was left half-made."""

    def places(self) -> tuple[Path, ...]:
        """Folders that a worker must see to find it."""

    def reached(self, version: str) -> tuple[int, ...]:
        """Ports of this machine to which its workers must get."""

    async def exists(self, version: str) -> bool: ...

    async def environment(self, version: str) -> dict[str, str]:
        """What a worker on that version finds its data by. Only of a version that was forked."""

    async def fork(self, version: str, source: str | None, at: str | None = None) -> str:
        """Make it from another as that is now, or at a snapshot; empty if None. What is to be told of it, or ""."""

    async def snapshot(self, version: str, snapshot: str) -> str:
        """Freeze it as it is now, under that name. What is to be told of it, or ""."""

    async def unfold(self, version: str, snapshot: str | None, place: Path) -> None:
        """Write the contents, of now or of a snapshot, as a file `place`, fit for `load` and for people."""

    async def outline(self, version: str, snapshot: str | None, place: Path) -> Mapping[str, int]:
        """Write the schema, if there is one, as `unfold` would, without the contents.

        How many rows, or documents, each table of a version has now, as far as that is soon known.
        """

    async def load(self, version: str, place: Path) -> None:
        """Replace the contents of a version, which nobody uses now, by those of a file that `unfold` wrote."""

    async def swap(self, version: str, other: str) -> None:
        """Each has what the other had, all at once; one of them may have none. Nobody uses either now.

        Until `swapped` is called it is taken back by `undo_swap`, also after a crash.
        """

    async def swapped(self, version: str) -> None:
        """The swap of a version holds for good."""

    async def undo_swap(self, version: str) -> None:
        """Take back a swap that does not hold yet; nothing happens if there is none."""

    async def drop(self, version: str) -> None:
        """Remove it, with its snapshots and all that belongs to it."""

    async def drop_snapshot(self, version: str, snapshot: str) -> None: ...

    async def size(self, version: str, snapshot: str | None = None) -> int:
        """Bytes on the disk, of a version without its snapshots or of one of them; 0 if there is none."""

    async def close(self) -> None: ...
