"""lazycloud.toml of a commit: what an app says about itself."""

from __future__ import annotations

import difflib
import posixpath
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lazycloud import spans
from lazycloud.errors import BadInput

NAME = "lazycloud.toml"
DAY = 86400
WORKERS_MOST = 64  # of one commit; more belong on more machines
ON_COMMIT = ("announce", "build", "start")
DATA_FROM = ("production", "parent", "empty")
DATABASES = ("sqlite", "postgres")
OFTENEST = 10.0  # seconds between snapshots that are made by themselves
RESERVED = ("PORT", "HOST", "COMMIT_ID", "DATABASE_URL", "DATA_DIR")
RESERVED_PREFIX = "LAZYCLOUD_"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

EXAMPLE = """\
# How lazycloud builds and runs this app. Every setting may be left out; what is shown is the default,
# or, behind a #, an example. Without a command, lazycloud looks at the files: Procfile, requirements.txt,
# pyproject.toml, package.json, index.html and their like.

# What happens when a commit is made: "announce" prints its address, "build" builds it ahead,
# "start" also starts it. Whatever it is, the first visitor of the address starts it.
on_commit = "announce"

[build]
# Runs once per commit, in its folder, before anything is started. "" for none.
# command = "npm run build"
# Seconds after which the build counts as failed.
timeout = 900
# The files that the command reads, when they are not all: commits that differ elsewhere share one build.
# It then runs in a folder that has only them, and `outputs` are the files and folders that it leaves.
# inputs = ["src/**", "vite.config.js"]
# outputs = ["dist"]
# Installs packages that lazycloud does not know of: from which files, into which folder. Once per content of these.
# dependencies = "bundle install --path vendor"
# dependencies_inputs = ["Gemfile", "Gemfile.lock"]
# dependencies_output = "vendor"
# Secrets of the server that builds and installs get as environment variables; see docs/settings.md.
# secrets = ["NPM_TOKEN"]
# true: the command may use the network. Where lazycloud has walls it has none otherwise; installs always have it, and
# what a Dockerfile runs has it unless this is false.
# network = true
# Where workers are containers, a commit's Dockerfile is built and its own command runs, unless [run] says another
# way. Another file, or "" to use none.
# dockerfile = "deploy/Dockerfile"
# false: flake.nix and shell.nix are for development only.
nix = true

[run]
# Serves the app on $HOST:$PORT.
# command = "gunicorn app:app --bind $HOST:$PORT"
# Runs before each start, on the version's own data: migrations.
# release = "python manage.py migrate"
# Runs once the app is ready: warm a cache, tell somebody.
# after = "python warm.py"
# A path that answers below 400 when the app is ready; without it, listening is enough.
# health = "/healthz"
# Seconds between two looks at that path while the app runs, and those that each answer may take. A worker that
# fails three times in a row is replaced.
health_interval = 10
health_timeout = 5
# How many workers serve the app, behind one address.
workers = 1
# Seconds that the app has to become ready.
ready_timeout = 60
# Seconds that the release command has.
release_timeout = 600
# Seconds between asking the app to stop and ending it.
stop_timeout = 10
# Start Python apps as forks of a process that has imported their packages: several times as fast.
preload = true
# For a static site: the folder that is served.
# root = "public"
# true: the app may change files that were committed, which are read-only otherwise; each release is then a full copy.
writable = false

[data]
# Where the data of a new version comes from: "production", the "parent" commit, or "empty".
from = "production"
# Where its database is: "sqlite", a file of its own, or "postgres", one of its own on the server's Postgres.
database = "sqlite"
# Whether each version has a Redis of its own, at $REDIS_URL.
redis = false
# Whether each version has documents of its own in the app's versionbase, at $VERSIONBASE_URL.
versionbase = false
# How often a snapshot of production is made by itself; without it, only before a promote, a migration or a restore.
# snapshots = "1h"

[env]
# More environment for build and app; strings. No secrets: they would be in the repository.
# LOG_LEVEL = "debug"
"""


