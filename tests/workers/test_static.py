"""The static worker: files of one folder, and of no other."""

import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.waiting import PATIENCE, accepts, wait

from .conftest import Start

Answer = tuple[int, bytes, http.client.HTTPMessage]


class Site:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def get(self, target: str, method: str = "GET", **headers: str) -> Answer:
        """`target` reaches the server byte for byte."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.putrequest(method, target, skip_host=True)
        connection.putheader("Host", "localhost")
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        try:
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


PAGES = {
    "index.html": "home",
    "about.html": "about",
    "style.css": "body {}",
    "notes.txt": "0123456789",
    "docs/index.html": "docs",
    "docs/first page.html": "first page",
    "empty/readme.md": "no index",
    "both.html": "page",
    "both/index.html": "folder",
    ".env": "SECRET=1",
    ".git/config": "[core]",
    "docs/.hidden/index.html": "hidden",
    ".well-known/security.txt": "Contact",
    "font.woff2": "font",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    public = folder / "public"
    for name, text in PAGES.items():
        (public / name).parent.mkdir(parents=True, exist_ok=True)
        (public / name).write_text(text)
    (folder / "secret.txt").write_text("outside")
    (folder / "public-other").mkdir()
    (folder / "public-other" / "index.html").write_text("outside")
    (public / "leaves.txt").symlink_to("../secret.txt")
    (public / "leaves").symlink_to("../public-other")
    (public / "env.txt").symlink_to(".env")
    (public / "stays.txt").symlink_to("docs/../notes.txt")
    (public / "loop.html").symlink_to("loop.html")
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-I", "-m", "lazycloud.workers.static", str(public)],
        env={"PORT": str(port), "HOST": "127.0.0.1"},
    ) as server:
        wait(lambda: accepts(port), "the server of files")
        yield Site(public, port)
        server.terminate()
        assert server.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/", b"home"),
        ("/?a=b", b"home"),
        ("/index.html", b"home"),
        ("/about", b"about"),
        ("/about.html", b"about"),
        ("/docs/", b"docs"),
        ("/docs/first%20page", b"first page"),
        ("//about", b"about"),
        ("/both", b"page"),
        ("/both/", b"folder"),
        ("/stays.txt", b"0123456789"),
        ("/.well-known/security.txt", b"Contact"),
    ],
)
def test_a_path_is_a_file(site: Site, target: str, body: bytes) -> None:
    assert site.get(target)[:2] == (200, body)


@pytest.mark.parametrize(
    "target",
    ["/nothing", "/about/", "/empty/", "/empty", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt",
     "/docs/../../secret.txt", "/leaves.txt", "/leaves/", "/leaves", "/env.txt", "/.env", "/%2eenv", "/.git/config",
     "/docs/.hidden/", "/loop", "/a%00b", "/notes.txt/", "/" + "a" * 300, "/../public-other/", "/%ff",
     "/docs%2findex.html"],
)  # fmt: skip
def test_what_is_not_there_or_not_to_be_seen_is_not_found(site: Site, target: str) -> None:
    status, body, _ = site.get(target)
    assert (status, body) == (404, b"404: Not Found\n")


@pytest.mark.parametrize(
    ("target", "location"), [("/docs", "/docs/"), ("/docs?a=b%20c", "/docs/?a=b%20c"), ("//docs", "/docs/")]
)
def test_a_folder_has_its_slash_and_the_redirect_stays_on_this_host(
    site: Site, target: str, location: str
) -> None:
    status, _, headers = site.get(target)
    assert (status, headers["Location"]) == (308, location)


def test_a_404_page_of_the_site_is_shown(site: Site) -> None:
    page = site.folder / "404.html"
    page.write_text("lost?")
    try:
        status, body, headers = site.get("/nothing", Range="bytes=0-1")
        assert (status, body) == (404, b"lost?")
        assert headers["Content-Type"] == "text/html; charset=utf-8"
    finally:
        page.unlink()


def test_a_page_is_asked_for_again_and_answered_304(site: Site) -> None:
    _, _, headers = site.get("/about")
    assert headers["Cache-Control"] == "no-cache"
    assert headers["Last-Modified"]
    assert site.get("/about", If_None_Match=headers["ETag"])[:2] == (304, b"")
    assert site.get("/about", If_Modified_Since=headers["Last-Modified"])[:2] == (304, b"")


def test_a_range_is_a_part(site: Site) -> None:
    status, body, headers = site.get("/notes.txt", Range="bytes=2-4")
    assert (status, body, headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")


def test_head_has_the_headers_and_no_body_and_nothing_can_be_written(site: Site) -> None:
    status, body, headers = site.get("/notes.txt", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "10")
    assert site.get("/notes.txt", "DELETE")[0] == 405
    assert site.get("/notes.txt", "POST")[0] == 405


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/notes.txt", "text/plain; charset=utf-8"),
        ("/font.woff2", "font/woff2"),
    ],
)
def test_the_type_is_by_the_name_and_not_guessed_by_browsers(site: Site, target: str, kind: str) -> None:
    _, _, headers = site.get(target)
    assert headers["Content-Type"] == kind
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(("arguments", "port"), [([], "1"), (["/no/such/folder"], "1"), (["/tmp"], "x")])
def test_misuse_is_a_sentence_and_status_2(arguments: list[str], port: str) -> None:
    command = [sys.executable, "-I", "-m", "lazycloud.workers.static", *arguments]
    done = subprocess.run(command, env={"PORT": port}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


async def test_it_is_a_worker_like_any_other(start: Start, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("home")
    worker = await start(f"{sys.executable} -I -m lazycloud.workers.static .", health="/")
    await worker.ready()
    await worker.stop()
    assert (await worker.ended()).status in (0, -signal.SIGTERM)
    assert not worker.last_lines()
