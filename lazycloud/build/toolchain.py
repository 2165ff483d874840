"""The interpreters and package managers of this machine that a plan needs."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from lazycloud.build.runtimes.node import NodeDependencies
from lazycloud.build.runtimes.requirements import PythonDependencies
from lazycloud.errors import StepFailed
from lazycloud.processes import CommandFailed, Output, run

ASK_TIMEOUT = 30.0  # a cold disk, a slow shim
_VERSION_OF = "import platform; print(platform.python_version())"


@dataclass(frozen=True)
class Interpreter:
    """A Python: what to run, and its full version."""

    path: str
    version: str


OWN = Interpreter(sys.executable, platform.python_version())


class Toolchain:
    """Looks tools up by the `environment` that they will run in; `folder` is for stand-ins of missing ones."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._pythons: dict[str, Interpreter | None] = {}

    async def python(self, dependencies: PythonDependencies, output: Output) -> Interpreter:
        """The Python that the commit wants if this machine has it, else the one that we run on."""
        wanted = dependencies.wanted
        if wanted is None or OWN.version == wanted or OWN.version.startswith(f"{wanted}."):
            return OWN
        for request in dict.fromkeys((wanted, _without_patch(wanted))):
            if found := await self._find_python(request):
                return found
        output(
            f"warning: {dependencies.wanted_by} wants Python {wanted}, which is not on this machine; "
            f"uses {OWN.version}. To have it: uv python install '{wanted}'\n"
        )
        return OWN

    async def node(self) -> str:
        """The version of Node.js. Raises StepFailed when it is missing."""
        if self.which("node") is None:
            raise StepFailed(
                "node was not found on PATH, and package.json needs it.", "Install Node.js, 20 or later."
            )
        return await self._ask(["node", "--version"])

    def which(self, name: str) -> str | None:
        return shutil.which(name, path=self._environment.get("PATH"))

    def manager_path(self, dependencies: NodeDependencies) -> Path | None:
        """A folder to put on PATH so that the package manager is there; None when it already is.

        Raises StepFailed when neither it, corepack nor npx is on this machine.
        """
        manager = dependencies.manager
        if self.which(manager):
            return None
        version = f"@{dependencies.version}" if dependencies.version else ""
        # Not corepack first: those that come with Node.js refuse packages signed with keys newer than they are.
        if manager != "npm" and self.which("npx"):
            return self._stand_in(manager, f"npx --yes {_package(manager, version)}")
        if manager != "npm" and self.which("corepack"):
            return self._stand_in(manager, f"corepack {manager}{version}")
        found_by = dependencies.lockfile or "package.json"
        raise StepFailed(
            f"{manager} was not found on PATH, and {found_by} needs it.", f"Install Node.js with {manager}."
        )

    def _stand_in(self, manager: str, command: str) -> Path:
        folder = self._folder / command.replace("/", "_").replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / manager
        if not script.exists():
            aside = folder / f"{manager}.new"
            aside.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            aside.chmod(0o755)
            aside.rename(script)
        return folder

    async def _find_python(self, request: str) -> Interpreter | None:
        if request not in self._pythons:
            self._pythons[request] = await self._look_for_python(request)
        return self._pythons[request]

    async def _look_for_python(self, request: str) -> Interpreter | None:
        try:
            flags = ("--no-python-downloads", "--no-project", "--system")
            path = await self._ask([uv.find_uv_bin(), "python", "find", *flags, "--", request])
            return Interpreter(path, await self._ask([path, "-I", "-c", _VERSION_OF]))
        except CommandFailed:
            return None

    async def _ask(self, command: Sequence[str]) -> str:
        """The last line that a command says."""
        said: list[str] = []
        await run(command, Path("/"), self._environment, said.append, ASK_TIMEOUT)
        return "".join(said).strip().split("\n")[-1]


def _without_patch(version: str) -> str:
    return ".".join(version.split(".")[:2]) if version.replace(".", "").isdigit() else version


def _package(manager: str, version: str) -> str:
    """Yarn from 2 on is another package than the one that is named yarn."""
    name = "@yarnpkg/cli-dist" if manager == "yarn" and not version.startswith("@1") else manager
    return f"{name}{version}"
