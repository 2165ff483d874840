"""`data`: the versions of an app's data, their snapshots, and what one does with them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from lazycloud.cli.apps import App
from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput

PATIENCE = 3600.0  # seconds: a large database is copied, and production started on it
PRODUCTION = "production"
FORMATS = ("sqlite", "sql", "tar", "dump", "jsonl")
ENDINGS = {
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
    ".sql": "sql",
    ".tar": "tar",
    ".dump": "dump",
    ".jsonl": "jsonl",
}
ROWS = 20  # of each table that a difference shows
SHORT = 10

yes_option = click.option("-y", "--yes", is_flag=True, help="Without being asked.")

Json = dict[str, Any]


@click.group()
def data() -> None:
    """Fork, snapshot, compare and restore the data of commits.

    Each commit has a version of the data, forked from production's at its first deploy; production has its own.
    REF is a commit, branch, tag, or `production`. REF@NAME is a snapshot by its name or id, and REF@10min-ago
    (or REF@2026-01-31T12:00, in UTC) the last one that was taken by then.

    \b
    Example:
      lazycloud data ls
      lazycloud data snapshot production --name before-import
      lazycloud data restore production@before-import
    """


@data.command()
@as_json
@targeted
def ls(target: Target, as_json: bool) -> None:
    """Show the versions as a tree.

    Forked from what and when, their size, snapshots, and last use.

    \b
    Example:
      lazycloud data ls
    """
    from lazycloud.cli.terminal import console, show_json
    from lazycloud.cli.tree import tree

    client = target.client().patient(PATIENCE)
    answer = client.get(target.find_app(client).api("data"))
    if as_json:
        show_json(answer)
    elif answer["versions"]:
        console().print(tree(answer["versions"]))
    else:
        click.echo("There are no data yet; they are made when an address is first opened.", err=True)


@data.command()
@click.argument("ref", required=False)
@click.option("--name", default="", help="A name, by which it is found, and stays until it is removed.")
@as_json
@targeted
def snapshot(target: Target, ref: str | None, name: str, as_json: bool) -> None:
    """Take a snapshot of a version [production].

    One without a name is thinned out with age.

    \b
    Example:
      lazycloud data snapshot --name before-import
      lazycloud data snapshot HEAD
    """
    from lazycloud.cli.terminal import show_json, size

    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    answer = client.post(app.api("data/snapshot"), {"ref": _ref(app, ref or PRODUCTION), "name": name})
    if as_json:
        show_json(answer)
        return
    if answer["note"]:
        click.echo(answer["note"], err=True)
    click.echo(f"A snapshot of {size(answer['size'])} was taken.", err=True)
    click.echo(f"{_shown(answer['version'])}@{answer['name'] or answer['id']}")


@data.command()
@click.argument("ref", required=False)
@as_json
@targeted
def snapshots(target: Target, ref: str | None, as_json: bool) -> None:
    """List the snapshots, newest first; of one version, or of all.

    \b
    Example:
      lazycloud data snapshots production
    """
    from lazycloud.cli.terminal import age, console, plain, show_json, size, table

    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    versions = client.get(app.api("data"))["versions"]
    if ref:
        versions = [_version(versions, _ref(app, ref), ref)]
    found = [{**one, "version": each["name"]} for each in versions for one in each["snapshots"]]
    found.sort(key=lambda one: -one["at"])
    if as_json:
        show_json(found)
        return
    if not found:
        click.echo("There are no snapshots; `lazycloud data snapshot` takes one.", err=True)
        return
    rows: list[list[Any]] = [
        [
            _shown(one["version"]),
            plain(one["name"] or one["id"], "bold" if one["name"] else ""),
            age(one["at"]),
            size(one["size"]),
            why(one),
            plain(one["note"], "yellow"),
        ]
        for one in found
    ]
    console().print(table(["of", "snapshot", "taken", ">size", "why", "~"], rows))


@data.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option("--table", default="", help="Only this one, or this collection of versionbase.")
@click.option(
    "--rows", is_flag=True, help=f"Also which rows, or documents, differ, {ROWS} of each table at most."
)
@as_json
@targeted
def diff(target: Target, one: str, other: str, table: str, rows: bool, as_json: bool) -> None:
    """Show what became of one version's data in another.

    Schema, numbers of rows and documents, files.

    \b
    Example:
      lazycloud data diff production@before-import production
      lazycloud data diff production HEAD --table users --rows
    """
    from lazycloud.cli.differences import lines
    from lazycloud.cli.terminal import console, show_json

    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    query = {"a": _point(app, one), "b": _point(app, other), "table": table or None}
    answer = client.get(app.api("data/diff"), **query, rows=ROWS if rows else None)
    if as_json:
        show_json(answer)
    elif answer["same"]:
        click.echo("They are the same.", err=True)
    else:
        screen = console()
        for line in lines(answer):
            screen.print(line)


@data.command()
@click.argument("point", metavar="REF[@NAME]")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), help="If the name of the file does not tell it."
)
@yes_option
@targeted
def export(target: Target, point: str, file: Path, kind: str | None, yes: bool) -> None:
    """Write data into a file.

    One SQLite database (.sqlite), SQL (.sql), all databases and files (.tar), or the documents of a versionbase as
    lines of JSON (.jsonl). Of a database in Postgres what pg_dump writes: as SQL (.sql), or for pg_restore (.dump).

    \b
    Example:
      lazycloud data export production@before-import shop.sqlite
      lazycloud data export production shop.dump
    """
    from lazycloud.cli.terminal import size

    kind = kind or _kind(file)
    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    if file.exists() and not yes:
        _ask(f"{file} is there already. Replace it?")
    making = file.with_name(f".{file.name}.part")
    try:
        with making.open("wb") as into:
            os.fchmod(into.fileno(), 0o600)
            note = client.download(app.api("data/export"), into, point=_point(app, point), format=kind)
        making.replace(file)
    finally:
        making.unlink(missing_ok=True)
    if note:
        click.echo(note, err=True)
    click.echo(f"{size(file.stat().st_size)} were written to {file}.", err=True)


@data.command(name="import")
@click.argument("file", type=click.File("rb"))
@click.argument("ref")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="If the server is not to find it out.")
@yes_option
@as_json
@targeted
def import_(target: Target, file: IO[bytes], ref: str, kind: str | None, yes: bool, as_json: bool) -> None:
    """Make a file the data of a version.

    What the version has is kept as a snapshot first. FILE, or standard input for `-`, is an SQLite database, SQL as
    `sqlite3 FILE .dump` writes it, or a tar of `lazycloud data export`; or, with --format jsonl, the documents of its
    versionbase: the rest stays then. For a database in Postgres it is what pg_dump writes, as SQL or with
    --format=custom, and the files stay; or a tar, with both.

    \b
    Example:
      lazycloud data import shop.sqlite HEAD
      lazycloud data import shop.dump production
    """
    from lazycloud.cli.terminal import show_json

    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    version = _ref(app, ref)
    if not yes:
        _ask(f"Replace the data of {_shown(version)} of {app.name} by {file.name}?")
    if kind is None and file.name.endswith(".jsonl"):
        kind = "jsonl"
    found = os.fstat(file.fileno())
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    answer = client.upload(app.api("data/import"), file, size, ref=version, format=kind)
    if as_json:
        show_json(answer)
        return
    for warning in answer["warnings"]:
        click.echo(warning, err=True)
    click.echo(f"{_shown(answer['version'])} has these data now.", err=True)
    if answer["before"]:
        click.echo(f"What they were is a snapshot: {_shown(answer['version'])}@{answer['before']}", err=True)


@data.command()
@click.argument("point", metavar="[REF]@NAME")
@click.option("--to", help="The version that is given them, if it is another one.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be lost.")
@yes_option
@as_json
@targeted
def restore(target: Target, point: str, to: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Give a version the data of a snapshot. What it has now is kept as another snapshot first.

    Its workers are stopped meanwhile, and requests wait. Production is started on the data at once, and goes on with
    those it had if it does not start; a preview starts at its next request.

    \b
    Example:
      lazycloud data restore production@before-import
      lazycloud data restore production@1h-ago --to HEAD --yes
    """
    from lazycloud.cli.terminal import duration, show_json

    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    wish = {"point": _point(app, point)} | ({"to": _ref(app, to)} if to else {})
    if dry_run or not yes:
        would = client.post(app.api("data/restore"), wish | {"dry_run": True})
        if dry_run and as_json:
            show_json(would)
            return
        _show_loss(would)
        if dry_run:
            return
        _ask(f"Restore {_shown(would['version'])} of {app.name}?")
    answer = client.post(app.api("data/restore"), wish)
    if as_json:
        show_json(answer)
        return
    before = f"{_shown(answer['version'])}@{answer['before']}"
    click.echo(f"It was done; nothing ran on these data for {duration(answer['still'])}.", err=True)
    click.echo(f"What they were is a snapshot: {before}", err=True)


