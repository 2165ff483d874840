"""What of this machine a process may see beside the system's own programs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class View:
    """`home` is the server's folder: of it, only what is below `read` and `write` is there, at its own path.

    `read` is shown read-only, `write` writable. `network` false: not even the machine's own.
    """

    home: Path
    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    network: bool = True
