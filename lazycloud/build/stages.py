"""The stages from a commit to a release: source, dependencies, build. Each has a key of all its inputs.

<folder>/releases/<key>/tree            the commit's files, then the build's output among them
<folder>/releases/<key>/source.json     the files are all there
<folder>/releases/<key>/environment/    dependencies that cannot be shared, for they lie in the tree
<folder>/releases/<key>/release.json    the release is complete, and never changes again
<folder>/environments/<key>/            dependencies, shared by all commits that name the same
<folder>/builds/<key>/outputs/          what builds leave that say what they read
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lazycloud.build.artifacts.depot import Depot
from lazycloud.build.artifacts.pack import Subject
from lazycloud.build.artifacts.subjects import find_subject, subjects
from lazycloud.build.commands import run_tool
from lazycloud.build.commit import Commit
from lazycloud.build.disk import disk_watched
from lazycloud.build.executions import Executions
from lazycloud.build.images import Images, context
from lazycloud.build.limits import Limits
from lazycloud.build.marker import (
    TRASH,
    discard,
    is_whole,
    read_marker,
    remove,
    settle_marker,
    use_marker,
    write_marker,
)
from lazycloud.build.outputs import KEPT, WORK, copy_inputs, keep_outputs, place_outputs
from lazycloud.build.plan import Plan
from lazycloud.build.plans import Plans
from lazycloud.build.recipe import Environment, Recipe, Stage, digest, make_recipe
from lazycloud.build.repository import Repository
from lazycloud.build.runtimes.known import BY_NAME
from lazycloud.build.runtimes.nix import Nix
from lazycloud.build.runtimes.runtime import Installing
from lazycloud.build.seal import seal
from lazycloud.build.secrets import Secrets
from lazycloud.build.toolchain import Tool, Toolchain
from lazycloud.build.variables import Variables
from lazycloud.errors import StepFailed
from lazycloud.processes import Output, modes_count, unheard
from lazycloud.walls.machine import installation
from lazycloud.walls.sandbox import Sandbox

TREE, SOURCE_MARKER, RELEASE_MARKER, MARKER = "tree", "source.json", "release.json", "complete.json"
CACHES = (
    "uv",
    "npm",
    "corepack",
    "xdg",
    "pnpm",
    "yarn",
)  # that builds write to, as environment.py names them
RELEASES, ENVIRONMENTS, BUILDS = "releases", "environments", "builds"
PACKAGE = Path(__file__).parents[1]  # ours, whose server serves static sites
NEIGHBOURS = 3  # releases that unchanged files are looked for in: the newest are nearest


@dataclass(frozen=True)
class Timeouts:
    """Seconds; the build command's own is in the plan."""

    dependencies: float = 900


@dataclass(frozen=True)
class Source:
    """A commit's files in `folder`. `key` is that of the release that they become.

    `fetched`: the whole release came from the artifact store just now.
    """

    commit: Commit
    folder: Path
    plan: Plan
    reused: bool
    recipe: Recipe
    fetched: bool = False

    @property
    def key(self) -> str:
        return self.recipe.key

    @property
    def uses(self) -> tuple[Path, ...]:
        """The folders that must not be removed while the release is made, or runs."""
        shared = [each.folder for each in self.recipe.environments if not each.local]
        outputs = [self.recipe.outputs] if self.recipe.outputs else []
        return (self.recipe.folder, *shared, *outputs)


@dataclass(frozen=True)
class Dependencies:
    """`folder` is that of the first environment, None without any; `skipped`: there was nothing to do.

    `fetched`: one came from the artifact store just now, and none was installed.
    """

    key: str
    folder: Path | None
    reused: bool
    skipped: bool
    fetched: bool = False


@dataclass(frozen=True)
class Release:
    """What a build leaves, complete and immutable: `plan.run` is to be run in `folder`.

    `environment` is what the release itself needs: PATH, VIRTUAL_ENV and the like, and the app's [env].
    `skipped`: there is no build command. `image`: what it is to be run in, as the engine of containers calls it;
    "" for where releases are run anyway.
    """

    key: str
    folder: Path
    plan: Plan
    environment: Mapping[str, str]
    reused: bool
    skipped: bool
    recipe: Recipe
    fetched: bool = False
    image: str = ""

    @property
    def shown(self) -> tuple[Path, ...]:
        """All that its processes read: files, environments, and the programs that those lead to."""
        return (self.folder.parent, *_shown(self.recipe), *((PACKAGE,) if self.plan.roots else ()))

    @property
    def own(self) -> tuple[Path, ...]:
        """Folders in shared environments that tools keep something in: each worker has them for itself."""
        return _kept(self.recipe)


