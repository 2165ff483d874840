"""What goes wrong between a client and a versionbase: each kind has its word in the protocol."""

from __future__ import annotations

from lazycloud.errors import BadInput, Conflict, DiskFull, LazycloudError, NotFound


class Exists(Conflict):
    """A key that is there already, or a value that a unique index has."""


class Invalid(BadInput):
    """A document that the schema of its collection refuses."""


class TooLarge(BadInput):
    """A document or a frame beyond its limit."""


class TooCostly(BadInput):
    """An expression whose evaluation took more than it may."""


class Denied(LazycloudError):
    """A wrong key, or one that may not do this."""


class Gone(NotFound):
    """A version, a snapshot or a sequence that is there no more."""


class Late(LazycloudError):
    """Not done by its deadline."""


class Cancelled(LazycloudError):
    """Its client does not want it any more."""


class Busy(LazycloudError):
    """More at once than may be."""


class OverLimit(DiskFull):
    """A version that has as much as it may."""


class ReadOnly(LazycloudError):
    """A transaction that was begun to read, or one in the past."""


KINDS: tuple[tuple[type[LazycloudError], str], ...] = (  # the first that fits
    (Exists, "exists"),
    (Invalid, "invalid"),
    (TooLarge, "too-large"),
    (TooCostly, "bad-input"),
    (Denied, "denied"),
    (Gone, "gone"),
    (Late, "deadline"),
    (Cancelled, "cancelled"),
    (Busy, "busy"),
    (ReadOnly, "read-only"),
    (DiskFull, "full"),
    (NotFound, "not-found"),
    (Conflict, "conflict"),
    (BadInput, "bad-input"),
)


def kind(problem: LazycloudError) -> str:
    """Its word in the protocol; `failed` for what is the server's own fault."""
    return next((word for known, word in KINDS if isinstance(problem, known)), "failed")
