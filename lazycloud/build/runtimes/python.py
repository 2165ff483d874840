"""Python: Django, an application object and its server, or a plain script; packages by uv."""

from __future__ import annotations

import asyncio
import platform
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

import uv

from lazycloud.build.commands import run_tool
from lazycloud.build.limits import Limits
from lazycloud.build.runtimes.application import Application, find_application
from lazycloud.build.runtimes.compiled import take_compiled
from lazycloud.build.runtimes.requirements import (
    PythonDependencies,
    is_pinned,
    no_dependencies,
    normal_name,
    python_dependencies,
)
from lazycloud.build.runtimes.runtime import Dependencies, Installing, Look, Place, Runtime, Use, Way
from lazycloud.build.toolchain import Tool, Toolchain
from lazycloud.build.tree import Tree
from lazycloud.errors import StepFailed
from lazycloud.processes import CommandFailed, Output

MODULES = ("app", "main", "wsgi", "asgi", "application", "server")
SCRIPTS = ("app.py", "main.py", "server.py", "wsgi.py")
NO_PACKAGES = frozenset(
    {"tests", "test", "docs", "doc", "examples", "scripts", "migrations", "node_modules", "src"}
)
VENV = "venv"
DISTRIBUTIONS = f"{VENV}/lib/*/site-packages/*.dist-info"
FINISH_TIMEOUT = 600.0
LIKELY = 2  # environments in which compiled modules are looked for
OWN = Tool(platform.python_version(), sys.executable)
_VERSION_OF = "import platform; print(platform.python_version())"
_SETTINGS = re.compile(r"""["']DJANGO_SETTINGS_MODULE["']\s*,\s*["']([A-Za-z_][\w.]*)["']""")


class Python(Runtime):
    name = "python"
    beside = "inputs"
    memory = "preload"
    writable = (memory,)

    def find(self, look: Look) -> Way | None:
        packages = python_dependencies(look.tree)
        return find_framework(look.tree, packages.names if packages else frozenset())

    def guess(self, look: Look) -> Way | None:
        return find_script(look.tree)

    def dependencies(self, look: Look, use: Use) -> Dependencies | None:
        """An environment without packages still settles which Python `python` is."""
        is_command = use.way.runtime == "command"
        needed = use.way.runtime == self.name or (
            is_command and any(name.endswith(".py") for name in look.tree.names())
        )
        return python_dependencies(look.tree) or (no_dependencies(look.tree) if needed else None)

    def notes(self, look: Look, dependencies: Dependencies | None) -> list[str]:
        return (
            [f"Python packages come from {dependencies.origin}."]
            if dependencies and dependencies.origin
            else []
        )

    async def tool(self, dependencies: Dependencies, tools: Toolchain, output: Output) -> Tool:
        """The Python that the commit wants if this machine has it, else the one that we run on."""
        assert isinstance(dependencies, PythonDependencies)
        wanted = dependencies.wanted
        if tools.within:
            return Tool(tools.within)  # the one that is found there, when it is there
        if wanted is None or OWN.version == wanted or OWN.version.startswith(f"{wanted}."):
            return OWN
        for request in dict.fromkeys((wanted, _without_patch(wanted))):
            if found := await _look_for(request, tools):
                return found
        output(
            f"warning: {dependencies.wanted_by} wants Python {wanted}, which is not on this machine; "
            f"uses {OWN.version}. To have it: uv python install '{wanted}'\n"
        )
        return OWN

    async def install(self, installing: Installing) -> None:
        dependencies = installing.dependencies
        assert isinstance(dependencies, PythonDependencies)
        venv = installing.folder / VENV
        uv_run = partial(_uv, installing, dependencies, venv)
        await uv_run(["venv", "--quiet", "--no-project", "--python", _interpreter(installing), str(venv)])
        likely = is_pinned(dependencies) and _has_all(dependencies, installing.others)
        if dependencies.origin and not (likely and await _from_cache(uv_run, venv)):
            await uv_run(_words(dependencies, venv))
        for other in installing.others[:LIKELY]:
            await asyncio.to_thread(take_compiled, venv, other / VENV)

    def is_intact(self, place: Place) -> bool:
        """The interpreter may have been removed, or have moved, in an upgrade of the machine."""
        return (place.folder / VENV / "bin/python").exists()

    async def finish(
        self, place: Place, variables: Mapping[str, str], output: Output, limits: Limits
    ) -> None:
        """Compile all modules: nothing can be added to the environment once it is sealed."""
        python, packages = place.folder / VENV / "bin/python", place.folder / VENV / "lib"
        words = [str(python), "-I", "-m", "compileall", "-q", str(packages)]
        failed = "Not every module of the packages could be compiled"
        await run_tool(
            words, place.folder, variables, output, limits.of(FINISH_TIMEOUT, place.folder / VENV), failed
        )

    def path(self, place: Place) -> list[Path]:
        return [place.folder / VENV / "bin"]

    def variables(self, place: Place) -> Mapping[str, str]:
        return {"VIRTUAL_ENV": str(place.folder / VENV)}