@data.command()
@click.argument("point", metavar="REF[@NAME]")
@click.option("--to", required=True, help="The commit whose data they will be.")
@as_json
@targeted
def fork(target: Target, point: str, to: str, as_json: bool) -> None:
    """Say whose data a commit begins with.

    It has none yet, and gets them at its next deploy.

    \b
    Example:
      lazycloud data fork production@before-import --to HEAD
    """
    from lazycloud.cli.terminal import show_json

    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    answer = client.post(app.api("data/fork"), {"from": _point(app, point), "to": _ref(app, to)})
    if as_json:
        show_json(answer)
        return
    origin = f"{_shown(answer['source'])}@{answer['snapshot']}"
    click.echo(f"{_shown(answer['version'])} will begin with {origin}.", err=True)


@data.command()
@click.argument("ref")
@yes_option
@targeted
def reset(target: Target, ref: str, yes: bool) -> None:
    """Drop a preview's data and snapshots, to fork it anew.

    That happens at its next deploy, which is now if it runs.

    \b
    Example:
      lazycloud data reset feature/dark-mode
    """
    _drop(target, ref, yes, "reset", "Reset the data of")


@data.command()
@click.argument("point", metavar="REF[@NAME]")
@yes_option
@targeted
def rm(target: Target, point: str, yes: bool) -> None:
    """Remove a snapshot, or a preview's data.

    These go with all their snapshots, and the preview is stopped.

    \b
    Example:
      lazycloud data rm production@before-import
      lazycloud data rm 3f9a2c81d0
    """
    if "@" not in point:
        _drop(target, point, yes, "rm", "Remove the data of")
        return
    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    if not yes:
        _ask(f"Remove the snapshot {point} of {app.name}?")
    answer = client.post(app.api("data/forget"), {"point": _point(app, point)})
    click.echo(f"{_shown(answer['version'])}@{answer['snapshot']} was removed.", err=True)


