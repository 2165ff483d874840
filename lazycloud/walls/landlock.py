"""A second wall, which Landlock is: no signals to, and no abstract unix sockets of, whoever stands outside.

Namespaces leave one hole of a shared network: unix sockets without a path are the network's, and some programs
trust all that come to theirs as root. A process can only do this to itself, just before it becomes the app. That
takes a program that can make any system call: Perl, which Debian's and most other systems have always,
starts in 2 ms, Python in 10. Where neither it nor Landlock's scopes (Linux 6.12) are, the wall is not there.
"""

from __future__ import annotations

import ctypes
import shutil
from functools import cache

CREATE, RESTRICT = 444, 446  # the same numbers on all machines
SCOPES_SINCE = 6  # of Landlock's own versions
SYSTEM = "/usr/bin:/bin:/usr/local/bin"
# struct landlock_ruleset_attr: no rules for files and none for the network, both scopes (linux/landlock.h).
_PERL = (
    f'my $rules = syscall({CREATE}, my $one = pack("QQQ", 0, 0, 3), 24, 0);'
    f"syscall({RESTRICT}, $rules, 0) if $rules >= 0;"
    'exec { $ARGV[0] } @ARGV; die "$ARGV[0]: $!\\n";'
)


def missing() -> str:
    """Why there is no such wall, in a sentence; "" if there is."""
    if version() < SCOPES_SINCE:
        return "This kernel’s Landlock knows no scopes, which came with Linux 6.12."
    return "" if _perl() else "There is no perl on this machine, by which a process can put itself behind it."


def words() -> tuple[str, ...]:
    """Words before a command that put it there; none where that cannot be had."""
    perl = _perl()
    return () if missing() or perl is None else (perl, "-e", _PERL, "--")


@cache
def version() -> int:
    """Of the kernel's Landlock; 0 where there is none."""
    asked: int = ctypes.CDLL(None, use_errno=True).syscall(
        CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1)
    )
    return max(0, asked)


@cache
def _perl() -> str | None:
    return shutil.which("perl", path=SYSTEM)
