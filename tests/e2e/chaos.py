"""`python -m tests.e2e.chaos [--minutes M] [--seed S] [--containers]`: processes of a server are killed and made to
hang at random, while it deploys, promotes and puts to sleep, and visitors check every answer. With --containers its
workers are containers, whose engine is killed, too.

The seed gives the same blows and wishes at the same times again; which process one meets depends on what runs then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import psutil

from lazycloud.states import PASSING
from tests.dockerd import Dockerd, dockerd_running
from tests.e2e import remains
from tests.e2e.repository import Checkout
from tests.e2e.server import Answer, Server
from tests.e2e.visitors import Visit, Visitors, files

BLOWS = {
    "kill worker": 5,
    "hang worker": 3,
    "kill control": 2,
    "hang control": 2,
    "kill router": 2,
    "hang router": 2,
    "kill preloader": 1,
    "upgrade": 1,
}
ENGINE = {"kill engine": 2}  # beside the others, where there is one
WISHES = {"deploy": 3, "promote": 4, "rollback": 2, "stop": 2, "restart": 2, "commit": 1}
HANG = 2.5  # seconds, at most
SETTINGS = "[workers]\nidle_after = 4\nmax = 5\n"
COMMITS = 4  # there are from the start
FALLS, SOON = 3, 60.0  # production's workers are killed no more often in so many seconds: pauses grow
RESTART = 45.0  # seconds, on a busy machine, that production may give no good answer, apart from hanging
LAG = 20.0  # seconds after which no answer is of the commit that was production before, apart from control's deaths


@dataclass(frozen=True)
class Act:
    """Something to do, so many seconds after the begin. `choice`, from 0 to 1, is whom it meets."""

    at: float
    what: str
    choice: float
    seconds: float = 0.0


def schedule(seed: int, seconds: float, blows: Mapping[str, int] = BLOWS) -> list[Act]:
    """Blows and wishes, in their order. Pure."""
    random = Random(seed)
    acts = []
    for kinds, least, most in ((blows, 0.4, 1.8), (WISHES, 0.4, 2.0)):
        at = random.uniform(least, most)
        while at < seconds:
            (what,) = random.choices(list(kinds), list(kinds.values()))
            acts.append(Act(at, what, random.random(), random.uniform(0.2, HANG)))
            at += random.uniform(least, most)
    return sorted(acts, key=lambda act: act.at)


class Chaos:
    """`told` gets a line for each act; `wrongs` are sentences of what must never be."""

    def __init__(
        self,
        server: Server,
        checkout: Checkout,
        commits: dict[str, str],
        seed: int,
        told: Callable[[str], None],
        engine: Dockerd | None = None,
    ) -> None:
        self.server = server
        self._engine = engine
        self.wrongs: list[str] = []
        self._checkout = checkout
        self._commits = commits  # by name
        self._random = Random(f"visitors {seed}")
        self._told = told
        self._visitors = Visitors(server.port, commits, self._random)
        self._wishes: set[asyncio.Task[None]] = set()
        self._hanging: dict[int, psutil.Process] = {}
        self._hangs: list[tuple[float, float]] = []  # also when control was not there; unix times
        self._falls: deque[float] = deque()
        self._deaths: list[tuple[float, float]] = []  # of control, each till it was back
        self._is_away = False  # control, since it was killed or replaced
        self._engine_changes = asyncio.Lock()

    async def run(self, acts: Sequence[Act]) -> None:
        """All of it; afterwards the server is well again and at rest, or `wrongs` says what it is not."""
        await self._until_production_answers()
        began = time.monotonic()
        previews = [lambda: self._random.choice(list(self._commits.values()))] * 3
        async with self._visitors.going_on([lambda: ""] * 3 + previews):
            for act in acts:
                await asyncio.sleep(max(0.0, act.at - (time.monotonic() - began)))
                self._do(act)
            await asyncio.gather(*self._wishes)
            self._go_on(list(self._hanging.values()))
            last = time.time()
            await self._see(
                lambda: self._answered_since(last), "good answer of production after the last blow"
            )
        self.wrongs += self._visitors.wrongs
        self._told(f"visits: {dict(self._visitors.outcomes())}")
        self._judge_production()
        await self._judge_rest()
        await self._judge_commits()
        self._judge_words()

    # What is done

    def _do(self, act: Act) -> None:
        if act.what in WISHES:
            self._own(self._wish(act))
            return
        verb, _, kind = act.what.partition(" ")
        if kind == "engine":
            self._told(f"{act.at:6.1f} s  {act.what}")
            self._own(self._engine_away(act.seconds))
            return
        victims = self._victims(kind)
        if self._is_away and (kind == "control" or act.what == "upgrade"):
            self._told(f"{act.at:6.1f} s  {act.what}: control is not back yet")
        elif act.what == "upgrade":
            self.server.process.send_signal(signal.SIGHUP)
            self._told(f"{act.at:6.1f} s  upgrade")
            self._own(self._absence({one.pid for one in self._victims("control")}))
        elif not victims:
            self._told(f"{act.at:6.1f} s  {act.what}: nobody")
        else:
            victim = victims[int(act.choice * len(victims))]
            self._told(f"{act.at:6.1f} s  {act.what} {_describe(victim)}")
            before, at = {one.pid for one in victims}, time.time()
            self._hit(verb, victim, act.seconds)
            if act.what == "kill control":
                self._own(self._dead(before))
            elif kind == "control":
                self._deaths.append((at, at + act.seconds))

    def _victims(self, kind: str) -> list[psutil.Process]:
        if kind == "worker":
            found = self.server.inmates()
            if self._falls_of_late() >= FALLS:
                found = [one for one in found if _variable(one, "LAZYCLOUD_VERSION") != "production"]
        elif kind == "preloader":
            found = [one for one in remains.processes(str(self.server.home)) if _is_preloader(one)]
        else:
            found = [one for one in _children(self.server) if f"lazycloud.{kind}" in _line(one)]
        return sorted(found, key=lambda one: one.pid)

    def _falls_of_late(self) -> int:
        while self._falls and self._falls[0] < time.monotonic() - SOON:
            self._falls.popleft()
        return len(self._falls)

    def _hit(self, verb: str, victim: psutil.Process, seconds: float) -> None:
        with contextlib.suppress(psutil.Error):
            if verb == "kill":
                if _variable(victim, "LAZYCLOUD_VERSION") == "production":
                    self._falls.append(time.monotonic())
                victim.kill()
                return
            group = [victim, *victim.children(recursive=True)]
            for one in group:
                with contextlib.suppress(psutil.Error):
                    one.suspend()
                    self._hanging[one.pid] = one
            now = time.time()
            self._hangs.append((now, now + seconds))
            asyncio.get_running_loop().call_later(seconds, self._go_on, group)

    def _go_on(self, group: Iterable[psutil.Process]) -> None:
        for one in group:
            if self._hanging.pop(one.pid, None):
                with contextlib.suppress(psutil.Error):
                    one.resume()

    def _own(self, wish: Any) -> None:
        task = asyncio.create_task(wish)
        self._wishes.add(task)
        task.add_done_callback(self._wishes.discard)

    async def _wish(self, act: Act) -> None:
        names = list(self._commits)
        name = names[int(act.choice * len(names))]
        if act.what == "commit":
            name = f"commit {len(names)}"
            self._commits[name] = self._checkout.commit(files(name, 1 + len(names) % 2), name)
            answer = await self._ask("announce", {"commit": self._commits[name], "ref": "refs/heads/main"})
        elif act.what == "rollback":
            answer = await self._ask("rollback", {"why": "chaos"})
        else:
            answer = await self._ask(act.what, {"ref": self._commits[name], "retry": True, "why": "chaos"})
        self._told(f"{act.at:6.1f} s  {act.what} {name}: {_in_short(answer)}")
        if act.what in ("promote", "rollback") and answer and answer.status == 202:
            await self._until_promoted(answer.json["number"])

    async def _ask(self, verb: str, body: dict[str, Any]) -> Answer | None:
        """None when it was cut off."""
        try:
            return await self.server.post(
                "lazycloud",
                json.dumps(body),
                f"/api/apps/shop/{verb}",
                Authorization=self.server.authorization,
                Content_Type="application/json",
            )
        except (OSError, aiohttp.ClientError):
            return None

    async def _engine_away(self, seconds: float) -> None:
        """Kill it with all that runs in it, and start it again after a while."""
        assert self._engine
        async with self._engine_changes:
            began = time.time()
            await asyncio.to_thread(self._engine.kill)
            await asyncio.sleep(seconds)
            await asyncio.to_thread(self._engine.start)
            self._hangs.append((began, time.time()))

    async def _dead(self, before: set[int]) -> None:
        began = time.time()
        await self._absence(before)
        self._deaths.append((began, time.time()))

    async def _absence(self, before: set[int]) -> None:
        """Note until when control is away: until another process answers."""
        self._is_away, began = True, time.time()

        async def is_back() -> bool:
            now = {one.pid for one in self._victims("control")}
            return bool(now - before) and await self._control_answers()

        with contextlib.suppress(TimeoutError):
            await self.server.until(is_back)
        self._is_away = False
        self._hangs.append((began, time.time()))
        self._told(f"control was away for {time.time() - began:.1f} s")

    async def _control_answers(self) -> bool:
        connector = aiohttp.UnixConnector(str(self.server.home / "run/api"))
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.get("http://control/api/server") as answer,
            ):
                return answer.status == 200
        except (OSError, TimeoutError, aiohttp.ClientError):
            return False

    async def _until_promoted(self, number: int) -> None:
        """Until it ended, well or not, or control did."""
        with contextlib.suppress(OSError, aiohttp.ClientError):
            await self.server.get(
                "lazycloud",
                f"/api/apps/shop/production/follow?after={number}",
                Authorization=self.server.authorization,
            )

    # What must be

    async def _until_production_answers(self) -> None:
        async def answers() -> bool:
            return (await self.server.get()).status == 200

        await self.server.until(answers)

    def _answered_since(self, at: float) -> bool:
        return any(visit.is_good and not visit.label and visit.began > at for visit in self._visitors.visits)

    async def _see(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for it; a wrong if it does not come."""
        try:
            await asyncio.to_thread(self.server.wait, condition, what)
        except AssertionError:
            self.wrongs.append(f"There was no {what}.")

    def _judge_production(self) -> None:
        """It was always there, of a commit that was production just then, and nothing it took was lost."""
        good = sorted(
            (visit for visit in self._visitors.visits if visit.is_good and not visit.label),
            key=lambda visit: visit.ended,
        )
        down = [(after.ended - before.ended, before.ended) for before, after in itertools.pairwise(good)]
        for seconds, at in sorted(down, reverse=True)[:3]:
            self._told(f"production gave no good answer for {seconds:.1f} s")
            hung = _covered(self._hangs, at, at + seconds)
            if seconds > RESTART + hung:
                self.wrongs.append(f"Production gave no good answer for {seconds:.1f} s.")
        spans = self._spans()
        for visit in good:
            if not any(self._may_be(visit, *span) for span in spans):
                self.wrongs.append(f"Production was answered by what it was not then: {visit}")
        data = self.server.home / "apps/shop/data/production"
        with contextlib.closing(sqlite3.connect(data / "database.sqlite")) as database:
            marks = {row[0] for row in database.execute("SELECT mark FROM marks")}
        if missing := self._visitors.acknowledged("") - marks:
            self.wrongs.append(f"Production lost what it had acknowledged: {sorted(missing)[:5]}")
        if foreign := {mark for mark in marks if not mark.startswith("production-")}:
            self.wrongs.append(f"Production has marks of previews: {sorted(foreign)[:5]}")
        if (data / "files/clock.twice").exists():
            self.wrongs.append("A background process ran twice on production's data.")

    def _may_be(self, visit: Visit, commit: str, since: float, until: float) -> bool:
        """Whether it may be of a commit that was production for that time. Routers go on when nobody tells them."""
        lag = LAG + _covered(self._deaths, until, visit.began)
        return visit.facts["commit"] == commit and since < visit.ended + 1 and visit.began < until + lag

    def _spans(self) -> list[tuple[str, float, float]]:
        """Which commit was production, since when and until when."""
        rows = self._stored("SELECT \"commit\", at FROM promotions WHERE app = 'shop' ORDER BY number")
        ends = [at for _, at in rows[1:]] + [float("inf")]
        return [(commit, at, end) for (commit, at), end in zip(rows, ends, strict=True)]

    def _stored(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.server.home / "state.sqlite", timeout=60)) as database:
            return database.execute(query).fetchall()

    async def _judge_rest(self) -> None:
        """What is stored, what `ps` shows and what runs become one and the same."""
        different = ["nothing was looked at"]

        async def is_same() -> bool:
            different[:] = await self._differences()
            return not different

        try:
            await self.server.until(is_same)
        except TimeoutError:
            self.wrongs += different

    async def _differences(self) -> list[str]:
        rows = self._stored("SELECT id, state, worker FROM deployments")
        found = [
            f"{row} is still {state}." for row, state, _ in rows if state in {one.value for one in PASSING}
        ]
        stored = {row: _pids(json.loads(worker or "null")) for row, _, worker in rows}
        told = {}
        for row in await self.server.api("ps"):
            told[row["deployment"]] = {one["pid"] for one in row["processes"]}
        stored = {row: pids for row, pids in stored.items() if pids}
        if stored != told:
            found.append(f"Stored is {stored}, and `ps` shows {told}.")
        pids = set().union(*told.values())
        found += [f"{pid} does not run." for pid in pids if not psutil.pid_exists(pid)]
        for one in self.server.inmates():
            with contextlib.suppress(psutil.Error):
                above = {one.pid, *(parent.pid for parent in one.parents())}
                if not above & pids:
                    found.append(f"Nobody knows of {_describe(one)}.")
        states = {row: state for row, state, _ in rows}
        found += [f"{row} has workers and is {states[row]}." for row in told if states[row] != "ready"]
        used = len(list((self.server.home / "scratch").glob("*")))
        if used > len(told):
            found.append(f"{used} temporary folders are there for {len(told)} deployments that run.")
        return found

    async def _judge_commits(self) -> None:
        """Each can be opened, whatever had happened to it."""
        for name, commit in self._commits.items():
            await self._ask("deploy", {"ref": commit, "retry": True})
            answer = await self.server.get(commit)
            if answer.status != 200 or answer.json["name"] != name:
                self.wrongs.append(f"{name} ({commit[:10]}) does not run any more: {answer}")

    def _judge_words(self) -> None:
        """Nothing surprised lazycloud itself."""
        said = self.server.output
        for word in ("Traceback", "met a bug", "Task exception was never retrieved", "was never awaited"):
            if word in said:
                self.wrongs.append(
                    f"The server says “{word}”:\n{said[max(0, said.index(word) - 500) :][:3000]}"
                )
                break