@dataclass(frozen=True)
class Settings:
    """Seconds for times; None where nothing is said. `build_command` and `dockerfile` may be "": explicitly none."""

    on_commit: str = "announce"
    build_command: str | None = None
    build_timeout: float = 900
    build_inputs: tuple[str, ...] = ()
    build_outputs: tuple[str, ...] = ()
    dependencies: str | None = None
    dependencies_inputs: tuple[str, ...] = ()
    dependencies_output: str = ""
    secrets: tuple[str, ...] = ()
    network: bool | None = None
    dockerfile: str | None = None
    nix: bool = True
    run_command: str | None = None
    release: str | None = None
    after: str | None = None
    health: str | None = None
    health_interval: float = 10
    health_timeout: float = 5
    workers: int = 1
    ready_timeout: float = 60
    release_timeout: float = 600
    stop_timeout: float = 10
    preload: bool = True
    root: str | None = None
    writable: bool = False
    data_from: str = "production"
    data_database: str = "sqlite"
    data_redis: bool = False
    data_versionbase: bool = False
    data_snapshots: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


Check = Callable[[Any], str | None]
"""Says what is allowed when a value is not; None when it is."""


def _one_of(*allowed: str) -> Check:
    sentence = " or ".join(f'"{word}"' for word in allowed)
    return lambda value: None if isinstance(value, str) and value in allowed else sentence


def _command(value: Any) -> str | None:
    right = isinstance(value, str) and value.strip() and "\0" not in value
    return None if right else "a command line, in quotes"


def _command_or_none(value: Any) -> str | None:
    return None if value == "" else _command(value)


def _every(value: Any) -> str | None:
    try:
        right = isinstance(value, str) and OFTENEST <= spans.seconds(value, "") <= DAY
    except BadInput:
        right = False
    return (
        None if right else 'how often, such as "10min" or "1h": every 10 seconds at most, once a day at least'
    )


def _seconds(value: Any) -> str | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if is_number and 0 < value <= DAY else f"a number of seconds, above 0 and at most {DAY}"


def _few(value: Any) -> str | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return None if is_whole and 1 <= value <= WORKERS_MOST else f"a whole number from 1 to {WORKERS_MOST}"


