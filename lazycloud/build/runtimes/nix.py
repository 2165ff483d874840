"""Nix: the programs that a commit's flake.nix or shell.nix names, for everything else that is run.

Its environment is asked for once and kept: a command then starts as fast as without.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from lazycloud.build.commands import run_tool
from lazycloud.build.runtimes.runtime import Dependencies, Installing, Look, Place, Runtime, Use
from lazycloud.build.toolchain import Tool, Toolchain
from lazycloud.errors import StepFailed
from lazycloud.processes import Output

MARKS = ("flake.nix", "shell.nix")
INPUTS = re.compile(r".*\.nix|flake\.lock|(?:npins|nix)/sources\.json")
KEPT, PROFILE = "variables.json", "profile"  # the profile keeps nix from collecting what is in use
# What `nix develop` leaves out too: it belongs to nix's own build, or to whoever runs the command.
LEFT_OUT = frozenset(
    {
        "BASHOPTS", "HOME", "NIX_BUILD_TOP", "NIX_ENFORCE_PURITY", "NIX_LOG_FD", "NIX_REMOTE", "PPID",
        "SHELLOPTS", "SSL_CERT_FILE", "TEMP", "TEMPDIR", "TERM", "TMP", "TMPDIR", "TZ", "UID",
    }
)  # fmt: skip


class Nix(Runtime):
    name = "nix"

    def dependencies(self, look: Look, use: Use) -> Dependencies | None:
        mark = look.tree.first(*MARKS)
        if mark is None or not look.settings.nix:
            return None
        paths = sorted(path for path in look.tree.paths if INPUTS.fullmatch(path))
        return Dependencies(self.name, mark, tuple((path, look.tree.read(path) or b"") for path in paths))

    async def tool(self, dependencies: Dependencies, tools: Toolchain, output: Output) -> Tool:
        return Tool(await tools.ask(["nix", "--version"]))

    async def install(self, installing: Installing) -> None:
        """Ask for the environment, by nix alone; what the shell's hook does is left out."""
        folder, origin = installing.folder, installing.dependencies.origin
        where = [f"path:{installing.inputs}"] if origin == "flake.nix" else ["--file", origin]
        experimental = ["--extra-experimental-features", "nix-command flakes"]
        profile = ["--profile", str(folder / PROFILE)]
        words = ["nix", *experimental, "print-dev-env", "--json", *profile, *where]
        said = folder / "said.json"
        await run_tool(
            f"{shlex.join(words)} > {shlex.quote(str(said))}",
            installing.inputs,
            installing.variables,
            installing.output,
            installing.limits,
            f"nix could not make the environment of {origin}",
        )
        variables = exported(said, origin)
        (folder / KEPT).write_text(json.dumps(variables, indent=1, sort_keys=True))
        said.unlink()

    def path(self, place: Place) -> list[Path]:
        return [Path(part) for part in _kept(place).get("PATH", "").split(":") if part.startswith("/nix/")]

    def variables(self, place: Place) -> Mapping[str, str]:
        return {name: value for name, value in _kept(place).items() if name != "PATH"}


def exported(said: Path, origin: str) -> dict[str, str]:
    """What `nix print-dev-env --json` says that programs get. Raises StepFailed for what is no such answer."""
    try:
        variables = json.loads(said.read_text())["variables"]
        found = {name: each["value"] for name, each in variables.items() if each["type"] == "exported"}
    except (ValueError, KeyError, TypeError) as odd:
        raise StepFailed(f"nix did not say what the environment of {origin} is.", "Try: nix develop") from odd
    return {name: value for name, value in found.items() if name not in LEFT_OUT}


def _kept(place: Place) -> dict[str, str]:
    try:
        kept: dict[str, str] = json.loads((place.folder / KEPT).read_text())
    except FileNotFoundError:
        return {}  # it is being made
    return kept
