"""Node.js: what a package.json describes; packages by the manager that its lockfile belongs to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lazycloud.build.commands import run_tool
from lazycloud.build.runtimes.requirements import parse_json
from lazycloud.build.runtimes.runtime import Dependencies, Installing, Look, Place, Runtime, Use, Way
from lazycloud.build.settings import is_inside
from lazycloud.build.toolchain import Tool, Toolchain
from lazycloud.build.tree import Tree
from lazycloud.errors import StepFailed
from lazycloud.processes import Output

KIND = "node"
FOLDER = "node_modules"
WORDS = frozenset({"node", "npm", "npx", "pnpm", "yarn", "corepack"})

LOCKFILES = (
    ("package-lock.json", "npm"),
    ("npm-shrinkwrap.json", "npm"),
    ("pnpm-lock.yaml", "pnpm"),
    ("yarn.lock", "yarn"),
)
CONFIGURATION = (".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml")
SCRIPTS = ("server.js", "index.js", "app.js")
OUTPUTS = ("dist", "build", "out", "public", "_site")  # where builds of static sites leave them
# Run at install, on the app's files.
OWN_SCRIPTS = frozenset(
    {
        "preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare",
        "dependencies", "pnpm:devPreinstall",
    }
)  # fmt: skip
OWN_FILES = (".pnpmfile.cjs", ".pnpmfile.mjs", ".yarn/releases")  # what managers run beside their own code
PATCHED = "patchedDependencies"  # in package.json: names files of the app
# The bundler of the first refuses a node_modules that is a link; the others write what they generate into it.
OUT_OF_TREE = frozenset({"next", "prisma", "@prisma/client"})
_PLAIN_NODE = re.compile(r"node(?:\s+[\w./@:=-]+)+")
_LOCK_VERSION = re.compile(r"lockfileVersion:\s*['\"]?(\d+)")


@dataclass(frozen=True)
class NodeDependencies(Dependencies):
    """What makes a node_modules; the first of `files` is package.json.

    `version` is the manager's, as the commit asks for it, or "". `dev`: development packages too, for a build.
    """

    manager: str = "npm"
    lockfile: str = ""
    version: str = ""
    dev: bool = False

    @property
    def settings(self) -> dict[str, str]:
        wanted = f"{self.manager} {self.version}".strip()
        return {"manager": wanted, "packages": "all" if self.dev else "without development"}


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


class Node(Runtime):
    name = KIND
    link = FOLDER
    writable = (f"{FOLDER}/.cache", f"{FOLDER}/.vite-temp")  # by custom, what tools keep for themselves

    def find(self, look: Look) -> Way | None:
        package = read_package(look.tree)
        return find_node(look.tree, package) if package else None

    def dependencies(self, look: Look, use: Use) -> Dependencies | None:
        """None where package.json is only part of the app's development."""
        package = read_package(look.tree)
        if package is None:
            return None
        alone = use.way.runtime == "command" and "python" not in use.kinds
        if use.way.runtime == KIND or package.builds or WORDS & use.words or alone:
            return node_dependencies(look.tree, package)
        return None

    def build(self, look: Look) -> str | None:
        package = read_package(look.tree)
        return f"{manager_of(look.tree)} run build" if package and package.builds else None

    def notes(self, look: Look, dependencies: Dependencies | None) -> list[str]:
        if dependencies or not look.tree.exists("package.json"):
            return []
        return [
            "Found package.json too, but neither a build script nor a command that needs it: it is left alone."
        ]

    async def tool(self, dependencies: Dependencies, tools: Toolchain, output: Output) -> Tool:
        assert isinstance(dependencies, NodeDependencies)
        if tools.within:
            return Tool(tools.within)
        if tools.which("node") is None:
            raise StepFailed(
                "node was not found on PATH, and package.json needs it.", "Install Node.js, 20 or later."
            )
        stand_in = None
        if not dependencies.nothing:
            with suppress(StepFailed):  # said by `install`: there may be nothing to install
                stand_in = _manager_path(dependencies, tools)
        return Tool(await tools.ask(["node", "--version"]), stand_in=stand_in)

    async def install(self, installing: Installing) -> None:
        dependencies = installing.dependencies
        assert isinstance(dependencies, NodeDependencies)
        if shutil.which(dependencies.manager, path=installing.variables["PATH"]) is None:
            raise _no_manager(dependencies)
        if not dependencies.lockfile:
            installing.output(
                "warning: there is no lockfile, so that package.json alone decides; commit package-lock.json\n"
            )
        await run_tool(
            install_command(dependencies),
            installing.inputs,
            installing.variables,
            installing.output,
            installing.limits,
            f"{dependencies.manager} could not install the packages of {dependencies.origin}",
        )
        # Some managers leave it out when there is nothing to install.
        (installing.inputs / FOLDER).mkdir(exist_ok=True)

    def path(self, place: Place) -> list[Path]:
        stand_in = [place.tool.stand_in] if place.tool.stand_in else []
        return [place.tree / FOLDER / ".bin", *stand_in]


