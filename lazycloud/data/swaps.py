"""Two folders of one folder take each other's names, and back, also after a crash.

What is to be is written down first. The note of a swap has the other folder's name and its number (inode): it has
happened if that number is in the place of the one. Until the note is gone the swap does not hold. All of it blocks.
"""

from __future__ import annotations

from pathlib import Path

from lazycloud.data import durable

NOTE = ".swapping-"  # before the name of the one


class Swaps:
    """In one folder; names are its callers' to check."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, one: str, other: str) -> None:
        number = (self._folder / other).stat().st_ino
        durable.write(self._note(one), f"{other} {number}")
        durable.exchange(self._folder / one, self._folder / other)

    def hold(self, one: str) -> None:
        """For good. Nothing happens if there is none."""
        if self._note(one).exists():
            durable.remove(self._note(one))

    def undo(self, one: str) -> bool:
        """Whether it had happened; nothing happens if there is none."""
        if not self._note(one).exists():
            return False
        other, number = self._note(one).read_text().split()
        place = self._folder / one
        happened = place.is_dir() and place.stat().st_ino == int(number)
        if happened:
            durable.exchange(place, self._folder / other)
        durable.remove(self._note(one))
        return happened

    def pending(self) -> dict[str, str]:
        """Those that do not hold yet: the one -> the other."""
        notes = [note for note in self._folder.glob(f"{NOTE}*") if not note.name.endswith(".new")]
        return {note.name.removeprefix(NOTE): note.read_text().split()[0] for note in notes}

    def _note(self, one: str) -> Path:
        return self._folder / f"{NOTE}{one}"
