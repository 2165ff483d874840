"""What of this machine a process may see beside the system's own programs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class View:
    """`home` is the server's folder: of it, only what is named here is there, at its own path.

    `read` is shown read-only, `write` writable. `scratch` is writable too, and is its /tmp as well. `fresh` are
    folders of what is read that are its own: empty, writable, and gone with it. `copies` are (folder, place):
    a writable folder that is shown at another place. `network` false: not even the machine's own. `settings`:
    what package managers are set to by this machine's owner is shown, with the names of accounts it may hold.

    What is writable, and where copies lie, nobody may have a say in who is walled: links are followed.
    """

    home: Path
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    network: bool = True
    scratch: Path | None = None
    fresh: tuple[Path, ...] = ()
    copies: tuple[tuple[Path, Path], ...] = ()
    settings: bool = False
