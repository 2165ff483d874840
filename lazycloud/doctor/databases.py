"""Servers of databases."""

from __future__ import annotations

from collections.abc import Iterator

from lazycloud.config import Config
from lazycloud.findings import Finding


def postgres(config: Config) -> Iterator[Finding]:
    """Where one is set."""
    if config.postgres_url:
        from lazycloud.data.postgres.findings import findings  # takes a tenth of a second, and few need it

        yield from findings(config.postgres_url)


LOOKS = (postgres,)
