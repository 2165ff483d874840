"""The control process: every part made, joined, started in order, and stopped in the reverse order."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from aiohttp import web

from lazycloud import __version__, store
from lazycloud.build.artifacts.depot import Depot
from lazycloud.build.artifacts.place import read_place
from lazycloud.build.environment import build_environment
from lazycloud.build.images import Images
from lazycloud.build.limits import Limits
from lazycloud.build.repository import Repository, shown_url
from lazycloud.build.stages import Stages
from lazycloud.config import AppSource, Config
from lazycloud.control.accounts import Accounts
from lazycloud.control.api import Api, login_link
from lazycloud.control.application import make_application
from lazycloud.control.artifacts import ArtifactViews
from lazycloud.control.auth import Auth
from lazycloud.control.backups import BackupViews
from lazycloud.control.clients import Clients
from lazycloud.control.console import Console
from lazycloud.control.contents import Contents
from lazycloud.control.data import VersionData
from lazycloud.control.datashell import DataShell
from lazycloud.control.doors import Doors
from lazycloud.control.guard import Guard
from lazycloud.control.keys import Keys, secret
from lazycloud.control.link import Link
from lazycloud.control.logins import Logins
from lazycloud.control.pages import Pages
from lazycloud.control.passwords import Passwords
from lazycloud.control.people import People
from lazycloud.control.previews import Previews
from lazycloud.control.progress import Progress
from lazycloud.control.pulls import Pulls
from lazycloud.control.resolver import Resolver
from lazycloud.control.sessions import Sessions
from lazycloud.control.shares import Shares
from lazycloud.control.tokens import Tokens
from lazycloud.control.unanswered import Unanswered
from lazycloud.control.uses import Uses
from lazycloud.control.versionbase import DocumentViews
from lazycloud.control.views import Views, error_view
from lazycloud.control.visits import Visits
from lazycloud.control.webhooks import Webhooks
from lazycloud.data.provider import Provider
from lazycloud.data.redis import Redis
from lazycloud.data.serving import Servers
from lazycloud.data.versionbase import Versionbase
from lazycloud.data.versions import Versions
from lazycloud.deployments.app import App
from lazycloud.deployments.backups import Backups
from lazycloud.deployments.changes import Changes
from lazycloud.deployments.claims import is_held
from lazycloud.deployments.disk import Disk
from lazycloud.deployments.errands import Errands
from lazycloud.deployments.fleet import Fleet
from lazycloud.deployments.hosting import hosting
from lazycloud.deployments.keeper import Keeper
from lazycloud.deployments.pins import Pins
from lazycloud.deployments.production import Production
from lazycloud.deployments.rest import Rest
from lazycloud.deployments.schemas import Schemas
from lazycloud.deployments.snapshots import Snapshots
from lazycloud.errors import BadInput, LazycloudError
from lazycloud.events import AppAdded, Asked, EventLog, Output, ServerStarted, ServerStopped
from lazycloud.hosts import app_name, is_app_name
from lazycloud.pulse import beat
from lazycloud.store import Store
from lazycloud.walls import sandbox
from lazycloud.walls.fence import Fence
from lazycloud.walls.groups import Groups
from lazycloud.walls.ports import Wall
from lazycloud.walls.sandbox import Enclosed, Sandbox
from lazycloud.walls.view import View
from lazycloud.workers.bounds import Bounds
from lazycloud.workers.engine import Engine, Processes, Sandboxed
from lazycloud.workers.ports import RANGE

LAST_ANSWERS = 5.0  # seconds for requests that this control has still to answer when it leaves

if TYPE_CHECKING:
    from lazycloud.data.postgres.provider import Postgres

log = logging.getLogger(__name__)


class Control:
    """Owns all that control is made of. `environ` is what package managers of builds may be given from."""

    def __init__(self, config: Config, environ: Mapping[str, str], again: bool = False) -> None:
        self.config = config
        self.unwalled, self.advice = "", ""  # why there are no walls, and what to do about it
        self._again = again
        self._environ = environ
        self._store = Store(config.database_url)
        self._closing = AsyncExitStack()
        self._previews_settled: dict[str, str] = {}  # by config.toml

    async def start(self) -> None:
        """Raises LazycloudError for what the user has to mend; nothing is left open then."""
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise

    async def close(self, keep_workers: bool) -> None:
        """The reverse of start. Workers are stopped, or left to be found by the next control."""
        self._keep_workers = keep_workers
        await self._closing.aclose()

    async def _start(self) -> None:
        config = self.config
        self._closing.callback(self._store.close)
        await asyncio.to_thread(self._store.open)  # an older one's tables are changed; our pulse goes on
        self.events = EventLog(self._store.last_number(), self._store.write, self._store.read)
        self.events.start()
        self._closing.push_async_callback(self.events.close)
        self._closing.callback(lambda: self.events.append(ServerStopped(leaves=self._keep_workers)))
        self._keep_workers = True  # until the start is complete: a start that fails stops nobody's worker
        self._walls = await self._make_walls()
        engine, self._images = await open_engine(config, self._walls, self._environ)
        self._fence = None
        if self._walls:
            self._fence = Fence(Groups(config.home), _port_wall(config), lambda: engine.networks)
        self._hosting = hosting(engine, config.home, config.workers.limits)
        self._closing.push_async_callback(engine.close)
        if self._fence:
            self._closing.push_async_callback(asyncio.to_thread, self._fence.close)
        self.fleet = Fleet(config, self.events, self._store, engine, self._environ.get("TZ", ""))
        scratch = config.cache_folder / "artifacts"
        self.depot = Depot(read_place(config.artifacts, config.artifact_key_file, scratch))
        self.errands = Errands(config, self.fleet, self.events)
        self.disk = Disk(config, self.fleet, self.events, self._store)
        self.snapshots = Snapshots(config, self.fleet, self.events, self._store)
        self.schemas = Schemas(self._store, self._walls)
        self.production = Production(
            config, self.fleet, self.events, self._store, self.snapshots, self.schemas
        )
        self.changes = Changes(self.fleet, self.snapshots, self.events, self._store)
        self.changes.is_promoting = self.production.is_promoting
        self.keeper = Keeper(config, self.fleet, self.snapshots, self.changes, self.events, self._store)
        self.backups = Backups(config, self.fleet, self.events, self.changes)
        await self._open_apps()
        self._closing.push_async_callback(self.depot.close)
        self._closing.push_async_callback(self._close_fleet)
        self._closing.push_async_callback(self.production.close)
        self._closing.push_async_callback(self.errands.close)
        self._closing.push_async_callback(self.disk.close)
        self._closing.push_async_callback(self.snapshots.close)
        self._closing.push_async_callback(self.changes.close)
        self._closing.push_async_callback(self.keeper.close)
        self._closing.push_async_callback(self.backups.close)
        for app in self.fleet.apps.values():
            await self.changes.recover(app)
            await self.snapshots.reconcile(app)
        await self.fleet.restore()  # before anybody can ask for what is only to be found again
        await self._serve()
        self._keep_workers = False
        started = ServerStarted(version=__version__, address=config.addresses.control())
        self.began = self.events.append(started).number
        for app in self.fleet.apps.values():
            self.production.start(app)
        self.disk.start()
        self.snapshots.start()
        self.keeper.start()
        self.backups.start()
        self.rest.start()

    async def _make_walls(self) -> Sandbox | None:
        """What `isolation` asks for. Raises BadInput when that cannot be had, and no other will do."""
        wanted = self.config.isolation
        if wanted == "none":
            self.unwalled = "`isolation` is none"
            return None
        why = await asyncio.to_thread(sandbox.missing)
        environ = build_environment(self._environ, self.config.home, self.config.cache_folder)
        walls = Sandbox(self.config.home, environ)
        if why and (wanted == "sandbox" or walls.stood_before):
            advice = f'{sandbox.advice()} Or do without walls: isolation = "none".'
            raise BadInput(f"isolation: {why[0].lower()}{why[1:]}", advice)
        if why:
            self.unwalled, self.advice = why.rstrip("."), sandbox.advice()
            return None
        return walls

    async def _close_fleet(self) -> None:
        await self.fleet.close(keep_workers=self._keep_workers)

    async def _close_servers(self, servers: Servers) -> None:
        await servers.close(keep=self._keep_workers)

    async def _serve(self) -> None:
        """What answers the routers' questions, what they relay, and the owner's command line."""
        config = self.config
        self.auth = self._open_auth()
        passwords, clients = Passwords(), Clients(config.trusted_proxies)
        previews = self.previews = Previews(config, self.auth, passwords, self._store, self.events)
        previews.settled = self._previews_settled
        shares = Shares(config, self.auth.keys.key, self._store, self.events, previews)
        resolver = Resolver(config, self.fleet)
        resolver.is_open = previews.is_open
        link = Link(resolver.resolve, resolver.apps, config.drain_timeout, resolver.refused)
        link.access = lambda: previews.access(self.fleet.apps)
        self.auth.accounts.changed = self.auth.tokens.changed = previews.told = link.tell_access
        previews.opened = link.forget_all
        self.fleet.make_room = self.disk.make_room
        self.disk.removing = self.fleet.leave
        self.rest = Rest(config, self.fleet, self._store, link.activity)
        self.fleet.make_place = self.rest.make_place
        self._closing.push_async_callback(self.rest.close)
        self.fleet.retire = lambda deployment: link.retire(deployment.id)
        self.fleet.route = lambda deployment: link.move(deployment.id, deployment.addresses)
        self.production.moved = lambda app: link.forget_hosts(resolver.moved(app))
        views = Views(config, self.fleet, self.events, self._store, link)
        progress, pages = Progress(self.events, views), Pages()
        visits = Visits(
            config, self.fleet, resolver, self.auth, pages, views, progress, previews, shares, clients
        )
        visits.tell = self.events.append
        pulls = Pulls(config, self.production, self._store, self.events)
        webhooks = Webhooks(
            config, self.auth.keys.key, self.fleet, self.production, self._store, self.events, pulls, clients
        )
        console = Console(self.errands, self.events)
        pins, artifacts = Pins(self._store, self.events), ArtifactViews(self.depot)
        api = Api(
            config,
            self.fleet,
            self.production,
            self.events,
            views,
            progress,
            self.auth,
            artifacts,
            self.disk,
            pins,
            console,
        )
        api.hook_calls.expected = resolver.expect
        logins = Logins(self.auth, passwords, clients, pages, self.events)
        people = People(config, self.fleet, self.auth, passwords)
        data = VersionData(
            config,
            self.fleet,
            self.auth,
            self.snapshots,
            self.changes,
            self.keeper,
            Contents(config, self.snapshots, self.changes, self.events, self._walls),
            DataShell(console, self.errands),
            self.schemas,
            self._store,
        )
        documents = DocumentViews(self.fleet, self.snapshots)
        backups = BackupViews(config, self.fleet, self.auth, self.backups)
        doors = Doors(config, self.fleet, self.auth, previews, shares, webhooks, pulls)
        views.doors = doors.view
        guard = Guard(self.auth, self.events)

        def add_api(router: web.UrlDispatcher) -> None:
            guard.add(router, [api, people, doors, data, documents, backups])
            webhooks.add_to(router)

        application = make_application(
            config,
            self.auth,
            logins,
            pages,
            resolver,
            visits,
            add_api,
        )
        await self._listen(application, link)

    async def _listen(self, application: web.Application, link: Link) -> None:
        """Closed in the reverse order: promotes end while routers can still be told of it."""
        config, unanswered = self.config, Unanswered(application)
        runner = web.AppRunner(
            application,
            access_log=None,
            shutdown_timeout=0.5,  # streams that only follow would go on for ever
            handler_cancellation=True,
        )
        await runner.setup()
        self._closing.push_async_callback(runner.cleanup)
        for path in (config.control_socket, config.api_socket):
            path.unlink(missing_ok=True)
            await web.UnixSite(runner, path).start()
            path.chmod(0o600)
            self._closing.callback(path.unlink, missing_ok=True)
        self._closing.push_async_callback(unanswered.none, LAST_ANSWERS)
        await link.start(config.link_socket)
        self._closing.push_async_callback(link.close)
        self._closing.callback(config.link_socket.unlink, missing_ok=True)
        self._closing.push_async_callback(self.production.end_promotes)

    def _open_auth(self) -> Auth:
        """Accounts, tokens and sessions, all in memory."""
        uses = Uses(self._store)
        self._closing.push_async_callback(uses.close)
        accounts = Accounts(self._store, self.events)
        tokens, sessions = Tokens(self._store, self.events, uses), Sessions(self._store, self.events, uses)
        for part in (accounts, tokens, sessions):
            part.open()
        keys = Keys.of(self.config.token_file, self.config.key_file)
        return Auth(self.config, keys, accounts, tokens, sessions)

    async def _open_apps(self) -> None:
        """Those of the command line must be right; one known from before that has gone is left out."""
        known = {row["source"]: row for row in self._store.rows(store.apps)}
        oldest = sorted(known.values(), key=lambda row: row["added"])
        self._primary = oldest[0]["name"] if oldest else ""
        for wish in self.config.apps:
            try:
                app = await self._open_app(wish, known.pop(wish.source, None))
                await self.production.open(app, wish.production)
            except LazycloudError as problem:
                if not self._again:
                    raise
                log.warning("%s is not served: %s", shown_url(wish.source), problem)
        for row in sorted(known.values(), key=lambda row: row["added"]):
            try:
                app = await self._open_app(AppSource(row["source"]), row)
                await self.production.open(app)
            except LazycloudError as problem:
                log.warning("%s is not served: %s", row["name"], problem)
        if not self.fleet.apps:
            raise BadInput(
                "There is no app to serve.", "Give the path or URL of a git repository: lazycloud up PATH"
            )
        await self.events.flush()

    async def _open_app(self, wish: AppSource, row: dict[str, str] | None) -> App:
        name = row["name"] if row else self._new_name(wish)
        follow = wish.follow or (row["follow"] if row else "")
        own_domain = wish.domain or (row["domain"] if row else "")
        self._previews_settled[name] = wish.previews
        folder = self.config.app_folder(name)
        repository = Repository(wish.source, folder)
        await repository.open()
        cache = self.config.cache_folder
        environment = build_environment(self._environ, folder / "build-home", cache)
        if self._walls:  # the cache is shown as a mount of its own, and no hard link leads out of one
            environment.setdefault("UV_LINK_MODE", "copy")
        limits, depot = self._limits(), self.depot
        stages = Stages(
            repository,
            folder,
            cache,
            environment,
            depot=depot,
            limits=limits,
            walls=self._walls,
            images=self._images,
        )
        stages.in_use = lambda release: is_held(self.fleet, name, release)
        redis = Redis(folder / "redis", self._hosting)
        versionbase = Versionbase(folder / "versionbase", self._hosting)
        postgres = self._postgres(name)
        providers: dict[str, Provider] = {redis.name: redis, versionbase.name: versionbase}
        providers |= {postgres.name: postgres} if postgres else {}
        versions = Versions(folder / "data", providers=providers)
        versions.lines.enclose = self._enclose_holder if self._walls else None
        stages.clear_leftovers()
        versions.clear_leftovers()
        await versions.beside.open()
        domain = own_domain or self._domain(name)
        app = App(
            name,
            wish.source,
            domain,
            follow,
            repository,
            stages,
            versions,
            (redis, versionbase),
            versionbase,
            postgres=postgres,
        )
        self.fleet.apps[name] = app
        self._closing.push_async_callback(repository.close)
        self._closing.push_async_callback(versions.close)
        for servers in app.servers:
            self._closing.push_async_callback(self._close_servers, servers)
        added = float(row["added"]) if row else time.time()
        values = {"name": name, "source": wish.source, "domain": own_domain, "follow": follow, "added": added}
        if row is None or row != values:
            self.events.append(
                AppAdded(
                    app=name,
                    source=shown_url(wish.source),
                    address=self.config.addresses.production(app.domain),
                ),
                store.put(store.apps, **values),
            )
        return app

    def _enclose_holder(self, read: tuple[Path, ...], write: tuple[Path, ...]) -> Enclosed:
        """Who speaks SQLite to an app's databases sees nothing else of the server."""
        assert self._walls
        view = View(self.config.home, read, write, network=False)
        return self._walls.enclose(view, Path("/"), {})

    def _postgres(self, app: str) -> Postgres | None:
        """What versions of an app can have there. Raises BadInput."""
        if not self.config.postgres_url:
            return None
        from lazycloud.data.postgres import provider, server  # take a tenth of a second, and few need them

        key = secret(self.config.postgres_key_file).encode()
        return provider.Postgres(server.Server(self.config.postgres_url), app, key)

    def _limits(self) -> Limits:
        config = self.config
        seconds = config.build_time or float("inf")
        return Limits(seconds, config.build_memory, config.build_disk, fence=self._fence)

    def _domain(self, name: str) -> str:
        """The app that was served first has the server's domain, the others a name under it."""
        self._primary = self._primary or name
        return self.config.domain if name == self._primary else f"{name}.{self.config.domain}"

    def _new_name(self, wish: AppSource) -> str:
        if wish.name and not is_app_name(wish.name):
            raise BadInput(f"“{wish.name}” is no name for an app.", f"`{app_name(wish.name)}` would be one.")
        taken = {row["name"] for row in self._store.rows(store.apps)} | set(self.fleet.apps)
        if wish.name and wish.name in taken:
            raise BadInput(f"Another app is called “{wish.name}”.", "Give this one another name: NAME=PATH.")
        stem = wish.name or app_name(Path(wish.source.rstrip("/").removesuffix("/.git")).stem)
        names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
        return next(name for name in names if name not in taken)


