"""`artifacts`: what the store has, and what is put into it, taken from it, and verified."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import click

from lazycloud.cli.client import SILENCE_SECONDS, Client, Event, Unreachable
from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted

STYLES = {"pushed": "green", "pulled": "green", "good": "green", "refused": "red", "failed": "red"}
BAD = ("refused", "failed")


@click.group()
def artifacts() -> None:
    """Keep what builds left in a store, and use what others built.

    \b
    Example:
      lazycloud artifacts ls
      lazycloud artifacts push HEAD
    """


@artifacts.command()
@as_json
@targeted
def ls(target: Target, as_json: bool) -> None:
    """List what the store has, newest first.

    \b
    Example:
      lazycloud artifacts ls
    """
    from lazycloud.cli.terminal import age, console, show_json, size, table

    answer = target.client().get("/api/artifacts")
    rows = [[one["name"], size(one["size"]), age(one["at"])] for one in answer]
    show_json(answer) if as_json else console().print(table(["artifact", ">size", "put"], rows))


@artifacts.command()
@click.argument("ref")
@as_json
@targeted
def push(target: Target, ref: str, as_json: bool) -> int:
    """Put all that was built of a commit into the store.

    \b
    Example:
      lazycloud artifacts push HEAD
    """
    return _of_commit(target, "push", ref, as_json)


@artifacts.command()
@click.argument("ref")
@as_json
@targeted
def pull(target: Target, ref: str, as_json: bool) -> int:
    """Take all that the store has of a commit, without starting it.

    \b
    Example:
      lazycloud artifacts pull feature-login
    """
    return _of_commit(target, "pull", ref, as_json)


@artifacts.command()
@click.argument("ref", required=False, metavar="[REF|FILE]")
@as_json
@targeted
def verify(target: Target, ref: str | None, as_json: bool) -> int:
    """Say whether artifacts are whole and of somebody trusted: all in the store, a commit's, or a file.

    \b
    Example:
      lazycloud artifacts verify
      lazycloud artifacts verify ./3f2a9c1.lazyart
    """
    client = target.client()
    if ref and Path(ref).is_file():
        return _show(iter([_verified(client, Path(ref))]), as_json)
    if ref is None:
        return _show(client.stream("/api/artifacts/verify", SILENCE_SECONDS), as_json)
    app = target.find_app(client)
    path = app.api("artifacts/verify")
    return _show(client.stream(path, SILENCE_SECONDS, ref=app.resolve(ref)), as_json)


@artifacts.command()
@as_json
@targeted
def key(target: Target, as_json: bool) -> None:
    """Print the public key of the server, for `trusted` in the configuration of others.

    \b
    Example:
      lazycloud artifacts key
    """
    from lazycloud.cli.terminal import show_json

    answer = target.client().get("/api/artifacts/key")
    show_json(answer) if as_json else click.echo(answer["key"])


def _of_commit(target: Target, verb: str, ref: str, as_json: bool) -> int:
    client = target.client()
    app = target.find_app(client)
    body = {"ref": app.resolve(ref)}
    return _show(client.post_stream(app.api(f"artifacts/{verb}"), body, SILENCE_SECONDS), as_json)


def _whole(lines: Iterator[Event]) -> Iterator[Event]:
    """A stream that does not break off without a word."""
    try:
        yield from lines
    except (OSError, HTTPException, ValueError) as problem:
        raise Unreachable("The server ended its answer too early.", "Ask once more.") from problem


def _verified(client: Client, file: Path) -> Event:
    """A file of this machine, by the keys that the server trusts."""
    from lazycloud.build.artifacts.job import verify_file
    from lazycloud.build.artifacts.manifest import ArtifactRefused

    trusted = client.get("/api/artifacts/key")["trusted"]
    try:
        return {**verify_file(file, trusted), "outcome": "good", "name": str(file)}
    except ArtifactRefused as problem:
        said = {"sentence": problem.sentence, "advice": problem.advice}
        return {"name": str(file), "outcome": "refused", **said}


def _show(lines: Iterator[Event], as_json: bool) -> int:
    """Each as it comes; the exit status is 1 if one was refused."""
    from lazycloud.cli.terminal import console, plain, show_json_line, size

    status, screen = 0, console()
    for line in _whole(lines):
        status = 1 if line["outcome"] in BAD else status
        if as_json:
            show_json_line(line)
            continue
        shown = plain(f"{line['outcome']:<8}", STYLES.get(line["outcome"], "dim"))
        about = " ".join(filter(None, (line.get("sentence"), line.get("advice"))))
        about = about or " ".join(filter(None, (size(line.get("size")), _made(line.get("provenance")))))
        screen.print(shown.append_text(plain(f"  {line['name']}  {about}")), soft_wrap=True)
    return status


def _made(provenance: dict[str, Any] | None) -> str:
    from lazycloud.cli.terminal import age

    if not provenance:
        return ""
    app = (
        f" for {provenance['app']} {str(provenance.get('commit', ''))[:10]}" if provenance.get("app") else ""
    )
    return f"made by {provenance.get('user')} on {provenance.get('host')} {age(provenance.get('at'))}{app}"
