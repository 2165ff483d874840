"""The workers of one deployment while it is ready: watched, probed, replaced, brought to number.

A worker that ends while others serve is replaced here. When the last one that serves ends, the deployment itself
has come down: that is the fleet's to answer (`fell`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from lazycloud import store
from lazycloud.deployments.deployment import Deployment
from lazycloud.deployments.post import Post
from lazycloud.errors import Conflict, LazycloudError
from lazycloud.events import EventLog, WorkerEnded, WorkerFailed, WorkerReady, WorkerUnhealthy
from lazycloud.states import State
from lazycloud.workers.readiness import ask_health
from lazycloud.workers.worker import Ended, Worker

log = logging.getLogger(__name__)

SOON = 60.0  # seconds: a worker that ends earlier than this after its start has crashed
PAUSES = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before each further start; the last again and again
JITTER = 0.25  # of a pause, either way: what ended together is not started together
TRIES = 3  # crashes, one after the other, after which nobody but production is started again
MISSES = 3  # health checks, one after the other

Hire = Callable[[Post], Coroutine[Any, Any, Worker]]
"""Start a worker for a post and wait until it is ready. Raises LazycloudError or OSError; nothing runs then."""

Fell = Callable[[Post, Worker, Ended], None]


def pause(crashes: int) -> float:
    """Seconds to wait before the start after so many crashes in a row."""
    seconds = PAUSES[min(max(crashes, 1), len(PAUSES)) - 1]
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


class _Dismissed(Conflict):
    """Nobody is wanted at that post any more."""


class Crew:
    """`route` makes routers know the addresses of now; `for_ever` tells whether its workers are never given up."""

    def __init__(
        self,
        deployment: Deployment,
        events: EventLog,
        hire: Hire,
        route: Callable[[], Awaitable[None]],
        fell: Fell,
        for_ever: Callable[[], bool],
    ) -> None:
        self._deployment = deployment
        self._events = events
        self._hire = hire
        self._route = route
        self._fell = fell
        self._for_ever = for_ever
        self._changing = asyncio.Lock()
        self._hiring: dict[str, asyncio.Task[Worker]] = {}  # by post
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._mending: dict[str, asyncio.Task[None]] = {}
        self._letting_go: set[asyncio.Task[None]] = set()
        self._probing: asyncio.Task[None] | None = None

    def take_up(self) -> None:
        """The deployment is ready: watch whoever is not watched yet."""
        for post in self._posts():
            if post.worker and post.name not in self._watchers:
                self._watch(post, post.worker)
        if self._probing is None:
            self._probing = self._task("probe", self._probe_on())

    def suspect(self, address: str) -> list[asyncio.Task[None]]:
        """A router could not connect there: if that worker is gone, see it now and not in a moment.

        When what is returned is done, it has been seen.
        """
        seeing = []
        for post in self._posts():
            worker = post.worker
            if post.serves and worker and worker.address == address and not worker.is_running:
                seeing.append(self._task("see the end of", self._watching(post, worker)))
        return seeing

    async def restart(self) -> None:
        """Replace every worker, one at a time. Raises LazycloudError if a new one is not ready: the old one stays."""
        async with self._changing:
            for post in self._posts():
                if post.worker:
                    await self._replace(post, post.worker, "was restarted")

    async def staff(self, wanted: Callable[[], Sequence[str]]) -> None:
        """Have a worker at each of the wanted posts, and at no other."""
        async with self._changing:
            names = wanted()
            await asyncio.gather(*(self._drop(post) for post in self._posts() if post.name not in names))
            for name in names:
                if name not in wanted():
                    continue
                post = self._deployment.posts.setdefault(name, Post(name))
                if post.worker or name in self._mending or self._deployment.state is not State.READY:
                    continue
                if not await self._fill(post):
                    self._mend(post)
        await self._route()

    async def stop(self, how: str) -> None:
        """End them all. Bounded."""
        if self._probing and self._probing is not asyncio.current_task():
            self._probing.cancel()
        self._probing = None
        await self._dismiss(self._posts(), how)

    async def dismiss(self, how: str, web: bool) -> None:
        """End those that serve, or all others, and also whoever is just being started there."""
        posts = [post for post in self._posts() if post.is_web is web]
        for post in posts:
            del self._deployment.posts[post.name]
        await self._dismiss(posts, how)

    async def _dismiss(self, posts: Sequence[Post], how: str) -> None:
        for post in posts:
            self._unwatch(post)
        hiring = [self._hiring[post.name] for post in posts if post.name in self._hiring]
        for task in hiring:
            task.cancel()
        await asyncio.gather(*hiring, return_exceptions=True)
        await asyncio.gather(
            *(self._end(post, how) for post in posts), *map(asyncio.shield, self._letting_go)
        )

    async def leave(self) -> None:
        """Watch nobody any more, and start nobody; they run on, for the next control."""
        probing = [self._probing] if self._probing else []
        tasks = [*self._watchers.values(), *self._mending.values(), *self._hiring.values(), *probing]
        tasks += self._letting_go
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._deployment.workers:
            worker.leave()

    def give_up_mending(self) -> None:
        """Of those that serve: the deployment came down, and is started as a whole."""
        for post in self._posts():
            if post.is_web and (task := self._mending.pop(post.name, None)):
                task.cancel()

    def was_gone(self, post: Post, pid: int) -> None:
        """A worker that an earlier control started does not run any more."""
        post.clear("ended while lazycloud was away")
        self._events.append(WorkerEnded(**self._of(post), pid=pid, how=post.ended, expected=False))

    def _posts(self) -> list[Post]:
        return list(self._deployment.posts.values())

    def _others(self, post: Post) -> list[Post]:
        """Those that requests go to besides."""
        return [one for one in self._posts() if one.is_web and one.serves and one is not post]

    def _watch(self, post: Post, worker: Worker) -> None:
        self._watchers[post.name] = self._task(f"watch {post.name} of", self._watching(post, worker))

    def _unwatch(self, post: Post) -> None:
        for tasks in (self._watchers, self._mending):
            task = tasks.pop(post.name, None)
            if task and task is not asyncio.current_task():
                task.cancel()

    async def _watching(self, post: Post, worker: Worker) -> None:
        self._ended(post, worker, await worker.ended())

    def _ended(self, post: Post, worker: Worker, ended: Ended) -> None:
        """By itself, or because we found it hanging."""
        if post.worker is not worker:
            return
        self._unwatch(post)
        post.crashes = post.crashes + 1 if time.time() - post.since < SOON else 1
        post.clear(ended.words)
        self._tell_end(post, worker, ended.words, expected=False)
        if post.is_web and not self._others(post):
            self._fell(post, worker, ended)
        else:
            self._mend(post, worker)

    def _mend(self, post: Post, gone: Worker | None = None) -> None:
        # What it left of its group ends, whether or not anybody comes to mend.
        ending = self._surely(gone.stop()) if gone else None
        self._mending[post.name] = self._task(f"mend {post.name} of", self._mend_on(post, ending))

    async def _mend_on(self, post: Post, ending: asyncio.Future[None] | None) -> None:
        """A new worker after a pause, and after longer ones if it ends, too."""
        if ending:
            await asyncio.gather(self._route(), ending)
        while post.crashes <= TRIES or self._for_ever():
            await asyncio.sleep(pause(post.crashes))
            async with self._changing:
                if post.worker or self._deployment.posts.get(post.name) is not post:
                    break
                post.restarts += 1
                filled = await self._fill(post)
            if filled:
                await self._route()
                break
        self._mending.pop(post.name, None)

    async def _fill(self, post: Post) -> bool:
        """Whether a new worker serves at an empty post, or none is wanted there any more."""
        try:
            worker = await self._new(post)
        except _Dismissed:
            return True
        except Exception as problem:
            self._note_bug(post, problem)
            post.ended = f"could not be started: {problem}"
            post.crashes += 1
            self._events.append(WorkerFailed(**self._of(post), problem=str(problem)))
            return False
        if self._has_room_for(post):
            self._take(post, worker)
        else:  # it was stopped, or came down, meanwhile
            await self._surely(worker.stop())
        return True

    async def _new(self, post: Post) -> Worker:
        """A worker that is ready. Raises _Dismissed when it is given up meanwhile."""
        task = self._hiring[post.name] = asyncio.create_task(self._hire(post), name=f"hire {post.name}")
        try:
            return await task
        except asyncio.CancelledError:
            us = asyncio.current_task()
            if us is None or us.cancelling():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise
            raise _Dismissed("It was stopped meanwhile.") from None
        finally:
            self._hiring.pop(post.name, None)

    def _has_room_for(self, post: Post, instead_of: Worker | None = None) -> bool:
        """The deployment may have come down while a worker was hired, and be up again with another one there."""
        if self._deployment.posts.get(post.name) is not post or post.worker is not instead_of:
            return False
        state = self._deployment.state
        going_on = state not in (State.STOPPING, State.STOPPED) and self._for_ever()
        return state is State.READY or (going_on and not post.is_web)

    def _take(self, post: Post, worker: Worker) -> None:
        post.hold(worker)
        post.serves = True
        self._watch(post, worker)
        record = worker.record
        self._events.append(
            WorkerReady(**self._of(post), pid=record.pid, address=record.address),
            store.put(store.deployments, **self._deployment.row()),
        )

    async def _replace(self, post: Post, old: Worker, how: str) -> None:
        """Of those that serve, a new one is ready before the old one goes; others never run twice."""
        post.restarts += 1
        if not post.is_web:
            await self._end(post, how)
            if not await self._fill(post):
                self._mend(post)
                raise LazycloudError(f"{post.name} {post.ended}", "It is tried again.")
            return
        new = await self._new(post)
        if not self._has_room_for(post, old):
            await self._surely(new.stop())
            return
        self._unwatch(post)
        self._take(post, new)
        await self._surely(self._let_go(post, old, how))

    async def _let_go(self, post: Post, old: Worker, how: str) -> None:
        """Of one whose post is another's by now."""
        await self._route()
        await old.stop()
        self._tell_end(post, old, how, expected=True)

    async def _drop(self, post: Post) -> None:
        del self._deployment.posts[post.name]
        self._unwatch(post)
        await self._surely(self._drop_on(post))

    async def _drop_on(self, post: Post) -> None:
        if post.is_web:
            await self._route()
        await self._end_on(post, "is one too many")

    def _end(self, post: Post, how: str) -> asyncio.Future[None]:
        return self._surely(self._end_on(post, how))

    async def _end_on(self, post: Post, how: str) -> None:
        if worker := post.worker:
            self._unwatch(post)
            by_itself = "" if worker.is_running else worker.how_it_ended
            await worker.stop()
            if post.worker is worker:
                post.clear(by_itself or how)
                self._tell_end(post, worker, by_itself or how, expected=not by_itself)

    def _surely(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Do it to its end though whoever wants it is cancelled: no post tells of that worker any more."""
        task = self._task("let go of a worker of", work)
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)
        return asyncio.shield(task)

    async def _probe_on(self) -> None:
        """Ask the health path of each worker that has one, for as long as there is one."""
        while True:
            records = [post.worker.record for post in self._posts() if post.serves and post.worker]
            await asyncio.sleep(min((one.health_interval for one in records if one.health), default=5.0))
            if self._deployment.state is State.READY:
                probes = [
                    self._probe(post, post.worker) for post in self._posts() if post.serves and post.worker
                ]
                await asyncio.gather(*probes)

    async def _probe(self, post: Post, worker: Worker) -> None:
        record = worker.record
        if not record.health or not post.is_web:
            return
        trouble = await ask_health(record, record.health_timeout)
        post.misses = post.misses + 1 if trouble else 0
        if trouble and post.misses >= MISSES and post.worker is worker:
            await self._hangs(post, worker, f"{record.health} {trouble}")

    async def _hangs(self, post: Post, worker: Worker, trouble: str) -> None:
        """Production has a new worker before the old one goes; a preview comes down, and its visitors wait."""
        post.misses = 0
        self._events.append(WorkerUnhealthy(**self._of(post), pid=worker.record.pid, problem=trouble))
        if not (self._others(post) or self._for_ever()):
            if self._deployment.state is State.READY:  # else it is being stopped
                why = f"was ended because {trouble}, {MISSES} times in a row"
                self._ended(post, worker, Ended(None, why))
            return
        async with self._changing:
            if post.worker is not worker:
                return
            try:
                await self._replace(post, worker, f"was replaced because {trouble}, {MISSES} times in a row")
            except Exception as problem:
                self._note_bug(post, problem)
                self._events.append(WorkerFailed(**self._of(post), problem=str(problem)))

    def _tell_end(self, post: Post, worker: Worker, how: str, expected: bool) -> None:
        self._events.append(
            WorkerEnded(**self._of(post), pid=worker.record.pid, how=how, expected=expected),
            store.put(store.deployments, **self._deployment.row()),
        )

    def _note_bug(self, post: Post, problem: Exception) -> None:
        """One of ours is no reason to give a post up, nor to ask nobody's health any more."""
        if not isinstance(problem, LazycloudError | OSError):
            log.error("To hire for %s of %s met a bug", post.name, self._deployment.id, exc_info=problem)

    def _of(self, post: Post) -> dict[str, str]:
        return {"app": self._deployment.key.app, "deployment": self._deployment.id, "process": post.name}

    def _task(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def noticed() -> None:
            with suppress(asyncio.CancelledError):
                try:
                    await work
                except Exception:
                    log.exception("%s %s met a bug", what, self._deployment.id)

        task = asyncio.create_task(noticed(), name=f"{what} {self._deployment.id}")
        task.add_done_callback(lambda _: work.close())  # what is cancelled before it begins awaits nothing
        return task
