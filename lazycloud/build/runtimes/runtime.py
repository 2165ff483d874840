"""What a runtime is: one file of this folder, which finds, installs and surrounds the apps of its kind.

To write one: subclass Runtime, override what your kind of app needs, add it to RUNTIMES. `php` is the shortest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lazycloud.build.limits import Limits
from lazycloud.build.settings import Settings
from lazycloud.build.toolchain import Tool, Toolchain
from lazycloud.build.tree import Tree
from lazycloud.processes import Output


@dataclass(frozen=True)
class Look:
    """What planning sees of a commit. `processes` are the commands of its Procfile, by name.

    `images`: images of Dockerfiles can be built and run here.
    """

    tree: Tree
    settings: Settings
    processes: Mapping[str, str]
    images: bool = False


@dataclass(frozen=True)
class Way:
    """A way to run an app. `run` is a shell command, "" for a static site; `roots` are the folders that one may
    be served from.

    `found` says in sentences what was seen; `python_path` are folders of the tree that imports start in. With a
    `dockerfile`, by its path, an image is built of it that has all the app needs.
    """

    runtime: str
    found: tuple[str, ...]
    run: str = ""
    roots: tuple[str, ...] = ()
    python_path: tuple[str, ...] = ()
    dockerfile: str = ""


@dataclass(frozen=True)
class Use:
    """How the app is run: its way, all words of its `commands`, and the kinds of dependencies found by now."""

    way: Way
    commands: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()

    @property
    def words(self) -> set[str]:
        return {word for command in self.commands for word in command.split()}


@dataclass(frozen=True)
class Dependencies:
    """What makes one environment: `files` are all its inputs, as (path, content), `kind` the runtime's name.

    `origin` names the file that decides, "" for none. `local`: it needs the commit's own tree around it, so that
    it belongs to one release and cannot be shared. `nothing`: the runtime is needed, and no package of it.
    """

    kind: str
    origin: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
    local: bool = False
    nothing: bool = False

    @property
    def settings(self) -> dict[str, str]:
        """What decides beside the files and the tool, by name."""
        return {}


@dataclass(frozen=True)
class Installing:
    """An environment that is to be made in `folder`: at its final path, for many tools write absolute ones.

    The command runs in `inputs`: a folder with `dependencies.files`, or the commit's tree if they are local.
    `others` are sealed environments of the same kind, the one that was used last first.
    """

    dependencies: Dependencies
    tool: Tool
    folder: Path
    inputs: Path
    variables: Mapping[str, str]
    output: Output
    limits: Limits
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where an environment is, for those who run in it: its folder, and the tree of the release."""

    folder: Path
    tree: Path
    tool: Tool = field(default_factory=Tool)


class Runtime:
    """The defaults are those of a runtime that needs nothing. Pure but for `tool` and `install`."""

    name = ""
    beside = ""  # the folder of an environment that its inputs are written into; "" is itself
    link = ""  # what of an environment is linked into the tree, by its path in both
    writable: tuple[str, ...] = ()  # what of an environment stays writable, relative to it
    memory: str = ""  # the one of these that only the server writes to

    def find(self, look: Look) -> Way | None:
        """A way to run the app that leaves no doubt. Raises BadInput, StepFailed for an app that cannot work."""
        return None

    def guess(self, look: Look) -> Way | None:
        """A way to run the app if no runtime found a sure one."""
        return None

    def dependencies(self, look: Look, use: Use) -> Dependencies | None:
        """What is to be installed to run it that way; None when the app does not need this runtime."""
        return None

    def build(self, look: Look) -> str | None:
        """The build command of an app that has dependencies of this kind and does not name one."""
        return None

    def notes(self, look: Look, dependencies: Dependencies | None) -> list[str]:
        """Sentences for the log about what is or is not used."""
        return []

    async def tool(self, dependencies: Dependencies, tools: Toolchain, output: Output) -> Tool:
        """What of this machine they need. Raises StepFailed when it is missing."""
        return Tool()

    async def install(self, installing: Installing) -> None:
        """Make the environment. Raises StepFailed with the tool's last lines."""

    def is_intact(self, place: Place) -> bool:
        """Whether what an environment leads to, outside of it, is still there."""
        return True

    async def finish(
        self, place: Place, variables: Mapping[str, str], output: Output, limits: Limits
    ) -> None:
        """What makes later starts faster, done when nobody waits. Raises StepFailed; it then serves as it is."""

    def links(self, dependencies: Dependencies) -> str:
        """What of a shared environment is linked into the tree, by its path in both; "" for nothing."""
        return self.link

    def path(self, place: Place) -> list[Path]:
        """Folders for PATH, before the machine's."""
        return []

    def variables(self, place: Place) -> Mapping[str, str]:
        """More of the environment of builds and runs."""
        return {}
