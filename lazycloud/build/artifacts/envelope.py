"""The file of an artifact: who signed it, the manifest, the body.

    8 bytes   magic, with the number of the format
    32        the public key that signed
    64        its signature of the magic and the manifest as it lies here
    4         the manifest's length in this file, big-endian
    …         the manifest: JSON, compressed by zstd; it holds the hash and the size of the body
    …         the body: the contents of all files in the manifest's order, compressed by zstd

Nothing of a stranger's is decompressed or parsed: the signature, and the body's hash, are looked at first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
from collections.abc import Collection
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from typing import BinaryIO

from lazycloud.blobs.keys import LENGTH, SIGNATURE_LENGTH, SigningKey, is_signed, public_text
from lazycloud.build.artifacts.manifest import PACKED_MOST, ArtifactRefused, Manifest

MAGIC = b"lazyart\x01"
CHUNK = 1 << 20
_HEAD = struct.Struct(f">{len(MAGIC)}s{LENGTH}s{SIGNATURE_LENGTH}sI")


@dataclass(frozen=True)
class Envelope:
    """An artifact whose manifest is one of somebody trusted. `body_at` is where the body begins in the file."""

    manifest: Manifest
    signer: str
    body_at: int


def seal(manifest: Manifest, body: BinaryIO, key: SigningKey, to: BinaryIO) -> None:
    """Write the file; `body` is read from where it stands."""
    packed = manifest.to_bytes()
    to.write(_HEAD.pack(MAGIC, key.public, key.sign(MAGIC + packed), len(packed)))
    to.write(packed)
    shutil.copyfileobj(body, to, CHUNK)


def open_envelope(file: BinaryIO, trusted: Collection[bytes]) -> Envelope:
    """Judge a file by its head alone: the body is still to be verified. Raises ArtifactRefused."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise _cut_short()
    magic, public, signature, length = _HEAD.unpack(head)
    if magic[:-1] != MAGIC[:-1]:
        raise ArtifactRefused("It is no artifact of lazycloud.")
    if magic != MAGIC:
        raise ArtifactRefused(f"It has format {magic[-1]}, which this lazycloud does not read.")
    if public not in trusted:
        raise ArtifactRefused(
            f"It is signed by {public_text(public)}, whom this server does not trust.",
            "Whoever should be trusted is named in config.toml: [artifacts] trusted = [...]",
        )
    if length > PACKED_MOST:
        raise ArtifactRefused("Its manifest is larger than any that lazycloud makes.")
    packed = file.read(length)
    if len(packed) < length:
        raise _cut_short()
    if not is_signed(MAGIC + packed, signature, public):
        raise ArtifactRefused("Its signature is wrong: it was changed after it was signed.")
    return Envelope(Manifest.from_bytes(packed), public_text(public), _HEAD.size + length)


def verify_body(file: BufferedReader | BufferedRandom, envelope: Envelope) -> None:
    """That the body is the one that was signed. Leaves the file at its begin. Raises ArtifactRefused."""
    body = envelope.manifest.body
    size = os.fstat(file.fileno()).st_size - envelope.body_at
    if size < body.size:
        raise _cut_short()
    if size > body.size:
        raise ArtifactRefused("It is longer than it was when it was signed.")
    file.seek(envelope.body_at)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != body.sha256:
        raise ArtifactRefused("Its content was changed after it was signed.")
    file.seek(envelope.body_at)


def _cut_short() -> ArtifactRefused:
    return ArtifactRefused("It is cut short: a part of it is missing.")