def _port_wall(config: Config) -> Wall:
    return Wall(RANGE, tuple(listen.port for listen in config.listen if listen.port))


async def open_engine(
    config: Config, walls: Sandbox | None, environ: Mapping[str, str]
) -> tuple[Engine, Images | None]:
    """What the setting `isolation` asks for, and who builds images of Dockerfiles, if anybody does.

    Raises BadInput if it cannot be had.
    """
    if config.isolation != "container":
        bounds = Bounds(Groups(config.home), _port_wall(config), config.workers.limits)
        return (Sandboxed(walls, bounds) if walls else Processes(bounds)), None
    from lazycloud.workers.containers.engine import Containers  # takes a tenth of a second, and few need it

    named = build_environment(environ, config.home, config.cache_folder)
    containers = Containers(config.container, config.home, named)
    await containers.open()
    return containers, containers.images


async def tell(events: EventLog, after: int) -> None:
    """What happens, a line each, for whoever looks at the terminal of `lazycloud up`."""
    async for recorded in events.follow(after, lambda event: not isinstance(event, Output | Asked)):
        if sentence := recorded.event.sentence():
            at = time.strftime("%H:%M:%S", time.localtime(recorded.at))
            _print(f"{at}  {printable(sentence)}")


def greeting(config: Config, control: Control) -> str:
    """What `lazycloud up` says first: where everything is, and who can get at it."""
    addresses = config.addresses
    lines = [f"lazycloud {__version__}"]
    for app in control.fleet.apps.values():
        any_commit = addresses.label(app.domain, "<commit>")
        lines.append(f"  {app.name:<12} {addresses.production(app.domain)}   any commit: {any_commit}")
    lines.append(f"  {'control':<12} {login_link(config, control.auth)}   (logs you in, once)")
    if config.is_public:
        lines.append(f"  Whoever can reach this machine can open {_open_to_all(control)}.")
        if config.domain == "localhost":
            lines.append("  From other machines only by a name that leads here: give it with --domain.")
    lines += unwalled(config, control)
    return "\n".join([*lines, "Ctrl-C stops everything."])


