"""The command line: parse, call the API, print. One file per group of verbs, imported when it is asked for.

Nothing but click is imported before the verb is known; the hook, which each commit waits for, is announcement.py.
Exit status: 0 ok, 1 failed, 2 misuse, 130 ended by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

import click

from lazycloud import __version__
from lazycloud.cli.interrupt import INTERRUPTED
from lazycloud.cli.target import target_options
from lazycloud.errors import LazycloudError, StepFailed

NO_ARGUMENTS = getattr(
    click.exceptions, "NoArgsIsHelpError", ()
)  # its message is the help; from click 8.2 on
VERBS = {
    "up": "up:up",
    "upgrade": "upgrade:upgrade",
    "init": "init:init",
    "hook": "hook:hook",
    "ls": "listing:ls",
    "ps": "listing:ps",
    "releases": "listing:releases",
    "inspect": "inspect:inspect",
    "deploy": "deploy:deploy",
    "open": "open:open_address",
    "logs": "logs:logs",
    "run": "run:run",
    "shell": "run:shell",
    "events": "events:events",
    "stop": "deploy:stop",
    "restart": "workers:restart",
    "scale": "workers:scale",
    "cancel": "cancel:cancel",
    "promote": "production:promote",
    "rollback": "production:rollback",
    "artifacts": "artifacts:artifacts",
    "account": "account:account",
    "token": "token:token",
    "previews": "previews:previews",
    "share": "share:share",
    "webhook": "webhook:webhook",
    "allow": "webhook:allow",
    "data": "data:data",
    "disk": "disk:disk",
    "prune": "disk:prune",
    "pin": "pins:pin",
    "unpin": "pins:unpin",
    "versionbase": "versionbase:versionbase",
    "doctor": "doctor:doctor",
}
"""Verb -> module and function, in the order of the help."""


class Verbs(click.Group):
    """Imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            near = get_close_matches(cmd_name, VERBS, 1)
            hint = f" Did you mean `{near[0]}`?" if near else " `lazycloud --help` lists the verbs."
            ctx.fail(f"There is no verb “{cmd_name}”.{hint}")
        module, _, function = VERBS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"lazycloud.cli.{module}"), function)
        return command


@click.group(cls=Verbs, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lazycloud")
@target_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Every commit of your app live at its own address, with data of its own.

    \b
    Example:
      lazycloud up ~/code/shop      serve a repository at http://localhost:8000/
      lazycloud ls                  its newest commits and their addresses
      lazycloud promote HEAD        make a commit production
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> NoReturn:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks our characters is no reason to fail
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit status, with what went wrong told on stderr."""
    try:
        status = cli.main(arguments, prog_name="lazycloud", standalone_mode=False)
        sys.stdout.flush()
    except LazycloudError as problem:
        _tell(problem)
        return problem.exit_code
    except click.UsageError as problem:
        if isinstance(problem, NO_ARGUMENTS):
            click.echo(problem.format_message(), err=True)
        else:
            _error(problem.format_message())
        if isinstance(problem, click.MissingParameter) and problem.ctx:
            click.echo(f"`{problem.ctx.command_path} --help` has an example.", err=True)
        return problem.exit_code
    except click.ClickException as problem:
        _error(problem.format_message())
        return 1
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return 1
    return status if isinstance(status, int) else 0


def _tell(problem: LazycloudError) -> None:
    if isinstance(problem, StepFailed):
        from lazycloud.cli.terminal import show_output

        show_output(problem.last)
    _error(problem.sentence)
    if problem.advice:
        click.echo(problem.advice, err=True)


def _error(sentence: str) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + sentence, err=True)


def _forget_stdout() -> None:
    """Keep the interpreter from failing once more when it flushes to a reader that is gone."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
