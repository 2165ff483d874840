"""Links that show one commit's preview to who has no login: signed, for a while, and taken back at any time."""

from __future__ import annotations

import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from lazycloud import store
from lazycloud.build.commit import SHORT, Commit
from lazycloud.config import Config
from lazycloud.control.previews import Previews
from lazycloud.deployments.app import App
from lazycloud.errors import BadInput, Conflict, Gone, NotFound
from lazycloud.events import EventLog, ShareMade, ShareRevoked
from lazycloud.store import Store

SECONDS = 7 * 24 * 3600.0
SECONDS_MOST = 365 * 24 * 3600.0
MOST = 2000  # that hold at a time: routers know them all
KEY = re.compile(r"([0-9a-f]{10})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)
PATH = ".well-known/lazycloud/share"


@dataclass(frozen=True)
class Share:
    id: str
    app: str
    commit: str  # the full id
    made: float
    expires: float
    who: str


class Shares:
    """Signs with what is made of the server's `key`. `previews` is told which links hold."""

    def __init__(
        self, config: Config, key: bytes, state: Store, events: EventLog, previews: Previews
    ) -> None:
        self._config = config
        self._key = hmac.digest(key, b"share", "sha256")
        self._events = events
        self._previews = previews
        self._shares = {row["id"]: Share(**row) for row in state.rows(store.shares)}
        previews.shared = self.holding

    def of(self, app: str) -> list[Share]:
        """Those that hold, oldest first."""
        now = time.time()
        return sorted(
            (one for one in self._shares.values() if one.app == app and one.expires > now),
            key=lambda one: one.made,
        )

    def holding(self, app: str) -> list[str]:
        return [share.id for share in self.of(app)]

    async def make(self, app: App, commit: Commit, seconds: float, who: str) -> Share:
        """Durable, and known to all routers, when this returns. Raises BadInput, Conflict."""
        if not 60 <= seconds <= SECONDS_MOST:
            raise BadInput(
                "A link holds for a minute at least, and a year at most.", "Such as 12h, 7d or 4w."
            )
        if len(self._shares) >= MOST:
            raise Conflict(f"{MOST} links hold already.", "`lazycloud share revoke` takes some back.")
        forgotten, now = self._forget_old(), time.time()
        share = Share(secrets.token_hex(5), app.name, commit.id, now, float(int(now + seconds)), who)
        fact = ShareMade(app=app.name, share=share.id, commit=commit.id, expires=share.expires, who=who)
        await self._events.commit(fact, store.put(store.shares, **vars(share)), *forgotten)
        self._shares[share.id] = share
        self._previews.told()
        return share

    async def revoke(self, app: App, share_id: str, who: str) -> list[Share]:
        """One, or all of an app for ""; the cookies that they gave are worth nothing now. Raises NotFound."""
        gone = [one for one in self.of(app.name) if share_id in ("", one.id)]
        if share_id and not gone:
            raise NotFound(
                f"No link “{share_id[:40]}” to {app.name} holds.", "`lazycloud share ls` lists them."
            )
        for share in gone:
            fact = ShareRevoked(app=app.name, share=share.id, commit=share.commit, who=who)
            await self._events.commit(fact, store.remove(store.shares, id=share.id))
            self._shares.pop(share.id, None)
        self._previews.told()
        return gone

    def url(self, app: App, share: Share) -> str:
        """What is given away: whoever has it may see the commit."""
        address = self._config.addresses.label(app.domain, share.commit[:SHORT])
        return f"{address}{PATH}?ticket={share.id}.{int(share.expires)}.{self._seal(share)}"

    def view(self, app: App, share: Share) -> dict[str, Any]:
        address = self._config.addresses.label(app.domain, share.commit[:SHORT])
        return {**vars(share), "short": share.commit[:SHORT], "address": address, "url": self.url(app, share)}

    def read(self, app: str, label: str, key: str) -> Share:
        """The link whose `key` was shown at a commit's host. Raises NotFound for a forged one, Gone.

        The repository is not asked: who has no link learns nothing of what there is.
        """
        found = KEY.fullmatch(key)
        said = Share(found[1], app, label, 0.0, float(found[2]), "") if found else None
        if not (said and found and hmac.compare_digest(found[3], self._seal(said))):
            raise NotFound("This is no link to this commit.", "It may have been cut off when it was copied.")
        advice = "Ask whoever sent it to you for a new one."
        if said.expires <= time.time():
            raise Gone("This link has expired.", advice)
        if said.id not in self._shares:
            raise Gone("This link was taken back.", advice)
        return self._shares[said.id]

    def _seal(self, share: Share) -> str:
        what = f"share|{share.app}|{share.commit[:SHORT]}|{share.id}|{int(share.expires)}"
        return hmac.new(self._key, what.encode("utf-8", "surrogateescape"), "sha256").hexdigest()

    def _forget_old(self) -> list[Any]:
        """Expired ones say so by their own text."""
        old = [one.id for one in self._shares.values() if one.expires <= time.time()]
        for share_id in old:
            del self._shares[share_id]
        return [store.remove(store.shares, id=share_id) for share_id in old]
