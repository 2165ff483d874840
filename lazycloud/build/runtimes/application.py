"""Find the application object in Python source: by its syntax tree, never by importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

FRAMEWORKS = {
    "flask.Flask": "Flask",
    "fastapi.FastAPI": "FastAPI",
    "starlette.applications.Starlette": "Starlette",
    "quart.Quart": "Quart",
    "litestar.Litestar": "Litestar",
}
WSGI = frozenset({"Flask"})
FACTORIES = ("create_app", "make_app")
OBJECTS = ("app", "application", "api", "server")  # the order in which names are preferred


@dataclass(frozen=True)
class Application:
    """`name` in its module is the object, or with `factory` the function that makes it."""

    framework: str
    name: str
    factory: bool = False

    @property
    def is_wsgi(self) -> bool:
        return self.framework in WSGI


def find_application(source: str, packages: frozenset[str]) -> Application | None:
    """The application that a module offers; `packages`, the app's dependencies, tell what an imported one is."""
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    imports = dict(_imports(module))
    objects = dict(_objects(module, imports))
    for name in (*OBJECTS, *objects):
        if name in objects:
            return Application(objects[name], name)
    for function in _functions(module):
        if framework := _made_in(function, imports):
            return Application(framework, function.name, factory=True)
    return _passed_on(module, imports, packages)


def _imports(module: ast.Module) -> Iterator[tuple[str, str]]:
    """(name here, full name) of everything that is imported."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.split(".")[0],
                    alias.name if alias.asname else alias.name.split(".")[0],
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{'.' * node.level}{node.module or ''}.{alias.name}"


def _objects(module: ast.Module, imports: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(name, framework) of the objects that the module makes."""
    for name, call in _assigned_calls(module.body):
        if framework := FRAMEWORKS.get(_full_name(call.func, imports)):
            yield name, framework


def _assigned_calls(body: list[ast.stmt]) -> Iterator[tuple[str, ast.Call]]:
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name), *_], value=ast.Call() as call):
                yield name, call
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call() as call):
                yield name, call
            case ast.If() | ast.Try():
                yield from _assigned_calls(node.body)


def _full_name(node: ast.expr, imports: dict[str, str]) -> str:
    """`Flask` or `flask.Flask`, however it was imported, as flask.Flask."""
    match node:
        case ast.Name(id=name):
            return imports.get(name, name)
        case ast.Attribute(value=value, attr=attr):
            return f"{_full_name(value, imports)}.{attr}"
    return ""


def _functions(module: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name in FACTORIES:
            yield node


def _made_in(function: ast.FunctionDef, imports: dict[str, str]) -> str | None:
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    return next(
        (FRAMEWORKS[name] for call in calls if (name := _full_name(call.func, imports)) in FRAMEWORKS), None
    )


def _passed_on(module: ast.Module, imports: dict[str, str], packages: frozenset[str]) -> Application | None:
    """`from shop import app`, or `app = create_app()`: an application of the framework that is depended on."""
    framework = next((framework for framework in FRAMEWORKS.values() if framework.lower() in packages), None)
    if framework is None:
        return None
    for name, call in _assigned_calls(module.body):
        if _full_name(call.func, imports).split(".")[-1] in FACTORIES:
            return Application(framework, name)
    for name in OBJECTS[:2]:
        place, _, original = imports.get(name, "").rpartition(".")
        if place and original in OBJECTS[:2]:
            return Application(framework, name)
    return None
