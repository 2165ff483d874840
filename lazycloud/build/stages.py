"""The stages from a commit to a release: source, dependencies, build. Each has a key of all its inputs.

<folder>/releases/<key>/tree            the commit's files, then the build's output among them
<folder>/releases/<key>/source.json     the files are all there
<folder>/releases/<key>/environment/    dependencies that cannot be shared, for they lie in the tree
<folder>/releases/<key>/release.json    the release is complete, and never changes again
<folder>/environments/<key>/            dependencies, shared by all commits that name the same
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lazycloud.build.commands import run_tool
from lazycloud.build.commit import Commit
from lazycloud.build.disk import disk_watched
from lazycloud.build.executions import Executions
from lazycloud.build.marker import TRASH, discard, remove, write_marker
from lazycloud.build.node_modules import FOLDER as NODE_MODULES
from lazycloud.build.node_modules import make_node_modules
from lazycloud.build.plan import Plan, make_plan
from lazycloud.build.python_environment import make_python_environment
from lazycloud.build.recipe import Environment, Recipe, digest, make_recipe
from lazycloud.build.repository import Repository
from lazycloud.build.toolchain import Toolchain
from lazycloud.build.variables import Variables
from lazycloud.processes import Output

TREE, SOURCE_MARKER, RELEASE_MARKER, MARKER = "tree", "source.json", "release.json", "complete.json"


@dataclass(frozen=True)
class Timeouts:
    """Seconds; the build command's own is in the plan."""

    dependencies: float = 900


@dataclass(frozen=True)
class Source:
    """A commit's files in `folder`. `key` is that of the release that they become."""

    commit: Commit
    key: str
    folder: Path
    plan: Plan
    reused: bool
    recipe: Recipe


@dataclass(frozen=True)
class Dependencies:
    """`folder` is that of the first environment, None without any; `skipped`: there was nothing to do."""

    key: str
    folder: Path | None
    reused: bool
    skipped: bool


@dataclass(frozen=True)
class Release:
    """What a build leaves, complete and immutable: `plan.run` is to be run in `folder`.

    `environment` is what the release itself needs: PATH, VIRTUAL_ENV and the like, and the app's [env].
    `skipped`: there is no build command.
    """

    key: str
    folder: Path
    plan: Plan
    environment: Mapping[str, str]
    reused: bool
    skipped: bool


