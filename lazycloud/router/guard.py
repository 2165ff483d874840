"""Who may see previews, as control last said: the grants that hold, by app, and the tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lazycloud.router import access

if TYPE_CHECKING:
    from lazycloud.router.heads import Fields
    from lazycloud.router.settings import Settings


class Guard:
    """`app_of` gives the app of a host; "" for none. Until control has spoken only the owner's token counts."""

    def __init__(self, settings: Settings, app_of: Callable[[str], str]) -> None:
        self._key = settings.preview_key
        self._owner = settings.token_sha256
        self._cookie = access.preview_cookie(settings.public_scheme == "https")
        self._app_of = app_of
        self._grants: dict[str, frozenset[str]] = {}
        self._tokens: dict[
            str, tuple[float, str]
        ] = {}  # sha256 -> until when (0: for ever), for which app ("": all)

    def learn(self, said: Mapping[str, Any]) -> None:
        """All that holds from now on; what is not named holds no longer."""
        grants = {str(app): frozenset(map(str, each)) for app, each in said["grants"].items()}
        tokens = {str(digest): (float(until), str(app)) for digest, (until, app) in said["tokens"].items()}
        self._grants, self._tokens = grants, tokens

    def may_see(self, host: str, fields: Fields, now: float) -> bool:
        """Whether the client showed a right to see previews at `host`: a cookie for it, or a token."""
        if fields.token and self._takes(fields.token, host, now):
            return True
        values = [value for cookies in fields.cookies for value in access.previews(cookies, self._cookie)]
        return any(self._holds(host, access.grant_of(self._key, host, value, now)) for value in values)

    def _takes(self, token: bytes, host: str, now: float) -> bool:
        if access.token_valid(token, self._owner):
            return True
        until, app = self._tokens.get(access.token_sha256(token), (-1.0, ""))
        return (not until or now < until) and (not app or app == self._app_of(host))

    def _holds(self, host: str, grant: str) -> bool:
        return bool(grant) and grant in self._grants.get(self._app_of(host), ())
