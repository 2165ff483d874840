"""One request and its answer: where it goes, how both pass, and the one way in which it ends.

Its life is: routed (perhaps asked of control) -> given to an upstream -> answered -> over. When nobody answers at a
worker's address it goes to another worker, or is asked of control once more if there is none; and it may be sent
again once, when a connection kept from before turns out to be dead.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

from lazycloud.router import bodies, heads, troubles
from lazycloud.router.accesslog import Line
from lazycloud.router.activity import Count, Load
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


class Exchange:
    """Held by its client; holds an upstream from the moment there is one."""

    __slots__ = (
        "_asked",
        "_asked_again",
        "_dead",
        "_expects",
        "_keep",
        "_rechunk",
        "_retried",
        "_reusable",
        "_showed",
        "began",
        "begun",
        "body",
        "client",
        "count",
        "first_byte",
        "given",
        "head",
        "load",
        "over",
        "plane",
        "received",
        "request_id",
        "route",
        "sent",
        "status",
        "touched",
        "upload",
        "upstream",
        "why",
    )

    def __init__(self, client: Client, head: RequestHead, plane: Plane, received: int) -> None:
        fields = head.fields
        self.client = client
        self.head = head
        self.plane = plane
        self.upload: Upload | None = Upload(fields, plane.settings.body_max) if fields.has_body else None
        self.request_id = fields.request_id or new_request_id()
        self.route: Route | None = None
        self.count: Count | None = None  # of the deployment it is routed to
        self.load: Load | None = None  # of the worker that it goes to
        self.upstream: Upstream | None = None
        self.body: Body | None = None  # of the answer, while it comes
        self.begun = False  # whether a byte of the final answer was written
        self.over = False
        self.status = 0
        self.why = ""  # the kind of trouble, when the router had to end it
        self.received = received  # bytes from the client, head and body
        self.sent = 0
        self.began = monotonic() if plane.access_log is not None else 0.0
        self.given = 0.0  # when an upstream had its head
        self.first_byte = 0.0
        self.touched = plane.clock.now  # when bytes last moved
        self._expects = fields.expects  # a 100 Continue that was not passed on yet
        self._rechunk = False  # the answer's body is chunked for the client
        self._keep = False  # the client's connection after this
        self._reusable = False  # the upstream after this
        self._retried = False
        self._showed = False  # what the ask said of the right to see previews
        self._asked: int | None = None
        self._asked_again = False  # control was told that nobody is where it led
        self._dead: tuple[str, ...] = ()  # addresses where nobody accepted

    # Where it goes

    def start(self) -> None:
        """Route it: by the table, or by asking."""
        fields, limit = self.head.fields, self.plane.settings.body_max
        if limit is not None and fields.length is not None and fields.length > limit:
            self.refuse(troubles.TOO_LARGE)
        elif self.head.target.startswith(OWN_PATHS):
            self._follow(ToControl("page"))
        elif route := self.plane.table.find(self.head.host):
            self._follow(route)
        else:
            self._ask()

    def answered(self, route: Route) -> None:
        """Control's answer to the ask. Who may see previews it may have told us only since."""
        self._asked = None
        refused = isinstance(route, ToControl) and route.reason == "login"
        if refused and not self._showed and self.may_see():
            self._ask()
        else:
            self._follow(route)

    def unanswered(self, trouble: Trouble) -> None:
        """The ask found no answer."""
        self._asked = None
        self.refuse(trouble)

    def _ask(self) -> None:
        if route := self.plane.table.find_passing(self.head.host, monotonic()):
            self._follow(route)
            return
        dead = self._dead[-1] if self._dead else None
        self._showed = self.may_see()
        self._asked = self.plane.link.ask(self, self._intent(), self._showed, dead)
        if self._asked is None:
            self.refuse(troubles.TOO_MANY)

    def _intent(self) -> str:
        if heads.is_robot(self.head.fields, self.plane.settings.robots):
            return "robot"
        return "navigate" if heads.is_navigation(self.head) else "wait"

    def may_see(self) -> bool:
        """Whether the client showed a right to see previews: a cookie for this host, or a token."""
        return self.plane.guard.may_see(self.head.host, self.head.fields, self.plane.clock.unix)

    def is_shut_out(self) -> bool:
        """Whether it was let through to a worker whose preview the client may no longer see."""
        return isinstance(self.route, ToWorker) and self.route.login and not self.may_see()

    def look_again(self) -> None:
        """Cut an answer that goes on, such as a stream of events, when the client may no longer see it."""
        if self.begun and not self.over and self.is_shut_out():
            self._cut("no_longer_allowed", status=499)

    def _follow(self, route: Route) -> None:
        if isinstance(route, ToWorker):
            if route.login and not self.may_see():
                self._follow(ToControl("login"))
                return
            self.count = count = self.plane.activity.of(route.deployment)
            self.load = load = count.choose(route.addresses, self._dead, self.plane.clock.now)
            count.open += 1
            load.open += 1
            address = load.address
        else:
            address = CONTROL
        self.route = route
        upstream = self.plane.pool.take(address)
        if upstream is not None:
            self._give(upstream)
        else:
            self.plane.pool.connect(address, self._connected)

    def _connected(self, upstream: Upstream | None) -> None:
        if self.over:
            if upstream is not None:
                self.plane.pool.put(upstream)
        elif upstream is not None:
            self._give(upstream)
        elif isinstance(self.route, ToWorker) and self.load is not None:
            self._nobody_there(self.route, self.load)
        else:
            self.refuse(troubles.NO_CONTROL)

    def _nobody_there(self, route: ToWorker, load: Load) -> None:
        """Go to another of its workers, by what is known now; else see what control says."""
        load.refused(self.plane.clock.now)
        self._dead = (*self._dead, load.address)
        now = self.plane.table.find(self.head.host)
        same = isinstance(now, ToWorker) and now.deployment == route.deployment
        if isinstance(now, ToWorker) and same and not set(now.addresses).issubset(self._dead):
            self.plane.link.refused(route.deployment, load.address)
            self._leave_deployment(route)
            self._follow(now)
            return
        self.plane.table.drop(self.head.host, route)
        if self._asked_again:
            self.refuse(troubles.NOBODY)
            return
        self._asked_again = True
        self._leave_deployment(route)
        self.count = self.load = None
        self._ask()

    def _give(self, upstream: Upstream) -> None:
        """Send the request."""
        self.touched = self.plane.clock.now
        self.given = monotonic()
        self.upstream = upstream
        upstream.begin(self)
        reason = self.route.reason.encode() if isinstance(self.route, ToControl) else None
        forwarded = self.client.forwarding(self.head)
        raw = heads.write_request(self.head, forwarded, self.request_id, reason)
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
        if self.upload is None:
            return data
        try:
            rest = self.upload.receive(data)
        except BadBody as error:
            rest = b""
            self.refuse(troubles.malformed_body(str(error)))
        except TooLarge:
            rest = self.upload.rest
            self.refuse(troubles.TOO_LARGE)
        size = len(data) - len(rest)
        self.received += size
        if self.count is not None:
            self.count.received += size
        return rest

    @property
    def uploading(self) -> bool:
        """Whether the client still has a body to send."""
        return self.upload is not None and not self.upload.done

    # The answer

    def interim(self, head: AnswerHead) -> None:
        """100 Continue is passed once and to who expects it; other 1xx to who can read them."""
        self.touched = self.plane.clock.now
        if head.status == 100:
            if not (self._expects and self.uploading):
                return
            self._expects = False
        if self.head.minor:
            self.client.write(heads.write_answer(head, b"", b"", ours=False))

    def answer(self, head: AnswerHead, data: bytes) -> None:
        """The final head, and what came after it. Raises BadBody before anything is written."""
        self.touched = self.plane.clock.now
        self.first_byte = monotonic()
        self.status = head.status
        if head.status == 101:
            self._tunnel(head, data)
            return
        without = head.without_body(self.head.method)
        self._keep = self._keeps(head, without)
        self._reusable = head.keep_alive
        body = None if without or head.length == 0 else _body_of(head)
        raw = self._relayed(head, without, body)
        if self.count is not None:
            self.count.answered(head.status, self.first_byte - self.given)
        if body is None:
            self._write(raw)
            self._reusable = head.keep_alive and not data
            self._finish()
            return
        self.body = body
        if data:
            self._write(b"".join([raw, *self._pieces(body, data)]))
        else:
            self._write(raw)
        if body.done:
            self._end_body(body)

    def relay(self, data: bytes) -> None:
        """More of the answer's body. Raises BadBody."""
        self.touched = self.plane.clock.now
        if (body := self.body) is not None:
            pieces = self._pieces(body, data)
            self._write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            if body.done:
                self._end_body(body)

    def _keeps(self, head: AnswerHead, without: bool) -> bool:
        """Whether the client's connection may carry another request after this answer."""
        lengthless = not without and head.length is None and not self.head.minor
        return (
            self.head.fields.keep_alive
            and not (lengthless or self.head.fields.upgrades or self.uploading)
            and not self.plane.draining
        )

    def _connection(self) -> bytes:
        if not self._keep:
            return b"Connection: close"
        return b"" if self.head.minor else b"Connection: keep-alive"

    def _relayed(self, head: AnswerHead, without: bool, body: Body | None) -> bytes:
        """The answer's head for the client."""
        ours = isinstance(self.route, ToControl)
        if head.length is not None and self._keep and self.head.minor and not ours and head.status != 204:
            return heads.relay_answer(head)
        return heads.write_answer(head, self._framing(head, without, body), self._connection(), ours)

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
        self._reusable = self._reusable and not body.rest
        self._finish()

    def _write(self, raw: bytes) -> None:
        self.begun = True
        size = len(raw)
        self.sent += size
        if self.count is not None:
            self.count.sent += size
        self.client.write(raw)

    def _tunnel(self, head: AnswerHead, data: bytes) -> None:
        upstream = self.upstream
        if upstream is None or not self.head.websocket or head.upgrade.lower() != b"websocket":
            raise BadBody("it changed to a protocol that nobody asked for")
        raw = heads.write_answer(
            head, b"", b"Connection: Upgrade\r\nUpgrade: websocket", isinstance(self.route, ToControl)
        )
        self.begun = self.over = True
        if self.count is not None:
            self.count.answered(head.status, self.first_byte - self.given)
        self._count()
        self.client.tunnel(upstream, raw + data, self)

    # How it ends

    def lost(self, upstream: Upstream, exc: Exception | None) -> None:
        """The upstream's connection is gone."""
        if self.body is not None and self.body.ends_at_eof() and exc is None:
            self._end_until_close()
        elif self.begun:
            self._cut("cut")
        elif self._may_retry(upstream):
            self._retried = True
            self._detach()
            self.plane.pool.connect(upstream.address, self._connected)
        else:
            self.refuse(troubles.NO_CONTROL if isinstance(self.route, ToControl) else troubles.CUT)

    def misunderstood(self, why: str) -> None:
        """The worker's answer is malformed; its connection is closed already."""
        if self.begun:
            self._cut("misunderstood")
        else:
            self.refuse(troubles.misunderstood(why))

    def gone(self) -> None:
        """The client went away: 499, in the language of proxies."""
        if not self.over:
            self._fail(499, "client_left")
            self._end()

    def refuse(self, trouble: Trouble) -> None:
        """End it with an answer of our own; what was begun can only be cut."""
        if self.over:
            return
        if self.begun:
            self._cut(trouble.kind)
            return
        self._fail(trouble.status, trouble.kind)
        self._keep = self.head.fields.keep_alive and not (
            self.uploading or self.head.fields.upgrades or self.plane.draining
        )
        self._reusable = False
        self._write(self._page(trouble))
        self._finish()

    def _page(self, trouble: Trouble) -> bytes:
        """An answer of our own."""
        return self.plane.pages.render(
            trouble,
            self.head.fields.find(b"accept"),
            self.request_id,
            head_only=self.head.method == b"HEAD",
            connection=self._connection(),
            again=self.head.method == b"GET",
        )

    def sweep(self, now: float) -> None:
        """End it if a deadline has passed."""
        settings, idle = self.plane.settings, now - self.touched
        if self._asked is not None:
            if idle > settings.held_timeout:
                self.refuse(troubles.HELD_TOO_LONG)
        elif self.upstream is None:
            return  # connecting has its own deadline
        elif self.uploading:
            if idle > settings.idle_timeout:
                self.refuse(troubles.SLOW_UPLOAD if self.upstream.full else troubles.STALLED)
            elif self.upload is not None and self.upload.lags(settings, invited=not self._expects):
                self.refuse(troubles.STALLED)
        elif idle > (settings.idle_timeout if self.begun else settings.answer_timeout):
            if self.client.full:
                self._cut("client_slow", status=499)
            else:
                self.refuse(troubles.SLOW)

    def _may_retry(self, upstream: Upstream) -> bool:
        unsent = self.upload is None or not self.upload.sent
        return (
            upstream.reused and not upstream.spoke and self.head.idempotent and unsent and not self._retried
        )

    def _end_until_close(self) -> None:
        if self._rechunk:
            self._write(bodies.LAST_CHUNK)
        self._reusable = False
        self._finish()

    def _fail(self, status: int, why: str) -> None:
        self.status, self.why = status, why
        if self.count is not None:
            self.count.fell(status)

    def _cut(self, why: str, status: int = 502) -> None:
        """Part of an answer was written: the client must see that the rest is missing. 499: it is to blame."""
        self.why = why
        if self.count is not None:
            self.count.fell(status)
            self.count.errors += status >= 500 > self.status
        self._end()
        self.client.cut(self)

    def _finish(self) -> None:
        uploading = self.uploading
        self._end()
        self.client.finished(keep=self._keep and not uploading, linger=uploading)

    def _end(self) -> None:
        """Over, whether well or not; the upstream serves others if the answer came whole and it is willing."""
        self.over = True
        if self._asked is not None:
            self.plane.link.leave(self._asked)
            self._asked = None
        upstream = self.upstream
        if upstream is not None:
            sent_whole = self.upload is None or self.upload.leaves_nothing
            whole = self._reusable and not self.why and sent_whole
            self._detach()
            if whole and not upstream.transport.is_closing():
                self.plane.pool.put(upstream)
            else:
                upstream.abort()
        self._count()
        self.plane.note(self)

    def _detach(self) -> None:
        if self.upstream is not None:
            self.upstream.end()
            self.upstream = None
        if self.upload is not None:
            self.upload.end()

    def _count(self) -> None:
        """Tell what came of it to the deployment's count."""
        count, route = self.count, self.route
        if count is None or not isinstance(route, ToWorker):
            return
        count.requests += 1
        if self.status >= 500:
            count.errors += 1
        elif self.status != 499 and not heads.is_robot(self.head.fields, self.plane.settings.robots):
            count.last = self.plane.clock.unix
        self._leave_deployment(route)

    def line(self) -> Line:
        """What the access log says of it."""
        route, fields = self.route, self.head.fields
        worker = route if isinstance(route, ToWorker) else None
        now = monotonic()
        return Line(
            began=time() - (now - self.began),
            seconds=now - self.began,
            client=self.client.peer,
            status=self.status,
            by="router" if self.why else "worker" if worker else "control",
            why=self.why,
            method=self.head.method,
            target=self.head.target,
            host=self.head.host,
            minor=self.head.minor,
            request_id=self.request_id,
            received=self.received,
            sent=self.sent,
            first_byte=self.first_byte - self.began if self.first_byte else None,
            deployment=worker.deployment if worker else None,
            upstream=self.load.address if worker and self.load else None,
            agent=fields.agent,
            referer=fields.find(b"referer"),
            tls=self.client.tls(),
        )

    def _leave_deployment(self, route: ToWorker) -> None:
        if self.count is not None and self.load is not None:
            self.plane.activity.leave(route.deployment, self.count, self.load)


def _body_of(head: AnswerHead) -> Body:
    if head.chunked:
        return Chunked()
    return UntilClose() if head.length is None else Sized(head.length)