@dataclass(frozen=True)
class Made:
    """What is on disk of a stage: `facts` are its marker's, `used` is unix time."""

    facts: Mapping[str, Any]
    used: float


class Stages:
    """Makes releases in `folder`; `cache` is shared by all apps, `build_environment` is all that commands get.

    Behind `walls` a command sees what it works with; without any, all that the server does.
    """

    def __init__(
        self,
        repository: Repository,
        folder: Path,
        cache: Path,
        build_environment: Mapping[str, str],
        timeouts: Timeouts | None = None,
        secrets: Secrets | None = None,
        depot: Depot | None = None,
        limits: Limits | None = None,
        walls: Sandbox | None = None,
        images: Images | None = None,
    ) -> None:
        self._repository = repository
        self._folder = folder
        self._environment = dict(build_environment)
        self._timeouts = timeouts or Timeouts()
        caches = tuple(cache / name for name in CACHES)
        homes = Path(build_environment["HOME"])
        self._limits = replace(limits or Limits(), homes=homes, walls=walls, write=caches)
        self._secrets = secrets or Secrets(folder / "secrets.env")
        self._tools = Toolchain(self._environment, cache / "tools")
        self._executions = Executions()
        self._images = images
        self._plans = Plans(repository, images is not None)
        self._depot = depot
        self.in_use: Callable[[Path], bool] = lambda release: (
            False
        )  # whether somebody works with, or runs in it
        self._written: list[Path] = []  # releases whose files are there, newest first

    def clear_leftovers(self) -> None:
        """Remove what an earlier process left half-made. Blocking; before the first stage."""
        if self._limits.homes:
            remove(self._limits.homes)
        for parent, marker in ((RELEASES, RELEASE_MARKER), (ENVIRONMENTS, MARKER), (BUILDS, MARKER)):
            folder = self._folder / parent
            for made in folder.iterdir() if folder.is_dir() else ():
                if made.name.startswith(TRASH) or not is_whole(made / marker):
                    remove(made)
        found = (self._folder / RELEASES).glob(f"*/{SOURCE_MARKER}")
        newest = sorted(found, key=lambda marker: marker.stat().st_mtime, reverse=True)
        self._written = [marker.parent for marker in newest[:NEIGHBOURS]]

    async def plan(self, commit: Commit) -> Plan:
        """What the commit's files say. Raises BadInput, StepFailed; only what went well is remembered."""
        return await self._plans.of(commit)

    async def recipe(self, commit: Commit, output: Output = unheard) -> tuple[Plan, Recipe]:
        """What is to be done for a commit; nothing is written.

        Raises BadInput for a file that is wrong; StepFailed for no way to run, a tool or a secret that is missing.
        """
        plan = await self.plan(commit)
        for sentence in plan.found:
            output(f"{sentence}\n")
        if plan.needs(Nix.name) and self._tools.which("nix") is None:
            output("warning: nix was not found on PATH: commands run with this machine's own programs\n")
            others = tuple(each for each in plan.dependencies if each.kind != Nix.name)
            plan = replace(plan, dependencies=others)
        hashes = await asyncio.to_thread(self._secrets.hashes, plan.secrets)
        return plan, make_recipe(commit, plan, await self._find_tools(plan, output), hashes, self._folder)

    async def source(self, commit: Commit, output: Output) -> Source:
        """Plan the release, and write the commit's files unless a release with the same key has them.

        Raises what `recipe` raises, and StepFailed for a tree that cannot be written, a full disk.
        """
        plan, recipe = await self.recipe(commit, output)
        marker = recipe.folder / SOURCE_MARKER
        await self._give_up_pointers(recipe)
        reused = marker.is_file()
        source = Source(commit, recipe.folder / TREE, plan, reused, recipe)
        fetched = await self._ensure_source(source, output)
        use_marker(marker)
        return replace(source, fetched=fetched)

    async def dependencies(self, source: Source, output: Output) -> Dependencies:
        """Install what the plan names, unless it is installed. Raises StepFailed with the tool's last lines."""
        environments = source.recipe.environments
        reused = all(_is_made(each, source.folder) for each in environments)
        fetched = source.fetched if all(each.local for each in environments) else not reused
        for environment in environments:
            was_made = _is_made(environment, source.folder)
            fetched &= await self._ensure_environment(source, environment, output) or was_made
            use_marker(environment.folder / MARKER)
        key = digest([environment.key for environment in environments])
        folder = environments[0].folder if environments else None
        return Dependencies(key, folder, reused and folder is not None, folder is None, fetched)

    async def build(self, source: Source, dependencies: Dependencies, output: Output) -> Release:
        """Run the build command, unless it was for these inputs. Raises StepFailed with its last lines.

        A build that fails leaves nothing; the next one begins with the files as they were committed.
        """
        recipe, marker = source.recipe, source.recipe.folder / RELEASE_MARKER
        reused = marker.is_file() or _has_outputs(recipe)
        fetched = source.fetched
        if not marker.is_file():
            work = partial(self._build, source, dependencies)
            fetched = await self._executions.share(f"build {source.key}", work, output)
        use_marker(marker)
        plan = _settled(source)
        image, was_there = await self._ensure_image(source, output)
        environment = self._variables(source).run()
        skipped = plan.build is None and not image
        return Release(
            source.key,
            source.folder,
            plan,
            environment,
            reused and was_there,
            skipped,
            recipe,
            fetched,
            image,
        )

    async def settle(self, release: Release, output: Output = unheard) -> None:
        """What may come after the first answer: environments are finished and sealed, all of it is flushed."""
        for environment in release.recipe.environments:
            if not environment.local:
                work = partial(self._finish, release, environment)
                await self._executions.share(f"finish {environment.folder}", work, output)
        for marker in self._markers(release.recipe):
            if (facts := read_marker(marker)) and not facts.get("settled", True):
                with suppress(FileNotFoundError):
                    await asyncio.to_thread(settle_marker, marker)
        if self._depot:
            for subject in self.subjects(release.recipe):
                self._depot.offer(subject)

    def subjects(self, recipe: Recipe) -> list[Subject]:
        """What can be had from an artifact store in place of this recipe's stages, environments first.

        Nothing that was made here from pointers of Git LFS: elsewhere their content may be there.
        """
        commit = (read_marker(recipe.folder / RELEASE_MARKER) or {}).get("commit", "")
        about = {"app": self._folder.name, "commit": commit, "tree": recipe.source.inputs["tree"]}
        pointers = bool(_missing(recipe))
        return [each for each in subjects(recipe, about) if each.kind == "environment" or not pointers]

    async def pull(self, subject: Subject, output: Output = unheard) -> bool:
        """Take it from the artifact store, unless it is here: False then. Raises what speaks against it."""
        if (subject.path / subject.marker).is_file():
            return False
        place = {"environment": "dependencies", "build": "outputs"}.get(subject.kind)
        key = f"{place} {subject.path}" if place else f"source {subject.key}"
        await self._executions.share(key, partial(self._pull, subject), output)
        return True

    def made(self, recipe: Recipe) -> list[tuple[Stage, Made | None]]:
        """What is there of each stage. Blocks for a moment."""
        return [(stage, _made(place) if place else None) for stage, place in self._places(recipe)]

    def is_made(self, recipe: Recipe) -> bool:
        """Whether the release is there, with all that it runs in. Blocks for a moment."""
        return all(marker.is_file() for marker in self._markers(recipe))

    def _places(self, recipe: Recipe) -> Iterator[tuple[Stage, Path | None]]:
        """Each stage with its marker; None where there is nothing to be made."""
        yield recipe.source, recipe.folder / SOURCE_MARKER
        folders = {each.stage.kind: each.folder for each in recipe.environments}
        for stage in recipe.dependencies:
            yield stage, folders[stage.kind] / MARKER if stage.kind in folders else None
        if recipe.build:
            yield recipe.build, recipe.outputs / MARKER if recipe.outputs else recipe.folder / RELEASE_MARKER

    def _markers(self, recipe: Recipe) -> set[Path]:
        return {place for _, place in self._places(recipe) if place} | {recipe.folder / RELEASE_MARKER}

    async def _find_tools(self, plan: Plan, output: Output) -> dict[str, Tool]:
        tools, found = self._tools, dict[str, Tool]()
        for each in plan.dependencies:
            found[each.kind] = await BY_NAME[each.kind].tool(each, tools, output)
            if each.kind == Nix.name:
                contents = [[path, content.decode(errors="replace")] for path, content in each.files]
                tools = tools.inside(f"of {each.origin}, {digest(contents)}")
        return found

    async def _pull(self, subject: Subject, output: Output) -> bool:
        assert self._depot is not None
        with disk_watched(subject.path):
            await self._depot.pull(subject)
            for place in subject.left_out if subject.kind == "environment" else ():
                (subject.path / place).mkdir(exist_ok=True)
            await asyncio.to_thread(settle_marker, subject.path / subject.marker)
        return True

    async def _take(self, recipe: Recipe, kind: str, key: str, output: Output) -> bool:
        """A stage's folder from the artifact store, if that has it; what speaks against it is said."""
        subject = find_subject(recipe, kind, key)
        return bool(self._depot and subject and await self._depot.take(subject, output))

    async def _give_up_pointers(self, recipe: Recipe) -> None:
        """Remove a release that was made from pointers of Git LFS when their content is there now."""
        missing = _missing(recipe)
        come = bool(missing) and await asyncio.to_thread(self._repository.large_files_have_come, missing)
        if come and not self.in_use(recipe.folder):
            await discard(recipe.folder)

    async def _ensure_source(self, source: Source, output: Output) -> bool:
        if (source.recipe.folder / SOURCE_MARKER).is_file():
            return False
        work = partial(self._write_source, source)
        return await self._executions.share(f"source {source.key}", work, output)

    async def _write_source(self, source: Source, output: Output) -> bool:
        """True when all of the release came from the artifact store."""
        if await self._take(source.recipe, "release", source.key, output):
            return True
        folder, began = source.recipe.folder, time.monotonic()
        try:
            with disk_watched(folder):
                await discard(folder)
                source.folder.mkdir(parents=True)
                linked = await _may_link(source.plan)
                written = await self._repository.write_source(
                    source.commit, source.folder, output, self._written, linked
                )
                facts = {"commit": source.commit.id, "tree": source.commit.tree, "sealed": source.plan.sealed}
                facts["missing"] = written.missing
                _mark(folder / SOURCE_MARKER, source.recipe.source, began, facts)
        except BaseException:
            await discard(folder)
            raise
        self._written = [folder, *self._written][:NEIGHBOURS]
        return False

    async def _ensure_environment(self, source: Source, environment: Environment, output: Output) -> bool:
        if _is_made(environment, source.folder):
            return False
        work = partial(self._make_environment, source, environment)
        return await self._executions.share(f"dependencies {environment.folder}", work, output)

    async def _make_environment(self, source: Source, environment: Environment, output: Output) -> bool:
        """True when it came from the artifact store."""
        folder, began = environment.folder, time.monotonic()
        if environment.local:  # a failure of another commit's with this tree may have taken the files away
            await self._ensure_source(source, output)
        try:
            with disk_watched(folder):
                await discard(folder)
                fetched = await self._take(source.recipe, "environment", environment.key, output)
                if not fetched:
                    await self._install(source, environment, output)
                for place in () if environment.local else environment.runtime.writable:
                    await asyncio.to_thread(make_anew, folder, place)
                if not fetched:
                    _mark(folder / MARKER, environment.stage, began, {"kind": environment.dependencies.kind})
        except BaseException:
            # A local one has left traces in the tree as well.
            await discard(source.recipe.folder if environment.local else folder)
            raise
        return fetched

    async def _install(self, source: Source, environment: Environment, output: Output) -> None:
        environment.folder.mkdir(parents=True)
        await environment.runtime.install(self._installing(source, environment, output))

    def _installing(self, source: Source, environment: Environment, output: Output) -> Installing:
        dependencies = environment.dependencies
        inputs = source.folder
        if not (dependencies.local or dependencies.kind == Nix.name):  # nix files name others of the tree
            inputs = environment.folder / environment.runtime.beside
            _write_inputs(inputs, dependencies.files)
        variables = self._variables(source).install(environment)
        place, others = environment.folder, self._sealed(dependencies.kind)
        limits = self._limits.of(self._timeouts.dependencies, source.folder if dependencies.local else place)
        limits = limits.seeing((inputs, *_shown(source.recipe)), (place,))
        return Installing(dependencies, environment.tool, place, inputs, variables, output, limits, others)

    def _sealed(self, kind: str) -> tuple[Path, ...]:
        """Environments of a kind that nobody changes any more, the one that was used last first."""
        found = [
            (marker.stat().st_mtime, marker.parent)
            for marker in (self._folder / ENVIRONMENTS).glob(f"*/{MARKER}")
            if (facts := read_marker(marker)) and facts.get("sealed") and facts.get("kind") == kind
        ]
        return tuple(folder for _, folder in sorted(found, reverse=True))

    async def _build(self, source: Source, dependencies: Dependencies, output: Output) -> bool:
        """True when what it would have made came from the artifact store."""
        # The failure of another commit with this tree may have taken the files away since they were written.
        if await self._ensure_source(source, output):
            return True
        await self.dependencies(source, output)
        recipe, plan, began, fetched = source.recipe, source.plan, time.monotonic(), False
        try:
            with disk_watched(recipe.folder):
                _link(recipe, source.folder)
                if recipe.outputs:
                    fetched = await self._ensure_outputs(source, output)
                    linked = await _may_link(plan)
                    await asyncio.to_thread(place_outputs, plan, recipe.outputs / KEPT, source.folder, linked)
                elif plan.build is not None:
                    await self._run_build(source, source.folder, output)
                _settled(source)
                facts = {
                    "commit": source.commit.id,
                    "tree": source.commit.tree,
                    "environments": [each.key for each in recipe.environments if not each.local],
                    "build": recipe.outputs.name if recipe.outputs else None,
                }
                stage = recipe.build or Stage("build", {})
                _mark(recipe.folder / RELEASE_MARKER, stage, began, {**facts, "key": source.key})
        except BaseException:
            await discard(recipe.folder)
            raise
        return fetched

    async def _ensure_outputs(self, source: Source, output: Output) -> bool:
        outputs, fetched = source.recipe.outputs, False
        assert outputs is not None
        if not _has_outputs(source.recipe):
            work = partial(self._make_outputs, source, outputs)
            fetched = await self._executions.share(f"outputs {outputs}", work, output)
        use_marker(outputs / MARKER)
        return fetched

    async def _make_outputs(self, source: Source, folder: Path, output: Output) -> bool:
        """Build apart from the release, in a folder that holds nothing but what the build says it reads.

        True when it came from the artifact store instead.
        """
        work, began, stage = folder / WORK, time.monotonic(), source.recipe.build
        assert stage is not None
        try:
            with disk_watched(folder):
                await discard(folder)
                if await self._take(source.recipe, "build", stage.key, output):
                    return True
                work.mkdir(parents=True)
                await asyncio.to_thread(copy_inputs, source.plan, source.folder, work)
                _link(source.recipe, work)
                await self._run_build(source, work, output)
                keep_outputs(source.plan, work, folder / KEPT)
                await asyncio.to_thread(remove, work)
                await asyncio.to_thread(seal, folder / KEPT)
                facts = {"commit": source.commit.id, "missing": _missing(source.recipe)}
                _mark(folder / MARKER, stage, began, facts)
        except BaseException:
            await discard(folder)
            raise
        return False

    async def _ensure_image(self, source: Source, output: Output) -> tuple[str, bool]:
        """The image of a Dockerfile, and whether it was there. Nobody keeps others from removing it at the engine."""
        if not source.plan.dockerfile:
            return "", True
        assert self._images is not None
        app = self._folder.name
        if await self._images.has(app, source.key):
            return self._images.name(app, source.key), True
        work = partial(self._build_image, source)
        await self._executions.share(f"image {source.key}", work, output)
        return self._images.name(app, source.key), False

    async def _build_image(self, source: Source, output: Output) -> None:
        assert self._images is not None
        plan, app = source.plan, self._folder.name
        seconds = self._limits.of(plan.build_timeout, source.folder).seconds
        files = await asyncio.to_thread(context, source.folder, plan.dockerfile)
        await self._images.build(
            app, source.key, source.folder, files, plan.dockerfile, output, seconds, plan.build_network
        )

    async def _run_build(self, source: Source, folder: Path, output: Output) -> None:
        assert source.plan.build is not None
        variables = replace(self._variables(source), tree=folder).build(source.commit.id)
        limits = self._limits.of(source.plan.build_timeout, folder)
        kept = _kept(source.recipe, with_memory=False)
        limits = limits.seeing(_shown(source.recipe), kept, source.plan.build_network)
        await run_tool(source.plan.build, folder, variables, output, limits, "The build failed")

    async def _finish(self, release: Release, environment: Environment, output: Output) -> None:
        folder, runtime = environment.folder, environment.runtime
        facts = read_marker(folder / MARKER)
        if facts is None or facts.get("sealed"):
            return
        with suppress(StepFailed):  # what could not be finished serves as it is
            write = await asyncio.to_thread(_filled, folder, runtime.writable)
            limits = self._limits.seeing(_shown(release.recipe), write, network=False)
            await runtime.finish(environment.place(release.folder), release.environment, output, limits)
        await asyncio.to_thread(seal, folder, runtime.writable)
        await asyncio.to_thread(settle_marker, folder / MARKER, sealed=True)

    def _variables(self, source: Source) -> Variables:
        secrets = self._secrets.values(source.plan.secrets)
        return Variables(self._environment, source.plan, source.recipe, source.folder, secrets)


