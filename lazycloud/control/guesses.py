"""How often somebody may try to log in: some times at once, then ever more slowly. Pure."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from lazycloud.errors import Busy

FREE = 5  # wrong guesses before the first wait: people mistype
FIRST = 1.0  # seconds; each wrong one doubles it
FORGOTTEN = 3600.0  # seconds without a wrong one
KNOWN = 10_000  # keys; some 2 MB
ADDRESS_LONGEST = 900.0  # seconds
ACCOUNT_LONGEST = 60.0  # short: somebody else's guesses must not keep a person out for long

Key = tuple[str, str]
Clock = Callable[[], float]


class TooManyAttempts(Busy):
    status = 429
    kind = "too many attempts"


@dataclass
class _Tries:
    count: int = 0
    last: float = 0.0
    until: float = 0.0


class Guesses:
    """An attempt counts as wrong when it begins, so that many at a time are no way around; a right one is undone."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._tries: OrderedDict[Key, _Tries] = OrderedDict()

    def begin(self, address: str, account: str = "") -> None:
        """Raises TooManyAttempts."""
        now = self._clock()
        keys = _keys(address, account)
        waits = max(self._known(key, now).until - now for key in keys)
        if waits > 0:
            seconds = int(waits) + 1
            raise TooManyAttempts(
                f"Too many attempts: wait {seconds} second{'' if seconds == 1 else 's'}.",
                "On the server, `lazycloud open --control` prints a link that logs you in at once.",
                seconds,
            )
        for key in keys:
            tries = self._tries[key]
            tries.count, tries.last = tries.count + 1, now
            if tries.count > FREE:
                longest = ADDRESS_LONGEST if key[0] == "address" else ACCOUNT_LONGEST
                tries.until = now + min(longest, FIRST * 2 ** min(tries.count - FREE - 1, 20))

    def succeeded(self, address: str, account: str = "") -> None:
        """The account's wrong ones are forgotten; of the address only this one: it may be guessing at others."""
        self._tries.pop(("account", account), None)
        if tries := self._tries.get(("address", address)):
            tries.count, tries.until = tries.count - 1, 0.0

    def _known(self, key: Key, now: float) -> _Tries:
        tries = self._tries.setdefault(key, _Tries())
        self._tries.move_to_end(key)
        if now - tries.last > FORGOTTEN:
            tries.count = 0
        if len(self._tries) > KNOWN:
            self._tries.popitem(last=False)
        return tries


def _keys(address: str, account: str) -> list[Key]:
    return [("address", address), *([("account", account)] if account else [])]