@data.command()
@click.option("--to", default="", metavar="URL", help="A store other than that of config.toml.")
@click.option("--full", is_flag=True, help="Read all, also what did not change of large databases.")
@click.option(
    "--list", "listed", is_flag=True, help="Only say what there is, and how it is with the last ones."
)
@click.option("--verify", is_flag=True, help="Only read every bit of what there is.")
@click.option(
    "--signed-by", default="", metavar="KEY", help="With --verify: whose backups count beside our own."
)
@as_json
@targeted
def backup(
    target: Target, to: str, full: bool, listed: bool, verify: bool, signed_by: str, as_json: bool
) -> int:
    """Back up production's data now.

    With `[data] backup = "file:///…"` in config.toml the server does it by itself.

    \b
    Example:
      lazycloud data backup
      lazycloud data backup --to file:///mnt/usb/backups
      lazycloud data backup --verify
    """
    from lazycloud.cli.backups import show_list, show_made, show_verdict
    from lazycloud.cli.terminal import show_json

    client = target.client().patient(PATIENCE)
    if listed:
        answer, show = client.get("/api/backups", **({"from": to} if to else {})), show_list
    elif verify:
        answer = client.post("/api/backups/verify", {"from": to, "signed_by": signed_by})
        show = show_verdict
    else:
        wish = {"to": to, "full": full}
        answer, show = client.post(target.find_app(client).api("data/backup"), wish), show_made
    if as_json:
        show_json(answer)
    else:
        show(answer)
    return 1 if answer.get("troubles") else 0


