"""Files named by pattern: `src/**`, `*.json`, `assets`. Pure.

`*` and `?` stay within a folder's name, `**` goes through folders, and a pattern that names a folder means all
that is below it.
"""

from __future__ import annotations

import re
from functools import lru_cache

_PARTS = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_MEANINGS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def matches(pattern: str, path: str) -> bool:
    """Whether the file `path`, with `/` and relative to the tree's root, is meant."""
    return bool(_expression(pattern).fullmatch(path))


def reaches(pattern: str, folder: str) -> bool:
    """Whether files below `folder`, which are not known, may be meant."""
    parts = pattern.removeprefix("./").rstrip("/").split("/")
    for part, name in zip(parts, folder.split("/"), strict=False):
        if "**" in part:
            return True
        if not matches(part, name):
            return False
    return True


@lru_cache(maxsize=256)
def _expression(pattern: str) -> re.Pattern[str]:
    parts: list[str] = _PARTS.findall(pattern.removeprefix("./").rstrip("/"))
    return re.compile(
        "".join(_MEANINGS.get(part) or re.escape(part) for part in parts) + "(?:/.*)?", re.DOTALL
    )
