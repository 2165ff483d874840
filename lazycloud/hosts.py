"""Host header -> app and label, and back. Pure.

Under the server's domain `example.com`, with apps `shop` (whose own domain is `example.com`) and `blog`:

    example.com                    production of shop
    3f2a9c1.example.com            a commit of shop; also the slug of a branch or tag
    blog.example.com               production of blog
    3f2a9c1.blog.example.com       a commit of blog
    3f2a9c1--blog.example.com      the same in one label, for one wildcard certificate
    lazycloud.example.com          the control page
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

LABEL_LENGTH = 63  # RFC 1035, 2.3.4
CONTROL_LABEL = "lazycloud"
FLAT = "--"  # slugs never contain it, so it can part label and app
APP_NAME = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
APP_NAME_LENGTH = 30  # leaves 31 letters for a label in the flat form
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_COMMIT_ID = re.compile(r"[0-9a-f]{7,64}")
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]@]+)(?::[0-9]{0,5})?")


class Kind(Enum):
    PRODUCTION = "production"
    LABEL = "label"
    CONTROL = "control"
    UNKNOWN = "unknown"  # no app of ours
    INVALID = "invalid"  # under an app's domain, but no label can look like that


@dataclass(frozen=True)
class Place:
    """What a host stands for. `label` is set for LABEL and INVALID, `app` for all but CONTROL and UNKNOWN."""

    kind: Kind
    app: str = ""
    label: str = ""


def normalise(header: str) -> str:
    """A Host header without port and trailing dot, in lower case; "" when it is no host."""
    match = _HOST.fullmatch(header.strip())
    return match["name"].lower().removesuffix(".") if match else ""


def find(host: str, domain: str, apps: Mapping[str, str]) -> Place:
    """What the normalised `host` stands for. `domain` is the server's, `apps` maps names to own domains."""
    if host == f"{CONTROL_LABEL}.{domain}":
        return Place(Kind.CONTROL)
    own = {own_domain: name for name, own_domain in apps.items()}
    if host in own:
        return Place(Kind.PRODUCTION, own[host])
    if host.endswith(f".{domain}"):
        first = host[: -len(domain) - 1]
        if first in apps:
            return Place(Kind.PRODUCTION, first)
        label, separator, app = first.rpartition(FLAT)
        if separator and app in apps and "." not in label:
            return _labelled(app, label)
    # The longest domain wins: a label of blog.example.com is not one of example.com.
    for base in sorted((*own, *(f"{name}.{domain}" for name in apps)), key=len, reverse=True):
        if host.endswith(f".{base}"):
            app = own.get(base) or base[: -len(domain) - 1]
            label = host[: -len(base) - 1]
            return Place(Kind.CONTROL) if label == CONTROL_LABEL else _labelled(app, label)
    return Place(Kind.UNKNOWN)


def _labelled(app: str, label: str) -> Place:
    length = 64 if is_commit_id(label) else LABEL_LENGTH
    valid = len(label) <= length and _LABEL.fullmatch(label)
    return Place(Kind.LABEL if valid else Kind.INVALID, app, label)


def is_commit_id(label: str) -> bool:
    """Whether it can be a commit's id, whole or in part. It can be a branch's name all the same."""
    return _COMMIT_ID.fullmatch(label) is not None


def is_app_name(name: str) -> bool:
    return len(name) <= APP_NAME_LENGTH and name != CONTROL_LABEL and APP_NAME.fullmatch(name) is not None


def app_name(words: str) -> str:
    """A name for an app out of its folder's or its repository's; "app" when nothing of it can stay."""
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:APP_NAME_LENGTH].strip("-")
    return "app" if name in ("", CONTROL_LABEL) else name


def slug(name: str, limit: int = LABEL_LENGTH) -> str:
    """The label of a branch or tag: lower case, all else to `-`, cut to `limit` with a hash of the name."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    if not text:
        return f"ref-{digest}"
    if len(text) <= limit:
        return text
    return f"{text[: limit - len(digest) - 1].rstrip('-')}-{digest}"


def flat_limit(app: str) -> int:
    """How long a label may be to leave room for `--app` in one DNS label."""
    return LABEL_LENGTH - len(FLAT) - len(app)


@dataclass(frozen=True)
class Addresses:
    """Builds the URLs of one server. `port` is 0 when the scheme's own is used."""

    scheme: str
    domain: str
    port: int = 0

    def _url(self, host: str) -> str:
        return f"{self.scheme}://{host}{f':{self.port}' if self.port else ''}/"

    def production(self, app_domain: str) -> str:
        return self._url(app_domain)

    def label(self, app_domain: str, label: str) -> str:
        return self._url(f"{label}.{app_domain}")

    def control(self) -> str:
        return self._url(f"{CONTROL_LABEL}.{self.domain}")
