"""A static site: files that are served as they are."""

from __future__ import annotations

import shlex
import sys

from lazycloud.build.runtimes.runtime import Look, Runtime, Way

FOLDERS = ("", "public", "dist", "site", "_site")


class Static(Runtime):
    name = "static"

    def guess(self, look: Look) -> Way | None:
        """The first of the usual folders that has an index.html."""
        for folder in FOLDERS:
            path = f"{folder}/index.html" if folder else "index.html"
            if look.tree.exists(path):
                return Way(self.name, (f"Found {path}: a static site.",), roots=(folder or ".",))
        return None


def serving(root: str, interpreter: str = sys.executable) -> str:
    """The command that serves a folder, relative to the release's, on HOST and PORT."""
    # -I: nothing in the app's folder or environment can stand in for our modules.
    return shlex.join([interpreter, "-I", "-m", "lazycloud.workers.static", root])
