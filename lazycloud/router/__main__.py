"""`python -m lazycloud.router --settings JSON`: one router process, started by `lazycloud up`."""

from __future__ import annotations

import argparse
import logging
import sys

import uvloop

from lazycloud.errors import LazycloudError
from lazycloud.router.process import serve
from lazycloud.router.settings import read_settings


def main() -> int:
    """Run until told to stop. Exits 0 after a stop, 2 when the settings are not right."""
    parser = argparse.ArgumentParser(prog="lazycloud.router", description="Relay requests to workers.")
    parser.add_argument(
        "--settings", required=True, help="a JSON object, or - to read it from standard input"
    )
    logging.basicConfig(format="router: %(message)s", level=logging.INFO)
    try:
        given = parser.parse_args().settings
        # Every user of a machine can read command lines: what holds secrets comes over standard input.
        settings = read_settings(sys.stdin.read() if given == "-" else given)
        uvloop.run(serve(settings))
    except LazycloudError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