def _shown(recipe: Recipe) -> tuple[Path, ...]:
    """What commands read beside the files: environments, those of the release too, and what leads on from them."""
    tools = [each.tool for each in recipe.environments]
    return (
        *(each.folder for each in recipe.environments),
        *(tool.stand_in for tool in tools if tool.stand_in),
        *(place for tool in tools if tool.path for place in installation(Path(tool.path))),
    )


def _kept(recipe: Recipe, with_memory: bool = True) -> tuple[Path, ...]:
    """Folders of shared environments that tools keep something in, as far as they are there.

    The server's memory of one, in which a link would lead the server, is for nobody else to write to.
    """
    shared = [each for each in recipe.environments if not each.local]
    places = [
        (each.folder, each.folder / place)
        for each in shared
        for place in each.runtime.writable
        if with_memory or place != each.runtime.memory
    ]
    return tuple(place for folder, place in places if place.is_dir() and _is_own(folder, place))


def make_anew(folder: Path, place: str) -> None:
    """An empty folder in an environment, whatever an installation left there. Blocks."""
    made = folder / place
    if not _is_own(folder, made.parent):
        return
    if made.is_dir() and not made.is_symlink():
        remove(made)
    else:
        made.unlink(missing_ok=True)
    made.mkdir()


def _filled(folder: Path, but: tuple[str, ...]) -> tuple[Path, ...]:
    """The folders in an environment that were installed. Blocks."""
    return tuple(
        place
        for place in folder.iterdir()
        if place.is_dir() and not place.is_symlink() and place.name not in but
    )