async def _look_for(request: str, tools: Toolchain) -> Tool | None:
    try:
        # Not from uv's cache: builds may write to that, and what is found here is run without walls.
        flags = ("--no-python-downloads", "--no-project", "--system", "--no-cache")
        path = await tools.ask([uv.find_uv_bin(), "python", "find", *flags, "--", request])
        return Tool(await tools.ask([path, "-I", "-c", _VERSION_OF]), path)
    except CommandFailed:
        return None


def _without_patch(version: str) -> str:
    return ".".join(version.split(".")[:2]) if version.replace(".", "").isdigit() else version


def _interpreter(installing: Installing) -> str:
    """That of the environment of programs that we are within, if it has one."""
    return installing.tool.path or shutil.which("python3", path=installing.variables["PATH"]) or OWN.path


async def _uv(
    installing: Installing,
    dependencies: PythonDependencies,
    venv: Path,
    words: list[str],
    output: Output | None = None,
) -> None:
    variables = {
        **installing.variables,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_PROJECT_ENVIRONMENT": str(venv),
        **_own_version(dependencies),
    }
    await run_tool(
        [uv.find_uv_bin(), *words],
        installing.inputs,
        variables,
        output or installing.output,
        installing.limits,
        f"uv could not install the dependencies of {dependencies.origin or 'the app'}",
    )


def _has_all(dependencies: PythonDependencies, others: tuple[Path, ...]) -> bool:
    """Whether the pins name all that the app's last environment has: else they are those of its own needs alone."""
    found = [normal_name(each.name.split("-")[0]) for each in others[0].glob(DISTRIBUTIONS)] if others else []
    return bool(found) and dependencies.names.issuperset(found)


async def _from_cache(uv_run: Callable[..., Awaitable[None]], venv: Path) -> bool:
    """Install pins without asking any index, which takes longer than the rest; False if that did not do.

    The index could only say the same, provided that the pins are complete: their dependencies are looked over.
    """
    said: list[str] = []
    installing = ["pip", "install", "--offline", "--no-deps", "--python", str(venv), "-r", "requirements.txt"]
    try:
        await uv_run(installing, said.append)
        await uv_run(["pip", "check", "--python", str(venv)], said.append)
    except StepFailed:
        return False
    return True


