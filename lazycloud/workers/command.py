"""How a shell string of an app is run, so that signals reach the app and not only a shell."""

from __future__ import annotations

import re

from lazycloud.processes import heeding_modes

# What makes more than one simple command of a string, or may: quotes are not looked into, since to leave
# the `exec` out is always right, and only costs a shell that waits.
_COMPOUND = re.compile(r"[;&|()`\n]")

# Words that `exec` cannot replace the shell with: built in, or grammar.
_SHELL_WORDS = re.compile(
    r"[.:!{]|\[\[?|alias|break|bg|case|cd|command|continue|do|done|elif|else|esac|eval|exec|exit|export|fg|fi|for"
    r"|getopts|hash|if|jobs|local|read|readonly|return|set|shift|source|test|then|time|times|trap|type|ulimit"
    r"|umask|unalias|unset|until|wait|while"
)


def shell_arguments(command: str) -> list[str]:
    """The argument list that runs `command` without walls, but with modes that count."""
    return [*heeding_modes(), *shell(command)]


def shell(command: str) -> list[str]:
    """The argument list that runs `command`: `exec`ed by a shell if it is one simple command."""
    return ["/bin/sh", "-c", f"exec {command}" if _is_simple(command) else command]


def _is_simple(command: str) -> bool:
    first = command.split(maxsplit=1)[:1]
    if not first or _COMPOUND.search(command):
        return False
    # `exec NAME=value program` would look for a program called NAME=value.
    return not _SHELL_WORDS.fullmatch(first[0]) and "=" not in first[0] and first[0][0] not in "<>#"
