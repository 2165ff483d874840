"""`cancel`: end a deploy or a promote that is under way."""

from __future__ import annotations

import click

from lazycloud.cli.target import Target, targeted


@click.command()
@click.argument("ref", required=False)
@targeted
def cancel(target: Target, ref: str | None) -> None:
    """End the deploy or the promote of a commit that is under way. REF is a commit, branch or tag [HEAD].

    Whoever watches is told; it is begun again only when somebody asks for that. Production stays what it is.

    \b
    Example:
      lazycloud cancel
      lazycloud cancel feature/dark-mode
    """
    client = target.client()
    app = target.find_app(client)
    answer = client.post(app.api("cancel"), {"ref": app.resolve_or_head(ref)})
    click.echo(f"Cancelled {answer['commit']['short']}.", err=True)
