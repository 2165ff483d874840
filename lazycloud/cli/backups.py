"""Backups as people read them."""

from __future__ import annotations

import time
from typing import Any

import click

from lazycloud.cli.terminal import age, console, duration, plain, size, table

Json = dict[str, Any]
SHORT = 27  # letters of an id: its time and six of its hash


def show_made(answer: Json) -> None:
    click.echo(
        f"{size(answer['size'])} were backed up in {duration(answer['seconds'])}; "
        f"{size(answer['put_bytes'])} of it were new.",
        err=True,
    )
    if answer["note"]:
        click.echo(answer["note"], err=True)
    click.echo(answer["id"][:SHORT])


def show_list(answer: Json) -> None:
    """How it is with the last ones, and what there is."""
    store = answer["store"]
    every = duration(answer["every"]).removesuffix(" 0 s")
    said = f"at most every {every}, to {store}" if store else "only when somebody asks for it"
    click.echo(f"Production is backed up {said}. This server signs as {answer['key']}", err=True)
    for app, one in sorted(answer["apps"].items()):
        if one["problem"]:
            click.echo(
                f"{app}: for {age(one['since'])} not: {one['problem']} {one['advice']}".rstrip(), err=True
            )
    rows = [
        [
            plain(one["app"] if one["own"] else one["scope"]),
            one["id"][:SHORT],
            _moment(one["at"]),
            age(one["at"]),
        ]
        for one in answer["backups"]
    ]
    if rows:
        console().print(table(["of", "backup", "made (UTC)", "age"], rows))
    else:
        click.echo("There are no backups.", err=True)


def show_verdict(answer: Json) -> None:
    for trouble in answer["troubles"]:
        click.echo(trouble, err=True)
    click.echo(
        f"{answer['whole']} of {answer['backups']} backups are whole; {answer['chunks']} pieces were read."
    )


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
