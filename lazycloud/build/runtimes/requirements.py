"""What a commit's files say about the Python packages that it needs."""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lazycloud.build.runtimes.runtime import Dependencies
from lazycloud.build.tree import Tree
from lazycloud.errors import BadInput

KIND = "python"
_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?")
_INCLUDE = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)(?:\s+|=)\s*(\S+)")
_EDITABLE = re.compile(r"\s*(?:-e|--editable)[\s=]")
_LOCAL_PATH = re.compile(r"\s*(?:\.{1,2}(?:[/\[\s;]|$)|/|file:|[^\s#]+\s*@\s*file:|[^\s#:@=<>\[]+/[^\s#]*$)")
_PINNED = re.compile(r"\s*[A-Za-z0-9][A-Za-z0-9._-]*\s*==\s*[^\s*;#,]+\s*(?:$|;|#|--hash)")
_VERSION = re.compile(r"(?:python-|cpython-|cpython@|==)?(\d+(?:\.\d+){0,2})")
_SPECIFIER = re.compile(r"[\d\s.<>=!~,*]{1,100}")
_PYPI = "https://pypi.org/simple"


@dataclass(frozen=True)
class PythonDependencies(Dependencies):
    """`names` are the packages known to be among them, in normal form; without any file it has none.

    `wanted` is a version or specifier for the interpreter, said by the file `wanted_by`.
    """

    names: frozenset[str] = frozenset()
    wanted: str | None = None
    wanted_by: str = ""
    project: str = ""  # the name that the project itself has, if it is a package


def python_dependencies(tree: Tree) -> PythonDependencies | None:
    """From uv.lock, pyproject.toml, requirements.txt or Pipfile.lock, in this order; None without any.

    Raises BadInput for a file that cannot be read as what it is.
    """
    project = _toml(tree, "pyproject.toml")
    wanted, wanted_by = wanted_python(tree, project)
    for read in (_from_lock, _from_project, _from_requirements, _from_pipfile):
        if found := read(tree, project):
            origin, files, names, local = found
            name = _table(project, "project").get("name")
            own = name if local and isinstance(name, str) else ""
            return PythonDependencies(
                KIND,
                origin,
                files,
                local,
                names=frozenset(names),
                wanted=wanted,
                wanted_by=wanted_by,
                project=own,
            )
    return None


def no_dependencies(tree: Tree) -> PythonDependencies:
    """An environment without packages, with the Python that the commit wants."""
    wanted, wanted_by = wanted_python(tree, _toml(tree, "pyproject.toml"))
    return PythonDependencies(KIND, wanted=wanted, wanted_by=wanted_by)


def wanted_python(tree: Tree, project: Mapping[str, Any]) -> tuple[str | None, str]:
    """The Python version that a file asks for, and that file; (None, "") when none does."""
    for path in (".python-version", "runtime.txt"):
        for line in (tree.text(path) or "").splitlines():
            if match := _VERSION.fullmatch(line.strip()):
                return match[1], path
    specifier = _table(project, "project").get("requires-python")
    if isinstance(specifier, str) and _SPECIFIER.fullmatch(specifier):
        return specifier.strip(), "pyproject.toml"
    requires = _table(_json(tree, "Pipfile.lock"), "_meta", "requires")
    version = requires.get("python_full_version") or requires.get("python_version")
    if isinstance(version, str) and _VERSION.fullmatch(version):
        return version, "Pipfile.lock"
    return None, ""


def is_pinned(dependencies: PythonDependencies) -> bool:
    """Whether requirements name one version of each package, without extras: then nothing is left to be decided."""
    if dependencies.origin not in ("requirements.txt", "Pipfile.lock"):
        return False
    texts = [content.decode(errors="replace") for _, content in dependencies.files]
    lines = [line for text in texts for line in text.replace("\\\n", " ").splitlines()]
    return all(
        _PINNED.match(line) for line in lines if line.strip() and not line.lstrip().startswith(("#", "-"))
    )