@data.command("restore-from")
@click.argument("store", metavar="[URL]", required=False, default="")
@click.option("--backup", "which", default="", help="The beginning of its id [the newest].")
@click.option(
    "--at", default="", metavar="TIME", help="The last that was made by then: 1h-ago, 2026-01-31T12:00 (UTC)."
)
@click.option(
    "--of", default="", help="Another app’s, or another server’s: as `data backup --list` calls it."
)
@click.option("--signed-by", default="", metavar="KEY", help="The key of the other server that made it.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say which it would be.")
@yes_option
@as_json
@targeted
def restore_from(
    target: Target,
    store: str,
    which: str,
    at: str,
    of: str,
    signed_by: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Give production the data of a backup.

    It is in the store of config.toml, or in another. All of it is read and checked first. What production has now
    is kept as a snapshot; it goes on with that if it does not start on the other.

    \b
    Example:
      lazycloud data restore-from --at 1h-ago
      lazycloud data restore-from file:///mnt/usb/backups --signed-by ed25519:…
    """
    from lazycloud.cli.terminal import age, duration, show_json, size

    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    wish = {"from": store, "backup": which, "at": at, "of": of, "signed_by": signed_by}
    if dry_run or not yes:
        found = client.post(app.api("data/restore-from"), wish | {"dry_run": True})["backup"]
        wish |= {"backup": found["id"]}
        if dry_run and as_json:
            show_json(found)
            return
        click.echo(f"The backup is of {found['app']}, made {age(found['at'])}: {found['id'][:27]}", err=True)
        if dry_run:
            return
        _ask(f"Give production of {app.name} its data?")
    answer = client.post(app.api("data/restore-from"), wish)
    if as_json:
        show_json(answer)
        return
    made = answer["backup"]
    still = duration(answer["still"])
    click.echo(f"{size(made['size'])} were checked and restored; nothing ran for {still}.", err=True)
    if made["note"]:
        click.echo(made["note"], err=True)
    if answer["before"]:
        click.echo(f"What there was is a snapshot: {_shown(answer['version'])}@{answer['before']}", err=True)


@data.command()
@click.argument("point", metavar="[REF[@NAME]]", required=False)
@click.option("--read-only", is_flag=True, help="On a copy of the data, which nothing is done to.")
@yes_option
@targeted
def shell(target: Target, point: str | None, read_only: bool, yes: bool) -> int:
    """Open the database's own program on a version.

    That is sqlite3, or psql; on HEAD, where no REF is given. A snapshot is opened read-only. Where there is no
    terminal, it is given standard input.

    \b
    Example:
      lazycloud data shell HEAD
      echo 'SELECT count(*) FROM users' | lazycloud data shell production@before-import
    """
    from lazycloud.cli.console import run_there

    client = target.client()
    app = target.find_app(client)
    meant = _point(app, point) if point else app.resolve_or_head(None)
    if meant == PRODUCTION and not (yes or read_only):
        _ask(f"These are the data of production of {app.name}: what is done to them is done. Go on?")
    query = {"point": meant} | ({"copy": "1"} if read_only else {})
    return run_there(client, app.api("data/shell"), query, "shell", os.isatty(0) and os.isatty(1))


@data.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would go.")
@as_json
@targeted
def prune(target: Target, dry_run: bool, as_json: bool) -> None:
    """Remove the data of commits that nobody used.

    For as long as config.toml says; and what is over its limit. The server does so by itself, every hour.
    Production stays, what runs or is pinned, and what has a snapshot with a name.

    \b
    Example:
      lazycloud data prune --dry-run
    """
    from lazycloud.cli.terminal import age, console, plain, show_json, size, table

    client = target.client().patient(PATIENCE)
    answer = client.post(target.find_app(client).api("data/prune"), {"dry_run": dry_run})
    if as_json:
        show_json(answer)
        return
    rows: list[list[Any]] = [
        [one["label"], size(one["bytes"]), age(one["used"] or None), plain(one["why"])]
        for one in answer["removed"]
    ]
    if rows:
        console().print(table(["version", ">size", "last used", "~why"], rows))
    for line in _outcome(answer, dry_run):
        click.echo(line, err=True)


def _outcome(answer: Json, dry_run: bool) -> Iterator[str]:
    from lazycloud.cli.terminal import size

    if answer["removed"]:
        yield f"{size(answer['freed'])} {'would come' if dry_run else 'came'} free."
    else:
        yield "Nothing has expired."
    if answer["skipped"]:
        yield f"{answer['skipped']} stayed, for they came into use meanwhile."
    if answer["missing"]:
        yield f"{size(answer['missing'])} are over the limit of {size(answer['limit'])}: all of it is kept."
        for one in answer["kept"]:
            yield f"  {one['label']}: {size(one['bytes'])}, {one['why']}"


def _drop(target: Target, ref: str, yes: bool, route: str, question: str) -> None:
    client = target.client().patient(PATIENCE)
    app = target.find_app(client)
    commit = _ref(app, ref)
    if not yes and commit != PRODUCTION:  # that is refused
        version = _version(client.get(app.api("data"))["versions"], commit, ref)
        _ask(f"{question} {_shown(version['name'])} of {app.name}{_with_snapshots(version)}?")
    answer = client.post(app.api(f"data/{route}"), {"ref": commit})
    said = "were removed"
    if route == "reset":
        said = "are being forked anew" if answer["live"] else "will be forked anew at its next deploy"
    click.echo(f"The data of {_shown(answer['version'])} {said}.", err=True)


def _with_snapshots(version: Json) -> str:
    """What goes with its data."""
    taken = version["snapshots"]
    if not taken:
        return ""
    names = [one["name"] for one in taken if one["name"]]
    count = f"{len(taken)} snapshot{'' if len(taken) == 1 else 's'}"
    return f", with {count}" + (f" ({', '.join(names)})" if names else "")


def _show_loss(would: Json) -> None:
    from lazycloud.cli.differences import lines
    from lazycloud.cli.terminal import console

    name = _shown(would["version"])
    if would["lost"]["same"]:
        click.echo(f"{name} has the same data already.", err=True)
        return
    click.echo(f"From what {name} has now to what it would have:", err=True)
    screen = console(stderr=True)
    for line in lines(would["lost"]):
        screen.print(line)


def _kind(file: Path) -> str:
    """By a file's name. Raises BadInput."""
    if kind := ENDINGS.get(file.suffix.lower()):
        return kind
    raise BadInput(
        f"Which format is {file.name}?", f"Give --format, or a name that ends with {', '.join(ENDINGS)}."
    )


def why(one: Json) -> str:
    """Why there is a snapshot, and by whom."""
    words = {"asked": "asked", "timer": "in time", "fork": "for a fork"}
    return f"{words.get(one['why'], 'before a ' + one['why'])}, by {one['who']}"


def _version(versions: list[Json], commit: str, ref: str) -> Json:
    """The one that a revision means. Raises BadInput if it has no data."""
    meant = commit.lower()
    for one in versions:
        if one["name"] == meant or (len(meant) >= 7 and one["name"].startswith(meant)):
            return one
    raise BadInput(f"{ref} has no data yet.", "`lazycloud data ls` lists what there is.")


def _ref(app: App, ref: str) -> str:
    return ref if ref == PRODUCTION else app.resolve(ref)


def _point(app: App, text: str) -> str:
    """The same, before a snapshot's name; production's where only that is given."""
    ref, separator, name = text.rpartition("@")
    if not separator:
        return _ref(app, text)
    return f"{_ref(app, ref or PRODUCTION)}@{name}"


def _shown(version: str) -> str:
    return version if version == PRODUCTION else version[:SHORT]


def _ask(question: str) -> None:
    """Raises BadInput where nobody can be asked, click.Abort for a no."""
    if not (os.isatty(0) and os.isatty(2)):
        raise BadInput(question, "Say --yes.")
    click.confirm(question, abort=True, err=True)