def _covered(spans: Iterable[tuple[float, float]], begin: float, end: float) -> float:
    """How much of the time from `begin` to `end` lies in any of them."""
    covered = 0.0
    for since, until in sorted(spans):
        covered += max(0.0, min(until, end) - max(since, begin))
        begin = max(begin, until)
    return covered


def _in_short(answer: Answer | None) -> str:
    if answer is None:
        return "cut off"
    if answer.status < 400:
        return str(answer.status)
    try:
        return f"{answer.status} {answer.json['error']['sentence']}"
    except ValueError:
        return f"{answer.status} {answer.text[:100]!r}"


def _variable(process: psutil.Process, name: str) -> str:
    try:
        return str(process.environ().get(name, ""))
    except psutil.Error:
        return ""


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _describe(process: psutil.Process) -> str:
    version, commit = _variable(process, "LAZYCLOUD_VERSION"), _variable(process, "COMMIT_ID")
    name = f" {commit[:10]} on {version[:10]}" if commit else ""
    return f"{process.pid}{name} ({_line(process)[:60]})"


def _is_preloader(process: psutil.Process) -> bool:
    return _line(process).startswith("lazycloud: preloaded")


def _children(server: Server) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(server.process.pid).children()
    return []


def _pids(posts: dict[str, Any] | None) -> set[int]:
    return {post["worker"]["pid"] for post in (posts or {}).values() if post["worker"]}


