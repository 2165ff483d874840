"""The table [artifacts] of config.toml: where artifacts are kept, and whose are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lazycloud.blobs.keys import parse_public
from lazycloud.blobs.store import parse_store
from lazycloud.errors import BadInput

SETTINGS = ("store", "trusted", "push")


@dataclass(frozen=True)
class Place:
    """`store` is a URL, "" for none; `trusted` are public keys beside the own one; `pushes`: all that is made."""

    store: str
    trusted: tuple[str, ...]
    key_file: Path
    scratch: Path
    pushes: bool = True


def read_place(table: Mapping[str, Any], key_file: Path, scratch: Path) -> Place:
    """Raises BadInput with the setting that is wrong."""
    for name in table:
        if name not in SETTINGS:
            near = get_close_matches(name, SETTINGS, 1)
            hint = f"Did you mean `{near[0]}`?" if near else f"There is {', '.join(SETTINGS)}."
            raise BadInput(f"config.toml: [artifacts] has no setting `{name}`.", hint)
    store, trusted, pushes = table.get("store", ""), table.get("trusted", []), table.get("push", True)
    if not isinstance(store, str) or not isinstance(pushes, bool):
        raise BadInput("config.toml: in [artifacts], `store` is a URL, and `push` is true or false.")
    if not isinstance(trusted, list) or not all(isinstance(key, str) for key in trusted):
        raise BadInput(
            "config.toml: in [artifacts], `trusted` is a list of public keys.",
            "Each is what `lazycloud artifacts key` prints on the server that made them: ed25519:…",
        )
    for key in trusted:
        parse_public(key)
    return Place(parse_store(store) if store else "", tuple(trusted), key_file, scratch, pushes)