def install_command(dependencies: NodeDependencies) -> list[str]:
    """What the package manager has to be told: as it is locked, and from its cache where that has it."""
    dev, locked = dependencies.dev, bool(dependencies.lockfile)
    if dependencies.manager == "pnpm":
        return ["pnpm", "install", "--frozen-lockfile", "--prefer-offline", *([] if dev else ["--prod"])]
    if dependencies.manager == "yarn" and dependencies.version.startswith("1"):
        production = f"--production={str(not dev).lower()}"
        return ["yarn", "install", "--frozen-lockfile", "--prefer-offline", "--non-interactive", production]
    if dependencies.manager == "yarn":
        return ["yarn", "install", "--immutable"]  # looks into its cache first by itself
    words = ["ci"] if locked else ["install", "--no-package-lock"]
    offline = ["--prefer-offline"] if locked else []  # unlocked, what is newest is asked for
    return ["npm", *words, *offline, "--no-audit", "--no-fund", "--include=dev" if dev else "--omit=dev"]


def _manager_path(dependencies: NodeDependencies, tools: Toolchain) -> Path | None:
    """A folder to put on PATH so that the package manager is there; None when it already is.

    Raises StepFailed when neither it, corepack nor npx is on this machine.
    """
    manager = dependencies.manager
    if tools.which(manager):
        return None
    version = f"@{dependencies.version}" if dependencies.version else ""
    # Not corepack first: those that come with Node.js refuse packages signed with keys newer than they are.
    if manager != "npm" and tools.which("npx"):
        return tools.stand_in(manager, f"npx --yes {_package(manager, version)}")
    if manager != "npm" and tools.which("corepack"):
        return tools.stand_in(manager, f"corepack {manager}{version}")
    raise _no_manager(dependencies)


def _no_manager(dependencies: NodeDependencies) -> StepFailed:
    return StepFailed(
        f"{dependencies.manager} was not found on PATH, and {dependencies.origin} needs it.",
        f"Install Node.js with {dependencies.manager}.",
    )


def _package(manager: str, version: str) -> str:
    """Yarn from 2 on is another package than the one that is named yarn."""
    name = "@yarnpkg/cli-dist" if manager == "yarn" and not version.startswith("@1") else manager
    return f"{name}{version}"


def read_package(tree: Tree) -> Package | None:
    """None without a package.json. Raises BadInput for one that is no JSON object."""
    text = tree.text("package.json")
    if text is None:
        return None
    document = parse_json("package.json", text)
    packages = _strings(document, "dependencies") | _strings(document, "optionalDependencies")
    return Package(_strings(document, "scripts"), packages, _strings(document, "devDependencies"), document)


def node_dependencies(tree: Tree, package: Package) -> NodeDependencies:
    if not package.packages and not (package.builds and package.development):
        return NodeDependencies(KIND, nothing=True)
    lockfile, manager = _lockfile(tree)
    paths = [path for path in ("package.json", lockfile, *CONFIGURATION) if path and tree.exists(path)]
    lock = (tree.text(lockfile) or "") if lockfile else ""
    return NodeDependencies(
        KIND,
        lockfile or "package.json",
        tuple((path, tree.read(path) or b"") for path in paths),
        _is_local(tree, package, lock),
        manager=manager,
        lockfile=lockfile,
        version=_manager_version(manager, package, lock),
        dev=package.builds,
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
        or any(map(tree.exists, OWN_FILES))
        or PATCHED in (tree.text("package.json") or "")
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
