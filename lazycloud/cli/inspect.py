"""`inspect`: all that is known of one commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted


@click.command()
@click.argument("ref")
@as_json
@targeted
def inspect(target: Target, ref: str, as_json: bool) -> None:
    """Show all that is known of a commit.

    \b
    Example:
      lazycloud inspect HEAD~1
    """
    from lazycloud.cli.terminal import console, show_json

    client = target.client()
    app = target.find_app(client)
    answer = client.get(app.api("inspect"), ref=app.resolve(ref))
    show_json(answer) if as_json else _show(answer, console())


def _show(answer: dict[str, Any], screen: Any) -> None:
    from lazycloud.cli.terminal import coloured, facts, plain

    screen.print(plain(answer["commit"]["subject"], "bold"))
    screen.print(facts(_facts(answer)))
    if answer["steps"]:
        screen.print("")
        screen.print(_steps(answer["steps"]))
    if failure := answer["failure"]:
        screen.print("")
        for line in failure["last"]:
            screen.print(coloured(line, "dim"), soft_wrap=True)
        screen.print(plain(f"{failure['step']}: {failure['sentence']}", "red"), soft_wrap=True)
        screen.print(plain(failure["advice"]), soft_wrap=True)


def _facts(answer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    from lazycloud.cli.terminal import age

    commit = answer["commit"]
    yield "commit", commit["id"]
    yield "author", f"{commit['author']}, {age(commit['authored'])}"
    yield "refs", ", ".join(answer["refs"])
    yield "address", answer["address"]
    yield "state", answer["state"] + (", production" if answer["is_production"] else "")
    yield "runs", answer["run"] or ""
    yield "found", " ".join(answer["found"])
    yield "release", answer["release"] or ""
    yield "data", _data(answer["data"]) if answer["data"] else ""
    yield "worker", _worker(answer["worker"]) if answer["worker"] else ""
    yield "log", (answer["worker"] or {}).get("log", "")


def _data(data: dict[str, Any]) -> str:
    from lazycloud.cli.terminal import age, size

    origin = f", forked from {data['from'][:10]} {age(data['forked'])}" if data["from"] else ""
    return f"version {data['version'][:10]}, {size(data['bytes'])}{origin}"


def _worker(worker: dict[str, Any]) -> str:
    from lazycloud.cli.terminal import age, size

    load = f"{size(worker['memory'])}, {worker['cpu'] or 0:.0f} % cpu"
    where = worker.get("listens") or worker["address"]
    return f"pid {worker['pid']} at {where}, {load}, started {age(worker['since'])}"


def _steps(steps: list[dict[str, Any]]) -> Any:
    from lazycloud.cli.progress import mark
    from lazycloud.cli.terminal import duration, table

    rows = []
    for step in steps:
        seconds = step["seconds"]
        rows.append(
            [mark(step["state"]), step["name"], "" if seconds is None else duration(seconds), step["note"]]
        )
    return table(["", "step", ">time", "~note"], rows)
