"""The image for apps that run with this machine's own programs: nothing but places to mount them at.

Its folders /bin, /lib and the like lead into /usr as the machine's do. /sbin is a folder of links, because the engine
mounts its init there, and could not within a read-only /usr.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

MERGED = ("bin", "lib", "lib32", "lib64", "libx32")  # links into /usr, or folders of their own
FOLDERS = (
    "dev",
    "etc",
    "home",
    "mnt",
    "opt",
    "proc",
    "root",
    "run",
    "sbin",
    "srv",
    "sys",
    "usr",
    "var",
    "var/tmp",
)
DOCKERFILE = b"FROM scratch\nADD root /\n"
NAME = "lazycloud-machine"


@dataclass(frozen=True)
class Root:
    """`tag` names the content; `context` is a tar archive that the engine builds it from."""

    tag: str
    context: bytes


def make_root(uid: int, gid: int, machine: Path = Path("/")) -> Root:
    """For processes of that user and group, on that machine."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add_file(archive, "Dockerfile", DOCKERFILE)
        _add_folder(archive, "root")
        for folder in FOLDERS:
            _add_folder(archive, f"root/{folder}")
        for name, target in sorted(_links(machine).items()):
            _add_link(archive, f"root/{name}", target)
        for name, content in _files(uid, gid).items():
            _add_file(archive, f"root/{name}", content)
    context = buffer.getvalue()
    return Root(f"{NAME}:{hashlib.sha256(context).hexdigest()[:16]}", context)


def _links(machine: Path) -> dict[str, str]:
    found = {name: str((machine / name).readlink()) for name in MERGED if (machine / name).is_symlink()}
    sbin = machine / "usr/sbin"
    return found | {f"sbin/{entry.name}": f"/usr/sbin/{entry.name}" for entry in os.scandir(sbin)}


def _files(uid: int, gid: int) -> dict[str, bytes]:
    """Who a process is, by name: many programs ask."""
    users, groups = (
        {0: "root", uid: "app"} if uid else {0: "root"},
        {0: "root", gid: "app"} if gid else {0: "root"},
    )
    passwd = "".join(
        f"{name}:x:{number}:{gid if number else 0}::/:/bin/sh\n" for number, name in users.items()
    )
    group = "".join(f"{name}:x:{number}:\n" for number, name in groups.items())
    nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"
    return {
        "etc/passwd": passwd.encode(),
        "etc/group": group.encode(),
        "etc/nsswitch.conf": nsswitch.encode(),
    }


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("var/tmp") else 0o755
    archive.addfile(entry)


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o644, len(content)
    archive.addfile(entry, io.BytesIO(content))
