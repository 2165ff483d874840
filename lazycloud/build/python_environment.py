"""A Python environment with a commit's packages, made by uv."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import uv

from lazycloud.build.commands import run_tool
from lazycloud.build.runtimes.requirements import PythonDependencies, normal_name
from lazycloud.build.toolchain import Interpreter
from lazycloud.processes import Output

FOLDER = "venv"


async def make_python_environment(
    dependencies: PythonDependencies,
    interpreter: Interpreter,
    folder: Path,
    inputs: Path,
    environment: Mapping[str, str],
    output: Output,
    timeout: float,
) -> None:
    """Make `folder`/venv from the files in `inputs`: the commit's tree if packages lie in it, else only they.

    At its final path, for scripts in it name the path. Raises StepFailed with uv's last lines.
    """
    venv = folder / FOLDER
    making = ["venv", "--quiet", "--no-project", "--python", interpreter.path, str(venv)]
    steps = [making, *([_installing(dependencies, venv)] if dependencies.origin else [])]
    settings = {
        **environment,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_PROJECT_ENVIRONMENT": str(venv),
        **_own_version(dependencies),
    }
    failed = f"uv could not install the dependencies of {dependencies.origin or 'the app'}"
    for words in steps:
        await run_tool([uv.find_uv_bin(), *words], inputs, settings, output, timeout, failed)


def _own_version(dependencies: PythonDependencies) -> dict[str, str]:
    """The tree has no .git for a project to take its version from; only the project's own name gets one."""
    if not dependencies.project:
        return {}
    suffix = normal_name(dependencies.project).replace("-", "_").upper()
    return {f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{suffix}": "0+lazycloud"}


def _installing(dependencies: PythonDependencies, venv: Path) -> list[str]:
    if dependencies.origin == "uv.lock":
        own = [] if dependencies.local else ["--no-install-project"]
        return ["sync", "--frozen", "--no-dev", "--python", str(venv), *own]
    installing = ["pip", "install", "--python", str(venv)]
    if dependencies.origin == "pyproject.toml":
        return [*installing, *(["-e", "."] if dependencies.local else ["-r", "pyproject.toml"])]
    return [*installing, "-r", "requirements.txt"]
