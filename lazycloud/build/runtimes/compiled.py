"""Compiled modules of a Python environment, taken over from another one: most packages are the same from lockfile to
lockfile, and to compile them takes longer than to install them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CACHE = "__pycache__"


def take_compiled(venv: Path, other: Path) -> int:
    """Link what `other` has compiled of the very same files; returns how many that were. Blocks.

    Only of what is one file in both, as installed from one cache: times and sizes alone can be alike by chance.
    Python itself puts the right path into what it loads.
    """
    taken, real = 0, os.path.realpath(venv)
    for folder, _, names in os.walk(other / "lib"):
        if not folder.endswith(f"/{CACHE}"):
            continue
        sources = os.path.dirname(folder)  # noqa: PTH120 - thousands of them
        inside = os.path.relpath(sources, other)
        here = f"{venv}/{inside}"
        # Packages may have put links in both, and this is done with the server's rights.
        if os.path.realpath(f"{here}/{CACHE}") != f"{real}/{inside}/{CACHE}":
            continue
        for name in names:
            module = f"{name.split('.', 1)[0]}.py"
            with suppress(OSError):
                if os.path.islink(f"{folder}/{name}"):  # noqa: PTH114
                    continue
                if name.endswith(".pyc") and os.path.samefile(f"{sources}/{module}", f"{here}/{module}"):  # noqa: PTH121
                    Path(here, CACHE).mkdir(exist_ok=True)
                    os.link(f"{folder}/{name}", f"{here}/{CACHE}/{name}")
                    taken += 1
    return taken
