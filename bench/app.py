"""The apps that are deployed: real ones of examples/, what is changed in them, and how they are run by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from peer import HERE, CannotRun

_FLASK = ("flask>=3.1,<4", "gunicorn>=25,<26")
_DJANGO = ("django>=5.2,<6", "gunicorn>=25,<26")


@dataclass(frozen=True, slots=True)
class App:
    """An app of examples/ (one folder over another); `line` names a file and words in it that its page shows.

    `release` is the first commit's only: those after it find the tables in the data that they are given.
    `is_found`: lazycloud knows by itself how to serve it, and the command is that by hand.
    """

    name: str
    example: str
    command: str
    line: tuple[str, str]
    packages: tuple[str, ...] = ()
    release: str = ""
    is_found: bool = False

    @property
    def is_preloaded(self) -> bool:
        """Whether it has packages of which a parent process can hold them imported."""
        return bool(self.packages)

    def lacks(self) -> str:
        """What is not installed, or ""."""
        return "node and npm" if self.example == "express" and not shutil.which("npm") else ""

    def write(self, folder: Path) -> None:
        """The files of the first commit, with its packages locked."""
        unwanted = shutil.ignore_patterns("__pycache__", "pyproject.toml", "node_modules")
        for name in self.example.split():
            shutil.copytree(HERE.parent / "examples" / name, folder, ignore=unwanted, dirs_exist_ok=True)
        (folder / ".gitignore").write_text("__pycache__\nnode_modules\n")
        self.write_procfile(folder, self.release)
        if self.packages:
            self.lock(folder)

    def lock(self, folder: Path, *more: str) -> None:
        """Write its packages, and more, with their versions and all that they need."""
        (folder / "requirements.txt").write_text(_locked(self.packages + more))

    def write_procfile(self, folder: Path, release: str = "") -> None:
        """None for what lazycloud serves by itself."""
        if not self.is_found:
            words = f"release: {release}\n" if release else ""
            (folder / "Procfile").write_text(f"{words}web: {self.command}\n")


APPS = (
    App(
        "Flask, gunicorn", "flask", "gunicorn --bind $HOST:$PORT app:app", ("app.py", "Shopping list"), _FLASK
    ),
    App(
        "FastAPI, uvicorn",
        "fastapi",
        "uvicorn --host $HOST --port $PORT main:app",
        ("main.py", "<title>Room"),
        ("fastapi>=0.115,<1", "uvicorn>=0.34,<1"),
    ),
    App(
        "Django, runserver",
        "django",
        "python manage.py runserver --noreload $HOST:$PORT",
        ("board/templates/board/wall.html", "<title>Wall"),
        _DJANGO,
        "python manage.py migrate --noinput",
    ),
    App(
        "Django, gunicorn",
        "django",
        "gunicorn --bind $HOST:$PORT wall.wsgi",
        ("board/templates/board/wall.html", "<title>Wall"),
        _DJANGO,
        "python manage.py migrate --noinput",
    ),
    App("Express", "express", "node server.js", ("server.js", "<title>Poll")),
    App(
        "static files",
        "static",
        "python3 -m http.server --bind $HOST $PORT",
        ("index.html", "<title>Garden"),
        is_found=True,
    ),
)
FLASK = APPS[0]
DEMO = App(
    "the guestbook of the demo",
    "guestbook/1-first guestbook/2-look guestbook/3-hearts",
    "python3 app.py",
    ("templates/page.html", "<title>Guestbook"),
    release="python3 migrate.py",
)


@dataclass(frozen=True, slots=True)
class Installed:
    """An app's packages as somebody has them who works on it: `folder` holds a venv, data and a cache."""

    app: App
    folder: Path

    @property
    def venv(self) -> Path:
        return self.folder / "venv"

    @property
    def cache(self) -> dict[str, str]:
        return {"UV_CACHE_DIR": str(self.folder / "cache"), "PIP_CACHE_DIR": str(self.folder / "pip")}

    def environment(self, port: int, commit: str, venv: Path | None = None) -> dict[str, str]:
        """What lazycloud would give it; with its own venv, or another."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        return {
            "PATH": f"{(venv or self.venv) / 'bin'}:{os.environ['PATH']}",
            "PORT": str(port),
            "HOST": "127.0.0.1",
            "COMMIT_ID": commit,
            "DATABASE_URL": f"sqlite:///{data / 'db.sqlite3'}",
            "DATA_DIR": str(data),
        }

    def install(self, checkout: Path) -> None:
        """The packages, then the tables."""
        if self.app.packages:
            self.make_venv(self.venv)
            self.sync(checkout, self.venv)
        elif (checkout / "package-lock.json").exists():
            run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], checkout)
        if self.app.release:
            run(["/bin/sh", "-c", self.app.release], checkout, self.environment(0, ""))

    def make_venv(self, venv: Path) -> None:
        run([*_uv("venv", "--no-project"), str(venv)], self.folder, self.cache)

    def sync(self, checkout: Path, venv: Path) -> None:
        """What a person types when the lockfile has changed."""
        lock = str(checkout / "requirements.txt")
        run([*_uv("pip", "sync", "--python", str(venv)), lock], self.folder, self.cache)


def run(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What it wrote to its standard output. Raises CannotRun with what it said."""
    variables = os.environ | dict(environment or {})
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise CannotRun(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _uv(*words: str) -> list[str]:
    return [uv.find_uv_bin(), *words, "--quiet"]


def _locked(packages: Sequence[str]) -> str:
    command = [*_uv("pip", "compile", "--no-header", "--no-annotate", "--python", sys.executable), "-"]
    done = subprocess.run(command, input="\n".join(packages), capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise CannotRun(f"The packages could not be locked: {done.stderr[-2000:]}")
    return done.stdout
