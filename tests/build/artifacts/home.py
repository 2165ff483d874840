"""A home with folders that can be packed, and files that somebody tampered with."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lazycloud.blobs.keys import SigningKey
from lazycloud.build.artifacts.envelope import open_envelope, seal, verify_body
from lazycloud.build.artifacts.manifest import Manifest
from lazycloud.build.artifacts.pack import Subject, pack
from lazycloud.build.artifacts.unpack import aside_of, demand_fit, unpack
from lazycloud.build.marker import write_marker

KEY = "0123456789abcdef0123456789abcdef"
MARKER = "complete.json"


class Home:
    """One app's folder. `local` is the name of its environment's folder here, which need not be its key."""

    def __init__(self, folder: Path, local: str = KEY) -> None:
        self.folder = folder
        self.root = folder / "apps/shop"
        self.scratch = folder / "scratch"
        self.scratch.mkdir(parents=True)
        self.key = SigningKey.of(folder / "artifact-key")
        self.subject = Subject(
            "environment", KEY, str(self.root), f"environments/{local}", MARKER, platform="Linux"
        )

    @property
    def path(self) -> Path:
        return self.subject.path

    def make(self, files: Mapping[str, str | bytes]) -> Home:
        for name, content in files.items():
            place = self.path / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
        write_marker(self.path / MARKER, {"key": KEY, "stage": "dependencies", "seconds": 3})
        return self

    def pack(self, subject: Subject | None = None) -> bytes:
        file = io.BytesIO()
        pack(subject or self.subject, self.key, file, self.scratch)
        return file.getvalue()

    def take(self, artifact: bytes, *trusted: SigningKey, subject: Subject | None = None) -> None:
        """What a job does with a file that it was given."""
        wanted = subject or self.subject
        path = self.scratch / "file"
        path.write_bytes(artifact)
        with path.open("rb") as file:
            envelope = open_envelope(file, [key.public for key in (self.key, *trusted)])
            demand_fit(envelope.manifest, wanted)
            verify_body(file, envelope)
            unpack(file, envelope, wanted, aside_of(wanted))

    def left(self) -> list[str]:
        """All that lies below the app's folder."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


def forged(artifact: bytes, signer: SigningKey, /, **changes: Any) -> bytes:
    """The artifact with another manifest, signed by somebody who may be trusted: its rules are all that is left."""
    file = io.BytesIO(artifact)
    envelope = open_envelope(file, [artifact[8:40]])
    made = io.BytesIO()
    file.seek(envelope.body_at)
    seal(replace(envelope.manifest, **changes), file, signer, made)
    return made.getvalue()


def manifest_of(artifact: bytes) -> Manifest:
    return open_envelope(io.BytesIO(artifact), [artifact[8:40]]).manifest
