"""The demo's commits, each run from its git repository by its own Procfile, without lazycloud."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.ports import free_port
from tests.waiting import PATIENCE, accepts, until

ROOT = Path(__file__).parents[2]
MAKE = ROOT / "examples" / "make_demo.py"
WORK = ("1", "2", "3", "6", "7")


def make(folder: Path, *more: str) -> str:
    done = subprocess.run([sys.executable, MAKE, folder, *more], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "deep" / "guestbook"
    make(folder)
    return folder


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commits(repository: Path) -> dict[str, str]:
    """Number in the history -> full id."""
    ids = git(repository, "rev-list", "--reverse", "--topo-order", "feature/dark-mode").splitlines()
    return {str(number): commit for number, commit in enumerate(ids, 1)}


class Place:
    """A folder with the files of a commit, and data that may be shared with other commits."""

    def __init__(self, repository: Path, number: str, folder: Path, data: Path) -> None:
        self.folder = folder / number
        self.commit = commits(repository)[number]
        git(repository, "worktree", "add", "--force", "--detach", str(self.folder), self.commit)
        data.mkdir(exist_ok=True)
        self.environment = {
            "PATH": os.environ["PATH"],
            "COMMIT_ID": self.commit,
            "LAZYCLOUD_VERSION": "production",
            "DATABASE_URL": f"sqlite:///{data}/book.sqlite",
            "DATA_DIR": str(data),
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )

    def procfile(self, name: str) -> list[str]:
        lines = (self.folder / "Procfile").read_text().splitlines()
        return dict(line.split(": ", 1) for line in lines)[name].split()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[aiohttp.ClientSession]:
        """The app, migrated and up."""
        assert self.run(*self.procfile("release")).returncode == 0
        port = free_port()
        environment = self.environment | {"HOST": "127.0.0.1", "PORT": str(port)}
        process = await asyncio.create_subprocess_exec(
            *self.procfile("web"), cwd=self.folder, env=environment, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), PATIENCE)
            await until(lambda: accepts(port), "its server")
            jar = aiohttp.CookieJar(unsafe=True)  # takes cookies of an IP address too
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", cookie_jar=jar) as session:
                yield session
        finally:
            process.terminate()
            await process.wait()


@pytest.fixture
def place(repository: Path, tmp_path: Path) -> Callable[[str], Place]:
    return lambda number: Place(repository, number, tmp_path, tmp_path / "data")


def test_the_history_is_as_told(repository: Path):
    log = git(repository, "log", "--reverse", "--format=%an|%s", "main").splitlines()
    assert len(log) == 6
    assert log[0] == "Robin Reed|Let visitors sign the guestbook"
    assert git(repository, "symbolic-ref", "--short", "HEAD") == "main"
    assert git(repository, "rev-parse", "v1") == commits(repository)["3"]
    assert git(repository, "rev-parse", "main") == git(repository, "rev-parse", "feature/dark-mode~1")
    assert git(repository, "status", "--porcelain") == ""


def test_made_again_it_stays_as_it_is_and_lists_its_addresses(repository: Path):
    head = git(repository, "rev-parse", "main")
    said = make(repository, "--listen", "127.0.0.1:8123")
    assert git(repository, "rev-parse", "main") == head
    assert f"http://{head[:10]}.localhost:8123/" in said
    assert "Build one stylesheet out of parts (fails to build)" in said
    assert "http://localhost:8123/ " in said


def test_a_folder_that_is_no_repository_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").write_text("x")
    done = subprocess.run([sys.executable, MAKE, tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "no git repository" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("number", WORK)
async def test_a_commit_shows_itself_takes_a_word_and_escapes_it(place: Callable[[str], Place], number: str):
    at = place(number)
    if (at.folder / "build.py").exists():
        assert at.run("python3", "build.py").returncode == 0
    async with at.serving() as session:
        form = {"name": "<b>Mallory</b>", "message": "</article><script>alert(1)</script>"}
        async with session.post("/sign", data=form) as answer:
            page = await answer.text()
        assert answer.status == 200
        assert f"commit <code>{at.commit[:10]}</code> · data of <code>production</code>" in page
        assert "&lt;b&gt;Mallory" in page
        assert "<script>" not in page
        for link in re.findall(r"""href=["'](/static/[^"']+)""", page):
            async with session.get(link) as answer:
                assert answer.status == 200, link
        async with session.get("/static/../app.py") as answer:
            assert answer.status == 404
        async with session.post("/sign", data={"name": "x"}) as answer:
            assert answer.status == 422


async def test_hearts_are_counted_once_for_each_visitor(place: Callable[[str], Place]):
    at = place("6")
    async with at.serving() as session:
        for _ in range(2):
            async with session.post("/heart", data={"entry": "1"}) as answer:
                page = await answer.text()
        assert "</span> 1</button>" in page
        assert "</span> 2</button>" not in page


async def test_an_old_commit_works_on_the_data_of_a_newer_one(place: Callable[[str], Place]):
    async with place("6").serving():
        pass
    old = place("1")
    assert "it is left as it is" in old.run("python3", "migrate.py").stdout
    form = {"name": "Ada", "message": "again"}
    async with old.serving() as session, session.post("/sign", data=form) as answer:
        page = await answer.text()
    assert "again" in page
    assert "schema 2" in page


def test_the_fourth_commit_fails_to_build(place: Callable[[str], Place]):
    done = place("4").run("python3", "build.py")
    assert done.returncode == 1
    assert "hearts.css" in done.stdout
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'static/motion.css'" in done.stderr


def test_the_fifth_commit_builds_and_crashes_at_start(place: Callable[[str], Place]):
    at = place("5")
    assert at.run("python3", "build.py").returncode == 0
    assert at.run(*at.procfile("release")).returncode == 0
    done = at.run(*at.procfile("web"))
    assert done.returncode == 1
    assert "KeyError: 'GUESTBOOK_KEY'" in done.stderr
