"""All that a worker's process gets to see. Nothing of lazycloud's own environment leaks in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def worker_environment(
    release: Mapping[str, str], contract: Mapping[str, str], private: Path, timezone: str = ""
) -> dict[str, str]:
    """The complete environment of a worker, but for PORT and HOST, which are added when it starts.

    `release` is what the build says to run in (PATH, VIRTUAL_ENV, the app's own [env]) and may replace the
    defaults; `contract` is what every worker is promised (COMMIT_ID, DATABASE_URL …) and has the last word.
    `private` is HOME and TMPDIR, a folder of the worker's own that the caller makes. `timezone` is a value for
    TZ, "" for none.
    """
    defaults = {
        "PATH": DEFAULT_PATH,
        "LANG": "C.UTF-8",
        "HOME": str(private),
        "TMPDIR": str(private),
        "PYTHONUNBUFFERED": "1",  # else a Python app's lines arrive in blocks, and its last ones never
    }
    if timezone:
        defaults["TZ"] = timezone
    return {**defaults, **release, **contract}
