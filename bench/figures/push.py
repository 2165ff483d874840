"""`git push` to a small push-to-deploy server as piku is, beside one to lazycloud."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from answer import first_200
from app import FLASK
from checkout import Checkout, bare_of, check, served
from figures import Column, Figure, Verdict
from figures.deploys import PARTS, TIMES
from peer import HERE, CannotRun, fill, free_port
from run import Row, Sample
from server import git_aloud
from trials import OURS, Trials, scratch

PIP, UV = "piku's way", "piku's way, by uv"
_TIMES_FASTER = 5.0
_ROUNDS = 5  # it takes seconds, and its spread is small beside that


@dataclass(frozen=True, slots=True)
class Pushed:
    """A bare repository whose hook deploys as piku does; `tools` are its commands for a venv and its packages."""

    checkout: Checkout
    remote: str
    folder: Path
    port: int

    def deploy(self) -> Sample:
        """From the start of `git push` to the first 200. The commit is the newest."""
        began = time.perf_counter()
        git_aloud(self.checkout.folder, "push", "-q", self.remote, "HEAD:main")
        told = time.perf_counter()
        try:
            answer = first_200(self.port)
        except CannotRun as problem:
            raise CannotRun(f"{problem} Its log: {(self.folder / 'log').read_text()[-2000:]}") from problem
        finally:
            self.stop()
        check(answer, self.checkout.shown)
        return Sample({"seconds": answer.at - began, "git": told - began})

    def stop(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int((self.folder / "pid").read_text()), signal.SIGKILL)


def push(trials: Trials) -> list[Row]:
    """One commit pushed to each in turn; the packages are in the caches of all."""
    with scratch() as folder, served(folder, FLASK, bare=True) as checkout:
        by_pip = _pushed(
            checkout, "pip", "python3 -m venv .venv", ".venv/bin/pip install -q -r requirements.txt"
        )
        tool = f"UV_CACHE_DIR={checkout.installed.folder / 'cache'} {uv.find_uv_bin()}"
        by_uv = _pushed(checkout, "uv", f"{tool} venv -q .venv", f"{tool} pip install -q -r requirements.txt")

        def ours() -> Sample:
            checkout.commit_quietly()
            return checkout.timed("push", "-q", "origin", "HEAD:main")

        trials.until_preloaded(FLASK.name, ours)
        with contextlib.closing(_Stopped([by_pip, by_uv])):
            ways = {OURS: ours, PIP: by_pip.deploy, UV: by_uv.deploy}
            rows = trials.interleaved(FLASK.name, ways, warm=2, rounds=min(trials.rounds, _ROUNDS))
    ours_took = rows[0].values["seconds"]
    for row in rows[1:]:
        row.values["x ours"] = row.values["seconds"] / ours_took
    return rows


@dataclass(frozen=True, slots=True)
class _Stopped:
    pushed: Sequence[Pushed]

    def close(self) -> None:
        for each in self.pushed:
            each.stop()


def _pushed(checkout: Checkout, remote: str, venv: str, install: str) -> Pushed:
    bare, folder = bare_of(checkout.folder, remote), checkout.folder.with_name(f"{remote} server")
    folder.mkdir()
    port = free_port()
    values = {"PORT": port, "VENV": venv, "INSTALL": install, "COMMAND": checkout.app.command}
    hook = fill(HERE / "peers/post-receive", folder, values).rename(bare / "hooks/post-receive")
    hook.chmod(0o755)
    return Pushed(checkout, remote, folder, port)


def _judge(rows: Sequence[Row]) -> list[Verdict]:
    return [
        Verdict(f"{row.case}, {row.peer}: × lazycloud's time", row.values["x ours"], _TIMES_FASTER, True)
        for row in rows
        if "x ours" in row.values
    ]


FIGURES = (
    Figure(
        "push",
        "git push, then the first 200",
        f"lazycloud at least {_TIMES_FASTER:.0f} × faster",
        (*TIMES[:3], Column("x ours", "× lazycloud", "{:.1f}"), *PARTS),
        push,
        _judge,
    ),
)
