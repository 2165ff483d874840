"""Why the router makes an answer itself: every reason, its status, and what people are told.

Each sentence says what happened; `fault` where it has to be mended; the advice what to do about it.
"""

from __future__ import annotations

from lazycloud.router.pages import Trouble

_LOG = "What it wrote may say why: the owner sees it with “lazycloud logs”."
_SENDER = "Browsers send none like it: look at the program, or the proxy, that sent it."

# The request

NOT_HTTP = Trouble(400, "This is no HTTP/1.1 request.", _SENDER, kind="not_http")
STALLED = Trouble(
    408,
    "The rest of the request’s body did not arrive.",
    "The connection may be slow or broken: send it again.",
    kind="body_stalled",
)
LATE_HEAD = Trouble(
    408,
    "The request’s head did not arrive in time.",
    "The connection may be slow or broken: send it again.",
    kind="head_late",
)
TOO_LARGE = Trouble(
    413,
    "The request’s body is larger than this server takes.",
    "Send less at once. The owner can raise “body_max”.",
    kind="too_large",
)
LONG_TARGET = Trouble(
    414,
    "The request’s address is too long.",
    "What is this long belongs into a request’s body: a form can send it with POST.",
    kind="target_too_long",
)
LONG_HEAD = Trouble(
    431,
    "The request’s headers are too large.",
    "Mostly cookies are to blame: delete those of this site, and load it again.",
    kind="head_too_large",
)


def malformed(why: str, status: int = 400) -> Trouble:
    """`why` has the request as its subject: “it has no Host”."""
    if status == 417:
        return Trouble(417, f"This request cannot be met: {why}.", _SENDER, kind="expectation")
    return Trouble(status, f"This request is malformed: {why}.", _SENDER, kind="malformed")


def not_https(advice: str) -> Trouble:
    return Trouble(400, "This port speaks https, and the request was plain http.", advice, kind="not_https")


def malformed_body(why: str) -> Trouble:
    return Trouble(400, f"The request’s body is malformed: {why}.", _SENDER, kind="malformed_body")


# The app

NOBODY = Trouble(
    502,
    "Nobody answers where this app should run.",
    "It may have stopped just now: try again.",
    kind="nobody_there",
)
CUT = Trouble(502, "The app closed the connection before it answered.", _LOG, kind="cut")
SLOW = Trouble(504, "The app did not answer in time.", _LOG, kind="slow")
SLOW_UPLOAD = Trouble(504, "The app stopped reading the request.", _LOG, kind="slow_upload")
HELD_TOO_LONG = Trouble(
    504,
    "The app was not ready in time.",
    "This address, opened in a browser, shows how far it is.",
    kind="held_too_long",
)


def misunderstood(why: str) -> Trouble:
    """The app's answer was. `why` is a sentence without its end."""
    return Trouble(502, f"The app’s answer cannot be understood: {why}.", _LOG, kind="misunderstood")


# lazycloud

NO_CONTROL = Trouble(
    503, "lazycloud is starting.", "That takes a few seconds.", retry_after=2, kind="no_control"
)
NO_LINK = Trouble(
    503,
    "lazycloud cannot find out where this address leads.",
    "Its control process does not answer; it is started again by itself.",
    retry_after=5,
    kind="no_link",
)
TOO_MANY = Trouble(
    503,
    "Too many requests wait for apps to start.",
    "As soon as some of them are answered there is room again.",
    retry_after=5,
    kind="too_many_held",
)
STOPPING = Trouble(
    503, "lazycloud is being restarted.", "That takes a few seconds.", retry_after=2, kind="stopping"
)


def wrong_route(why: str) -> Trouble:
    """Control answered an ask with what is no route."""
    return Trouble(
        502,
        f"lazycloud answered itself wrongly: {why}.",
        "That is a bug of lazycloud.",
        kind="wrong_route",
        fault="lazycloud",
    )
