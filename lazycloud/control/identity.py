"""Who asks, and what each role may do. Pure.

A viewer sees what there is, a developer also changes what runs, an owner also decides who may and what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from lazycloud.errors import BadInput, Forbidden

ANY_APP = "*"  # what is asked for shows each their own apps only


class Role(IntEnum):
    """Each may do what those below it may."""

    VIEWER = 1
    DEVELOPER = 2
    OWNER = 3

    def __str__(self) -> str:
        return self.name.lower()

    @property
    def in_words(self) -> str:
        return f"{'an' if self is Role.OWNER else 'a'} {self}"

    @classmethod
    def read(cls, text: str) -> Role:
        """Raises BadInput for a word that is no role."""
        for role in cls:
            if text == str(role):
                return role
        raise BadInput(f"“{text[:40]}” is no role.", f"There are {', '.join(map(str, cls))}.")


class Kind(StrEnum):
    """What a right comes from. The owner is whoever can open the API socket, or has the token of the home folder."""

    OWNER = "owner"
    ACCOUNT = "account"
    TOKEN = "token"  # noqa: S105


class How(StrEnum):
    """What a request showed."""

    SOCKET = "socket"
    BEARER = "bearer"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Identity:
    """`name` is what the event log says. `app`: the only app that it is for, "" for all."""

    name: str
    role: Role
    how: How
    kind: Kind
    app: str = ""
    previews_only: bool = False

    def demand(self, role: Role, app: str = "") -> None:
        """Raises Forbidden, unless it has the role for `app`: "" means the whole server, ANY_APP what it may see."""
        if self.previews_only:
            raise Forbidden(
                f"“{self.name}” only opens previews.",
                "Another token is needed for the API: `lazycloud token create`.",
            )
        if self.role < role:
            raise Forbidden(
                f"This needs the role {role}; “{self.name}” is {self.role.in_words}.", self._advice
            )
        if self.app and app not in (self.app, ANY_APP):
            meant = f"not for {app}" if app else "and this is about the whole server"
            raise Forbidden(f"“{self.name}” is for the app {self.app}, {meant}.", self._advice)

    def may(self, role: Role, app: str = "") -> bool:
        try:
            self.demand(role, app)
        except Forbidden:
            return False
        return True

    @property
    def _advice(self) -> str:
        if self.kind is Kind.TOKEN:
            return "An owner makes tokens: `lazycloud token create`."
        return "An owner gives roles: `lazycloud account set`."
