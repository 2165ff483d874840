"""`share`: links that show a commit to who has no login."""

from __future__ import annotations

import time

import click

from lazycloud.cli.lifetime import day, parse_lifetime
from lazycloud.cli.listing import as_json
from lazycloud.cli.target import Target, targeted
from lazycloud.errors import BadInput


class ShareGroup(click.Group):
    """What is no verb of its own is a REF: `lazycloud share HEAD`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            args = ["link", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Options may come before the REF, as with every other verb."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["link", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ShareGroup, subcommand_metavar="REF | ls | revoke …")
def share() -> None:
    """Make a link that shows one commit to whoever has it, without a login.

    It holds for a while, for that commit only, and can be taken back.

    \b
    Example:
      lazycloud share HEAD --for 2d
      lazycloud share ls
      lazycloud share revoke 3f9a2c81d0
    """


@share.command()
@click.argument("ref")
@click.option(
    "--for", "lasts", default="7d", metavar="TIME", help="How long it holds: 30m, 12h, 7d, 4w [7d]."
)
@as_json
@targeted
def link(target: Target, ref: str, lasts: str, as_json: bool) -> None:
    """Make a link to a commit (the word `link` may be left out).

    \b
    Example:
      lazycloud share link ls --for 12h      a branch that is called ls
    """
    from lazycloud.cli.terminal import show_json

    seconds = parse_lifetime("--for", lasts)
    client = target.client()
    app = target.find_app(client)
    answer = client.post(app.api("share"), {"ref": app.resolve(ref), "seconds": seconds})
    if as_json:
        show_json(answer)
        return
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(answer["expires"]))
    click.echo(f"Whoever has this link may see {answer['short']} until {until}:", err=True)
    click.echo(answer["url"])


@share.command()
@as_json
@targeted
def ls(target: Target, as_json: bool) -> None:
    """List the links of an app that hold.

    \b
    Example:
      lazycloud share ls
    """
    from lazycloud.cli.terminal import age, console, show_json, table

    client = target.client()
    app = target.find_app(client)
    answer = client.get(app.api("shares"))
    rows = [
        [one["id"], one["short"], one["who"], age(one["made"]), day(one["expires"]), one["url"]]
        for one in answer
    ]
    headings = ["link", "commit", "by", "made", "until", "~address"]
    show_json(answer) if as_json else console().print(table(headings, rows))


@share.command()
@click.argument("share_id", metavar="LINK", required=False)
@click.option("--all", "everything", is_flag=True, help="All links of the app.")
@targeted
def revoke(target: Target, share_id: str | None, everything: bool) -> None:
    """Take a link back, with what it opened.

    \b
    Example:
      lazycloud share revoke 3f9a2c81d0
    """
    if bool(share_id) == everything:
        raise BadInput("Which link?", "Give its name, which `lazycloud share ls` lists, or --all.")
    client = target.client()
    app = target.find_app(client)
    answer = client.post(app.api("shares/revoke"), {"all": True} if everything else {"id": share_id})
    count = len(answer["revoked"])
    click.echo(
        f"{count} link{'' if count == 1 else 's'} to {app.name} hold{'s' * (count == 1)} no longer.", err=True
    )
