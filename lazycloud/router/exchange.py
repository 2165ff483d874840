"""One request and its answer: where it goes, how both pass, and the one way in which it ends.

Its life is: routed (perhaps asked of control) -> given to an upstream -> answered -> over. It may fall back from
the second to the first once, when nobody answers at the address, and be sent again once, when a connection kept
from before turns out to be dead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazycloud.router import access, bodies, heads
from lazycloud.router.activity import Count
from lazycloud.router.bodies import BadBody, Body, Chunked, Sized, UntilClose
from lazycloud.router.heads import AnswerHead, RequestHead
from lazycloud.router.pages import Trouble, new_request_id
from lazycloud.router.pool import CONTROL
from lazycloud.router.routes import Route, ToControl, ToWorker
from lazycloud.router.upload import TooLarge, Upload

if TYPE_CHECKING:
    from lazycloud.router.client import Client
    from lazycloud.router.plane import Plane
    from lazycloud.router.upstream import Upstream

OWN_PATHS = b"/.well-known/lazycloud/"

_NOBODY = Trouble(502, "Nobody answers where this app should run.", "It may have stopped; try again.")
_CUT = Trouble(502, "The app closed the connection before it answered.", "Its log may say why.")
_SLOW = Trouble(504, "The app did not answer in time.", "Its log may say why.")
_SLOW_UPLOAD = Trouble(504, "The app stopped reading the request.", "Its log may say why.")
_STALLED = Trouble(408, "The request did not arrive: nothing more of it came.", "Send it again.")
_TOO_LARGE = Trouble(413, "The request's body is larger than this server takes.")
_NO_CONTROL = Trouble(503, "lazycloud is starting.", "Try again in a moment.", retry_after=2)
NO_LINK = Trouble(503, "lazycloud cannot be asked where this address leads.", "Try again.", retry_after=5)
HELD_TOO_LONG = Trouble(504, "The app was not ready in time.", "Its progress page says where it is.")
TOO_MANY = Trouble(503, "Too many requests wait for apps to start.", "Try again.", retry_after=5)
STOPPING = Trouble(503, "lazycloud is being restarted.", "Try again.", retry_after=2)


class Exchange:
    """Held by its client; holds an upstream from the moment there is one."""

    __slots__ = (
        "_asked",
        "_dead",
        "_keep",
        "_rechunk",
        "_retried",
        "_reusable",
        "begun",
        "body",
        "client",
        "count",
        "head",
        "over",
        "plane",
        "route",
        "status",
        "touched",
        "upload",
        "upstream",
    )

    def __init__(self, client: Client, head: RequestHead, plane: Plane) -> None:
        self.client = client
        self.head = head
        self.plane = plane
        self.upload = Upload(head, plane.settings.body_max) if head.has_body else None
        self.route: Route | None = None
        self.count: Count | None = None  # of the deployment it is routed to
        self.upstream: Upstream | None = None
        self.body: Body | None = None  # of the answer, while it comes
        self.begun = False  # whether a byte of the final answer was written
        self.over = False
        self.status = 0
        self.touched = plane.clock.now  # when bytes last moved
        self._rechunk = False  # the answer's body is chunked for the client
        self._keep = False  # the client's connection after this
        self._reusable = False  # the upstream after this
        self._retried = False
        self._asked: int | None = None
        self._dead: str | None = None

    # Where it goes

    def start(self) -> None:
        """Route it: by the table, or by asking."""
        limit = self.plane.settings.body_max
        if limit is not None and self.head.length is not None and self.head.length > limit:
            self.refuse(_TOO_LARGE)
        elif self.head.target.startswith(OWN_PATHS):
            self._follow(ToControl("page"))
        elif route := self.plane.table.find(self.head.host):
            self._follow(route)
        else:
            self._ask()

    def answered(self, route: Route) -> None:
        """Control's answer to the ask."""
        self._asked = None
        self._follow(route)

    def unanswered(self, trouble: Trouble) -> None:
        """The ask found no answer."""
        self._asked = None
        self.refuse(trouble)

    def _ask(self) -> None:
        self._asked = self.plane.link.ask(self, self._intent(), self.may_see(), self._dead)
        if self._asked is None:
            self.refuse(TOO_MANY)

    def _intent(self) -> str:
        if heads.is_robot(self.head.agent, self.plane.settings.robots):
            return "robot"
        return "navigate" if heads.is_navigation(self.head) else "wait"

    def may_see(self) -> bool:
        """Whether the client showed a right to see previews: a cookie for this host, or the token."""
        settings, head = self.plane.settings, self.head
        if head.token and access.token_valid(head.token, settings.token_sha256):
            return True
        values = (value for cookies in head.cookies for value in access.previews(cookies))
        return any(
            access.valid(settings.preview_key, head.host, value, self.plane.clock.unix) for value in values
        )

    def _follow(self, route: Route) -> None:
        if isinstance(route, ToWorker):
            if route.login and not self.may_see():
                route = ToControl("login")
            else:
                self.count = self.plane.activity.of(route.deployment)
                self.count.open += 1
        self.route = route
        address = route.address if isinstance(route, ToWorker) else CONTROL
        if upstream := self.plane.pool.take(address):
            self._give(upstream)
        else:
            self.plane.pool.connect(address, self._connected)

    def _connected(self, upstream: Upstream | None) -> None:
        if self.over:
            if upstream is not None:
                self.plane.pool.put(upstream)
        elif upstream is not None:
            self._give(upstream)
        elif isinstance(self.route, ToWorker):
            self._nobody_there(self.route)
        else:
            self.refuse(_NO_CONTROL)

    def _nobody_there(self, route: ToWorker) -> None:
        self.plane.table.drop(self.head.host, route)
        if self._dead is not None:
            self.refuse(_NOBODY)
            return
        self._leave_deployment()
        self._dead = route.address
        self._ask()

    def _give(self, upstream: Upstream) -> None:
        """Send the request."""
        self.touched = self.plane.clock.now
        self.upstream = upstream
        upstream.begin(self)
        head, reason = self.head, None
        if isinstance(self.route, ToControl):
            reason = self.route.reason.encode()
        head.request_id = head.request_id or new_request_id()
        raw = heads.write_request(head, self.client.forwarding(head), head.request_id, reason)
        upstream.transport.write(raw)
        if self.count is not None:
            self.count.received += len(raw)
        if self.client.full:
            upstream.pause(True)
        if self.upload is not None:
            self.upload.begin(upstream)
            self.client.settle()

    # The request's body

    def receive(self, data: bytes) -> bytes:
        """More from the client; what belongs to its next request is returned."""
        self.touched = self.plane.clock.now
        if self.count is not None:
            self.count.received += len(data)
        try:
            return self.upload.receive(data) if self.upload is not None else data
        except BadBody as error:
            self.refuse(Trouble(400, f"The request's body is malformed: {error}."))
        except TooLarge:
            self.refuse(_TOO_LARGE)
        return b""

    @property
    def uploading(self) -> bool:
        """Whether the client still has a body to send."""
        return self.upload is not None and not self.upload.done

    # The answer

    def interim(self, head: AnswerHead) -> None:
        """100 Continue is passed once and to who expects it; other 1xx to who can read them."""
        self.touched = self.plane.clock.now
        if head.status == 100:
            if not (self.head.expects and self.uploading):
                return
            self.head.expects = False
        if self.head.minor:
            self.client.write(heads.write_answer(head, b"", b"", ours=False))

    def answer(self, head: AnswerHead, data: bytes) -> None:
        """The final head, and what came after it. Raises BadBody before anything is written."""
        self.touched = self.plane.clock.now
        self.status = head.status
        if head.status == 101:
            self._tunnel(head, data)
            return
        without = head.without_body(self.head.method)
        keep = self._keeps(head, without)
        body = None if without or head.length == 0 else _body_of(head)
        framing = self._framing(head, without, body)
        raw = heads.write_answer(head, framing, self._connection(keep), isinstance(self.route, ToControl))
        if body is None:
            self._write([raw])
            self._finish(keep, reusable=head.keep_alive and not data)
            return
        self.body = body
        pieces = self._pieces(body, data) if data else []
        self._write([raw, *pieces])
        self._keep, self._reusable = keep, head.keep_alive
        if body.done:
            self._end_body(body)

    def relay(self, data: bytes) -> None:
        """More of the answer's body. Raises BadBody."""
        self.touched = self.plane.clock.now
        if (body := self.body) is not None:
            self._write(self._pieces(body, data))
            if body.done:
                self._end_body(body)

    def _keeps(self, head: AnswerHead, without: bool) -> bool:
        """Whether the client's connection may carry another request after this answer."""
        lengthless = not without and head.length is None and not self.head.minor
        return (
            self.head.keep_alive
            and not (lengthless or self.head.websocket or self.uploading)
            and not self.plane.draining
        )

    def _connection(self, keep: bool) -> bytes:
        if not keep:
            return b"Connection: close"
        return b"" if self.head.minor else b"Connection: keep-alive"

    def _framing(self, head: AnswerHead, without: bool, body: Body | None) -> bytes:
        if without and (head.status == 204 or head.length is None):
            return b""
        if head.length is not None:
            return b"Content-Length: %d" % head.length
        self._rechunk = bool(self.head.minor) and body is not None
        return b"Transfer-Encoding: chunked" if self._rechunk else b""

    def _pieces(self, body: Body, data: bytes) -> list[bytes]:
        pieces = body.feed(data)
        if not self._rechunk:
            return pieces
        pieces = [bodies.chunk(piece) for piece in pieces]
        if body.done:
            pieces.append(bodies.last_chunk(body.trailers))
        return pieces

    def _end_body(self, body: Body) -> None:
        self._finish(self._keep, reusable=self._reusable and not body.rest)

    def _write(self, pieces: list[bytes]) -> None:
        self.begun = True
        raw = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self.count is not None:
            self.count.sent += len(raw)
        self.client.write(raw)

    def _tunnel(self, head: AnswerHead, data: bytes) -> None:
        upstream = self.upstream
        if upstream is None or not self.head.websocket or head.upgrade.lower() != b"websocket":
            raise BadBody("it changed to a protocol that nobody asked for")
        raw = heads.write_answer(
            head, b"", b"Connection: Upgrade\r\nUpgrade: websocket", isinstance(self.route, ToControl)
        )
        self.begun = self.over = True
        self._leave_deployment(count_it=True)
        self.client.tunnel(upstream, raw + data, self.count)

    # How it ends

    def lost(self, upstream: Upstream, exc: Exception | None) -> None:
        """The upstream's connection is gone."""
        if self.body is not None and self.body.ends_at_eof() and exc is None:
            self._end_until_close()
        elif self.begun:
            self._cut()
        elif self._may_retry(upstream):
            self._retried = True
            self._detach()
            self.plane.pool.connect(upstream.address, self._connected)
        else:
            self.refuse(_CUT)

    def misunderstood(self, why: str) -> None:
        """The worker's answer is malformed; its connection is closed already."""
        if self.begun:
            self._cut()
        else:
            self.refuse(
                Trouble(502, f"The app's answer cannot be understood: {why}.", "Its log may say why.")
            )

    def gone(self) -> None:
        """The client went away: 499, in the language of proxies."""
        if not self.over:
            self.status = 499
            self._end(reusable=False)

    def refuse(self, trouble: Trouble) -> None:
        """End it with an answer of our own; what was begun can only be cut."""
        if self.over:
            return
        if self.begun:
            self._cut()
            return
        self.status = trouble.status
        keep = self.head.keep_alive and not (self.uploading or self.head.websocket or self.plane.draining)
        raw = self.client.page(trouble, self.head, self._connection(keep))
        self._write([raw])
        self._finish(keep, reusable=False)

    def sweep(self, now: float) -> None:
        """End it if a deadline has passed."""
        settings, idle = self.plane.settings, now - self.touched
        if self._asked is not None:
            if idle > settings.held_timeout:
                self.refuse(HELD_TOO_LONG)
        elif self.upstream is None:
            return  # connecting has its own deadline
        elif self.uploading:
            if idle > settings.idle_timeout:
                self.refuse(_SLOW_UPLOAD if self.upstream.full else _STALLED)
        elif idle > (settings.idle_timeout if self.begun else settings.answer_timeout):
            self.refuse(_SLOW)

    def _may_retry(self, upstream: Upstream) -> bool:
        unsent = self.upload is None or not self.upload.sent
        return (
            upstream.reused and not upstream.spoke and self.head.idempotent and unsent and not self._retried
        )

    def _end_until_close(self) -> None:
        if self._rechunk:
            self._write([bodies.LAST_CHUNK])
        self._finish(self._keep, reusable=False)

    def _cut(self) -> None:
        """Part of an answer was written: the client must see that the rest is missing."""
        self._end(reusable=False)
        self.client.cut(self)

    def _finish(self, keep: bool, *, reusable: bool) -> None:
        sent_all = not self.uploading
        self._end(reusable=reusable and sent_all)
        self.client.finished(keep=keep and sent_all, linger=not sent_all)

    def _end(self, *, reusable: bool) -> None:
        self.over = True
        if self._asked is not None:
            self.plane.link.leave(self._asked)
            self._asked = None
        upstream = self.upstream
        self._detach()
        if upstream is not None:
            if reusable and not upstream.transport.is_closing():
                self.plane.pool.put(upstream)
            else:
                upstream.abort()
        self._leave_deployment(count_it=True)

    def _detach(self) -> None:
        if self.upstream is not None:
            self.upstream.end()
            self.upstream = None
        if self.upload is not None:
            self.upload.end()

    def _leave_deployment(self, *, count_it: bool = False) -> None:
        count = self.count
        if count is None or not isinstance(self.route, ToWorker):
            return
        if count_it:
            count.requests += 1
            if self.status >= 500:
                count.errors += 1
            elif self.status != 499 and not heads.is_robot(self.head.agent, self.plane.settings.robots):
                count.last = self.plane.clock.unix
        self.plane.activity.leave(self.route.deployment, count)
        if not self.over:
            self.count = None


def _body_of(head: AnswerHead) -> Body:
    if head.chunked:
        return Chunked()
    return UntilClose() if head.length is None else Sized(head.length)