def _true_or_false(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _url_path(value: Any) -> str | None:
    right = isinstance(value, str) and re.fullmatch(r"/[!-~]*", value) and not value.startswith("//")
    return None if right else 'a path such as "/healthz", without spaces'


def is_inside(path: str) -> bool:
    """Whether a relative path with `/` stays in the folder that it starts from."""
    end = posixpath.normpath(path)
    return not (path.startswith("/") or "\0" in path or end == ".." or end.startswith("../"))


def _folder(value: Any) -> str | None:
    right = isinstance(value, str) and value and is_inside(value)
    return None if right else 'a folder of the repository, such as "public"'


def _inner(value: Any) -> str | None:
    right = _folder(value) is None and posixpath.normpath(value) != "."
    return None if right else 'a folder of the repository, such as "vendor"'


def _file_or_none(value: Any) -> str | None:
    right = value == "" or _inner(value) is None
    return None if right else 'a file of the repository, such as "deploy/Dockerfile", or ""'


def _places(value: Any) -> str | None:
    right = isinstance(value, list) and value and all(_inner(each) is None for each in value)
    return (
        None if right else 'a list of files or folders of the repository, such as ["src/**", "package.json"]'
    )


def _variables(value: Any) -> str | None:
    named = isinstance(value, list) and all(
        isinstance(each, str) and _VARIABLE.fullmatch(each) for each in value
    )
    right = named and not any(each in RESERVED or each.startswith(RESERVED_PREFIX) for each in value)
    return None if right else 'a list of names of variables that are not lazycloud\'s, such as ["NPM_TOKEN"]'


# (table, key) -> (field of Settings, check)
KNOWN: dict[tuple[str, str], tuple[str, Check]] = {
    ("", "on_commit"): ("on_commit", _one_of(*ON_COMMIT)),
    ("build", "command"): ("build_command", _command_or_none),
    ("build", "timeout"): ("build_timeout", _seconds),
    ("build", "inputs"): ("build_inputs", _places),
    ("build", "outputs"): ("build_outputs", _places),
    ("build", "dependencies"): ("dependencies", _command),
    ("build", "dependencies_inputs"): ("dependencies_inputs", _places),
    ("build", "dependencies_output"): ("dependencies_output", _inner),
    ("build", "secrets"): ("secrets", _variables),
    ("build", "network"): ("network", _true_or_false),
    ("build", "dockerfile"): ("dockerfile", _file_or_none),
    ("build", "nix"): ("nix", _true_or_false),
    ("run", "command"): ("run_command", _command),
    ("run", "release"): ("release", _command),
    ("run", "after"): ("after", _command),
    ("run", "health"): ("health", _url_path),
    ("run", "health_interval"): ("health_interval", _seconds),
    ("run", "health_timeout"): ("health_timeout", _seconds),
    ("run", "workers"): ("workers", _few),
    ("run", "ready_timeout"): ("ready_timeout", _seconds),
    ("run", "release_timeout"): ("release_timeout", _seconds),
    ("run", "stop_timeout"): ("stop_timeout", _seconds),
    ("run", "preload"): ("preload", _true_or_false),
    ("run", "root"): ("root", _folder),
    ("run", "writable"): ("writable", _true_or_false),
    ("data", "from"): ("data_from", _one_of(*DATA_FROM)),
    ("data", "database"): ("data_database", _one_of(*DATABASES)),
    ("data", "redis"): ("data_redis", _true_or_false),
    ("data", "versionbase"): ("data_versionbase", _true_or_false),
    ("data", "snapshots"): ("data_snapshots", _every),
}
TABLES = ("build", "run", "data", "env")
# In [build]: who names the first has to name the second.
NEEDED = (
    ("inputs", "outputs"),
    ("outputs", "inputs"),
    ("dependencies", "dependencies_inputs"),
    ("dependencies", "dependencies_output"),
    ("dependencies_inputs", "dependencies"),
    ("dependencies_output", "dependencies"),
)


def parse_settings(content: bytes | None) -> Settings:
    """Settings from the file's bytes, the defaults from None. Raises BadInput: what, where, what is allowed."""
    document = _load(content or b"")
    values: dict[str, Any] = {"env": _environment(document.pop("env", {}))}
    for name, value in document.items():
        if name in TABLES:
            values |= _table(name, value)
        else:
            values |= _setting("", name, value)
    settings = Settings(**values)
    for one, other in NEEDED:
        if getattr(settings, KNOWN["build", one][0]) and not getattr(settings, KNOWN["build", other][0]):
            raise BadInput(
                f"{NAME}: `{one}` in [build] needs `{other}` beside it.", f"Add `{other}` to [build]."
            )
    if set(settings.secrets) & settings.env.keys():
        raise BadInput(
            f"{NAME}: a name is in `secrets` of [build] and in [env].", "Leave it out of one of them."
        )
    return settings


def _load(content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as broken:
        line = content[: broken.start].count(b"\n") + 1
        raise BadInput(f"{NAME}: line {line} is not UTF-8.", "Save the file as UTF-8.") from broken
    except tomllib.TOMLDecodeError as broken:
        raise BadInput(
            f"{NAME} is not valid TOML: {broken}.", "See https://toml.io for the syntax."
        ) from broken


def _table(name: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise BadInput(
            f"{NAME}: {name} is a table.", f"Write [{name}] on a line of its own, its settings below."
        )
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _setting(name, key, value)
    return found


def _setting(table: str, key: str, value: Any) -> dict[str, Any]:
    where = f"[{table}]" if table else "the top"
    if (table, key) not in KNOWN:
        raise BadInput(f"{NAME}: unknown key `{key}` in {where}.", _advice(table, key))
    name, check = KNOWN[table, key]
    if allowed := check(value):
        raise BadInput(f"{NAME}: `{key}` in {where} cannot be {_shown(value)}.", f"It is {allowed}.")
    return {name: tuple(value) if isinstance(value, list) else value}


def _advice(table: str, key: str) -> str:
    """The nearest right key here, the table where the key is known, or all that there is."""
    here = [known for place, known in KNOWN if place == table] + ([] if table else list(TABLES))
    if near := difflib.get_close_matches(key, here, n=1):
        return f"Did you mean `{near[0]}`?"
    for place, known in KNOWN:
        if known == key:
            return f"It belongs in [{place}]." if place else "It belongs at the top, above all tables."
    return f"Known are {', '.join(f'`{name}`' for name in here)}."


def _environment(values: Any) -> dict[str, str]:
    if not isinstance(values, dict):
        raise BadInput(f"{NAME}: env is a table.", 'Write [env] on a line of its own, NAME = "value" below.')
    for name, value in values.items():
        if not _VARIABLE.fullmatch(name):
            advice = "Use letters, digits and _, and no digit first."
            raise BadInput(f"{NAME}: `{name}` in [env] cannot name a variable.", advice)
        if name in RESERVED or name.startswith(RESERVED_PREFIX):
            raise BadInput(
                f"{NAME}: `{name}` in [env] is set by lazycloud.", "Remove it, or use another name."
            )
        if not isinstance(value, str) or "\0" in value:
            raise BadInput(
                f"{NAME}: `{name}` in [env] cannot be {_shown(value)}.", "It is a string, in quotes."
            )
    return dict(values)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case _:
            return repr(value)[:60].replace("'", '"')