def _own_version(dependencies: PythonDependencies) -> dict[str, str]:
    """The tree has no .git for a project to take its version from; only the project's own name gets one."""
    if not dependencies.project:
        return {}
    suffix = normal_name(dependencies.project).replace("-", "_").upper()
    return {f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{suffix}": "0+lazycloud"}


def _words(dependencies: PythonDependencies, venv: Path) -> list[str]:
    if dependencies.origin == "uv.lock":
        own = [] if dependencies.local else ["--no-install-project"]
        return ["sync", "--frozen", "--no-dev", "--python", str(venv), *own]
    installing = ["pip", "install", "--python", str(venv)]
    if dependencies.origin == "pyproject.toml":
        return [*installing, *(["-e", "."] if dependencies.local else ["-r", "pyproject.toml"])]
    return [*installing, "-r", "requirements.txt"]


def find_framework(tree: Tree, packages: frozenset[str]) -> Way | None:
    """Django, or an application object. Raises StepFailed for one that nothing among `packages` can serve."""
    if tree.exists("manage.py"):
        return _django(tree, packages)
    for path in _candidates(tree):
        text = tree.text(path) or ""
        if app := find_application(text, packages):
            return _served(path, text, app, packages)
    return None


def find_script(tree: Tree) -> Way | None:
    """A plain script that brings its own server."""
    path = tree.first(*SCRIPTS)
    if path is None:
        return None
    found = [f"Found {path}: runs `python {path}`."]
    if "PORT" not in (tree.text(path) or ""):
        found.append(f"{path} does not mention PORT: it must listen on the port that this variable names.")
    return Way("python", tuple(found), f"python {path}")


def _candidates(tree: Tree) -> Iterator[str]:
    """Files that may hold the application: at the root, then in packages there and under src/."""
    yield from (f"{name}.py" for name in MODULES if tree.exists(f"{name}.py"))
    for base in ("", "src"):
        prefix = f"{base}/" if base else ""
        yield from (f"{prefix}{name}.py" for name in MODULES if base and tree.exists(f"{prefix}{name}.py"))
        for folder in tree.names(base):
            if folder.isidentifier() and folder not in NO_PACKAGES:
                names = ("__init__", *MODULES)
                yield from (path for name in names if tree.exists(path := f"{prefix}{folder}/{name}.py"))


def _served(path: str, text: str, app: Application, packages: frozenset[str]) -> Way:
    inner = path.removeprefix("src/")
    python_path = ("src",) if inner != path else ()
    module = ".".join(PurePosixPath(inner).with_suffix("").parts).removesuffix(".__init__")
    run = _wsgi(module, app, packages) if app.is_wsgi else _asgi(module, app, packages)
    if run is None and "__main__" in text and "PORT" in text:
        run = f"python {path}"
    if run is None:
        raise _no_server(path, app)
    what = "function" if app.factory else "application"
    found = f"Found {path} with the {app.framework} {what} `{app.name}`: runs `{run}`."
    return Way("python", (found,), run, python_path=python_path)


def _wsgi(module: str, app: Application, packages: frozenset[str]) -> str:
    if "gunicorn" in packages:
        target = f"'{module}:{app.name}()'" if app.factory else f"{module}:{app.name}"
        return f"python -m gunicorn --bind $HOST:$PORT {target}"
    if "waitress" in packages:
        call = "--call " if app.factory else ""
        return f"python -m waitress --host=$HOST --port=$PORT {call}{module}:{app.name}"
    return f"python -m flask --app {module}:{app.name} run --host $HOST --port $PORT"


def _asgi(module: str, app: Application, packages: frozenset[str]) -> str | None:
    if "uvicorn" in packages:
        factory = "--factory " if app.factory else ""
        return f"python -m uvicorn {factory}--host $HOST --port $PORT {module}:{app.name}"
    if "hypercorn" in packages or app.framework == "Quart":
        target = f"'{module}:{app.name}()'" if app.factory else f"{module}:{app.name}"
        return f"python -m hypercorn --bind $HOST:$PORT {target}"
    return None


def _no_server(path: str, app: Application) -> StepFailed:
    return StepFailed(
        f"{path} has the {app.framework} application `{app.name}`, but no server for it is among the dependencies.",
        "Add uvicorn (or hypercorn) to them, or say in lazycloud.toml under [run] with `command` what to run.",
    )


def _django(tree: Tree, packages: frozenset[str]) -> Way:
    settings = _SETTINGS.search(tree.text("manage.py") or "")
    project = settings[1].split(".")[0] if settings else ""
    if "gunicorn" in packages and tree.exists(f"{project}/wsgi.py"):
        run = f"python -m gunicorn --bind $HOST:$PORT {project}.wsgi"
    elif "uvicorn" in packages and tree.exists(f"{project}/asgi.py"):
        run = f"python -m uvicorn --host $HOST --port $PORT {project}.asgi:application"
    else:
        run = "python manage.py runserver --noreload $HOST:$PORT"
    hint = 'To migrate the data of each version: release = "python manage.py migrate" under [run] in lazycloud.toml.'
    return Way("python", (f"Found manage.py of Django: runs `{run}`.", hint), run)
