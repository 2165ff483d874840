"""What to run: decided from a commit's files alone. Pure.

lazycloud.toml has the first word, then the Procfile, then what the files look like. Dependencies are found by their
files, whatever says the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from lazycloud.build.procfile import parse_procfile
from lazycloud.build.runtimes.node import (
    NodeDependencies,
    Package,
    find_node,
    manager_of,
    node_dependencies,
    read_package,
)
from lazycloud.build.runtimes.python import find_framework, find_script
from lazycloud.build.runtimes.requirements import PythonDependencies, no_dependencies, python_dependencies
from lazycloud.build.runtimes.static import find_static, serving
from lazycloud.build.runtimes.way import Way
from lazycloud.build.settings import NAME as SETTINGS_FILE
from lazycloud.build.settings import Settings, parse_settings
from lazycloud.build.tree import Tree
from lazycloud.errors import StepFailed

NODE_WORDS = ("node", "npm", "npx", "pnpm", "yarn", "corepack")
COMMAND = "command"  # the runtime when somebody said what to run and nothing is to be installed


@dataclass(frozen=True)
class Plan:
    """How to install, build and run a commit. Commands are shell strings for /bin/sh -c; times are in seconds.

    `run` is "" for a static site whose folder the build has yet to leave; `settled` fills it in. `python_path` are
    folders of the tree. `found` are sentences for the log. `data_from` is "production", "parent" or "empty",
    `on_commit` "announce", "build" or "start".
    """

    runtime: str
    found: tuple[str, ...]
    run: str
    roots: tuple[str, ...] = ()
    python: PythonDependencies | None = None
    node: NodeDependencies | None = None
    uses_node: bool = False
    python_path: tuple[str, ...] = ()
    build: str | None = None
    build_reads_commit: bool = False
    release: str | None = None
    after: str | None = None
    health: str | None = None
    build_timeout: float = 900
    ready_timeout: float = 60
    release_timeout: float = 600
    stop_timeout: float = 10
    data_from: str = "production"
    on_commit: str = "announce"
    env: Mapping[str, str] = field(default_factory=dict)

    def settled(self, is_folder: Callable[[str], bool]) -> Plan:
        """With `run` filled in, when the build is done. Raises StepFailed if it left none of `roots`."""
        if self.run:
            return self
        for root in self.roots:
            if is_folder(root):
                return replace(self, run=serving(root))
        raise StepFailed(
            f"There is no folder to serve: looked for {', '.join(self.roots)}.",
            f'Say in {SETTINGS_FILE} where the site is: [run] root = "public"',
        )


def make_plan(tree: Tree) -> Plan:
    """The plan for a commit's files.

    Raises BadInput for a file that is wrong, StepFailed when no way to run is found.
    """
    settings = parse_settings(tree.read(SETTINGS_FILE))
    processes = parse_procfile(tree.text("Procfile") or "")
    package = read_package(tree)
    python = python_dependencies(tree)
    way = _way(tree, settings, processes, package, python)
    release = settings.release or processes.get("release")
    if python is None and _needs_python(tree, way):
        python = no_dependencies(tree)
    said = " ".join(filter(None, (way.run, release, settings.build_command, settings.after)))
    used = package if package and _takes_node(way, package, python, said) else None
    build = _build(settings, tree, used)
    return Plan(
        runtime=_runtime(way, python, used),
        found=(*way.found, *_notes(python, package, used, build)),
        run=way.run,
        roots=way.roots,
        python=python,
        node=node_dependencies(tree, used) if used else None,
        uses_node=used is not None,
        python_path=way.python_path,
        build=build,
        build_reads_commit="COMMIT_ID" in f"{build} {used.scripts if used else ''}",
        release=release,
        after=settings.after,
        health=settings.health,
        build_timeout=settings.build_timeout,
        ready_timeout=settings.ready_timeout,
        release_timeout=settings.release_timeout,
        stop_timeout=settings.stop_timeout,
        data_from=settings.data_from,
        on_commit=settings.on_commit,
        env=settings.env,
    )


def _way(
    tree: Tree,
    settings: Settings,
    processes: Mapping[str, str],
    package: Package | None,
    python: PythonDependencies | None,
) -> Way:
    """The first way to run that is found. Raises StepFailed when there is none."""
    if settings.run_command:
        return Way(COMMAND, (f"{SETTINGS_FILE} says: runs `{settings.run_command}`.",), settings.run_command)
    if settings.root:
        return Way(
            "static", (f"{SETTINGS_FILE} says: serves the folder {settings.root}.",), roots=(settings.root,)
        )
    if web := processes.get("web"):
        return Way(COMMAND, (f"The Procfile says: runs `{web}`.",), web)
    way = find_framework(tree, python.names if python else frozenset())
    way = way or (find_node(tree, package) if package else None)
    way = way or find_script(tree) or find_static(tree)
    if way is None:
        raise _no_way(processes)
    return way


def _no_way(processes: Mapping[str, str]) -> StepFailed:
    others = f" The Procfile has {', '.join(processes)}, but no web." if processes else ""
    return StepFailed(
        f"No way to run this commit was found.{others} Looked for: {SETTINGS_FILE} with a command, "
        "a Procfile with web, manage.py, a Flask, FastAPI or Starlette application, app.py or main.py, "
        "package.json with a start script, index.html.",
        f'Commit a {SETTINGS_FILE} such as:\n\n[run]\ncommand = "python3 -m http.server $PORT"\nhealth = "/"\n',
    )


def _needs_python(tree: Tree, way: Way) -> bool:
    """An environment without packages still settles which Python `python` is."""
    return way.runtime == "python" or (
        way.runtime == COMMAND and any(name.endswith(".py") for name in tree.names())
    )


def _takes_node(way: Way, package: Package, python: PythonDependencies | None, said: str) -> bool:
    """Whether package.json is part of the app, or only of its development."""
    mentioned = any(word in NODE_WORDS for word in said.split())
    return way.runtime == "node" or package.builds or mentioned or (way.runtime == COMMAND and python is None)


def _build(settings: Settings, tree: Tree, package: Package | None) -> str | None:
    if settings.build_command is not None:
        return settings.build_command or None
    return f"{manager_of(tree)} run build" if package and package.builds else None


def _runtime(way: Way, python: PythonDependencies | None, package: Package | None) -> str:
    if way.runtime != COMMAND:
        return way.runtime
    return "python" if python else "node" if package else COMMAND


def _notes(
    python: PythonDependencies | None, package: Package | None, used: Package | None, build: str | None
) -> Iterator[str]:
    if python and python.origin:
        yield f"Python packages come from {python.origin}."
    if package and not used:
        yield "Found package.json too, but neither a build script nor a command that needs it: it is left alone."
    if build:
        yield f"Builds with `{build}`."
