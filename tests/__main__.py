"""`python -m tests`: every test, some files at once; a few that fail among others are tried again alone.

Most tests start real servers and workers, and there are thousands: on a busy machine one may fail because another
took the processor. So up to `FEW` failures are looked at again with nothing beside them, and each has to pass `TIMES`
times in a row. What is wrong fails again, and what is wrong now and then nearly always; it is named at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

FEW = 10
TIMES = 3
CACHE = Path(".pytest_cache")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--at-once", type=int, default=3, metavar="N", help="files of tests at a time; 0: no more than one"
    )
    arguments, others = parser.parse_known_args()
    (CACHE / "v/cache/lastfailed").unlink(missing_ok=True)
    code = pytest("-n", str(arguments.at_once), *others)
    failed = sorted(last_failed()) if code == 1 else []
    if not 0 < len(failed) <= FEW:
        return code
    print(f"\nAgain alone, {TIMES} times: {' '.join(failed)}", flush=True)
    for _ in range(TIMES):
        if code := pytest("-n", "0", "-vv", *failed):
            return code
    print("Failed among others, and passed alone:", *failed, sep="\n  ")
    return 0


def pytest(*arguments: str) -> int:
    """Its exit code; 1: tests failed."""
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def last_failed() -> list[str]:
    try:
        return list(json.loads((CACHE / "v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    sys.exit(main())
