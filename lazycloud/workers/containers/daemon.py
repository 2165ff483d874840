"""The engine's API over its socket, and what goes wrong there in words."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from lazycloud.errors import BadInput, StepFailed

PATIENCE = 30.0  # seconds for one answer; what takes longer says so
NOT_THERE, CONFLICT, NO_CONNECTION = 404, 409, 900  # the last is aiodocker's own


class Away(StepFailed):
    """The engine does not answer: it is not there, or not yet again."""


class Refused(StepFailed):
    """The engine answers, and will not. `code` is its HTTP status."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


class Daemon:
    """One engine. Open before use."""

    def __init__(self, place: str = "") -> None:
        self.socket = place or _usual_socket()
        self.info: Mapping[str, Any] = {}
        self._client: Docker | None = None

    def __repr__(self) -> str:
        return f"<Daemon {self.socket} {self.info.get('ServerVersion', 'not open')}>"

    @property
    def client(self) -> Docker:
        assert self._client is not None, "the daemon was not opened"
        return self._client

    @property
    def is_open(self) -> bool:
        return self._client is not None

    async def open(self) -> None:
        """Raises BadInput for an engine that is not there, or not on this machine."""
        if "://" in self.socket:
            raise BadInput(
                f"The container engine at {self.socket} cannot be used: releases and data lie on this machine.",
                "Give the socket of an engine that runs here, such as /run/docker.sock.",
            )
        if _is_out_of_sight(self.socket):
            raise BadInput(
                f"The container engine at {self.socket} runs outside of the container that lazycloud is in.",
                "Run lazycloud beside the engine: its containers’ files and processes must be those it sees.",
            )
        connector = aiohttp.UnixConnector(
            self.socket, limit=0
        )  # each log that is followed holds a connection
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._client = Docker("unix://localhost", connector, session, timeout)
        try:
            async with self.asked("to tell about itself"):
                self.info = await self.client.system.info()
        except StepFailed as problem:
            await self.close()
            raise BadInput(
                f'isolation = "container": {problem.sentence}',
                "Start Docker or Podman, say where its socket is in [container] of config.toml or DOCKER_HOST, "
                "see to it that this user may open it, or choose another isolation.",
            ) from problem

    async def close(self) -> None:
        if self._client:
            await self._client.session.close()
            self._client = None

    @property
    def is_rootless(self) -> bool:
        """Run by an ordinary user: its root is that user, and its networks are out of our reach."""
        return any("rootless" in one for one in self.info.get("SecurityOptions") or ())

    @asynccontextmanager
    async def asked(self, what: str) -> AsyncIterator[None]:
        """Around calls of the client: raises Away, or Refused with `what`, "to remove …", in the sentence."""
        try:
            yield
        except DockerError as problem:
            if problem.status == NO_CONNECTION:
                raise self._away(problem.message) from problem
            raise Refused(
                f"The container engine was asked {what}: {problem.message}.", problem.status
            ) from problem
        except TimeoutError as problem:
            raise self._away("no answer in time") from problem
        except (aiohttp.ClientError, OSError) as problem:
            raise self._away(str(problem)) from problem

    async def build(
        self, archive: Any, parameters: Mapping[str, str]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """What `POST /build` says, a message at a time: aiodocker's own `build` has no word for the network."""
        headers = {"content-type": "application/x-tar"}
        forever = aiohttp.ClientTimeout()
        async with (
            self.asked("to build an image"),
            self.client._query(
                "build", "POST", params=parameters, headers=headers, data=archive, timeout=forever
            ) as answer,
        ):
            try:
                async for line in answer.content:
                    if line.strip():
                        yield json.loads(line)
            finally:
                answer.close()  # an engine goes on with what it believes somebody waits for

    def _away(self, why: str) -> Away:
        return Away(
            f"The container engine at {self.socket} does not answer ({_without_socket(why)}).",
            "Start it again; what ran in it is started anew.",
        )


def _is_out_of_sight(place: str) -> bool:
    """Whether an engine is there whose processes have other numbers than we would know them by."""
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(PATIENCE)
            tried.connect(place)
            peer: int = struct.unpack("3i", tried.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    except OSError:
        return False  # said with its reason by who asks it
    return peer == 0


def _without_socket(why: str) -> str:
    """The reason in brackets, if the library wrapped one."""
    return why.partition("[")[2].removesuffix("]") or why


def _usual_socket() -> str:
    """The first that is there; Docker's where none is, for the message."""
    own = f"/run/user/{os.getuid()}"
    places = ["/run/docker.sock", "/var/run/docker.sock", f"{own}/docker.sock"]
    places += ["/run/podman/podman.sock", f"{own}/podman/podman.sock"]
    found = (place for place in places if Path(place).is_socket() and os.access(place, os.W_OK))
    return next(found, places[0])
