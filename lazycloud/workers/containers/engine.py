"""The engine of isolation = "container"."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from aiodocker.containers import DockerContainer

from lazycloud.container import Container
from lazycloud.errors import StepFailed
from lazycloud.processes import CommandFailed, Identity, Output, Tail, boot_id, identify, is_running, unheard
from lazycloud.walls.view import View
from lazycloud.workers.command import shell
from lazycloud.workers.containers.daemon import NOT_THERE, Away, Daemon, Refused
from lazycloud.workers.containers.ending import how_it_ended
from lazycloud.workers.containers.errand import ContainerErrand, attached
from lazycloud.workers.containers.images import Images
from lazycloud.workers.containers.machine import Machine, shown
from lazycloud.workers.containers.recipe import SERVER, WHOLE_GROUP, WORKER, Recipe, serving, view_of
from lazycloud.workers.containers.removal import Removals
from lazycloud.workers.containers.root import make_root, users
from lazycloud.workers.containers.worker import ContainerWorker
from lazycloud.workers.errand import Errand, Terminal
from lazycloud.workers.logs import open_log
from lazycloud.workers.ports import Ports
from lazycloud.workers.process import ProcessWorker
from lazycloud.workers.record import Record
from lazycloud.workers.watch import Watch
from lazycloud.workers.worker import HOST, Launch, Worker

ENGINE_RESTART = 15.0  # seconds that a start waits for an engine that is being started again
ENGINE_POLL = 0.2  # seconds
EVERYWHERE = "0.0.0.0"  # noqa: S104 - of the container's own network
NETWORK_OPTIONS = {"com.docker.network.bridge.enable_icc": "false"}  # containers do not reach each other


class Containers:
    """Workers that are containers of a Docker-compatible engine. `home` is the server's folder, `environ` what its
    programs are found by.

    Each server has a network of its own, on which containers do not reach each other. Routers dial a container at
    its own address: a published port goes through a process that copies every byte, which took three times as long.
    """

    name = "container"

    def __init__(self, settings: Container, home: Path, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = dict(environ)
        self._server = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
        self._daemon = Daemon(settings.socket)
        self._removals = Removals(self._daemon)
        self._ports = Ports()
        self._watch = Watch()
        self._found: set[str] = set()  # containers of an earlier control that nobody has claimed yet
        self._image = settings.image
        self._home = home
        self.networks: tuple[IPv4Network, ...] = ()
        self.images = Images(self._daemon, self._server, self._network)

    async def open(self) -> None:
        """Raises BadInput when there is no engine that can be used."""
        await self._daemon.open()
        try:
            await self._prepare_engine()
            self._found = await self._ours()
        except BaseException:
            await asyncio.shield(self.close())
            raise

    async def start(self, launch: Launch, say: Output) -> Worker:
        """Raises StepFailed, Away for an engine that does not come back, Busy without a port."""
        port = self._ports.take() if launch.listens else 0
        try:
            worker = await self._start(launch, port, say)
        except BaseException:
            self._ports.give_back(port)
            raise
        self._watch.add(worker)
        return worker

    async def adopt(self, record: Record) -> Worker | None:
        """What an earlier control started without containers is ended: it would run on without walls."""
        if record.engine != self.name:
            if stranger := await ProcessWorker.adopt(record, self._ports):
                await stranger.stop()
            return None
        self._found.discard(record.container)
        if not is_running(record.identity):
            await self._removals.remove(record.container)
            return None
        self._ports.hold(record.port)
        worker = self._worker(record, _changed(record.log_path) if record.copied else 0)
        self._watch.add(worker)
        return worker

    async def restored(self) -> None:
        """What of an earlier control nobody has claimed is removed, and images of releases that are gone."""
        strays, self._found = self._found, set()
        await asyncio.gather(*map(self._removals.remove, strays))
        await self.images.keep_only(self._home / "apps")

    async def end_rest(self) -> None:
        """A start that the engine's own end cut off may have left a container that nobody knows."""
        with suppress(StepFailed):
            await asyncio.gather(*map(self._removals.remove, await self._ours()))

    async def run(self, launch: Launch, command: str, output: Output, timeout: float) -> None:
        # One stream of both: of two, nobody could tell which line came first.
        joined = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *shell(command)]
        recipe = replace(self._recipe(launch, joined, 0), log=True)
        tail = Tail(output)
        try:
            async with asyncio.timeout(timeout):
                status, words = await self._run(recipe, launch.name, tail, output)
        except TimeoutError:
            raise CommandFailed(command, None, tail.lines(), timeout) from None
        if status:
            failed = CommandFailed(command, status, tail.lines())
            failed.sentence = f"`{command}` {words}."
            raise failed

    async def spawn(self, launch: Launch, command: str, terminal: Terminal | None) -> Errand:
        environment = {**launch.environment, **({"TERM": terminal.kind} if terminal else {})}
        recipe = self._recipe(replace(launch, environment=environment), shell(command), 0)
        container = await self._create(recipe.configuration() | attached(terminal), launch.name)
        try:
            return await ContainerErrand.begin(self._daemon, self._removals, container, launch, terminal)
        except BaseException:
            await asyncio.shield(self._removals.remove(container.id))
            raise

    def prepare(self, launch: Launch) -> None: ...

    def adopted(self, worker: Worker) -> None: ...

    async def leave(self, folder: Path) -> None:
        """With a release its image goes."""
        if folder.parent.name == "releases":
            with suppress(StepFailed):
                await self.images.remove(self.images.name(folder.parent.parent.name, folder.name))

    async def close(self) -> None:
        """The network goes if nothing is left in it."""
        await self._watch.close()
        self._removals.close()
        if not self._daemon.is_open:
            return
        with suppress(StepFailed):
            async with self._daemon.asked("to remove a network"):
                await (await self._daemon.client.networks.get(self._network)).delete()
        await self._daemon.close()

    @property
    def _network(self) -> str:
        return f"lazycloud-{self._server}"

    @property
    def _ids(self) -> tuple[int, int]:
        """Ours, so that files of data keep their owner; the root of an engine without root is who runs it."""
        return (0, 0) if self._daemon.is_rootless else (os.getuid(), os.getgid())

    def _labels(self, name: str) -> dict[str, str]:
        return {SERVER: self._server, WORKER: name}

    async def _ours(self) -> set[str]:
        filters = json.dumps({"label": [f"{SERVER}={self._server}"]})
        async with self._daemon.asked("for its containers"):
            return {each.id for each in await self._daemon.client.containers.list(all=True, filters=filters)}

    async def _prepare_engine(self) -> None:
        """What all containers need: the network, and the image for this machine's programs."""
        await self._make_network()
        self._machine = Machine(self._environ, self._home / "walls", users(*self._ids))
        await asyncio.to_thread(lambda: (self._machine.system, self._machine.tools))
        if not self._settings.image:
            root = make_root()
            if not await self.images.is_there(root.tag):
                parameters = {"t": root.tag, "networkmode": "none"}
                await self.images.make(io.BytesIO(root.context), parameters, Tail(unheard))
            self._image = root.tag
        elif not await self.images.is_there(self._image):
            raise StepFailed(
                f"The container engine has no image {self._image}.", f"docker pull {self._image}"
            )

    async def _make_network(self) -> None:
        wish = {
            "Name": self._network,
            "Driver": "bridge",
            "CheckDuplicate": True,
            "Options": NETWORK_OPTIONS,
            "Labels": {SERVER: self._server},
        }
        try:
            async with self._daemon.asked("for a network"):
                network = await self._daemon.client.networks.get(self._network)
        except Refused:
            async with self._daemon.asked("to make a network"):
                network = await self._daemon.client.networks.create(wish)
        async with self._daemon.asked("about a network"):
            self.networks = subnets(await network.show())

    async def _start(self, launch: Launch, port: int, say: Output) -> ContainerWorker:
        with open_log(launch.log) as log:
            log_start = os.fstat(log.fileno()).st_size
        if launch.command:
            # The file, not the engine, takes what it writes: so it does while control, or the engine, is away.
            recipe = self._recipe(launch, serving(launch.command, launch.log), port)
            recipe = replace(
                recipe,
                write=[*recipe.write, (launch.log, launch.log)],
                environment={**recipe.environment, **WHOLE_GROUP},
            )
        else:  # an image's own command; there may be no shell in it
            recipe = replace(self._recipe(launch, None, port), log=True)
        container = await self._begin(recipe, launch.name, say)
        try:
            async with self._daemon.asked("about a container"):
                told = await self._daemon.client.containers.container(container).show()
            return self._worker(self._record(launch, told, port, log_start))
        except BaseException:
            await asyncio.shield(self._removals.remove(container))
            raise

    def _recipe(self, launch: Launch, command: Sequence[str] | None, port: int) -> Recipe:
        """`command` None is the image's own."""
        view = view_of(launch.view, launch.folder)
        listening = {"HOST": EVERYWHERE, "PORT": str(port)} if port else {}
        environment = {**launch.environment, **listening}
        write = (*view.write, *([view.scratch] if view.scratch else []))
        if launch.image:  # it has its own programs
            environment.pop("PATH", None)
        return Recipe(
            image=launch.image or self._image,
            command=command,
            folder=None if launch.image else launch.folder,
            environment=environment,
            user="{}:{}".format(*self._ids),
            network=self._network if view.network else "none",
            labels=self._labels(launch.name),
            read=self._shown(launch, view),
            write=[*((place, place) for place in write), *view.copies],
            fresh=() if launch.image else view.fresh,
            limits=launch.limits,
            port=port if self._daemon.is_rootless else 0,
            sealed=not launch.image,
        )

    def _shown(self, launch: Launch, view: View) -> list[tuple[Path, Path]]:
        """What an app sees of the machine: its release, and the programs that this was built with."""
        mounts = [Path(place) for place in self._settings.mounts]
        if launch.image:
            return shown(mounts)
        system = [] if self._settings.image else self._machine.system
        return [*shown([*view.read, *self._machine.tools, *mounts]), *system]

    async def _begin(self, recipe: Recipe, name: str, say: Output) -> str:
        """Create and start; the id. Waits for an engine that is away, and makes again what it has lost."""
        deadline = asyncio.get_running_loop().time() + ENGINE_RESTART
        said, again = False, True
        while True:
            try:
                # An engine that died may have started one all the same, and two of them would have one data.
                await self._removals.catch_up()
                return await self._launch_container(recipe, name)
            except Away as problem:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                if not said:
                    say(f"{problem.sentence} Waiting for it.\n")
                    said = True
                await asyncio.sleep(ENGINE_POLL)
            except Refused as problem:
                if problem.code != NOT_THERE or not again:
                    raise
                again = False
                await self._prepare_engine()

    async def _launch_container(self, recipe: Recipe, name: str) -> str:
        container = await self._create(recipe.configuration(), name)
        try:
            async with self._daemon.asked("to start a container"):
                await container.start()
        except BaseException:
            await asyncio.shield(self._removals.remove(container.id))
            raise
        return str(container.id)

    async def _create(self, configuration: dict[str, Any], name: str) -> DockerContainer:
        called = _called(name)
        try:
            async with self._daemon.asked("to make a container"):
                return await self._daemon.client.containers.create(configuration, name=called)
        except BaseException:
            await asyncio.shield(self._removals.remove(called))
            raise

    async def _run(self, recipe: Recipe, name: str, tail: Tail, say: Output) -> tuple[int | None, str]:
        id_ = await self._begin(recipe, name, say)
        container = self._daemon.client.containers.container(id_)
        try:
            async with self._daemon.asked("to run a command"):
                async for text in container.log(stdout=True, stderr=True, follow=True):
                    tail.feed(text.encode())
                await container.wait()
                return how_it_ended((await container.show())["State"], recipe.limits)
        finally:
            tail.end()
            await asyncio.shield(self._removals.remove(id_))

    def _record(self, launch: Launch, told: Mapping[str, Any], port: int, log_start: int) -> Record:
        identity = identify(told["State"]["Pid"]) or Identity(0, 0, boot_id())  # it has ended already
        host = (
            HOST
            if self._daemon.is_rootless
            else told["NetworkSettings"]["Networks"][self._network]["IPAddress"]
        )
        record = launch.record(identity, f"{host or HOST}:{port}", log_start)
        return replace(record, engine=self.name, container=told["Id"], copied=not launch.command)

    def _worker(self, record: Record, since: int = 0) -> ContainerWorker:
        gone = partial(self._ports.give_back, record.port)
        return ContainerWorker(record, self._daemon, self._removals, gone, since)


def subnets(network: Mapping[str, Any]) -> tuple[IPv4Network, ...]:
    """Of IPv4, of what an engine says of a network."""
    told = (network.get("IPAM") or {}).get("Config") or []
    found = (ip_network(one["Subnet"], strict=False) for one in told if one.get("Subnet"))
    return tuple(one for one in found if isinstance(one, IPv4Network))


def _called(name: str) -> str:
    """What a container is called, for whoever lists them."""
    return f"lazycloud-{_slug(name)}-{secrets.token_hex(4)}"


def _changed(log: Path) -> int:
    with suppress(FileNotFoundError):
        return log.stat().st_mtime_ns
    return 0


def _slug(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", name)[:60].strip("-.") or "one-off"
