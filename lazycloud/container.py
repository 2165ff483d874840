"""Where containers come from: the table [container] of config.toml. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lazycloud.errors import BadInput

SETTINGS = ("socket", "image", "mounts")


@dataclass(frozen=True)
class Container:
    """`socket`: that of a Docker-compatible engine's API, "" for the usual places.

    `image`: what apps run in, "" for this machine's own programs in an otherwise empty one. `mounts`: folders of
    this machine that apps see too, read-only.
    """

    socket: str = ""
    image: str = ""
    mounts: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Container:
        return cls(**{**data, "mounts": tuple(data["mounts"])})


def read_container(table: Mapping[str, Any], environ: Mapping[str, str]) -> Container:
    """The table [container]; DOCKER_HOST where it names no socket. Raises BadInput with the key that is wrong."""
    for name in table:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            advice = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(SETTINGS)}."
            raise BadInput(f"config.toml: [container] has no setting `{name}`.", advice)
    for name in ("socket", "image"):
        if not isinstance(table.get(name, ""), str):
            raise BadInput(f"config.toml: [container] `{name}` cannot be {table[name]!r}.", "It is a string.")
    mounts = table.get("mounts", [])
    if not isinstance(mounts, list) or not all(
        isinstance(one, str) and one.startswith("/") for one in mounts
    ):
        raise BadInput(
            f"config.toml: [container] `mounts` cannot be {mounts!r}.",
            'Give a list of folders, such as ["/opt/tools"].',
        )
    socket = _socket(table.get("socket", "") or environ.get("DOCKER_HOST", ""))
    return Container(socket, table.get("image", ""), tuple(mounts))


def _socket(said: str) -> str:
    """A path, or a URL as DOCKER_HOST has it; of another kind it is left as it is, for who opens it to refuse."""
    path = said.removeprefix("unix://")
    return path if not path or "://" in path else str(Path(path).expanduser().absolute())
