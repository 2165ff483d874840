"""Certificates for TLS, read from their files: whose they are, how long they are good, and that the key fits.

The files are PEM, as certbot, lego, acme.sh and mkcert write them: the server's own certificate first, then its
chain; the key in a file of its own, or in the same.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lazycloud.errors import BadInput


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of a certificate and its key; the same path twice where one file holds both."""

    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """`names` are in lower case, some with `*` as their first label; `context` shows it to clients."""

    files: Files
    names: tuple[str, ...]
    begins: datetime
    ends: datetime
    context: ssl.SSLContext

    def complaint(self, now: datetime) -> str:
        """Why browsers will refuse it now; "" when its time is not the reason."""
        if now > self.ends:
            return f"The certificate {self.files.cert} expired on {self.ends:%d %B %Y}."
        if now < self.begins:
            return f"The certificate {self.files.cert} is not valid before {self.begins:%d %B %Y, %H:%M} UTC."
        return ""


class _Encrypted(Exception):
    """OpenSSL asks for a pass phrase."""


def read(files: Files) -> Certificate:
    """Read and check them. Takes some milliseconds and what the disk takes. Raises BadInput."""
    names, begins, ends = _facts(files.cert)
    if b"PRIVATE KEY-----" not in _content(files.key):
        advice = (
            "Give its key's file too (--tls-key)." if files.key == files.cert else "It must be a PEM file."
        )
        raise BadInput(f"There is no private key in {files.key}.", advice)
    context = prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    try:
        context.load_cert_chain(files.cert, files.key, _refuse)
    except _Encrypted:
        raise BadInput(
            f"The key {files.key} is encrypted, and nobody is there to type its pass phrase.",
            "Give it without one, readable by lazycloud's user only: openssl pkey -in KEY -out PLAIN",
        ) from None
    except (OSError, ValueError) as problem:
        raise _trouble(files, problem) from problem
    return Certificate(files, names, begins, ends, context)


def complaints(every: Iterable[Files]) -> list[str]:
    """Read them all: what is to be said of those that can be used all the same. Raises BadInput."""
    now = datetime.now(UTC)
    return [complaint for files in every if (complaint := read(files).complaint(now))]


def prepare(context: ssl.SSLContext) -> ssl.SSLContext:
    """What holds for every connection: TLS 1.2 or newer with Python's ciphers, HTTP/1.1, no renegotiation."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client's cheap way to make us work
    context.set_alpn_protocols(["http/1.1"])
    return context


def _facts(path: str) -> tuple[tuple[str, ...], datetime, datetime]:
    """Names and times of the first certificate in a file."""
    from cryptography import x509  # 13 MB and 50 ms: only for who uses TLS

    try:
        cert = x509.load_pem_x509_certificate(_content(path))
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(name.lower() for name in found.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()  # nobody asks for it by name; it can only be the default
    except (ValueError, x509.DuplicateExtension) as problem:
        advice = "It must be a PEM file, which begins with -----BEGIN CERTIFICATE-----."
        raise BadInput(f"There is no certificate in {path} that can be read.", advice) from problem
    return names, cert.not_valid_before_utc, cert.not_valid_after_utc


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise BadInput(f"{path} cannot be read: {problem.strerror}.") from problem


def _refuse() -> str:
    raise _Encrypted


def _trouble(files: Files, problem: OSError | ValueError) -> BadInput:
    if getattr(problem, "reason", "") in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
        return BadInput(
            f"The key {files.key} is not that of the certificate {files.cert}.",
            "A file with a chain begins with the server's own certificate.",
        )
    why = getattr(problem, "reason", None) or str(problem)
    return BadInput(f"{files.cert} and {files.key} cannot be used for TLS: {why}.")
