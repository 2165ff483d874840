"""The people who may use this server, beside its owner: name, role, password. Few, so all are in memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lazycloud import store
from lazycloud.control.identity import Role
from lazycloud.errors import BadInput, Conflict, LazycloudError, NotFound
from lazycloud.events import AccountChanged, Event, EventLog
from lazycloud.store import Store

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,62}[a-z0-9])?")
OWNER = "owner"  # what the event log calls who has the owner's token
TAKEN = frozenset({OWNER, "lazycloud"})


@dataclass(frozen=True)
class Account:
    """`password` is what Passwords made of it, "" for none. Times are unix seconds."""

    name: str
    role: Role
    password: str
    created: float
    who: str
    disabled: bool = False


class Accounts:
    """Opened once; what changes holds at once, and is on disk when the call returns."""

    def __init__(self, state: Store, events: EventLog) -> None:
        self.changed: Callable[[], None] = lambda: None  # called after each: others keep copies
        self._store = state
        self._events = events
        self._accounts: dict[str, Account] = {}

    def open(self) -> None:
        for row in self._store.rows(store.accounts):
            self._accounts[row["name"]] = Account(**row | {"role": Role.read(row["role"])})

    def __iter__(self) -> Iterator[Account]:
        return iter(sorted(self._accounts.values(), key=lambda account: account.name))

    def find(self, name: str) -> Account | None:
        return self._accounts.get(name)

    def get(self, name: str) -> Account:
        """Raises NotFound."""
        if account := self._accounts.get(name):
            return account
        raise NotFound(f"There is no account “{name[:64]}”.", "`lazycloud account ls` lists them.")

    async def add(self, name: str, role: Role, password: str, who: str) -> Account:
        """Raises BadInput for what cannot be a name, Conflict for one that exists."""
        demand_name(name)
        if name in self._accounts:
            raise Conflict(f"There is an account “{name}” already.", "`lazycloud account set` changes it.")
        account = Account(name, role, password, time.time(), who)
        self._accounts[name] = account
        try:
            await self._write(account, "added", who)
        except BaseException:
            del self._accounts[name]  # it is not on disk: nobody may come in by it
            raise
        self.changed()
        return account

    async def change(
        self,
        name: str,
        who: str,
        role: Role | None = None,
        password: str | None = None,
        disabled: bool | None = None,
    ) -> Account:
        """None leaves a thing as it is. Raises NotFound."""
        before = self.get(name)
        account = replace(
            before,
            role=before.role if role is None else role,
            password=before.password if password is None else password,
            disabled=before.disabled if disabled is None else disabled,
        )
        if account == before:
            return account
        self._accounts[name] = account
        self.changed()
        await self._write(account, _what(before, account), who)
        return account

    async def remove(self, name: str, who: str) -> None:
        account = self.get(name)
        del self._accounts[name]
        self.changed()
        fact = AccountChanged(account=name, what="removed", role=str(account.role), who=who)
        await written(self._events, fact, store.drop(store.accounts, [name]))

    async def _write(self, account: Account, what: str, who: str) -> None:
        fact = AccountChanged(account=account.name, what=what, role=str(account.role), who=who)
        row = vars(account) | {"role": str(account.role)}
        await written(self._events, fact, store.put(store.accounts, **row))


async def written(events: EventLog, fact: Event, *changes: object) -> None:
    """Like `events.commit`; a disk that takes nothing is told as what it means here."""
    try:
        await events.commit(fact, *changes)
    except OSError as problem:
        raise LazycloudError(
            f"This could not be written down: {problem}.",
            "It holds until the server starts again. Look at the disk.",
        ) from problem


def demand_name(name: str) -> None:
    """Raises BadInput for what can be the name of no account and no token."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"“{name[:80]}” is no name for an account or a token.",
            "It has up to 64 small letters, digits and . _ @ + -, such as ada or ada@example.com.",
        )
    if name in TAKEN:
        raise BadInput(
            f"“{name}” is what the server itself is called in the event log.", "Choose another name."
        )


def _what(before: Account, after: Account) -> str:
    if before.disabled != after.disabled:
        return "disabled" if after.disabled else "enabled"
    return "changed" if before.role is not after.role else "given a password"