@contextlib.asynccontextmanager
async def _server(
    folder: Path, environment: dict[str, str]
) -> AsyncIterator[tuple[Server, Checkout, dict[str, str]]]:
    checkout, home = Checkout(folder / "shop"), folder / "home"
    commits = {}
    for number in range(COMMITS):
        commits[f"commit {number}"] = checkout.commit(files(f"commit {number}", 1 + number % 2))
    for made in (home, folder / "tmp"):
        made.mkdir()
    (home / "config.toml").write_text(SETTINGS)
    environment = environment | {"TMPDIR": str(folder / "tmp")}
    server = Server(home, f"shop={checkout.path}", "--routers", "2", environment=environment)
    try:
        yield await asyncio.to_thread(server.start), checkout, commits
    finally:
        await asyncio.to_thread(server.stop)


async def chaos(
    folder: Path, seed: int, seconds: float, told: Callable[[str], None], engine: Dockerd | None = None
) -> list[str]:
    """Do it in an empty folder, in containers if there is an engine. What must not be and is, in sentences."""
    environment = {"LAZYCLOUD_ISOLATION": "container", "DOCKER_HOST": engine.url} if engine else {}
    async with _server(folder, environment) as (server, checkout, commits):
        run = Chaos(server, checkout, commits, seed, told, engine)
        await run.run(schedule(seed, seconds, BLOWS | ENGINE if engine else BLOWS))
    left = remains.of(server.home, folder / "tmp")
    if engine:
        left += [f"The container {one} is left." for one in engine.containers()]
    return run.wrongs + left


def main() -> int:
    """Exits 1 when something was wrong; its folder is kept then."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--containers", action="store_true")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"seed {given.seed}, {given.minutes:g} minutes, in {folder}", flush=True)

    def told(line: str) -> None:
        print(line, flush=True)

    with dockerd_running() if given.containers else contextlib.nullcontext() as engine:
        wrongs = asyncio.run(chaos(folder, given.seed, given.minutes * 60, told, engine))
    for wrong in wrongs:
        print(f"WRONG: {wrong}")
    if wrongs:
        print(f"Again: make chaos MINUTES={given.minutes:g} SEED={given.seed}. What it left is in {folder}.")
        return 1
    shutil.rmtree(folder)
    print("Nothing was wrong.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