def normal_name(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


Found = tuple[str, tuple[tuple[str, bytes], ...], Iterable[str], bool]


def _from_lock(tree: Tree, project: Mapping[str, Any]) -> Found | None:
    if not project or not tree.exists("uv.lock"):
        return None
    packages = [package for package in _list(_toml(tree, "uv.lock"), "package") if isinstance(package, dict)]
    sources = [_table(package, "source") for package in packages]
    # The root alone is `virtual`; anything else that is no index or archive lies in the tree.
    local = any({"editable", "directory", "path"} & source.keys() for source in sources)
    local = local or sum("virtual" in source for source in sources) > 1
    names = {str(package.get("name")) for package in packages}
    return "uv.lock", _files(tree, "pyproject.toml", "uv.lock"), names, local


def _from_project(tree: Tree, project: Mapping[str, Any]) -> Found | None:
    table = _table(project, "project")
    has_requirements = tree.exists("requirements.txt")
    if not table:
        poetry = _table(project, "tool", "poetry")
        if has_requirements or not poetry or "build-system" not in project:
            return None
        names = map(normal_name, _table(poetry, "dependencies"))
        return "pyproject.toml", _files(tree, "pyproject.toml"), names, True
    lines = [line for line in _list(table, "dependencies") if isinstance(line, str)]
    if has_requirements and not lines:
        return None
    sources = _table(project, "tool", "uv", "sources").values()
    in_tree = any({"path", "workspace"} & source.keys() for source in sources if isinstance(source, dict))
    local = "build-system" in project or "dependencies" in _list(table, "dynamic") or in_tree
    return "pyproject.toml", _files(tree, "pyproject.toml"), _names(lines), local


def _from_requirements(tree: Tree, project: Mapping[str, Any]) -> Found | None:
    if not tree.exists("requirements.txt"):
        return None
    paths = list(dict.fromkeys(_included(tree, "requirements.txt", set())))
    lines = [line for path in paths for line in (tree.text(path) or "").splitlines()]
    local = any(_EDITABLE.match(line) or _LOCAL_PATH.match(line) for line in lines)
    return "requirements.txt", _files(tree, *paths), _names(lines), local


def _from_pipfile(tree: Tree, project: Mapping[str, Any]) -> Found | None:
    locked = _json(tree, "Pipfile.lock")
    if not locked:
        return None
    packages = {
        name: details for name, details in _table(locked, "default").items() if isinstance(details, dict)
    }
    lines = [*_indexes(locked), *(_pin(name, details) for name, details in sorted(packages.items()))]
    local = any("path" in details or "file" in details for details in packages.values())
    text = "".join(f"{line}\n" for line in lines).encode()
    return "Pipfile.lock", (("requirements.txt", text),), map(normal_name, packages), local


def _included(tree: Tree, path: str, seen: set[str]) -> Iterator[str]:
    """A requirements file and all that it includes, each once."""
    text = tree.text(path)
    if text is None or path in seen:
        return
    seen.add(path)
    yield path
    for line in text.splitlines():
        if match := _INCLUDE.match(line):
            yield from _included(
                tree, posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1])), seen
            )


def _names(lines: Iterable[str]) -> set[str]:
    """Normal names of requirement lines; with FastAPI's extras, the server that comes with them."""
    names: set[str] = set()
    for line in lines:
        if match := _NAME.match(line):
            name = normal_name(match[1])
            names.add(name)
            if name == "fastapi" and {"standard", "all"} & {
                extra.strip() for extra in (match[2] or "").split(",")
            }:
                names.add("uvicorn")
    return names


def _pin(name: str, details: Mapping[str, Any]) -> str:
    """One package of a Pipfile.lock as a requirement line."""
    extras = f"[{','.join(map(str, _list(details, 'extras')))}]" if details.get("extras") else ""
    marker = f" ; {details['markers']}" if details.get("markers") else ""
    if "git" in details:
        return f"{name}{extras} @ git+{details['git']}@{details.get('ref', 'HEAD')}{marker}"
    if path := details.get("path") or details.get("file"):
        return f"{'-e ' if details.get('editable') else ''}{path}"
    hashes = "".join(f" --hash={digest}" for digest in _list(details, "hashes"))
    return f"{name}{extras}{details.get('version', '')}{marker}{hashes}"


def _indexes(locked: Mapping[str, Any]) -> Iterator[str]:
    for source in _list(_table(locked, "_meta"), "sources"):
        url = source.get("url") if isinstance(source, dict) else None
        if isinstance(url, str) and url.isprintable() and url.rstrip("/") != _PYPI:
            yield f"--extra-index-url {url}"


def _table(document: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A table within tables, empty when something on the way is none: to complain is the tool's that reads it."""
    for key in keys:
        inner = document.get(key)
        document = inner if isinstance(inner, dict) else {}
    return document


def _list(table: Mapping[str, Any], key: str) -> list[Any]:
    values = table.get(key)
    return values if isinstance(values, list) else []


def _files(tree: Tree, *paths: str) -> tuple[tuple[str, bytes], ...]:
    return tuple((path, tree.read(path) or b"") for path in paths)


def _toml(tree: Tree, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(tree.text(path) or "")
    except tomllib.TOMLDecodeError as broken:
        raise BadInput(f"{path} is not valid TOML: {broken}.", "Mend it and commit again.") from broken


def _json(tree: Tree, path: str) -> dict[str, Any]:
    return parse_json(path, tree.text(path) or "{}")


def parse_json(path: str, text: str) -> dict[str, Any]:
    """An object from a manifest. Raises BadInput with the line."""
    try:
        document = json.loads(text)
    except ValueError as broken:
        raise BadInput(f"{path} is not valid JSON: {broken}.", "Mend it and commit again.") from broken
    if not isinstance(document, dict):
        raise BadInput(f"{path} is no JSON object.", "Mend it and commit again.")
    return document
