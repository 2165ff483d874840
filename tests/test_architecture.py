"""The direction of knowledge, and that what exists is documented."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

import lazycloud
from lazycloud import allowance, container, events, upkeep, workforce
from lazycloud.config import SETTINGS
from lazycloud.control.api import Api
from lazycloud.control.backups import BackupViews
from lazycloud.control.data import VersionData
from lazycloud.control.doors import Doors
from lazycloud.control.identity import Role
from lazycloud.control.people import People
from lazycloud.control.versionbase import DocumentViews

PACKAGE = Path(lazycloud.__file__).parent
DOCS = PACKAGE.parent / "docs"

TABLES = (allowance, container, upkeep, workforce)  # of config.toml
PURE = {"config", "errors", "events", "hosts", "states"}

MAY_KNOW = {
    "errors": set(),
    "allowance": {"errors"},
    "hosts": set(),
    "states": {"errors"},
    "events": {"allowance"},
    "findings": set(),
    "spans": {"errors"},
    "trees": set(),
    "upkeep": {"allowance", "blobs", "errors", "spans"},
    "workforce": {"allowance", "errors"},
    "container": {"errors"},
    "config": {"allowance", "container", "errors", "hosts", "upkeep", "workforce"},
    "certificates": {"errors"},
    "processes": {"errors"},
    "walls": {"errors", "findings", "processes", "workforce"},
    "store": {"errors", "events"},
    "router": {"certificates", "errors", "hosts", "pulse"},
    "blobs": {"errors"},
    "build": {"blobs", "errors", "hosts", "processes", "spans", "walls"},
    "workers": {"container", "errors", "findings", "processes", "walls", "workforce"},
    "data": {
        "allowance",
        "blobs",
        "errors",
        "findings",
        "processes",
        "spans",
        "trees",
        "versionbase",
        "walls",
    },
    "versionbase": {"errors"},
    "deployments": {
        "blobs",
        "build",
        "workers",
        "data",
        "store",
        "allowance",
        "config",
        "hosts",
        "states",
        "events",
        "errors",
        "findings",
        "processes",
        "trees",
        "upkeep",
        "walls",
        "workforce",
    },
    "doctor": {
        "allowance",
        "certificates",
        "config",
        "data",
        "errors",
        "findings",
        "listeners",
        "walls",
        "workers",
    },
    "control": {
        "allowance",
        "blobs",
        "deployments",
        "doctor",
        "build",
        "workers",
        "data",
        "store",
        "config",
        "hosts",
        "states",
        "events",
        "errors",
        "findings",
        "pulse",
        "trees",
        "versionbase",  # only its client
        "walls",
        "workforce",
    }
    | {"router"},  # only router.access, the cookie that control signs and routers check; router.accept
    "announcement": set(),
    "pulse": set(),
    "children": {"pulse"},
    "handover": {"children"},
    "listeners": {"config", "errors"},
    "server": {
        "certificates",
        "children",
        "config",
        "control",
        "errors",
        "handover",
        "listeners",
        "processes",
        "pulse",
        "walls",
    }
    | {"router"},  # only router.settings: their limits
    "leftovers": {
        "config",
        "data",
        "deployments",
        "errors",
        "processes",
        "store",
        "trees",
        "walls",
        "workers",
    },
    "cli": {
        "announcement",
        "config",
        "data",  # only data.names: what versions are called
        "doctor",
        "errors",
        "findings",
        "hosts",
        "leftovers",
        "server",
        "build",
        "versionbase",
    },
}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The parts of ours that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {
                f"{node.module}.{alias.name}" if node.module == "lazycloud" else node.module
                for alias in node.names
            }
    ours = {name.split(".")[1] for name in names if name.startswith("lazycloud.")}
    return {name for name in ours if not name.startswith("__")}


@pytest.mark.parametrize("name", sorted(MAY_KNOW))
def test_nothing_imports_what_is_above_it(name: str) -> None:
    files = [path for path in PACKAGE.rglob("*.py") if part(path) == name]
    assert files
    for path in files:
        assert imported(path) <= MAY_KNOW[name] | {name}, path


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    tests = PACKAGE.parent / "tests"
    folders = {part for path in tests.rglob("test_*.py") for part in path.relative_to(tests).parts[:-1]}
    assert "build" in folders
    left_out = pytestconfig.getini("norecursedirs")
    assert [folder for folder in folders if any(fnmatch(folder, pattern) for pattern in left_out)] == []


def test_every_part_has_its_place_in_the_order() -> None:
    parts = {part(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert parts == set(MAY_KNOW)


def test_routers_import_neither_control_nor_a_database_nor_git() -> None:
    for path in (PACKAGE / "router").rglob("*.py"):
        text = path.read_text()
        assert "sqlalchemy" not in text and "import git" not in text and "lazycloud.control" not in text, path


def test_every_event_every_route_and_every_setting_is_documented() -> None:
    protocols = (DOCS / "protocols.md").read_text()
    for kind, cls in events._kinds.items():
        (row,) = [line for line in protocols.splitlines() if line.startswith(f"| `{kind}` |")]
        own = [
            name for name in cls.__dataclass_fields__ if name not in ("kind", "private", "app", "deployment")
        ]
        assert [name for name in own if name not in row] == [], kind
    for method, path, _, role in (
        *Api.ROUTES,
        *People.ROUTES,
        *Doors.ROUTES,
        *VersionData.ROUTES,
        *BackupViews.ROUTES,
        *DocumentViews.ROUTES,
    ):
        assert isinstance(role, Role), path
        shown = path.replace("{app}", "<app>").replace("{deployment}", "<id>").replace("{name}", "<name>")
        shown = shown.replace("{number}", "<number>")
        assert f"`{method} {shown}" in protocols, path
    settings = (DOCS / "settings.md").read_text()
    assert [
        name
        for name in (*SETTINGS, *(name for table in TABLES for name in table.SETTINGS))
        if f"`{name}`" not in settings
    ] == []
