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

from lazycloud.walls.machine import FOLDERS, ROOT

PLACES = tuple("dev etc home mnt opt proc root run sbin srv sys tmp usr var var/tmp".split())  # noqa: SIM905
DOCKERFILE = b"FROM scratch\nADD root /\n"
NAME = "lazycloud-machine"


@dataclass(frozen=True)
class Root:
    """`tag` names the content; `context` is a tar archive that the engine builds it from."""

    tag: str
    context: bytes


def make_root() -> Root:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add_file(archive, "Dockerfile", DOCKERFILE)
        _add_folder(archive, "root")
        for folder in PLACES:
            _add_folder(archive, f"root/{folder}")
        for name, target in sorted(_links().items()):
            _add_link(archive, f"root/{name}", target)
    context = buffer.getvalue()
    return Root(f"{NAME}:{hashlib.sha256(context).hexdigest()[:16]}", context)


def users(uid: int, gid: int) -> dict[str, str]:
    """Who a process is, by name, as files of /etc: many programs ask."""
    names = {0: ("root", "/root"), uid: ("app", "/") if uid else ("root", "/root")}
    groups = {0: "root", gid: "app" if gid else "root"}
    passwd = "".join(
        f"{name}:x:{number}:{gid if number else 0}::{home}:/bin/sh\n"
        for number, (name, home) in names.items()
    )
    return {"passwd": passwd, "group": "".join(f"{name}:x:{number}:\n" for number, name in groups.items())}


def _links() -> dict[str, str]:
    merged = [ROOT / name for name in FOLDERS if name != "sbin"]
    found = {place.name: str(place.readlink()) for place in merged if place.is_symlink()}
    return found | {f"sbin/{entry.name}": f"/usr/sbin/{entry.name}" for entry in os.scandir("/usr/sbin")}


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
