"""How to run a Python app: Django, an application object and its server, or a plain script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from lazycloud.build.runtimes.application import Application, find_application
from lazycloud.build.runtimes.way import Way
from lazycloud.build.tree import Tree
from lazycloud.errors import StepFailed

MODULES = ("app", "main", "wsgi", "asgi", "application", "server")
SCRIPTS = ("app.py", "main.py", "server.py", "wsgi.py")
NO_PACKAGES = frozenset(
    {"tests", "test", "docs", "doc", "examples", "scripts", "migrations", "node_modules", "src"}
)
_SETTINGS = re.compile(r"""["']DJANGO_SETTINGS_MODULE["']\s*,\s*["']([A-Za-z_][\w.]*)["']""")


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
