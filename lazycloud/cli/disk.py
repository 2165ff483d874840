"""`disk` and `prune`: where the disk went, and what of it can be had back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted

PATIENCE = 600.0  # seconds: a million files are looked at, or removed


@click.command()
@as_json
@targeted
def disk(target: Target, as_json: bool) -> None:
    """Show where the disk went, what is kept and why, and what could go.

    \b
    Example:
      lazycloud disk
    """
    from lazycloud.cli.terminal import console, show_json

    answer = target.client().patient(PATIENCE).get("/api/disk")
    if target.app:
        answer["apps"] = [app for app in answer["apps"] if app["name"] == target.app]
    show_json(answer) if as_json else _show(answer, console())


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="All that is not kept, whatever the limit says."
)
@click.option(
    "--cache", is_flag=True, help="Empty the package caches as well: the next install downloads again."
)
@as_json
@targeted
def prune(target: Target, dry_run: bool, everything: bool, cache: bool, as_json: bool) -> None:
    """Remove what can be built again, down to what config.toml allows.

    What runs, production and its last commits, the newest of each branch, and what is pinned stays. Data is never
    touched, and a commit whose build went is built again when somebody opens it.

    \b
    Example:
      lazycloud prune --dry-run --all
      lazycloud prune
    """
    from lazycloud.cli.terminal import console, show_json

    body = {"dry_run": dry_run, "all": everything, "cache": cache, "app": target.app or None}
    answer = target.client().patient(PATIENCE).post("/api/prune", body)
    if as_json:
        show_json(answer)
        return
    if answer["removed"]:
        console().print(_removed(answer["removed"]))
    for line in _outcome(answer, dry_run, everything):
        click.echo(line, err=True)


def _show(answer: dict[str, Any], screen: Any) -> None:
    from lazycloud.cli.terminal import facts, plain

    screen.print(plain(answer["home"], "bold"))
    screen.print(facts(_bounds(answer)))
    screen.print("")
    screen.print(_parts(answer))
    for app in answer["apps"]:
        kept = [item for item in app["items"] if item["keep"] and item["kind"] == "release"]
        if kept:
            screen.print("")
            screen.print(plain(f"{app['name']} keeps", "bold"))
            screen.print(_kept(kept))


def _bounds(answer: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from lazycloud.cli.terminal import size

    yield "free", f"{size(answer['free'])} of {size(answer['total'])}; kept free: {size(answer['reserve'])}"
    yield "builds and caches", f"{size(answer['used'])} of {size(answer['limit'])} that they may take"
    if answer["can_go"]:
        yield "can go", f"{size(answer['can_go'])} with `lazycloud prune --all`"


def _parts(answer: dict[str, Any]) -> Any:
    from lazycloud.cli.terminal import plain, size, table

    caches = [{"what": f"cache of {one['name']}", "bytes": one["bytes"]} for one in answer["caches"]]
    owners = [(app["name"], app["parts"]) for app in answer["apps"]]
    rows: list[list[Any]] = []
    for owner, parts in [*owners, ("all apps", [*caches, *answer["other"]])]:
        for place, part in enumerate(parts):
            name = plain("" if place else owner, "bold")
            count = "" if part["what"] == "caches" else str(part.get("count") or "")
            can_go = plain(size(part["can_go"]) if part.get("can_go") else "", "yellow")
            rows.append([name, plain(part["what"]), count, size(part["bytes"]), can_go])
    return table(["", "", ">count", ">size", ">can go"], rows)


def _kept(items: list[dict[str, Any]]) -> Any:
    from lazycloud.cli.terminal import age, plain, size, table

    rows: list[list[Any]] = []
    for item in items:
        commit, subject = _named(item)
        why = plain(item["keep"], "green" if item["keep"].startswith("production") else "")
        sizes = [size(item["bytes"] + item["shared"]), size(item["bytes"])]
        rows.append([commit, subject, why, *sizes, age(item["used"])])
    return table(["commit", "~subject", "~why", ">size", ">alone", "last used"], rows)


def _removed(items: list[dict[str, Any]]) -> Any:
    from lazycloud.cli.terminal import age, size, table

    rows: list[list[Any]] = []
    for item in items:
        commit, subject = _named(item)
        used = age(item["used"]) if item["used"] else ""
        what = [item["app"] or "all apps", item["kind"], commit, subject]
        rows.append([*what, size(item["frees"]), used, _again(item)])
    return table(["app", "what", "commit", "~subject", ">frees", "last used", "made again in"], rows)


def _again(item: dict[str, Any]) -> str:
    from lazycloud.cli.terminal import duration

    if item["lost"]:
        return "never: its commit is lost"
    return duration(item["cost"]) if item["cost"] else ""


def _named(item: dict[str, Any]) -> tuple[str, str]:
    """A release by its newest commit, all else by its key."""
    if not item["commits"]:
        return item["key"][:10], ""
    first, more = item["commits"][0], len(item["commits"]) - 1
    return first["short"], first["subject"] + (f" (and {more} more)" if more else "")


def _outcome(answer: dict[str, Any], dry_run: bool, everything: bool) -> Iterator[str]:
    from lazycloud.cli.terminal import size

    space = answer["space"]
    if answer["removed"]:
        would = "would come" if dry_run else "came"
        yield f"{size(answer['freed'])} {would} free; the disk has {size(space['free'])} free now."
    elif everything:
        yield "All that there is is kept; `lazycloud disk` says why."
    else:
        yield (
            f"Nothing has to go: {size(answer['used'])} of {size(space['limit'])} are used, and the disk has "
            f"{size(space['free'])} free. --all removes what is not kept."
        )
    if answer["skipped"]:
        yield f"{answer['skipped']} stayed, for they came into use meanwhile, or something is being deployed."
    if answer["missing"]:
        yield f"{size(answer['missing'])} too much is left: all of it is kept. `lazycloud disk` says why."
