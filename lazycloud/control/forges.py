"""What GitHub, GitLab, Gitea and Forgejo say of a repository, read into one form. Pure.

The body is believed only as far as its proof goes: who wrote a pull request's title is a stranger all the same.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qs

from lazycloud.build.commit import FULL_ID
from lazycloud.errors import BadInput

TEXT = 200  # letters of a title or a name that are kept
SIGNATURES = (
    "X-Hub-Signature-256",
    "X-Forgejo-Signature",
    "X-Gitea-Signature",
)  # HMAC-SHA256 of the raw body
EVENTS = (
    ("X-Forgejo-Event", "Forgejo"),
    ("X-Gitea-Event", "Gitea"),  # Forgejo says this too, and both say what GitHub says
    ("X-Gitlab-Event", "GitLab"),
    ("X-GitHub-Event", "GitHub"),
)
IDS = ("X-Forgejo-Delivery", "X-Gitea-Delivery", "X-GitHub-Delivery", "X-Gitlab-Event-UUID")
PUSHES = {"push", "create", "delete", "Push Hook", "Tag Push Hook"}
PULLS = {"pull_request", "pull_request_sync", "Merge Request Hook"}
CLOSED = {"closed", "close", "merge", "merged"}


class Kind(Enum):
    PING = "ping"
    PUSH = "push"  # a branch or tag has moved, come or gone
    PULL = "pull"
    OTHER = "other"


@dataclass(frozen=True)
class Pull:
    """A pull request, as it is now. `commit` is the full id of its head."""

    number: int
    commit: str
    title: str
    author: str
    url: str
    is_fork: bool
    is_closed: bool


@dataclass(frozen=True)
class Delivery:
    """`name` is the forge's own word for the event, `id` its name for this delivery, or ""."""

    forge: str
    name: str
    kind: Kind
    id: str
    pull: Pull | None = None


def is_proven(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Whether who sent it has the secret. A signature that is there has to be right, whatever else there is."""
    signatures = [text for name in SIGNATURES if (text := headers.get(name)) is not None]
    if signatures:
        expected = hmac.new(secret.encode(), body, "sha256").hexdigest()
        return all(_equal(text.removeprefix("sha256="), expected) for text in signatures)
    token = headers.get("X-Gitlab-Token")  # GitLab shows the secret itself
    return token is not None and _equal(token, secret)


def has_proof(headers: Mapping[str, str]) -> bool:
    """Whether it is worth to read the body."""
    return any(headers.get(name) for name in (*SIGNATURES, "X-Gitlab-Token"))


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether the proof is of this body, and of no other."""
    return any(headers.get(name) for name in SIGNATURES)


def read(headers: Mapping[str, str], body: bytes) -> Delivery:
    """Raises BadInput for what no forge sends."""
    forge, name = next(((forge, headers[each]) for each, forge in EVENTS if headers.get(each)), ("", ""))
    delivery_id = next((headers[each] for each in IDS if headers.get(each)), "")
    if not forge:
        raise BadInput(
            "No forge that is known here sends this.", "There are GitHub, GitLab, Gitea and Forgejo."
        )
    if name == "ping":
        return Delivery(forge, name, Kind.PING, delivery_id)
    if name in PUSHES:
        return Delivery(forge, name, Kind.PUSH, delivery_id)
    if name not in PULLS:
        return Delivery(forge, name[:TEXT], Kind.OTHER, delivery_id)
    said = _json(headers.get("Content-Type", ""), body)
    pull = _merge_request(said) if forge == "GitLab" else _pull_request(said)
    return Delivery(forge, name, Kind.PULL, delivery_id, pull)


def _json(content_type: str, body: bytes) -> dict[str, Any]:
    try:
        if content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
            body = parse_qs(body.decode(), strict_parsing=True)["payload"][0].encode()
        said = json.loads(body)
    except (ValueError, KeyError, RecursionError) as problem:
        raise BadInput("The body is not the JSON of a webhook.") from problem
    if not isinstance(said, dict):
        raise BadInput("The body is not the JSON of a webhook.")
    return said


def _pull_request(said: dict[str, Any]) -> Pull:
    pull = _object(said, "pull_request")
    head, base = _object(pull, "head"), _object(pull, "base")
    target = _text(_object(base, "repo"), "full_name")
    number = said.get("number", pull.get("number"))
    return Pull(
        number=_number(number),
        commit=_commit(head.get("sha")),
        title=_text(pull, "title"),
        author=_text(_object(pull, "user"), "login"),
        url=_url(pull.get("html_url")),
        is_fork=not target or _text(_object(head, "repo"), "full_name") != target,
        is_closed=said.get("action") in CLOSED or pull.get("state") == "closed",
    )


def _merge_request(said: dict[str, Any]) -> Pull:
    about = _object(said, "object_attributes")
    target = about.get("target_project_id")
    return Pull(
        number=_number(about.get("iid")),
        commit=_commit(_object(about, "last_commit").get("id")),
        title=_text(about, "title"),
        author=_text(_object(said, "user"), "username"),
        url=_url(about.get("url")),
        is_fork=target is None or about.get("source_project_id") != target,
        is_closed=about.get("action") in CLOSED or about.get("state") in CLOSED,
    )


def _object(said: dict[str, Any], name: str) -> dict[str, Any]:
    value = said.get(name)
    return value if isinstance(value, dict) else {}  # the repository of a fork that is gone is null


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 31:
        raise BadInput("The pull request has no number.")
    return value


def _commit(value: object) -> str:
    if not isinstance(value, str) or not FULL_ID.fullmatch(value):
        raise BadInput("The pull request has no commit.")
    return value


def _text(said: dict[str, Any], name: str) -> str:
    """One line of it."""
    value = said.get(name)
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value)[:TEXT].strip()


def _url(value: object) -> str:
    fits = isinstance(value, str) and len(value) <= 1000 and value.isprintable()
    return str(value) if fits and str(value).startswith(("https://", "http://")) else ""


def _equal(shown: str, expected: str) -> bool:
    return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), expected.encode())