def unwalled(config: Config, control: Control) -> list[str]:
    """Lines that nobody misses where strangers reach apps that have no walls; one where only this machine does."""
    if not control.unwalled:
        return []
    what = "Builds" if config.isolation == "container" else "Apps and builds"
    if not config.is_public:
        said = f"  {what} have no walls around them: {control.unwalled}."
        return [said] if config.isolation != "none" else []
    lines = [
        f"WARNING: {what.upper()} HAVE NO WALLS, and others than users of this machine reach this server.",
        f"Why: {control.unwalled}.",
        "Whoever gets code into an app, or finds a hole in one, has all that lazycloud's user has:",
        "the data of all apps, their secrets, this machine's files, the network around it.",
        control.advice
        or 'Set isolation = "auto" in config.toml; LAZYCLOUD_ISOLATION, where it is set, comes first.',
    ]
    rule = "!" * max(map(len, lines))
    return [rule, *lines, rule]


def _open_to_all(control: Control) -> str:
    apps = list(control.fleet.apps)
    free = [app for app in apps if control.previews.is_open(app)]
    if free == apps:
        return "every commit"
    also = f", and every commit of {' and '.join(free)}" if free else ""
    return f"production{also}; {'other ' if free else ''}previews need a login"


def _print(text: str) -> None:
    """For whoever looks at the terminal; the server goes on when nobody is there any more."""
    with suppress(OSError):
        print(text, flush=True)


