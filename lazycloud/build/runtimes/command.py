"""Whatever has a start command. Packages come by a command of the app's own, `[build] dependencies`."""

from __future__ import annotations

from dataclasses import dataclass

from lazycloud.build.commands import run_tool
from lazycloud.build.patterns import matches
from lazycloud.build.procfile import NAME as PROCFILE
from lazycloud.build.runtimes.runtime import Dependencies, Installing, Look, Runtime, Use, Way
from lazycloud.build.settings import NAME as SETTINGS_FILE
from lazycloud.errors import BadInput, StepFailed


@dataclass(frozen=True)
class CommandDependencies(Dependencies):
    """What `command` installs into the folder `output`, from declared files."""

    command: str = ""
    output: str = ""

    @property
    def settings(self) -> dict[str, str]:
        return {"command": self.command, "output": self.output}


class Command(Runtime):
    name = "command"

    def find(self, look: Look) -> Way | None:
        """What lazycloud.toml says, else the Procfile."""
        if command := look.settings.run_command:
            return Way(self.name, (f"{SETTINGS_FILE} says: runs `{command}`.",), command)
        if root := look.settings.root:
            return Way("static", (f"{SETTINGS_FILE} says: serves the folder {root}.",), roots=(root,))
        if web := look.processes.get("web"):
            return Way(self.name, (f"The {PROCFILE} says: runs `{web}`.",), web)
        return None

    def dependencies(self, look: Look, use: Use) -> Dependencies | None:
        settings = look.settings
        if not settings.dependencies:
            return None
        for pattern in settings.dependencies_inputs:
            if not any(matches(pattern, path) for path in look.tree.paths):
                raise BadInput(
                    f"{SETTINGS_FILE}: `dependencies_inputs` in [build] names {pattern}, which is not in the commit.",
                    "Name the files that the command reads, such as its lockfile.",
                )
        paths = [
            path
            for path in sorted(look.tree.paths)
            if any(matches(pattern, path) for pattern in settings.dependencies_inputs)
        ]
        files = tuple((path, look.tree.read(path) or b"") for path in paths)
        return CommandDependencies(
            self.name,
            SETTINGS_FILE,
            files,
            command=settings.dependencies,
            output=settings.dependencies_output,
        )

    def notes(self, look: Look, dependencies: Dependencies | None) -> list[str]:
        return [f"Installs with `{look.settings.dependencies}`."] if dependencies else []

    async def install(self, installing: Installing) -> None:
        dependencies = installing.dependencies
        assert isinstance(dependencies, CommandDependencies)
        await run_tool(
            dependencies.command,
            installing.inputs,
            installing.variables,
            installing.output,
            installing.limits,
            "The dependencies could not be installed",
        )
        if not (installing.inputs / dependencies.output).is_dir():
            raise StepFailed(
                f"`{dependencies.command}` left no folder {dependencies.output}.",
                f"Say in {SETTINGS_FILE} under [build] with `dependencies_output` where it installs to.",
            )

    def links(self, dependencies: Dependencies) -> str:
        assert isinstance(dependencies, CommandDependencies)
        return dependencies.output
