#!/usr/bin/env python3
"""Make the guestbook's git repository out of the folders in examples/guestbook, and say what to open.

    python3 examples/make_demo.py .demo/guestbook --listen localhost:8000

Each folder holds the files that its commit adds or changes. A repository that is there is left as it is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SNAPSHOTS = Path(__file__).parent / "guestbook"
AUTHOR = ("Robin Reed", "robin@example.com")
HOURS_BETWEEN = 19
SHOWN = 12


@dataclass(frozen=True)
class Snapshot:
    """A commit to be: the folder with its files, its message, and a hint for who looks at the addresses."""

    folder: str
    subject: str
    body: str = ""
    hint: str = ""
    branch: str = "main"
    tag: str = ""


HISTORY = (
    Snapshot("1-first", "Let visitors sign the guestbook"),
    Snapshot(
        "2-look",
        "Give the guestbook a look",
        "Warm paper, a serif, and room to breathe. Every stylesheet in static/ is linked.",
    ),
    Snapshot(
        "3-hearts",
        "Count hearts for each entry",
        "The second migration adds the column; entries begin with none.",
        tag="v1",
    ),
    Snapshot(
        "4-build",
        "Build one stylesheet out of parts",
        "Three requests were two too many. motion.css brings the entries to life.",
        hint="fails to build",
    ),
    Snapshot(
        "5-cookie",
        "Remember who gave a heart",
        "A signed cookie holds the entries. Also adds motion.css, which was forgotten.",
        hint="crashes at start",
    ),
    Snapshot(
        "6-key",
        "Make the cookie's key at the first start",
        "Nobody had set GUESTBOOK_KEY. The key is kept with the data now.",
        hint="the head of main",
    ),
    Snapshot("7-dark", "Follow the system into the dark", branch="feature/dark-mode"),
)
HINTS = {snapshot.subject: f" ({snapshot.hint})" for snapshot in HISTORY if snapshot.hint}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the demo's git repository, and list its addresses.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--listen", default="localhost:8000", help="where lazycloud will listen")
    options = parser.parse_args()
    if not options.folder.exists():
        make(options.folder)
    elif not (options.folder / ".git").is_dir():
        sys.exit(f"{options.folder} is there, and no git repository. Give another folder, or remove it.")
    print(addresses(options.folder, options.listen.rpartition(":")[2]))


def make(folder: Path) -> None:
    """The whole repository or nothing: it is made beside, and renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        half = Path(temporary) / "repository"
        half.mkdir()
        git(half, "init", "--quiet", "--initial-branch=main")
        for number, snapshot in enumerate(HISTORY):
            commit(half, snapshot, int(time.time()) - (len(HISTORY) - number) * HOURS_BETWEEN * 3600)
        git(half, "checkout", "--quiet", "main")
        half.rename(folder)


def commit(repository: Path, snapshot: Snapshot, at: int) -> None:
    if snapshot.branch != git(repository, "symbolic-ref", "--short", "HEAD"):
        git(repository, "checkout", "--quiet", "-b", snapshot.branch)
    shutil.copytree(SNAPSHOTS / snapshot.folder, repository, dirs_exist_ok=True)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", f"{snapshot.subject}\n\n{snapshot.body}", at=at)
    if snapshot.tag:
        git(repository, "tag", snapshot.tag)


def git(repository: Path, *arguments: str, at: int = 0) -> str:
    """Run git with nothing of the user's: no signing, no hooks, no other repository of the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": AUTHOR[0], f"GIT_{role}_EMAIL": AUTHOR[1]}
        environment |= {f"GIT_{role}_DATE": f"{at} +0000"} if at else {}
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def addresses(repository: Path, port: str) -> str:
    """The list that `make demo` shows: production, commits oldest first, a branch, a tag, the control page."""
    log = git(repository, "log", "--branches", "--topo-order", f"-{SHOWN}", "--format=%H %s").splitlines()
    commits = [(line[:10], line.partition(" ")[2]) for line in reversed(log)]
    places = [
        ("", "production"),
        *((label, subject + HINTS.get(subject, "")) for label, subject in commits),
        ("feature-dark-mode", "a branch"),
        ("v1", "a tag"),
        ("lazycloud", "the control page"),
    ]
    urls = [f"http://{label}{'.' if label else ''}localhost:{port}/" for label, _ in places]
    width = max(map(len, urls)) + 2
    return "\n".join(
        ["Try:", *(f"  {url:<{width}}{place[1]}" for url, place in zip(urls, places, strict=True))]
    )


if __name__ == "__main__":
    main()
