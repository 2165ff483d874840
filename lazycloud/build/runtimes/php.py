"""PHP: a front page that PHP's own server runs, with Composer's packages."""

from __future__ import annotations

from lazycloud.build.commands import run_tool
from lazycloud.build.runtimes.runtime import Dependencies, Installing, Look, Runtime, Use, Way
from lazycloud.build.toolchain import Tool, Toolchain
from lazycloud.errors import StepFailed
from lazycloud.processes import Output

FOLDERS = ("public", "web", "")
MANIFEST, LOCKFILE, FOLDER = "composer.json", "composer.lock", "vendor"


class Php(Runtime):
    name = "php"
    link = FOLDER

    def guess(self, look: Look) -> Way | None:
        for folder in FOLDERS:
            path = f"{folder}/index.php" if folder else "index.php"
            if look.tree.exists(path):
                # With a router script every path leads to it, as the framework behind it expects.
                script = f" {path}" if look.tree.exists(MANIFEST) else ""
                run = f"php -S $HOST:$PORT -t {folder or '.'}{script}"
                return Way(self.name, (f"Found {path}: runs `{run}`.",), run)
        return None

    def dependencies(self, look: Look, use: Use) -> Dependencies | None:
        if use.way.runtime != self.name and not {"php", "composer"} & use.words:
            return None
        paths = [path for path in (MANIFEST, LOCKFILE) if look.tree.exists(path)]
        files = tuple((path, look.tree.read(path) or b"") for path in paths)
        local = look.tree.exists(FOLDER)  # some of its packages are the commit's own files
        return Dependencies(self.name, paths[-1] if paths else "", files, local, nothing=not paths)

    async def tool(self, dependencies: Dependencies, tools: Toolchain, output: Output) -> Tool:
        for name in ("php",) if dependencies.nothing else ("php", "composer"):
            if not tools.within and tools.which(name) is None:
                raise StepFailed(f"{name} was not found on PATH, and the app needs it.", f"Install {name}.")
        return Tool(tools.within or await tools.ask(["php", "-r", "echo PHP_VERSION;"]))

    async def install(self, installing: Installing) -> None:
        words = [
            "composer",
            "install",
            "--no-dev",
            "--no-interaction",
            "--no-progress",
            "--optimize-autoloader",
        ]
        await run_tool(
            words,
            installing.inputs,
            installing.variables,
            installing.output,
            installing.limits,
            f"composer could not install the packages of {installing.dependencies.origin}",
        )
        (installing.inputs / FOLDER).mkdir(exist_ok=True)
