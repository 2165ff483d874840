"""All that is looked at, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from lazycloud.config import Config
from lazycloud.doctor import databases, machine, network, safety, tools
from lazycloud.findings import Finding, Weight

Look = Callable[[Config], Iterable[Finding]]

ALWAYS: tuple[Look, ...] = (*safety.LOOKS, *machine.LOOKS, *network.LOOKS, *databases.LOOKS, *tools.LOOKS)


def examine(config: Config, serves: bool) -> list[Finding]:
    """The most important first. `serves`: a server with these settings runs, and has its ports. Blocks."""
    looks = ALWAYS if serves else (*ALWAYS, network.ports)
    with ThreadPoolExecutor(len(looks)) as pool:  # some wait for others: name servers, programs
        found = [finding for each in pool.map(lambda look: _tried(look, config), looks) for finding in each]
    return sorted(found, key=lambda finding: finding.weight)


def _tried(look: Look, config: Config) -> list[Finding]:
    """A look that fails costs only its own line."""
    try:
        return list(look(config))
    except Exception as problem:
        name = getattr(look, "__name__", "a look").replace("_", " ")
        return [Finding(Weight.LIMITED, name, f"It could not be looked at: {problem!r}.")]
