"""Secrets of a server that builds of an app may ask for: a file of NAME=value lines that only the owner can read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from lazycloud.errors import StepFailed

READABLE_BY_OTHERS = 0o077


class Secrets:
    """Read anew each time, so that a changed one counts at once. The file may be missing."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def values(self, names: Iterable[str]) -> dict[str, str]:
        """By name. Raises StepFailed for one that is not there, and for a file that others can read."""
        wanted = list(names)
        known = self._read() if wanted else {}
        for name in wanted:
            if name not in known:
                raise StepFailed(
                    f"The build wants the secret {name}, which this server does not have.",
                    f"Put a line {name}=… into {self._file}, readable by its owner only (mode 600).",
                )
        return {name: known[name] for name in wanted}

    def hashes(self, names: Iterable[str]) -> dict[str, str]:
        """What keys are made of in their place: the same on every machine, and slow to be guessed from."""
        return {name: hashed(name, value) for name, value in self.values(names).items()}

    def _read(self) -> dict[str, str]:
        try:
            if self._file.stat().st_mode & READABLE_BY_OTHERS:
                raise StepFailed(f"{self._file} can be read by others.", f"Run: chmod 600 {self._file}")
            lines = self._file.read_text().splitlines()
        except FileNotFoundError:
            return {}
        pairs = (line.partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
        return {name.strip(): value.strip() for name, _, value in pairs}


@lru_cache(maxsize=256)
def hashed(name: str, value: str) -> str:
    salt = f"lazycloud secret {name}".encode()
    return hashlib.scrypt(value.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=16).hex()
