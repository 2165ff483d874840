"""`python -m tests.data.stress [--minutes M] [--seed S]`: moments of databases that are written, while all is killed.

Each round has databases with pages of some size, writers of some manners, and a process that is as control is: it
takes moments, has images made, compares each with what its writers had committed just then, keeps some, and checks
what an earlier one kept. Writers, the holder and control are killed at random and at each step by name, and hang. In
the end the databases themselves must be what their writers made them. The seed chooses; what meets what is up to the
machine.

Prints counts. Ends with 1 if anything was wrong, or if something that was kept was not there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lazycloud.data.archive import Archive
from lazycloud.data.fingerprint import fingerprint
from lazycloud.data.held import Held
from lazycloud.data.holding import COMMAND, PROGRAM
from lazycloud.data.line import Line, Marks
from lazycloud.errors import LazycloudError, Unavailable
from tests.data import faulty_holder
from tests.data.numbered import Ledger, wrong
from tests.waiting import PATIENCE, wait

ROUND = 6.0  # seconds of blows
NAMES = ("database.sqlite", "files/one.db", "files/two.db")
MANNERS = (
    (),
    ("--autocheckpoint", "0"),
    ("--autocheckpoint", "1"),
    ("--autocheckpoint", "20"),
    ("--synchronous", "OFF"),
    ("--synchronous", "FULL"),
    ("--reopen", "3"),
    ("--vacuum", "50"),
    ("--cells", "60"),
    ("--pause", "0"),
)
PAGES = (512, 1024, 4096, 4096, 8192, 65536)
# What control does, by who does it; each may be where it dies, before or after.
CONTROL_STEPS: dict[str, tuple[type, str]] = {
    "open": (Held, "open"),
    "ask": (Held, "_ask"),
    "copy_base": (Archive, "copy_base"),
    "admit": (Archive, "admit"),
    "append": (Archive, "append"),
    "settle": (Archive, "settle"),
    "collect": (Archive, "collect"),
    "image": (Archive, "make_image"),
}


# --- control's side


@dataclass
class Taken:
    """A moment, and which commits its image may have as its last."""

    marks: Marks
    least: dict[str, int]
    most: dict[str, int]
    due: float = 0.0

    def as_json(self) -> str:
        return json.dumps({"marks": self.marks.as_json(), "least": self.least, "most": self.most})

    @classmethod
    def from_json(cls, text: str) -> Taken:
        facts = json.loads(text)
        return cls(Marks.from_json(facts["marks"]), facts["least"], facts["most"])


@dataclass
class Controller:
    """Takes, keeps and compares moments, and reports what came of it."""

    root: Path
    chance: random.Random
    line: Line
    ledgers: dict[str, Ledger]
    is_whole: bool  # nothing of it fails at its steps
    pending: list[Taken] = field(default_factory=list)
    kept: list[Taken] = field(default_factory=list)

    async def act(self) -> None:
        roll = self.chance.random()
        if roll < 0.6:
            self.take()
        elif roll < 0.7 and self.pending:
            await self.keep(self.chance.choice(self.pending))
        elif roll < 0.75:
            await self.line.rotate()
        elif roll < 0.8 and self.kept:
            await self.check(self.chance.choice(self.kept), is_kept=True)
        elif roll < 0.82 and self.kept:
            await self.forget(self.kept.pop(0))
        elif roll < 0.84 and self.pending and (pid := self.line.holder_pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            report(self.root, "imaged when the holder was dead")
            await asyncio.sleep(self.chance.choice((0, 0.01, 0.05)))
            await self.check(self.pending.pop())
        for taken in [one for one in self.pending if one.due < time.monotonic()]:
            self.pending.remove(taken)
            await self.check(taken)

    def take(self) -> None:
        least = {name: ledger.done() for name, ledger in self.ledgers.items()}
        try:
            marks = self.line.mark()
        except Unavailable:
            report(self.root, "not taken")
            return
        most = {name: ledger.tried() for name, ledger in self.ledgers.items()}
        report(self.root, "taken")
        due = time.monotonic() + self.chance.choice((0.0, 0.05, 0.5, 2.0))
        self.pending.append(Taken(marks, least, most, due))

    async def keep(self, taken: Taken) -> None:
        with (self.root / "kept.jsonl").open("a") as kept:
            kept.write(f"tried {taken.as_json()}\n")
        try:
            await self.line.keep(taken.marks)
        except LazycloudError as problem:
            report(self.root, "not kept", str(problem))
            return
        with (self.root / "kept.jsonl").open("a") as kept:
            kept.write(f"kept {taken.as_json()}\n")
        report(self.root, "kept")
        self.kept.append(Taken.from_json(taken.as_json()))

    async def forget(self, taken: Taken) -> None:
        with (self.root / "kept.jsonl").open("a") as kept:
            kept.write(f"forgot {taken.as_json()}\n")
        await self.line.forget(taken.marks)

    async def check(self, taken: Taken, is_kept: bool = False) -> None:
        """What was kept must be there; but a holder that was just killed may have to be waited for."""
        why = ""
        for _ in range(20 if is_kept and self.is_whole else 1):
            target = Path(tempfile.mkdtemp(dir=self.root))
            try:
                await self.line.image(taken.marks, target)
                why = ""
            except Unavailable as problem:
                why = str(problem)
            # What there is of it is right, even so.
            found = await asyncio.to_thread(self.compare, taken, target, is_kept)
            await asyncio.to_thread(shutil.rmtree, target)
            for name, fault in found:
                more = f"{name} {fault} {taken.as_json()}" if fault else ""
                report(self.root, "wrong" if fault else "compared", more)
            if not why:
                report(self.root, "materialised")
                return
            await asyncio.sleep(0.3 if is_kept else 0)
        report(self.root, "lost" if is_kept and self.is_whole else "unavailable", why)

    def compare(self, taken: Taken, target: Path, is_kept: bool) -> list[tuple[str, str]]:
        names = {one.name for one in taken.marks.databases}
        there = [name for name in taken.least if name in names and (target / name).exists()]
        found = [
            (name, wrong(target / name, self.ledgers[name], taken.least[name], taken.most[name]))
            for name in there
        ]
        if not any(fault for _, fault in found) and (is_kept or self.chance.random() < 0.1):
            self.remember(taken, {name: print_of(target / name) for name in there})
        return found

    def remember(self, taken: Taken, prints: dict[str, str]) -> None:
        """A moment that is imaged again, live or from the archive, by this control or the next, is the same."""
        place = self.root / f"{taken.marks.id}.prints"
        if place.exists():
            before = json.loads(place.read_text())
            for name in before.keys() & prints.keys():
                report(self.root, "same" if before[name] == prints[name] else "wrong", name)
        else:
            fresh = place.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(prints))
            fresh.replace(place)


def print_of(place: Path) -> str:
    with closing(sqlite3.connect(place)) as connection:
        return fingerprint(connection)


def report(root: Path, what: str, more: str = "") -> None:
    with (root / "reports.jsonl").open("a") as reports:
        reports.write(json.dumps([what, more]) + "\n")


def standing(root: Path) -> Iterator[Taken]:
    """What was kept, and not forgotten, by those before."""
    kept: dict[str, Taken] = {}
    place = root / "kept.jsonl"
    for line in place.read_text().splitlines() if place.exists() else []:
        verb, _, facts = line.partition(" ")
        taken = Taken.from_json(facts)
        if verb == "kept":
            kept[taken.marks.id] = taken
        elif verb == "forgot":
            kept.pop(taken.marks.id, None)
    yield from kept.values()


def die_at(step: str, when: str, number: int) -> None:
    owner, name = CONTROL_STEPS[step]
    setattr(owner, name, faulty_holder.faulty(getattr(owner, name), when, number))


async def control(root: Path, seed: int, names: list[str], fault: str) -> None:
    where, *point = fault.split()
    command: tuple[str, ...] = COMMAND
    if where == "holder":
        command = (sys.executable, faulty_holder.__file__, str(PROGRAM), *point)
    elif where == "control":
        die_at(point[0], point[1], int(point[2]))
    try:
        line = await Line.open(root / "version", root / "archive", command=command)
    except Unavailable:
        if where != "holder":  # else each holder that it began died at its step
            raise
        report(root, "not opened")
        return
    try:
        ledgers = {name: Ledger(ledger_of(root, name)) for name in names}
        controller = Controller(
            root, random.Random(seed), line, ledgers, fault == "none", kept=[*standing(root)]
        )
        report(root, "holder", str(line.holder_pid))
        for taken in [*controller.kept]:
            await controller.check(taken, is_kept=True)
        reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        holder = line.holder_pid
        while not reading.done():
            await controller.act()
            await asyncio.sleep(controller.chance.choice((0, 0.005, 0.03)))
            if line.holder_pid != holder and line.holder_pid:
                holder = line.holder_pid
                report(root, "holder", str(holder))
        for taken in controller.pending:
            await controller.check(taken)
        report(root, "ended")
    finally:
        await line.close()


# --- the other side


def ledger_of(root: Path, name: str) -> Path:
    return root / f"{name.replace('/', ' ')}.ledger"


def done_of(root: Path, name: str) -> int:
    with closing(Ledger(ledger_of(root, name))) as ledger:
        return ledger.done()


class Round:
    """One set of databases, and what befalls those who use them."""

    def __init__(self, root: Path, chance: random.Random, fault: str) -> None:
        self.root = root
        self._chance = chance
        self._fault = fault
        self.names = list(NAMES[: chance.choice((1, 1, 2, 3))])
        self.page_sizes = {name: chance.choice(PAGES) for name in self.names}
        self._writers: list[subprocess.Popen[bytes]] = []
        self._others: list[subprocess.Popen[bytes]] = []
        self._control: subprocess.Popen[bytes] | None = None
        self._slots = 0
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    def __str__(self) -> str:
        return (
            f"{self._fault or 'no fault by name'}; pages of {', '.join(map(str, self.page_sizes.values()))}"
        )

    def run(self, seconds: float) -> None:
        (self.root / "version" / "files").mkdir(parents=True)
        try:
            for name in self.names:
                for _ in range(self._chance.choice((1, 1, 2, 3))):
                    self._write(name)
                if self._chance.random() < 0.5:
                    self._linger(name)
            wait(lambda: all(done_of(self.root, name) > 3 for name in self.names))
            self._start(self._fault)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                time.sleep(self._chance.uniform(0.02, 0.4))
                self._blow()
            self._end_control()
            self._start("none")  # what was kept is looked at once more
            time.sleep(1)
            self._end_control()
        finally:
            self._kill_all()
        self._judge()

    def _write(self, name: str) -> None:
        manners = (
            "--pause",
            "0.005",
            *self._chance.choice(MANNERS),
            "--page-size",
            str(self.page_sizes[name]),
        )
        words = [
            sys.executable,
            "-m",
            "tests.data.numbered",
            self.root / "version" / name,
            ledger_of(self.root, name),
        ]
        numbers = "--slot", str(self._slots % 64), "--seed", str(self._chance.randrange(10**9))
        self._slots += 1
        writer = subprocess.Popen([*words, *numbers, *manners], stderr=subprocess.DEVNULL)
        writer.name = name  # type: ignore[attr-defined]
        self._writers.append(writer)

    def _linger(self, name: str) -> None:
        program = Path(__file__).with_name("lingering.py")
        words = [sys.executable, program, self.root / "version" / name, str(self._chance.randrange(10**9))]
        self._others.append(subprocess.Popen(words))

    def _start(self, fault: str) -> None:
        numbers = "--seed", str(self._chance.randrange(10**9))
        self._control = subprocess.Popen(
            [sys.executable, "-m", "tests.data.stress", "--control", self.root, "--fault", fault, *numbers]
            + [word for name in self.names for word in ("--name", name)],
            stdin=subprocess.PIPE,
            stderr=(self.root / "errors").open("ab"),
        )

    def _blow(self) -> None:
        assert self._control
        blow = self._chance.choices(
            (
                "writer",
                "all writers",
                "hang writer",
                "holder",
                "hang holder",
                "control",
                "hang control",
                "rest",
            ),
            (6, 1, 2, 1, 1, 1, 1, 8),
        )[0]
        if self._control.poll() is not None:  # it came to where it was to die
            self.counts["control died at its step"] += self._control.returncode == -signal.SIGKILL
            self._start("none")
        elif blow == "control":
            self._control.kill()
            self._control.wait()
            self.counts["control killed"] += 1
            self._start("none")
        elif blow == "hang control":
            self._hang(self._control.pid)
        elif "holder" in blow and (pid := self._holder()):
            if blow == "hang holder":
                self._hang(pid)
            else:
                self._signal(pid, signal.SIGKILL)
                self.counts["holder killed"] += 1
        elif blow == "hang writer":
            self._hang(self._chance.choice(self._writers).pid)
        elif "writer" in blow:
            for writer in [*self._writers] if blow == "all writers" else [self._chance.choice(self._writers)]:
                writer.kill()
                writer.wait()
                self._writers.remove(writer)
                self.counts["writer killed"] += 1
                self._write(writer.name)  # type: ignore[attr-defined]

    def _hang(self, pid: int) -> None:
        self._signal(pid, signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.01, 0.3))
        self._signal(pid, signal.SIGCONT)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _holder(self) -> int | None:
        assert self._control
        for what, more in reversed(self._reports()):
            if what == "holder" and more.isdigit():
                with contextlib.suppress(
                    OSError
                ):  # only one that control began: the number may be another's by now
                    if f"PPid:\t{self._control.pid}\n" in Path(f"/proc/{more}/status").read_text():
                        return int(more)
                return None
        return None

    def _end_control(self) -> None:
        assert self._control
        assert self._control.stdin
        self._control.stdin.close()
        try:
            if self._control.wait(2 * PATIENCE) and self._control.returncode != -signal.SIGKILL:
                self.counts["control failed"] += 1
        except subprocess.TimeoutExpired:
            self.counts["control hung"] += 1

    def _kill_all(self) -> None:
        for process in [*self._writers, *self._others, *([self._control] if self._control else [])]:
            process.kill()
            process.wait()

    def _judge(self) -> None:
        for name in self.names:
            ledger = Ledger(ledger_of(self.root, name))
            fault = wrong(self.root / "version" / name, ledger, ledger.done(), ledger.tried())
            self.counts["wrong database" if fault else "right database"] += 1
            if fault:
                print(f"  the database {name} itself {fault}", flush=True)
            self.counts["commits"] += ledger.done()
            ledger.close()
        for what, more in self._reports():
            self.counts[what] += what not in ("holder", "ended")
            if what == "unavailable":
                reason = re.sub(r"[0-9,]+", "N", more)
                self.reasons[reason] += 1
            if what in ("wrong", "lost"):
                print(f"  {what}: {more}", flush=True)
        if self.counts["control failed"] or self.counts["control hung"]:
            print((self.root / "errors").read_text()[-3000:], flush=True)

    def _reports(self) -> list[tuple[str, str]]:
        place = self.root / "reports.jsonl"
        found = []
        for line in place.read_text().splitlines() if place.exists() else []:
            with contextlib.suppress(ValueError):  # whoever wrote it was killed
                found.append(tuple(json.loads(line)))
        return found


BAD = ("wrong", "lost", "wrong database", "control failed", "control hung")


def faults(chance: random.Random) -> Iterator[str]:
    """Every step by name, in some order, again and again."""
    while True:
        all_of = [f"holder {step} {when}" for step in faulty_holder.STEPS for when in faulty_holder.WHENS]
        all_of += [f"control {step} {when}" for step in CONTROL_STEPS for when in ("before", "after")]
        all_of += ["none"] * 4
        chance.shuffle(all_of)
        for fault in all_of:
            yield fault if fault == "none" else f"{fault} {chance.choice((1, 2, 3, 5, 8))}"


def stress(
    minutes: float,
    seed: int,
    seconds: float = ROUND,
    enough: Callable[[Counter[str]], bool] = lambda total: True,
) -> Counter[str]:
    """What came of so many minutes, or of more, till there is enough."""
    chance = random.Random(seed)
    total: Counter[str] = Counter()
    deadline = time.monotonic() + 60 * minutes
    for number, fault in enumerate(faults(chance)):
        root = Path(tempfile.mkdtemp(prefix="lazycloud-stress-"))
        one = Round(root, random.Random(chance.randrange(10**9)), fault)
        print(f"round {number}: {one}", flush=True)
        left = deadline - time.monotonic()
        one.run(min(seconds, max(1.0, left)) if left > 0 else seconds)
        total += one.counts
        total["rounds"] += 1
        print(f"  {dict(one.counts)}", flush=True)
        for reason, count in one.reasons.items():
            print(f"  unavailable {count}: {reason}", flush=True)
        if any(one.counts[what] for what in BAD):
            print(f"  left to look at: {root}", flush=True)
        else:
            shutil.rmtree(root)
        if time.monotonic() >= deadline and enough(total):
            return total
    raise AssertionError


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--minutes", type=float, default=1.0)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--control", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--fault", default="none", help=argparse.SUPPRESS)
    made.add_argument("--name", action="append", help=argparse.SUPPRESS)
    given: Any = made.parse_args()
    if given.control:
        asyncio.run(control(given.control, given.seed, given.name, given.fault))
        return 0
    total = stress(given.minutes, given.seed)
    first = ("taken", "materialised", "compared", "unavailable", "wrong")
    print(*(f"{what} {total[what]}" for what in first), sep="\n")
    print(", ".join(f"{what} {count}" for what, count in sorted(total.items()) if what not in first))
    return 1 if any(total[what] for what in BAD) else 0


if __name__ == "__main__":
    sys.exit(main())
