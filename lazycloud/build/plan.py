"""What to run: decided from a commit's files alone. Pure.

lazycloud.toml has the first word, then the Procfile, then what the files look like. Dependencies are found by their
files, whatever says the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from lazycloud import spans
from lazycloud.build.procfile import parse_procfile
from lazycloud.build.runtimes.command import Command
from lazycloud.build.runtimes.dockerfile import FILE as DOCKERFILE
from lazycloud.build.runtimes.known import RUNTIMES
from lazycloud.build.runtimes.runtime import Dependencies, Look, Use, Way
from lazycloud.build.runtimes.static import serving
from lazycloud.build.settings import NAME as SETTINGS_FILE
from lazycloud.build.settings import parse_settings
from lazycloud.build.tree import Tree
from lazycloud.errors import StepFailed

COMMAND = Command.name  # the runtime when somebody said what to run and nothing is to be installed


@dataclass(frozen=True)
class Plan:
    """How to install, build and run a commit. Commands are shell strings for /bin/sh -c; times are in seconds.

    `run` is "" for a static site whose folder the build has yet to leave; `settled` fills it in. `python_path` are
    folders of the tree. `found` are sentences for the log. `data_from` is "production", "parent" or "empty",
    `data_database` "sqlite" or "postgres"; `data_redis`, `data_versionbase`: each version has a Redis, documents of
    its own; `data_snapshots`: how often one is made of production by itself, in seconds, 0 for never. `on_commit` is
    "announce", "build" or "start". `build_inputs` are the files that the build reads, as patterns with their
    fingerprints, none for all. `secrets` are names. `writable`: the app may change committed files. `workers` serve
    it at a time; `background` are commands of other processes, by name. `build_network`: its build may use the
    network. With a `dockerfile`, all run in an image that is built of it, and `run` is "" for its own command.
    """

    runtime: str
    found: tuple[str, ...]
    run: str
    roots: tuple[str, ...] = ()
    dockerfile: str = ""
    dependencies: tuple[Dependencies, ...] = ()
    python_path: tuple[str, ...] = ()
    build: str | None = None
    build_reads_commit: bool = False
    build_inputs: tuple[tuple[str, str], ...] = ()
    build_outputs: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    writable: bool = False
    build_network: bool = False
    release: str | None = None
    after: str | None = None
    health: str | None = None
    health_interval: float = 10
    health_timeout: float = 5
    workers: int = 1
    background: Mapping[str, str] = field(default_factory=dict)
    build_timeout: float = 900
    ready_timeout: float = 60
    release_timeout: float = 600
    stop_timeout: float = 10
    preload: bool = True
    data_from: str = "production"
    data_database: str = "sqlite"
    data_redis: bool = False
    data_versionbase: bool = False
    data_snapshots: float = 0
    on_commit: str = "announce"
    env: Mapping[str, str] = field(default_factory=dict)

    def needs(self, kind: str) -> Dependencies | None:
        """The dependencies of one kind."""
        return next((each for each in self.dependencies if each.kind == kind), None)

    @property
    def sealed(self) -> bool:
        """Whether nothing changes the committed files, once they are written: releases may share them then."""
        built_elsewhere = self.build is None or bool(self.build_inputs)
        return built_elsewhere and not (self.writable or any(each.local for each in self.dependencies))

    def settled(self, is_folder: Callable[[str], bool]) -> Plan:
        """With `run` filled in, when the build is done. Raises StepFailed if it left none of `roots`."""
        if self.run or self.dockerfile:
            return self
        for root in self.roots:
            if is_folder(root):
                return replace(self, run=serving(root))
        raise StepFailed(
            f"There is no folder to serve: looked for {', '.join(self.roots)}.",
            f'Say in {SETTINGS_FILE} where the site is: [run] root = "public"',
        )


def make_plan(tree: Tree, images: bool = False) -> Plan:
    """The plan for a commit's files. `images`: images of Dockerfiles can be built here.

    Raises BadInput for a file that is wrong, StepFailed when no way to run is found.
    """
    settings = parse_settings(tree.read(SETTINGS_FILE))
    look = Look(tree, settings, parse_procfile(tree.text("Procfile") or ""), images)
    way = _way(look)
    release = settings.release or look.processes.get("release")
    commands = tuple(filter(None, (way.run, release, settings.build_command, settings.after)))
    dependencies = {} if way.dockerfile else _dependencies(look, Use(way, commands))
    build = None if way.dockerfile else _build(look, dependencies)
    return Plan(
        runtime=_runtime(way, dependencies),
        found=(*way.found, *_notes(look, dependencies, build)),
        run=way.run,
        roots=way.roots,
        dockerfile=way.dockerfile,
        dependencies=tuple(dependencies.values()),
        python_path=way.python_path,
        build=build,
        build_reads_commit="COMMIT_ID"
        in f"{build} {tree.text('package.json') if 'node' in dependencies else ''}",
        build_inputs=tuple((pattern, tree.fingerprint(pattern)) for pattern in settings.build_inputs),
        build_outputs=settings.build_outputs,
        secrets=settings.secrets,
        writable=settings.writable,
        build_network=bool(settings.network) or bool(way.dockerfile and settings.network is None),
        release=release,
        after=settings.after,
        health=settings.health,
        health_interval=settings.health_interval,
        health_timeout=settings.health_timeout,
        workers=settings.workers,
        background={name: text for name, text in look.processes.items() if name not in ("web", "release")},
        build_timeout=settings.build_timeout,
        ready_timeout=settings.ready_timeout,
        release_timeout=settings.release_timeout,
        stop_timeout=settings.stop_timeout,
        preload=settings.preload,
        data_from=settings.data_from,
        data_database=settings.data_database,
        data_redis=settings.data_redis,
        data_versionbase=settings.data_versionbase,
        data_snapshots=spans.seconds(settings.data_snapshots, "snapshots") if settings.data_snapshots else 0,
        on_commit=settings.on_commit,
        env=settings.env,
    )


def _way(look: Look) -> Way:
    """The first way to run that is found. Raises StepFailed when there is none."""
    for runtime in RUNTIMES:
        if way := runtime.find(look):
            return way
    for runtime in RUNTIMES:
        if way := runtime.guess(look):
            return way
    raise _no_way(look)


def _no_way(look: Look) -> StepFailed:
    if look.tree.exists(DOCKERFILE) and not look.images:
        return StepFailed(
            f"The commit has a {DOCKERFILE}, and no other way to run it was found; this server runs no containers.",
            'Set isolation = "container" in the server\'s config.toml, which needs Docker or Podman; or say in '
            f"{SETTINGS_FILE} or a Procfile how to run it without.",
        )
    processes = look.processes
    others = f" The Procfile has {', '.join(processes)}, but no web." if processes else ""
    return StepFailed(
        f"No way to run this commit was found.{others} Looked for: {SETTINGS_FILE} with a command, "
        "a Procfile with web, manage.py, a Flask, FastAPI or Starlette application, app.py or main.py, "
        "package.json with a start script, index.php, index.html.",
        f'Commit a {SETTINGS_FILE} such as:\n\n[run]\ncommand = "python3 -m http.server $PORT"\nhealth = "/"\n',
    )


def _dependencies(look: Look, use: Use) -> dict[str, Dependencies]:
    """By kind, in the order in which they are installed."""
    found: dict[str, Dependencies] = {}
    for runtime in RUNTIMES:
        if dependencies := runtime.dependencies(look, replace(use, kinds=frozenset(found))):
            found[runtime.name] = dependencies
    return found


def _build(look: Look, dependencies: Mapping[str, Dependencies]) -> str | None:
    if look.settings.build_command is not None:
        return look.settings.build_command or None
    return next((build for r in RUNTIMES if r.name in dependencies and (build := r.build(look))), None)


def _runtime(way: Way, dependencies: Mapping[str, Dependencies]) -> str:
    if way.runtime != COMMAND:
        return way.runtime
    return next((kind for kind in ("python", "node", "php") if kind in dependencies), COMMAND)


def _notes(look: Look, dependencies: Mapping[str, Dependencies], build: str | None) -> Iterator[str]:
    for runtime in RUNTIMES:
        yield from runtime.notes(look, dependencies.get(runtime.name))
    if build:
        yield f"Builds with `{build}`."
    for pattern in look.settings.build_inputs:
        if not look.tree.fingerprint(pattern):
            yield f"warning: {SETTINGS_FILE} names the build input {pattern}, which no file of the commit is."
