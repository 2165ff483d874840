"""Real git repositories for the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

BEGIN = 1_700_000_000


class GitFolder:
    """A repository with a work tree; each commit is a minute after the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._clock = BEGIN
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {
            "GIT_AUTHOR_NAME": "Ada Lovelace",
            "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_COMMITTER_NAME": "Ada Lovelace",
            "GIT_COMMITTER_EMAIL": "ada@example.com",
            "GIT_AUTHOR_DATE": f"{self._clock} +0000",
            "GIT_COMMITTER_DATE": f"{self._clock} +0000",
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }
        command = ["git", "-C", str(self.path), "-c", "protocol.file.allow=always", *arguments]
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode(errors="replace").strip()

    def commit(self, files: Mapping[str, str | bytes | None], message: str = "Change things") -> str:
        """Write files (None removes one), commit all of them, and give the full id."""
        for name, content in files.items():
            place = self.path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                place.unlink()
            else:
                place.write_bytes(content.encode() if isinstance(content, str) else content)
        self._clock += 60
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def craft(self, entries: bytes) -> str:
        """A commit of a tree as `git mktree` takes it, with names that `git add` would refuse."""
        tree = self.git("mktree", "--missing", stdin=entries)
        return self.git("commit-tree", "-m", "crafted", tree)

    def blob(self, content: str) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=content.encode())
