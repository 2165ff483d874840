"""A commit: what git says about it."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHORT = 10  # letters of a commit id that people see
FULL_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_FOLDERS = {"branch": "heads", "tag": "tags", "remote branch": "remotes"}
_PERSON = re.compile(r"(?P<name>.*?) ?<[^>]*> (?P<seconds>-?\d+)")


@dataclass(frozen=True)
class Commit:
    """`id`, `tree` and `parents` are full ids, `authored` is Unix seconds, `author` a name without address."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    authored: float
    subject: str

    @property
    def short(self) -> str:
        return self.id[:SHORT]


@dataclass(frozen=True)
class Ref:
    """A name for a commit. `kind` is "branch", "tag" or "remote branch"; `commit` a full id."""

    name: str
    kind: str
    commit: str

    @property
    def full_name(self) -> str:
        """As git writes it; of a remote branch without its remote's name, which does not matter to us."""
        return f"refs/{_FOLDERS[self.kind]}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def parse_commit(commit_id: str, content: bytes) -> Commit:
    """A commit from its object's bytes, in the encoding that they name."""
    head, _, message = content.partition(b"\n\n")
    fields: dict[str, list[bytes]] = {}
    for line in head.split(b"\n"):
        name, _, value = line.partition(b" ")
        fields.setdefault(name.decode(errors="replace"), []).append(value)
    encoding = fields.get("encoding", [b"utf-8"])[0].decode("ascii", "replace")
    author = _PERSON.match(_decode(fields.get("author", [b""])[0], encoding))
    return Commit(
        id=commit_id,
        tree=fields["tree"][0].decode(),
        parents=tuple(parent.decode() for parent in fields.get("parent", [])),
        author=author["name"] if author else "",
        authored=_seconds(author["seconds"]) if author else 0.0,
        subject=_subject(_decode(message, encoding)),
    )


def _seconds(text: str) -> float:
    """A time that a calendar has; 0.0 for what a commit may claim beyond that."""
    return float(text) if len(text) <= 11 else 0.0


def _decode(text: bytes, encoding: str) -> str:
    try:
        # UTF-7 and its like can name halves of a character, which no file or page takes.
        return text.decode(encoding, "replace").encode("utf-8", "replace").decode()
    except (LookupError, ValueError):  # Python knows encodings that are none
        return text.decode("utf-8", "replace")


def _subject(message: str) -> str:
    """The first paragraph on one line, as `git log --oneline` shows it."""
    paragraph = message.strip("\n").split("\n\n")[0]
    return " ".join(paragraph.split())
