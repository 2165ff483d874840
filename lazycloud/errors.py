"""What can go wrong, as data in and a sentence out.

Every error says what happened, where, and what to do next. `status` is what HTTP answers, `exit_code`
what the command line returns. A class exists only because somebody catches it.
"""

from __future__ import annotations

from collections.abc import Sequence


class LazycloudError(Exception):
    """The one base. `sentence` says what and where, `advice` what to do next (may be empty)."""

    status = 500
    exit_code = 1
    kind = "error"

    def __init__(self, sentence: str, advice: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.sentence} {self.advice}".rstrip()


class BadInput(LazycloudError):
    """Somebody gave us what cannot be right: a flag, a file's content, a request's body."""

    status = 422
    exit_code = 2
    kind = "bad input"


class NotFound(LazycloudError):
    """No such app, commit, deployment. `near` are the names that look most like what was asked for."""

    status = 404
    kind = "not found"

    def __init__(self, sentence: str, advice: str = "", near: Sequence[str] = ()) -> None:
        super().__init__(sentence, advice or (f"Did you mean {' or '.join(near)}?" if near else ""))
        self.near = tuple(near)


class Ambiguous(LazycloudError):
    """A label that names more than one commit. `choices` are (label that is exact, what it is)."""

    status = 300
    kind = "ambiguous"

    def __init__(self, label: str, choices: Sequence[tuple[str, str]]) -> None:
        super().__init__(f"“{label}” names {len(choices)} commits.", "Use more letters of the commit id.")
        self.label = label
        self.choices = tuple(choices)


class Conflict(LazycloudError):
    """The state of things does not allow it: another server owns the home, a promote is under way."""

    status = 409
    kind = "conflict"


class Unauthorised(LazycloudError):
    """No token, no login, or one that is not right."""

    status = 401
    kind = "unauthorised"


class Forbidden(LazycloudError):
    """A write from a page of another origin, or what a role does not allow."""

    status = 403
    kind = "forbidden"


class NotJson(LazycloudError):
    """A body that any page's form could have sent, where it must be JSON."""

    status = 415
    kind = "not json"


class Busy(LazycloudError):
    """Over a limit for now; the same request may be made again after `retry_after` seconds."""

    status = 503
    kind = "busy"

    def __init__(self, sentence: str, advice: str = "", retry_after: int = 5) -> None:
        super().__init__(sentence, advice)
        self.retry_after = retry_after


class TooLarge(LazycloudError):
    """More bytes than anybody needs here."""

    status = 413
    kind = "too large"


class TooOften(Busy):
    """One client tries something faster than anybody needs."""

    status = 429
    kind = "too often"


class Gone(LazycloudError):
    """It was good once: a link that has expired, or was taken back."""

    status = 410
    kind = "gone"


class Unavailable(LazycloudError):
    """A point of a database whose bytes are not there, or not as they were: never guessed."""

    status = 410
    kind = "unavailable"


class StepFailed(LazycloudError):
    """A step of a deploy that did not succeed: the app's doing, or the machine's.

    `last` are the last lines of output, oldest first, as they were written (ANSI colours included).
    """

    status = 502
    kind = "step failed"

    def __init__(self, sentence: str, advice: str = "", last: Sequence[str] = ()) -> None:
        super().__init__(sentence, advice)
        self.last = tuple(last)


class DiskFull(StepFailed):
    """The disk takes no more; tried again if room can be made. `needed`: bytes, 0 where nobody knows."""

    def __init__(self, sentence: str, advice: str = "", needed: int = 0) -> None:
        super().__init__(sentence, advice)
        self.needed = needed
