"""Servers of databases."""

from __future__ import annotations

from collections.abc import Iterator

from lazycloud.config import Config
from lazycloud.data import blocks
from lazycloud.findings import Finding, Weight


def postgres(config: Config) -> Iterator[Finding]:
    """Where one is set."""
    if config.postgres_url:
        from lazycloud.data.postgres.findings import findings  # takes a tenth of a second, and few need it

        yield from findings(config.postgres_url)


def sharing(config: Config) -> Iterator[Finding]:
    """Of the disk that the home is on, or will be."""
    there = next(place for place in (config.home, *config.home.parents) if place.is_dir())
    try:
        is_shared = blocks.are_shared(there)
    except OSError as problem:
        sentence = f"Whether forks share blocks cannot be tried in {there}: {problem.strerror}."
        yield Finding(Weight.LIMITED, "forks", sentence, "Let lazycloud write there, or give another --home.")
        return
    if is_shared:
        yield Finding(
            Weight.FINE, "forks", f"The file system of {there} shares blocks: forks of data take no room."
        )
    else:
        yield Finding(
            Weight.LIMITED,
            "forks",
            f"The file system of {there} shares no blocks: each fork of data that is opened is a full copy.",
            "Large data are better kept on xfs or btrfs: put --home there.",
        )


LOOKS = (postgres, sharing)