def printable(text: str) -> str:
    """What a stranger wrote, unable to steer the terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


async def serve(config: Config, ready: int, lifeline: int, pulse: int | None, again: bool) -> None:
    """Run until told to stop: with all workers by TERM and INT; workers go on, to be found by the next
    control, after HUP and when the parent is gone."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[bool] = loop.create_future()

    def end(keep_workers: bool) -> None:
        if not stop.done():
            stop.set_result(keep_workers)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, False)
    loop.add_signal_handler(signal.SIGHUP, end, True)
    loop.add_reader(lifeline, end, True)
    if pulse is not None:
        beat(pulse)
    control = Control(config, os.environ, again)
    starting = asyncio.create_task(control.start(), name="start")
    waited: set[asyncio.Future[Any]] = {starting, stop}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()  # a first clone may take long, and Ctrl-C is heard all the same
    try:
        await starting
    except asyncio.CancelledError:
        return
    except LazycloudError as problem:
        _answer(ready, error_view(problem) | {"exit_code": problem.exit_code})
        return
    _answer(ready, {"ready": True})
    if not again:
        _print(greeting(config, control))
    teller = asyncio.create_task(tell(control.events, control.began), name="tell")
    keep_workers = await stop
    loop.remove_reader(lifeline)
    await control.close(keep_workers)
    teller.cancel()
    await asyncio.gather(teller, return_exceptions=True)


def _answer(ready: int, message: dict[str, Any]) -> None:
    """Tell the parent; one that started us again does not listen, so what went wrong goes to the terminal."""
    try:
        with os.fdopen(ready, "w") as pipe:
            pipe.write(json.dumps(message) + "\n")
    except BrokenPipeError:
        if error := message.get("error"):
            log.error("%s %s", error["sentence"], error["advice"])


def main() -> None:
    """Arguments: the descriptors of the pipes: ready, lifeline and pulse; `again` for a later start.

    A parent of an earlier lazycloud, which has yet to be upgraded, gives no pulse.

    The Config comes over standard input: a clone URL may hold a password, and anybody can read command lines.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    config = Config.from_json(sys.stdin.read())
    ready, lifeline, *pulses = (int(argument) for argument in sys.argv[1:] if argument != "again")
    os.umask(0o077)
    uvloop.run(serve(config, ready, lifeline, pulses[0] if pulses else None, again="again" in sys.argv))
