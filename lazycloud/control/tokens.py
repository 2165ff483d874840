"""Tokens for programs: shown once, kept as a hash, for one role and one app or all, until they end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lazycloud import store
from lazycloud.control.accounts import demand_name, written
from lazycloud.control.identity import Role
from lazycloud.control.keys import sha256
from lazycloud.control.uses import Uses
from lazycloud.errors import Conflict, NotFound
from lazycloud.events import EventLog, TokenChanged
from lazycloud.store import Store

PREFIX = "lc_"  # what scanners for secrets look for: lc_[0-9a-f]{64}


@dataclass
class Token:
    """`app`: the only one that it is for, "" for all. Times are unix seconds; `expires` None: never."""

    name: str
    sha256: str
    role: Role
    app: str
    previews: bool
    created: float
    who: str
    expires: float | None
    used: float | None = None

    @property
    def has_expired(self) -> bool:
        return self.expires is not None and self.expires <= time.time()


class Tokens:
    """Opened once. One that is revoked is worth nothing at once; one that was made is on disk before it is shown."""

    def __init__(self, state: Store, events: EventLog, uses: Uses) -> None:
        self.changed: Callable[[], None] = lambda: (
            None
        )  # called when one is made or revoked: others keep copies
        self._store = state
        self._events = events
        self._uses = uses
        self._tokens: dict[str, Token] = {}
        self._by_hash: dict[str, Token] = {}

    def open(self) -> None:
        for row in self._store.rows(store.tokens):
            self._keep(Token(**row | {"role": Role.read(row["role"])}))

    def __iter__(self) -> Iterator[Token]:
        return iter(sorted(self._tokens.values(), key=lambda token: token.name))

    def find(self, text: str) -> Token | None:
        """The token that this is, if it is good; that it was used is remembered."""
        if not text.startswith(PREFIX):
            return None
        token = self._by_hash.get(sha256(text))
        if token is None or token.has_expired:
            return None
        now = time.time()
        if self._uses.is_news(token.used, now):
            token.used = now
            self._uses.note(store.tokens, token.name, used=now)
        return token

    def named(self, name: str) -> Token | None:
        """One that is good still."""
        token = self._tokens.get(name)
        return None if token is None or token.has_expired else token

    async def create(
        self,
        name: str,
        role: Role,
        who: str,
        app: str = "",
        previews: bool = False,
        expires: float | None = None,
    ) -> tuple[Token, str]:
        """With the secret, which nobody can be told again. Raises BadInput, Conflict."""
        demand_name(name)
        if self.named(name):
            raise Conflict(f"There is a token “{name}” already.", "Revoke it first, or choose another name.")
        if old := self._tokens.get(name):
            self._drop(old)
        text = PREFIX + secrets.token_hex(32)
        token = Token(name, sha256(text), role, app, previews, time.time(), who, expires)
        row = vars(token) | {"role": str(role)}
        self._keep(token)
        try:
            await written(self._events, _fact(token, "made", who), store.put(store.tokens, **row))
        except BaseException:
            self._drop(token)
            raise
        self.changed()
        return token, text

    async def revoke(self, name: str, who: str) -> Token:
        """Raises NotFound."""
        token = self._tokens.get(name)
        if token is None:
            raise NotFound(f"There is no token “{name[:64]}”.", "`lazycloud token ls` lists them.")
        self._drop(token)
        self.changed()
        await written(self._events, _fact(token, "revoked", who), store.drop(store.tokens, [name]))
        return token

    def _keep(self, token: Token) -> None:
        self._tokens[token.name] = self._by_hash[token.sha256] = token

    def _drop(self, token: Token) -> None:
        self._uses.forget(store.tokens, token.name)
        del self._tokens[token.name], self._by_hash[token.sha256]


def _fact(token: Token, what: str, who: str) -> TokenChanged:
    return TokenChanged(
        app=token.app,
        token=token.name,
        what=what,
        role=str(token.role),
        previews=token.previews,
        expires=token.expires,
        who=who,
    )
