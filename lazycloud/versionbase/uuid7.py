"""Keys that are made for documents: UUIDs of version 7 (RFC 9562), later ones greater, also within a millisecond."""

from __future__ import annotations

import secrets
import threading
import time
from uuid import UUID

_making = threading.Lock()
_last = 0


def uuid7() -> str:
    """48 bits of milliseconds, then 74 that are random, or one more than the last one's in the same millisecond."""
    global _last
    with _making:
        milliseconds = time.time_ns() // 1_000_000
        _last = max(_last + 1, milliseconds << 74 | secrets.randbits(73))
        milliseconds, rest = _last >> 74, _last & (1 << 74) - 1
    number = milliseconds << 80 | 7 << 76 | (rest >> 62) << 64 | 2 << 62 | rest & (1 << 62) - 1
    return str(UUID(int=number))