class Stages:
    """Makes releases in `folder`; `cache` is shared by all apps, `build_environment` is all that commands get."""

    def __init__(
        self,
        repository: Repository,
        folder: Path,
        cache: Path,
        build_environment: Mapping[str, str],
        timeouts: Timeouts | None = None,
    ) -> None:
        self._repository = repository
        self._folder = folder
        self._environment = dict(build_environment)
        self._timeouts = timeouts or Timeouts()
        self._tools = Toolchain(self._environment, cache / "tools")
        self._executions = Executions()

    def clear_leftovers(self) -> None:
        """Remove what an earlier process left half-made. Blocking; before the first stage."""
        for parent, marker in (("releases", RELEASE_MARKER), ("environments", MARKER)):
            folder = self._folder / parent
            for made in folder.iterdir() if folder.is_dir() else ():
                if made.name.startswith(TRASH) or not (made / marker).is_file():
                    remove(made)

    async def source(self, commit: Commit, output: Output) -> Source:
        """Plan the release, and write the commit's files unless a release with the same key has them.

        Raises BadInput for a file that is wrong; StepFailed for no way to run, a tool that is missing, a tree that
        cannot be written, a full disk.
        """
        plan = await self._repository.look(commit, make_plan)
        for sentence in plan.found:
            output(f"{sentence}\n")
        interpreter = await self._tools.python(plan.python, output) if plan.python else None
        node = await self._tools.node() if plan.uses_node else ""
        recipe = make_recipe(commit.tree, commit.id, plan, interpreter, node, self._folder)
        reused = (recipe.folder / SOURCE_MARKER).is_file()
        source = Source(commit, recipe.key, recipe.folder / TREE, plan, reused, recipe)
        await self._ensure_source(source, output)
        return source

    async def dependencies(self, source: Source, output: Output) -> Dependencies:
        """Install what the plan names, unless it is installed. Raises StepFailed with the tool's last lines."""
        environments = source.recipe.environments
        reused = all((each.folder / MARKER).is_file() for each in environments)
        for environment in environments:
            await self._ensure_environment(source, environment, output)
        key = digest([environment.key for environment in environments])
        folder = environments[0].folder if environments else None
        return Dependencies(key, folder, reused and folder is not None, skipped=folder is None)

    async def build(self, source: Source, dependencies: Dependencies, output: Output) -> Release:
        """Run the build command in the release's folder, unless it was. Raises StepFailed with its last lines.

        A build that fails leaves nothing; the next one begins with the files as they were committed.
        """
        reused = (source.recipe.folder / RELEASE_MARKER).is_file()
        if not reused:
            work = partial(self._build, source, dependencies)
            await self._executions.share(f"build {source.key}", work, output)
        plan = _settled(source)
        environment = self._variables(source).run()
        return Release(source.key, source.folder, plan, environment, reused, skipped=plan.build is None)

    async def _ensure_source(self, source: Source, output: Output) -> None:
        if not (source.recipe.folder / SOURCE_MARKER).is_file():
            await self._executions.share(f"source {source.key}", partial(self._write_source, source), output)

    async def _write_source(self, source: Source, output: Output) -> None:
        folder = source.recipe.folder
        try:
            with disk_watched(folder):
                await discard(folder)
                source.folder.mkdir(parents=True)
                await self._repository.write_source(source.commit, source.folder, output)
                write_marker(folder / SOURCE_MARKER, {"commit": source.commit.id, "tree": source.commit.tree})
        except BaseException:
            await discard(folder)
            raise

    async def _ensure_environment(self, source: Source, environment: Environment, output: Output) -> None:
        if not (environment.folder / MARKER).is_file():
            work = partial(self._make_environment, source, environment)
            await self._executions.share(f"dependencies {environment.folder}", work, output)

    async def _make_environment(self, source: Source, environment: Environment, output: Output) -> None:
        folder = environment.folder
        install = self._install_python if environment.kind == "python" else self._install_node
        try:
            with disk_watched(folder):
                await discard(folder)
                folder.mkdir(parents=True)
                self._make_private_folders()
                await install(source, environment, output)
                write_marker(folder / MARKER, {"key": environment.key, "kind": environment.kind})
        except BaseException:
            # A local one has left traces in the tree as well.
            await discard(source.recipe.folder if environment.local else folder)
            raise

    async def _install_python(self, source: Source, environment: Environment, output: Output) -> None:
        dependencies, interpreter = source.plan.python, source.recipe.interpreter
        assert dependencies is not None and interpreter is not None
        inputs = source.folder if environment.local else environment.folder / "inputs"
        if not environment.local:
            _write_inputs(inputs, dependencies.files)
        variables = self._variables(source).install(environment)
        timeout = self._timeouts.dependencies
        await make_python_environment(
            dependencies, interpreter, environment.folder, inputs, variables, output, timeout
        )

    async def _install_node(self, source: Source, environment: Environment, output: Output) -> None:
        dependencies = source.plan.node
        assert dependencies is not None
        folder = source.folder if environment.local else environment.folder
        if not environment.local:
            _write_inputs(folder, dependencies.files)
        variables = self._variables(source).install(environment)
        await make_node_modules(dependencies, folder, variables, output, self._timeouts.dependencies)

    async def _build(self, source: Source, dependencies: Dependencies, output: Output) -> None:
        # The failure of another commit with this tree may have taken the files away since they were written.
        await self._ensure_source(source, output)
        await self.dependencies(source, output)
        folder = source.recipe.folder
        try:
            with disk_watched(folder):
                _link_node_modules(source)
                await self._run_build(source, output)
                _settled(source)
                facts = {
                    "commit": source.commit.id,
                    "dependencies": dependencies.key,
                    "build": source.plan.build,
                }
                write_marker(
                    folder / RELEASE_MARKER, {"key": source.key, "tree": source.commit.tree, **facts}
                )
        except BaseException:
            await discard(folder)
            raise

    async def _run_build(self, source: Source, output: Output) -> None:
        if source.plan.build is None:
            return
        self._make_private_folders()
        variables = self._variables(source).build(source.commit.id)
        timeout = source.plan.build_timeout
        await run_tool(source.plan.build, source.folder, variables, output, timeout, "The build failed")

    def _variables(self, source: Source) -> Variables:
        node = source.plan.node
        stand_in = self._tools.manager_path(node) if node else None
        return Variables(self._environment, source.plan, source.recipe, source.folder, stand_in)

    def _make_private_folders(self) -> None:
        for name in ("HOME", "TMPDIR"):
            if place := self._environment.get(name):
                Path(place).mkdir(parents=True, exist_ok=True, mode=0o700)


def _settled(source: Source) -> Plan:
    return source.plan.settled(lambda root: (source.folder / root).is_dir())


def _link_node_modules(source: Source) -> None:
    for environment in source.recipe.environments:
        if environment.kind == "node" and not environment.local:
            with suppress(FileExistsError):
                (source.folder / NODE_MODULES).symlink_to(environment.folder / NODE_MODULES)


def _write_inputs(folder: Path, files: tuple[tuple[str, bytes], ...]) -> None:
    folder.mkdir(exist_ok=True)
    for path, content in files:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
