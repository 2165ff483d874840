"""What the engine is told of one container. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lazycloud.walls.view import View
from lazycloud.workers.command import shell
from lazycloud.workforce import Limits

SERVER, WORKER = "lazycloud.server", "lazycloud.worker"
"""Labels: the digest of the server's home, the worker's name."""

OWN_FOLDER = "rw,nosuid,nodev,mode=1777"
TEMPORARY = Path("/tmp")  # noqa: S108 - the container's own
NO_LOG = {"Type": "none", "Config": {}}
SMALL_LOG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}

WHOLE_GROUP = {"TINI_KILL_PROCESS_GROUP": "1"}  # Docker's init then hands TERM to all, as we do to processes
_SERVING = f"""
unset {" ".join(WHOLE_GROUP)}
trap asked=1 TERM
"$@" >>"$0" 2>&1
status=$?
others() {{
    for process in /proc/[0-9]*; do
        case ${{process#/proc/}} in 1 | $$) ;; *) return 0 ;; esac
    done
    return 1
}}
while [ "$asked" ] && others; do sleep 0.05; done
exit $status
"""


def serving(command: str, log: Path) -> list[str]:
    """Words that run a shell string as a process of this machine is run: it writes to the file, and one that ends
    first when it is asked to (a shell, npm) does not cost its children the time to end properly."""
    return ["/bin/sh", "-c", _SERVING, str(log), *shell(command)]


@dataclass(frozen=True)
class Recipe:
    """`command` None: the image's own. `read` and `write` are folders and files, with the paths they are shown at.

    `fresh` are empty folders that are its own, and gone with it.

    `port` is published at this machine's loopback if it is not 0. `log`: the engine keeps what it writes.
    """

    image: str
    command: Sequence[str] | None
    folder: Path | None
    environment: Mapping[str, str]
    user: str
    network: str
    labels: Mapping[str, str]
    read: Sequence[tuple[Path, Path]] = ()
    write: Sequence[tuple[Path, Path]] = ()
    fresh: Sequence[Path] = ()
    limits: Limits = field(default_factory=Limits)
    port: int = 0
    log: bool = False
    sealed: bool = True  # nothing of the image itself can be written to

    def configuration(self) -> dict[str, Any]:
        """As `POST /containers/create` takes it."""
        own: dict[str, Any] = {"Entrypoint": [], "Cmd": list(self.command)} if self.command else {}
        if self.folder:
            own["WorkingDir"] = str(self.folder)
        published = f"{self.port}/tcp"
        binding = {"HostIp": "127.0.0.1", "HostPort": str(self.port)}
        return own | {
            "Image": self.image,
            "Env": [f"{name}={value}" for name, value in self.environment.items()],
            "User": self.user,
            "Labels": dict(self.labels),
            "Hostname": "app",
            "ExposedPorts": {published: {}} if self.port else {},
            "HostConfig": {
                **self._walls(),
                **self._limits(),
                "PortBindings": {published: [binding]} if self.port else {},
            },
        }

    def _walls(self) -> dict[str, Any]:
        return {
            "Init": True,  # reaps, and hands signals on
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": self.sealed,
            "Tmpfs": {str(place): OWN_FOLDER for place in (TEMPORARY, *self.fresh)},
            "NetworkMode": self.network,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": SMALL_LOG if self.log else NO_LOG,
            "Mounts": [
                *(_mount(place, shown_at, read_only=True) for place, shown_at in self.read),
                *(_mount(place, shown_at, read_only=False) for place, shown_at in self.write),
            ],
        }

    def _limits(self) -> dict[str, Any]:
        """Memory with no swap beside it: a worker that swaps is slow for everybody."""
        limits = self.limits
        found: dict[str, Any] = {"PidsLimit": limits.processes or None}
        if limits.memory:
            found |= {"Memory": limits.memory, "MemorySwap": limits.memory}
        if limits.cpu:
            found["NanoCpus"] = math.ceil(limits.cpu * 1e9)
        if limits.files:
            found["Ulimits"] = [{"Name": "nofile", "Soft": limits.files, "Hard": limits.files}]
        return found


def view_of(view: View | None, folder: Path) -> View:
    """What was asked for; the folder alone where nothing was."""
    return view or View(folder, (folder,))


def _mount(place: Path, shown_at: Path, read_only: bool) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(place),
        "Target": str(shown_at),
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": read_only},
    }
