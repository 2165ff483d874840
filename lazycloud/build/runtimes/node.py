"""How to install, build and run what a package.json describes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lazycloud.build.runtimes.requirements import parse_json
from lazycloud.build.runtimes.way import Way
from lazycloud.build.settings import is_inside
from lazycloud.build.tree import Tree

LOCKFILES = (
    ("package-lock.json", "npm"),
    ("npm-shrinkwrap.json", "npm"),
    ("pnpm-lock.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
)
CONFIGURATION = (".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml")
SCRIPTS = ("server.js", "index.js", "app.js")
OUTPUTS = ("dist", "build", "out", "public", "_site")  # where builds of static sites leave them
OWN_SCRIPTS = frozenset(
    {"preinstall", "install", "postinstall", "prepare"}
)  # run at install, on the app's files
OUT_OF_TREE = frozenset({"next"})  # its bundler refuses a node_modules that is a link
_PLAIN_NODE = re.compile(r"node(?:\s+[\w./@:=-]+)+")
_LOCK_VERSION = re.compile(r"lockfileVersion:\s*['\"]?(\d+)")


@dataclass(frozen=True)
class NodeDependencies:
    """What makes a node_modules. `files` are all its inputs, package.json first.

    `version` is the manager's, as the commit asks for it, or "". `dev`: development packages too, for a build.
    `local`: needs the commit's own tree around it, so it belongs to one release and cannot be shared.
    """

    manager: str
    lockfile: str
    files: tuple[tuple[str, bytes], ...]
    version: str = ""
    dev: bool = False
    local: bool = False


@dataclass(frozen=True)
class Package:
    """package.json, as far as it concerns us."""

    scripts: Mapping[str, str]
    packages: dict[str, str]
    development: dict[str, str]
    document: Mapping[str, Any]

    @property
    def builds(self) -> bool:
        return "build" in self.scripts


def read_package(tree: Tree) -> Package | None:
    """None without a package.json. Raises BadInput for one that is no JSON object."""
    text = tree.text("package.json")
    if text is None:
        return None
    document = parse_json("package.json", text)
    packages = _strings(document, "dependencies") | _strings(document, "optionalDependencies")
    return Package(_strings(document, "scripts"), packages, _strings(document, "devDependencies"), document)


def node_dependencies(tree: Tree, package: Package) -> NodeDependencies | None:
    """None when there is nothing to install."""
    if not package.packages and not (package.builds and package.development):
        return None
    lockfile, manager = _lockfile(tree)
    paths = [path for path in ("package.json", lockfile, *CONFIGURATION) if path and tree.exists(path)]
    lock = (tree.text(lockfile) or "") if lockfile else ""
    return NodeDependencies(
        manager=manager,
        lockfile=lockfile,
        files=tuple((path, tree.read(path) or b"") for path in paths),
        version=_manager_version(manager, package, lock),
        dev=package.builds,
        local=_is_local(tree, package, lock),
    )


def find_node(tree: Tree, package: Package) -> Way | None:
    """`start` of the scripts, the main file, or the static site that the build leaves."""
    if start := package.scripts.get("start"):
        direct = _PLAIN_NODE.fullmatch(start.strip()) and "prestart" not in package.scripts
        run = start.strip() if direct else "npm start"
        return Way("node", (f"Found package.json with the script `start`: runs `{run}`.",), run)
    main = package.document.get("main")
    own = (main.removeprefix("./"),) if isinstance(main, str) and is_inside(main) else ()
    if path := tree.first(*(path for path in own if re.fullmatch(r"[\w./-]+", path)), *SCRIPTS):
        return Way("node", (f"Found package.json and {path}: runs `node {path}`.",), f"node {path}")
    if package.builds:
        found = "Found package.json with the script `build` and no server: serves the folder that the build leaves."
        return Way("static", (found,), roots=OUTPUTS)
    return None


def manager_of(tree: Tree) -> str:
    """npm, pnpm or yarn, by the lockfile."""
    return _lockfile(tree)[1]


def _lockfile(tree: Tree) -> tuple[str, str]:
    return next(((path, name) for path, name in LOCKFILES if tree.exists(path)), ("", "npm"))


def _manager_version(manager: str, package: Package, lock: str) -> str:
    """From `packageManager` ("pnpm@9.1.0+sha…"), else by the lockfile's format; "" for whatever is there."""
    name, _, version = str(package.document.get("packageManager", "")).partition("@")
    if name == manager and re.fullmatch(r"\d+[\w.+-]*", version):
        return version.partition("+")[0]
    if manager == "yarn":
        return "4" if _is_berry(lock) else "1"
    if manager == "pnpm":
        match = _LOCK_VERSION.search(lock)
        return {"5": "7", "6": "8"}.get(match[1], match[1]) if match else ""
    return ""


def _is_berry(lock: str) -> bool:
    return "__metadata:" in lock


def _is_local(tree: Tree, package: Package, lock: str) -> bool:
    every = package.packages | package.development
    return (
        "workspaces" in package.document
        or tree.exists("pnpm-workspace.yaml")
        or tree.exists("node_modules")
        or _is_berry(lock)
        or bool(OWN_SCRIPTS & package.scripts.keys())
        or bool(OUT_OF_TREE & every.keys())
        or any(version.startswith(("file:", "link:", "portal:", ".", "/")) for version in every.values())
    )


def _strings(document: Mapping[str, Any], key: str) -> dict[str, str]:
    table = document.get(key)
    return (
        {name: text for name, text in table.items() if isinstance(text, str)}
        if isinstance(table, dict)
        else {}
    )
