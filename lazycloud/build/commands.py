"""Commands of a build: run kindly to the rest of the machine, their failures in a sentence."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from lazycloud.build.disk import disk_full, says_full
from lazycloud.build.limits import Limits, Watch
from lazycloud.errors import StepFailed
from lazycloud.processes import CommandFailed, Output, ending_in_words, run
from lazycloud.walls.fence import words
from lazycloud.walls.groups import made_in_thread
from lazycloud.walls.view import View

NICENESS = 19  # workers that serve come first; the kernel makes it the lowest priority for the disk as well
NOT_FOUND = 127
UNREACHABLE = (  # as the C library, Node.js, curl, Rust's and Go's programs say it
    "Temporary failure in name resolution",
    "EAI_AGAIN",
    "ENETUNREACH",
    "Could not resolve host",
    "Network is unreachable",
    "network is unreachable",
    "dns error",
    "Unable to resolve",
)
PRIVATE = "LAZYCLOUD_BUILD"  # names a command's own folder, also where the app sets a HOME itself


async def run_tool(
    command: str | Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    output: Output,
    limits: Limits,
    failed: str,
) -> None:
    """Run to the end; `failed` begins the sentence of the StepFailed that is raised if it does not succeed.

    It has a HOME and a TMPDIR of its own, and nothing of it is left, its daemons included. What walls it has, and
    what it sees behind them, `limits` say.
    """
    name = command if isinstance(command, str) else f"{Path(command[0]).name} {command[1]}"
    async with _watched(environment, limits) as (variables, watch), _fenced(limits) as fence:
        before, variables = await asyncio.to_thread(_walled, limits, folder, variables, watch.private)
        try:
            seconds, begin, walled = limits.seconds, watch.begin, bool(before)
            before = (*fence, *before)
            await run(command, folder, variables, output, seconds, NICENESS, before, begin, walled)
        except CommandFailed as failure:
            if watch.problem:
                problem = watch.problem
                raise StepFailed(f"{failed}. {problem.sentence}", problem.advice, failure.last) from failure
            if says_full(failure.last):
                raise disk_full(folder) from failure
            advice = "Its last lines say why."
            if failure.ended_with is None:
                advice = f"It was ended after {limits.seconds:g} s."
            elif failure.ended_with == NOT_FOUND:
                advice = (
                    "A program that it needs was not found: install it on the machine that runs lazycloud."
                )
            elif limits.walls and not limits.network and _wanted_network(failure.last):
                advice = "A build command has no network, unless lazycloud.toml says `network = true` under [build]."
            raise StepFailed(
                f"{failed}: `{name}` {_ending(failure.ended_with)}.", advice, failure.last
            ) from failure


def _walled(
    limits: Limits, folder: Path, variables: Mapping[str, str], private: Path | None
) -> tuple[Sequence[str], Mapping[str, str]]:
    """The words before a command, and its environment."""
    if limits.walls is None:
        return (), variables
    for place in limits.write:
        place.mkdir(parents=True, exist_ok=True)
    write = (*limits.write, *((limits.makes,) if limits.makes else ()))
    view = View(
        limits.walls.home,
        read=(*limits.read, folder),
        write=tuple(dict.fromkeys(write)),
        network=limits.network,
        scratch=private,
        settings=limits.network,
    )
    enclosed = limits.walls.enclose(view, folder, variables)
    return enclosed.words, enclosed.environment


@asynccontextmanager
async def _fenced(limits: Limits) -> AsyncIterator[Sequence[str]]:
    """Words that keep a command with walls and a network from workers' ports, where that can be.

    Raises StepFailed.
    """
    fence = limits.fence if limits.walls and limits.network else None
    if fence is None:
        yield ()
        return
    try:
        group = await made_in_thread(partial(fence.make, "build"), fence.drop)
    except OSError as problem:
        raise StepFailed(
            f"No control group could be made for it: {problem.strerror}.",
            "`lazycloud doctor` says what this machine allows.",
        ) from problem
    try:
        yield words(group) if group else ()
    finally:
        if group:
            await asyncio.shield(asyncio.to_thread(fence.end, group))


@asynccontextmanager
async def _watched(
    environment: Mapping[str, str], limits: Limits
) -> AsyncIterator[tuple[Mapping[str, str], Watch]]:
    """The variables of one command, with folders of its own, and the watch over it."""
    private, variables = None, dict(environment)
    if limits.homes:
        limits.homes.mkdir(parents=True, exist_ok=True, mode=0o700)
        private = Path(tempfile.mkdtemp(dir=limits.homes, prefix=""))
        variables[PRIVATE] = f"{private}/"
        for name, place in (("HOME", private / "home"), ("TMPDIR", private / "tmp")):
            place.mkdir()
            # What the app sets itself, for its build as for its worker, stays as it is.
            if environment.get(name, "").startswith(str(limits.homes)):
                variables[name] = str(place)
    watch = Watch(limits, private)
    try:
        yield variables, watch
    finally:
        await asyncio.shield(_leave_nothing(watch, private))


async def _leave_nothing(watch: Watch, private: Path | None) -> None:
    await watch.end()
    if private:
        await asyncio.to_thread(shutil.rmtree, private, ignore_errors=True)


def _wanted_network(last: Sequence[str]) -> bool:
    return any(word in line for line in last for word in UNREACHABLE)


def _ending(status: int | None) -> str:
    return "took too long" if status is None else ending_in_words(status)
