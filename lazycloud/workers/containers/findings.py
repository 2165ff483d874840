"""What an engine of containers lacks: for `lazycloud doctor`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from lazycloud.container import Container
from lazycloud.errors import LazycloudError
from lazycloud.findings import Finding, Weight
from lazycloud.workers.containers.daemon import Daemon

PATIENCE = 5.0  # seconds
LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "processors", "PidsLimit": "processes"}


def findings(settings: Container) -> list[Finding]:
    """Asks the engine. Blocks, and not on an event loop."""
    try:
        return list(look(asyncio.run(_told(Daemon(settings.socket)))))
    except LazycloudError as problem:
        return [
            Finding(
                Weight.BROKEN, "container", f"The server does not start: {problem.sentence}", problem.advice
            )
        ]


def look(info: Mapping[str, Any]) -> Iterator[Finding]:
    """By what the engine tells about itself; what one does not mention it has."""
    lacking = [what for name, what in LIMITS.items() if info.get(name) is False]
    if info.get("BridgeNfIptables") is False:
        sentence = "Containers reach each other’s ports: the kernel does not filter what crosses a bridge."
        yield Finding(Weight.UNSAFE, "container", sentence, "Load its module: modprobe br_netfilter")
    if lacking:
        sentence = (
            f"The container engine cannot bound {' and '.join(lacking)}: the kernel’s control groups do not."
        )
        yield Finding(
            Weight.LIMITED, "container", sentence, "Boot with the controllers on (cgroup_enable=memory)."
        )
    if not any("seccomp" in one for one in info.get("SecurityOptions") or ()):
        sentence = "The container engine has no filter of system calls (seccomp)."
        yield Finding(Weight.LIMITED, "container", sentence, "Use an engine that was built with it.")
    version = info.get("ServerVersion", "of an unknown version")
    yield Finding(Weight.FINE, "container", f"Apps run in containers; the engine is {version}.")


async def _told(daemon: Daemon) -> Mapping[str, Any]:
    async with asyncio.timeout(PATIENCE):
        await daemon.open()
    await daemon.close()
    return daemon.info
