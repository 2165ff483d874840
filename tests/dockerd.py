"""A container engine of the tests' own: in a temporary folder, and gone with them."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.waiting import PATIENCE, wait

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Dockerd:
    """`start` and `kill` as often as is liked; what ran in it ends with it, as it does by default."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        (folder / "settings.json").write_text("{}")  # not the machine's own

    def start(self) -> Dockerd:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.folder / 'data'}",
                    f"--exec-root={self.folder / 'exec'}",
                    f"--pidfile={self.folder / 'pid'}",
                    f"--config-file={self.folder / 'settings.json'}",
                    f"--host=unix://{self.socket}",
                    "--bridge=none",  # the usual one may be another engine's
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the tests, which end it after its containers
            )
        wait(lambda: self._process.poll() is not None or self._answers(), "engine")
        assert self._process.poll() is None, (self.folder / "log").read_text()[-4000:]
        return self

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def docker(self, *words: str, stdin: bytes = b"") -> str:
        """What the docker command answers."""
        done = subprocess.run(
            ["docker", *words],
            env=os.environ | {"DOCKER_HOST": self.url, "DOCKER_BUILDKIT": "0"},
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def containers(self) -> list[str]:
        """The ids of all, running or not."""
        return self.docker("ps", "-aq", "--no-trunc").split()

    def kill(self) -> None:
        """As a crash of all of it does; what runs in containers is not told."""
        family = psutil.Process(self._process.pid).children()
        self._process.kill()
        self._process.wait()
        for one in family:  # its containerd, for which the next would wait
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, PATIENCE)

    def stop(self) -> None:
        """With all that it made in this machine."""
        if self._process.poll() is not None:
            self.start()  # only an engine removes its containers whole
        for container in self.containers():
            self.docker("rm", "-f", container)
        for network in self.docker("network", "ls", "-q", "--filter", "type=custom").split():
            self.docker("network", "rm", network)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        for one in self._processes():  # of a container that was just starting when the engine was killed
            with suppress(psutil.NoSuchProcess):
                if "containerd-shim" in one.name():
                    one.kill()
        wait(lambda: not self._processes(), "end of what the engine started")
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if (place := line.split()[4]).startswith(f"{self.folder}/"):
                subprocess.run(["umount", place], check=True)

    def _answers(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 OK" in client.recv(100)
        return False

    def _processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(str(self.folder) in word for word in process.cmdline()):
                    found.append(process)
        return found


@contextmanager
def dockerd_running() -> Iterator[Dockerd]:
    """In a folder with a short name: sockets are made below it."""
    try:  # two engines in one network would take each other's packet filters away
        wait(lambda: not _engines(), "end of another engine, perhaps of other tests")
    except AssertionError as problem:
        (pytest.fail if "CI" in os.environ else pytest.skip)(str(problem))
    folder = Path(tempfile.mkdtemp(prefix="dockerd-"))
    daemon = Dockerd(folder)
    filters = subprocess.run(["iptables-save"], check=True, capture_output=True).stdout
    forwarding = FORWARDING.read_text()
    try:
        yield daemon.start()
    finally:
        daemon.stop()
        shutil.rmtree(folder)
        subprocess.run(
            ["iptables-restore"], input=filters, check=True
        )  # an engine leaves its own where they are
        FORWARDING.write_text(forwarding)


def _engines() -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["name"]) if one.info["name"] == "dockerd"]


def base_image(dockerd: Dockerd, name: str) -> None:
    """A small image to build others from, made of this machine's shell and the Python that runs the tests."""
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    programs = [python, Path("/bin/sh"), *map(Path, filter(None, map(shutil.which, ("cat", "ls", "sleep"))))]
    modules = sorted((library / "lib-dynload").glob("*.so"))
    libraries = {word for program in (*programs, *modules) for word in _libraries(program)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for place in (*programs[1:], *map(Path, sorted(libraries))):
            archive.add(place.resolve(), str(place))
        archive.add(python)
        archive.add(library, filter=_wanted)
        link = tarfile.TarInfo("/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(python)
        archive.addfile(link)
    dockerd.docker("import", "-", name, stdin=buffer.getvalue())


def _libraries(program: Path) -> list[str]:
    told = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return [word for word in told.split() if word.startswith("/")]


def _wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    left_out = (
        "test",
        "tests",
        "site-packages",
        "dist-packages",
        "__pycache__",
        "idlelib",
        "ensurepip",
        "lib2to3",
    )
    unwanted = Path(entry.name).name in left_out or "/config-" in entry.name
    return None if unwanted else entry
