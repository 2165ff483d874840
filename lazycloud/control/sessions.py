"""Logged-in browsers: what their cookie is worth is decided here, and ends here."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lazycloud import store
from lazycloud.control.identity import Kind
from lazycloud.control.keys import sha256
from lazycloud.control.uses import Uses
from lazycloud.events import EventLog, LoggedIn, LoggedOut
from lazycloud.store import Store

SECONDS = 30 * 24 * 3600.0
MOST = 50  # of one holder; the one that was used longest ago makes room
AGENT_LENGTH = 120  # letters of what a browser says it is


@dataclass(frozen=True)
class Holder:
    """Whose session: the name of an account or token; of the owner, the fingerprint of the token at that time."""

    kind: Kind
    name: str


@dataclass
class Session:
    """`id` is the hash of the cookie's value. Times are unix seconds."""

    id: str
    holder: Holder
    created: float
    seen: float
    expires: float
    agent: str
    client: str


class Sessions:
    """Opened once. All are in memory, so that a request asks no disk; an end holds at once."""

    def __init__(self, state: Store, events: EventLog, uses: Uses) -> None:
        self._store = state
        self._events = events
        self._uses = uses
        self._sessions: dict[str, Session] = {}

    def open(self) -> None:
        gone = []
        for row in self._store.rows(store.sessions):
            holder = Holder(Kind(row.pop("kind")), row.pop("holder"))
            session = Session(holder=holder, **row)
            if session.expires > time.time():
                self._sessions[session.id] = session
            else:
                gone.append(session.id)
        if gone:
            self._store.note([store.drop(store.sessions, gone)])

    def __iter__(self) -> Iterator[Session]:
        now = time.time()
        return iter([session for session in self._sessions.values() if session.expires > now])

    def begin(self, holder: Holder, who: str, how: str, agent: str, client: str) -> str:
        """The cookie's value."""
        value, now = secrets.token_urlsafe(32), time.time()
        agent = "".join(letter for letter in agent if letter.isprintable())[:AGENT_LENGTH]
        session = Session(sha256(value), holder, now, now, now + SECONDS, agent, client)
        gone = self._superfluous(holder)
        for one in gone:
            del self._sessions[one]
        self._sessions[session.id] = session
        row = vars(session) | {"kind": str(holder.kind), "holder": holder.name}
        changes = [store.drop(store.sessions, gone)] if gone else []
        self._events.append(
            LoggedIn(who=who, how=how, client=client), store.put(store.sessions, **row), *changes
        )
        return value

    def find(self, value: str) -> Session | None:
        """The session of a cookie; that it was seen is remembered."""
        session = self._sessions.get(sha256(value)) if value else None
        if session is None:
            return None
        now = time.time()
        if session.expires <= now:
            return None
        if self._uses.is_news(session.seen, now):
            session.seen = now
            self._uses.note(store.sessions, session.id, seen=now)
        return session

    def end(self, which: Callable[[Session], bool], account: str, why: str, who: str) -> int:
        """End those; how many there were. They are worth nothing when this returns."""
        gone = [session.id for session in self._sessions.values() if which(session)]
        for one in gone:
            del self._sessions[one]
            self._uses.forget(store.sessions, one)
        if gone:
            fact = LoggedOut(account=account, count=len(gone), why=why, who=who)
            self._events.append(fact, store.drop(store.sessions, gone))
        return len(gone)

    def _superfluous(self, holder: Holder) -> list[str]:
        now = time.time()
        expired = [one.id for one in self._sessions.values() if one.expires <= now]
        mine = [one for one in self if one.holder == holder]
        mine.sort(key=lambda session: session.seen)
        return expired + [one.id for one in mine[: len(mine) + 1 - MOST]] if len(mine) >= MOST else expired
