"""`inspect`: all that is known of one commit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted

KEY_SHOWN = 12  # letters: enough to tell two apart
DEPLOYS = {
    "reuse": "B's is there, and a deploy reuses it",
    "run": "a deploy of B has to do it",
    "nothing": "B has no such stage",
}


@click.command()
@click.argument("ref")
@click.argument("other", required=False)
@as_json
@targeted
def inspect(target: Target, ref: str, other: str | None, as_json: bool) -> None:
    """Show all that is known of a commit; or which inputs of two differ, and what a deploy of OTHER has to do.

    \b
    Example:
      lazycloud inspect HEAD~1
      lazycloud inspect production HEAD
    """
    from lazycloud.cli.terminal import console, show_json

    client = target.client()
    app = target.find_app(client)
    if other is not None:
        query = {"from": app.resolve(ref), "to": app.resolve(other)}
        comparison = client.get(app.api("compare"), **query)
        show_json(comparison) if as_json else _show_comparison(comparison, console())
        return
    answer = client.get(app.api("inspect"), ref=app.resolve(ref))
    show_json(answer) if as_json else _show(answer, console())


def _show(answer: dict[str, Any], screen: Any) -> None:
    from lazycloud.cli.terminal import coloured, facts, plain

    screen.print(plain(answer["commit"]["subject"], "bold"))
    screen.print(facts(_facts(answer)))
    if answer["steps"]:
        screen.print("")
        screen.print(_steps(answer["steps"]))
    for stage in answer["stages"]:
        screen.print("")
        screen.print(_heading(stage, _made(stage)))
        screen.print(facts(stage["inputs"].items()))
    if failure := answer["failure"]:
        screen.print("")
        for line in failure["last"]:
            screen.print(coloured(line, "dim"), soft_wrap=True)
        step = f"{failure['step']}: " if failure["step"] else ""
        screen.print(plain(step + failure["sentence"], "red"), soft_wrap=True)
        screen.print(plain(failure["advice"]), soft_wrap=True)


def _show_comparison(answer: dict[str, Any], screen: Any) -> None:
    from lazycloud.cli.terminal import plain, table

    for letter, commit in zip("AB", answer["commits"], strict=True):
        screen.print(plain(f"{letter}  {commit['short']}  {commit['subject']}"))
    for stage in answer["stages"]:
        screen.print("")
        same = "the same in both; " if stage["same"] else ""
        screen.print(_heading(stage, same + DEPLOYS[stage["deploy"]]))
        rows = [[each["input"], *(value or "–" for value in each["values"])] for each in stage["differences"]]
        if rows:
            screen.print(table(["input", "~A", "~B"], rows))


def _heading(stage: dict[str, Any], said: str) -> Any:
    from lazycloud.cli.terminal import plain

    kind = f" ({stage['kind']})" if stage["kind"] else ""
    key = (stage.get("key") or stage["keys"][1] or "")[:KEY_SHOWN]
    return plain(f"{stage['name']}{kind}", "bold").append_text(plain(f"  {key}  {said}"))


def _made(stage: dict[str, Any]) -> str:
    from lazycloud.cli.terminal import age, duration

    if not stage["there"]:
        return "is to be done" if stage["outcome"] == "waiting" else stage["outcome"]
    took = f" in {duration(stage['seconds'])}" if stage["seconds"] is not None else ""
    reused = "reused; " if stage["outcome"] == "reused" else ""
    if fetched := stage.get("fetched"):
        reused = f"fetched, from {fetched['provenance'].get('host') or 'another machine'}; "
    return f"{reused}made {age(stage['made'])}{took}"


def _state(answer: dict[str, Any]) -> str:
    """Production's commit has a preview as well, which sleeps most of the time while production does not."""
    if not answer["is_production"]:
        return str(answer["state"])
    if answer["version"] == "production":
        return f"{answer['state']}, production"
    return f"{answer['state']} as a preview; the commit is production, too"


def _facts(answer: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    from lazycloud.cli.terminal import age

    commit = answer["commit"]
    yield "commit", commit["id"]
    yield "author", f"{commit['author']}, {age(commit['authored'])}"
    yield "refs", ", ".join(answer["refs"])
    yield "address", answer["address"]
    yield "state", _state(answer)
    yield "runs", answer["run"] or ""
    yield "found", " ".join(answer["found"])
    yield "release", answer["release"] or ""
    yield "pinned", _pinned(answer.get("pinned"))
    yield "data", _data(answer["data"]) if answer["data"] else ""
    yield "worker", _worker(answer["worker"]) if answer["worker"] else ""
    yield "log", (answer["worker"] or {}).get("log", "")


def _pinned(pin: dict[str, Any] | None) -> str:
    from lazycloud.cli.terminal import age

    return f"by {pin['who']}, {age(pin['at'])}" if pin else ""


def _data(data: dict[str, Any]) -> str:
    from lazycloud.cli.terminal import age, size

    origin = f", forked from {data['from'][:10]} {age(data['forked'])}" if data["from"] else ""
    return f"version {data['version'][:10]}, {size(data['bytes'])}{origin}"


def _worker(worker: dict[str, Any]) -> str:
    from lazycloud.cli.terminal import age, size

    load = f"{size(worker['memory'])}, {worker['cpu'] or 0:.0f} % cpu"
    where = worker.get("listens") or worker["address"]
    how = ", preloaded" if worker.get("preloaded") else ""
    return f"pid {worker['pid']} at {where}, {load}, started {age(worker['since'])}{how}"


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