def _is_own(folder: Path, place: Path) -> bool:
    """Whether no link on the way leads out of the folder, which others may have filled."""
    return place.resolve() == folder.resolve() / place.relative_to(folder)


def _mark(path: Path, stage: Stage, began: float, facts: Mapping[str, Any]) -> None:
    own = {"key": stage.key, "stage": stage.name, "inputs": dict(stage.inputs)}
    write_marker(path, {**own, "seconds": round(time.monotonic() - began, 4), **facts})


def _missing(recipe: Recipe) -> Sequence[str]:
    """What of Git LFS a release's files have pointers in place of."""
    missing: Sequence[str] = (read_marker(recipe.folder / SOURCE_MARKER) or {}).get("missing", ())
    return missing


def _has_outputs(recipe: Recipe) -> bool:
    """Whether there is what the build leaves: not made from pointers, unless there is nothing else yet."""
    facts = read_marker(recipe.outputs / MARKER) if recipe.outputs else None
    return facts is not None and (not facts.get("missing") or bool(_missing(recipe)))


def _is_made(environment: Environment, tree: Path) -> bool:
    whole = (environment.folder / MARKER).is_file()
    return whole and environment.runtime.is_intact(environment.place(tree))


def _made(marker: Path) -> Made | None:
    facts = read_marker(marker)
    if facts is None:
        return None
    with suppress(FileNotFoundError):
        return Made(facts, marker.stat().st_mtime)
    return None


async def _may_link(plan: Plan) -> bool:
    """Whether releases may share files: nobody has the right to change them."""
    return plan.sealed and await asyncio.to_thread(modes_count)


def _settled(source: Source) -> Plan:
    return source.plan.settled(lambda root: (source.folder / root).is_dir())


def _link(recipe: Recipe, tree: Path) -> None:
    """What of the shared environments belongs into the tree."""
    for environment in recipe.environments:
        link = environment.runtime.links(environment.dependencies)
        if link and not environment.local:
            _demand_inside(tree, link)
            (tree / link).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                (tree / link).symlink_to(environment.folder / link)


def _demand_inside(tree: Path, link: str) -> None:
    """Raises StepFailed where a link that was committed would have us write somewhere else."""
    if not (tree / link).parent.resolve().is_relative_to(tree.resolve()):
        raise StepFailed(
            f"{link}, where packages belong, lies behind a link that leads out of the repository.",
            "Name a folder of the repository itself.",
        )


def _write_inputs(folder: Path, files: tuple[tuple[str, bytes], ...]) -> None:
    folder.mkdir(exist_ok=True)
    for path, content in files:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
