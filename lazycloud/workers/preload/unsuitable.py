"""Why a worker is started in the plain way."""

from __future__ import annotations


class Unsuitable(Exception):
    """No fork can stand for this start. Its text is a reason: "its command line needs a shell for '*'"."""
