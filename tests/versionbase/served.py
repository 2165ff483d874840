"""A server of a versionbase as a process of its own, which may be killed and come again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.waiting import PATIENCE

SECRET = "0123456789abcdef" * 4


class Served:
    """`address` is where the one that runs now listens."""

    def __init__(self, store: str, *flags: str, within: Sequence[str] = ()) -> None:
        """`within` is what the server is started by."""
        self.store = store
        self._flags = flags
        self._within = within
        self._process: subprocess.Popen[str] | None = None
        self.log = Path(tempfile.mkstemp(prefix="versionbase-", suffix=".log")[1])
        self.address = ""
        self.starts = 0

    @property
    def owner(self) -> str:
        from lazycloud.versionbase.keys import made_of

        return made_of(SECRET).owner

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10

    def start(self) -> Served:
        """Returns when it listens."""
        words = ["versionbase", "serve", "--store", self.store, "--listen", "127.0.0.1:0", *self._flags]
        self._process = subprocess.Popen(
            [*self._within, sys.executable, "-m", "lazycloud", *words],
            env={**os.environ, "LAZYCLOUD_VERSIONBASE_SECRET": SECRET},
            stdout=subprocess.PIPE,
            stderr=self.log.open("a"),
            text=True,
        )
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert "listens at ws://" in line, line + self.log.read_text()
        self.address = line.strip().rpartition("ws://")[2].rstrip("/")
        self.starts += 1
        return self

    def kill(self) -> None:
        """As nobody can forbid."""
        assert self._process
        self._process.kill()
        self._end()

    def stop(self) -> int:
        """As asked; its exit code."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def _end(self) -> int:
        assert self._process and self._process.stdout
        code = self._process.wait(PATIENCE)
        self._process.stdout.close()
        self._process = None
        return code

    def __enter__(self) -> Served:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        self.log.unlink()


def verified(store: str) -> str:
    """What `lazycloud versionbase verify` says of a store that nobody serves. Fails if something is wrong."""
    words = [sys.executable, "-m", "lazycloud", "versionbase", "verify", "--store", store]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
