"""Commands of a build: run kindly to the rest of the machine, their failures in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lazycloud.build.disk import disk_full, says_full
from lazycloud.errors import StepFailed
from lazycloud.processes import CommandFailed, Output, ending_in_words, run

NICENESS = 19  # workers that serve come first
NOT_FOUND = 127


async def run_tool(
    command: str | Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    output: Output,
    timeout: float,
    failed: str,
) -> None:
    """Run to the end; `failed` begins the sentence of the StepFailed that is raised if it does not succeed."""
    try:
        await run(command, folder, environment, output, timeout, niceness=NICENESS)
    except CommandFailed as failure:
        if says_full(failure.last):
            raise disk_full(folder) from failure
        advice = "Its last lines say why."
        if failure.ended_with is None:
            advice = f"It was ended after {timeout:g} s."
        elif failure.ended_with == NOT_FOUND:
            advice = "A program that it needs was not found: install it on the machine that runs lazycloud."
        name = command if isinstance(command, str) else f"{Path(command[0]).name} {command[1]}"
        raise StepFailed(
            f"{failed}: `{name}` {_ending(failure.ended_with)}.", advice, failure.last
        ) from failure


def _ending(status: int | None) -> str:
    return "took too long" if status is None else ending_in_words(status)
