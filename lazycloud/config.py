"""One frozen Config from flags, environment and file; every path of a server derives from it.

A setting is looked for as a flag, as LAZYCLOUD_<NAME> in the environment, in `config.toml` of the home
folder, and has a default. Nothing else of lazycloud reads the environment.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lazycloud.allowance import Allowance, read_allowance
from lazycloud.container import Container, read_container
from lazycloud.errors import BadInput
from lazycloud.hosts import Addresses, app_name, is_app_name
from lazycloud.upkeep import Upkeep, read_upkeep
from lazycloud.workforce import Workforce, read_workforce

PREVIEWS = ("public", "login", "password")
ROUTERS_MAX = 8  # by default: one carries tens of thousands of requests a second and takes some 30 MB
SOCKET_PATH_LENGTH = 100  # sun_path holds 108 bytes on Linux; the longest name we add has 7


@dataclass(frozen=True)
class Listen:
    """Where the routers accept: an address and a port, 0 for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True)
class AppSource:
    """A repository to serve: `source` is an absolute path or a clone URL; "" where the default holds."""

    source: str
    name: str = ""
    domain: str = ""
    production: str = ""
    follow: str = ""
    previews: str = ""  # who may see them: one of PREVIEWS


@dataclass(frozen=True)
class Config:
    """A server's settings. Times are in seconds."""

    home: Path
    listen: tuple[Listen, ...] = (Listen("127.0.0.1", 8000), Listen("::1", 8000))
    domain: str = "localhost"
    public_url: str = ""  # what browsers see when a front stands before us, such as https://example.com
    apps: tuple[AppSource, ...] = ()
    routers: int = field(default_factory=lambda: min(cores(), ROUTERS_MAX))
    router: Mapping[str, Any] = field(default_factory=dict)  # limits, as lazycloud.router.settings reads them
    artifacts: Mapping[str, Any] = field(
        default_factory=dict
    )  # as lazycloud.build.artifacts.place reads them
    disk: Allowance = field(default_factory=Allowance)
    data: Upkeep = field(default_factory=Upkeep)
    workers: Workforce = field(default_factory=Workforce)
    isolation: str = "auto"  # the walls around apps: one of ISOLATIONS
    container: Container = field(default_factory=Container)
    trusted_proxies: tuple[str, ...] = ()  # networks of fronts whose X-Forwarded-* are believed
    builds: int = field(default_factory=lambda: max(2, cores()))  # deploys at work at a time
    build_time: float = 0.0  # longest that a command of a build may take; 0: as long as the app allows it
    build_memory: int = field(default_factory=lambda: memory() // 2)  # bytes, of one command; 0: no limit
    build_disk: int = 10_000_000_000  # bytes that one command may write; 0: no limit
    public_previews: bool = False
    tls_cert: tuple[str, ...] = ()  # certificate files; with them the listens speak https, but port 80
    tls_key: tuple[str, ...] = ()  # their keys in the same order; none when the certificates' files hold them
    access_log: str = ""  # a file, or - for standard output; empty: none is written
    hold_timeout: float = 300.0  # how long a request that is no page view waits for its worker
    held_max: int = 1024  # held requests at a time, over all apps
    fetch_every: float = 30.0  # how often a followed branch of a remote repository is looked at
    postgres_url: str = field(default="", repr=False)  # of a server where we may make databases and roles
    drain_timeout: float = 30.0  # what running requests get when their worker is to stop

    @property
    def is_public(self) -> bool:
        """Others than this machine's users can reach it: by its address, or through a front."""
        return bool(self.public_url) or not all(listen.is_loopback for listen in self.listen)

    @property
    def previews_need_login(self) -> bool:
        return self.is_public and not self.public_previews

    @property
    def held_app_max(self) -> int:
        """Of `held_max`, for one app, over all routers: so that a cold one leaves room for others."""
        return int(self.router.get("held_app_max", max(1, self.held_max // 2)))

    @property
    def addresses(self) -> Addresses:
        if self.public_url:
            url = urlsplit(self.public_url)
            return Addresses(url.scheme, self.domain, url.port or 0)
        scheme, usual = ("https", 443) if self.tls_cert else ("http", 80)
        port = next((listen.port for listen in self.listen if not self.redirects(listen)), usual)
        return Addresses(scheme, self.domain, 0 if port == usual else port)

    @property
    def tls(self) -> tuple[tuple[str, str], ...]:
        """Files of certificates and of their keys; the same twice where one holds both."""
        return tuple(zip(self.tls_cert, self.tls_key or self.tls_cert, strict=True))

    def redirects(self, listen: Listen) -> bool:
        """Whether it only sends clients to https."""
        return bool(self.tls_cert) and listen.port == 80

    @property
    def run_folder(self) -> Path:
        """Sockets, which live only as long as the server; outside the home if that path is too long."""
        folder = self.home / "run"
        if len(os.fsencode(folder)) < SOCKET_PATH_LENGTH - 8:
            return folder
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"lazycloud-{os.getuid()}-{digest}"

    @property
    def api_socket(self) -> Path:
        """Control's API for the command line: whoever can open it is the owner (mode 0600)."""
        return self.run_folder / "api"

    @property
    def control_socket(self) -> Path:
        """Control as an upstream of the routers: what comes here is as trusted as any visitor."""
        return self.run_folder / "control"

    @property
    def link_socket(self) -> Path:
        return self.run_folder / "link"

    @property
    def lock_file(self) -> Path:
        return self.home / "lock"

    @property
    def generation_file(self) -> Path:
        """Which code runs, and how the last upgrade went."""
        return self.run_folder / "generation"

    @property
    def token_file(self) -> Path:
        return self.home / "token"

    @property
    def key_file(self) -> Path:
        return self.home / "key"

    @property
    def postgres_key_file(self) -> Path:
        """Of what names and passwords in Postgres are made; it is as good as the data there, and stays with them."""
        return self.home / "postgres-key"

    @property
    def artifact_key_file(self) -> Path:
        """The key that signs artifacts."""
        return self.home / "artifact-key"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.home / 'state.sqlite'}"

    @property
    def cache_folder(self) -> Path:
        return self.home / "cache"

    def app_folder(self, app: str) -> Path:
        return self.home / "apps" / app

    @property
    def scratch(self) -> Path:
        """What workers have for a moment only: a folder for each deployment."""
        return self.home / "scratch"

    def scratch_folder(self, deployment: str) -> Path:
        """HOME and TMPDIR of a deployment's worker. Short: programs put unix sockets there, 107 bytes at most."""
        return self.scratch / hashlib.sha256(deployment.encode()).hexdigest()[:12]

    def scratch_folders(self, deployment: str) -> list[Path]:
        """That one, and the copies of its release that it may change."""
        own = self.scratch_folder(deployment)
        return [own, *own.parent.glob(f"{own.name}.*")]

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Config:
        data = json.loads(text)
        return cls(
            **data
            | {
                "home": Path(data["home"]),
                "listen": tuple(Listen(**listen) for listen in data["listen"]),
                "apps": tuple(AppSource(**app) for app in data["apps"]),
                "trusted_proxies": tuple(data["trusted_proxies"]),
                "tls_cert": tuple(data["tls_cert"]),
                "tls_key": tuple(data["tls_key"]),
                "disk": Allowance.from_dict(data["disk"]),
                "data": Upkeep.from_dict(data["data"]),
                "workers": Workforce.from_dict(data["workers"]),
                "container": Container.from_dict(data["container"]),
            }
        )


def cores() -> int:
    """How many processors this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0))


def memory(container: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes that there are: the machine's, or fewer where a container has a limit, which that file tells."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(container.read_text()))
    except (OSError, ValueError):  # there is none, or it says "max"
        return machine


def default_home(environ: Mapping[str, str]) -> Path:
    """LAZYCLOUD_HOME, else `lazycloud` in the user's data folder (XDG base directory specification)."""
    if home := environ.get("LAZYCLOUD_HOME"):
        return Path(home).absolute()
    data = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME", "/")) / ".local/share")
    return Path(data) / "lazycloud"


def load(flags: Mapping[str, Any], environ: Mapping[str, str], sources: Sequence[AppSource] = ()) -> Config:
    """The Config of a server. `flags` has what was given on the command line, None where nothing was.

    `sources` are the apps of the command line; they come before those of the file. Raises BadInput.
    """
    home = Path(flags.get("home") or default_home(environ)).absolute()
    settings = _from_file(home / "config.toml")
    apps = [_app(name, table) for name, table in settings.pop("apps", {}).items()]
    router = settings.pop("router", {})
    artifacts = settings.pop("artifacts", {})
    _spread_builds(settings)
    disk = read_allowance(settings.pop("disk", {}))
    data = read_upkeep(settings.pop("data", {}))
    workers = read_workforce(settings.pop("workers", {}), memory())
    container = read_container(settings.pop("container", {}), environ)
    for name in SETTINGS:
        if (text := environ.get(f"LAZYCLOUD_{name.upper()}")) is not None:
            settings[name] = text
        if flags.get(name) not in (None, (), []):
            settings[name] = flags[name]
    values = {name: SETTINGS[name](name, value) for name, value in settings.items()}
    if url := values.get("public_url"):
        values.setdefault("domain", urlsplit(url).hostname or "")
    tables: dict[str, Any] = {
        "router": router,
        "artifacts": artifacts,
        "disk": disk,
        "data": data,
        "workers": workers,
        "container": container,
    }
    config = Config(home=home, apps=_joined([*sources, *apps]), **tables, **values)
    _demand_sense_of_tls(config)
    return config


def _demand_sense_of_tls(config: Config) -> None:
    certs, keys = len(config.tls_cert), len(config.tls_key)
    if keys not in (0, certs):
        raise BadInput(
            f"tls_key: {keys} for {certs} certificate{'' if certs == 1 else 's'} (tls_cert).",
            "Give each its key, in the same order; or none, when the certificates' files hold their keys.",
        )
    if certs and all(config.redirects(listen) for listen in config.listen):
        raise BadInput(
            "With certificates, port 80 only sends visitors to https.",
            "Give the port of https too: --listen 0.0.0.0:443 --listen 0.0.0.0:80",
        )
    if certs and config.public_url.startswith("http:"):
        raise BadInput(
            f"public_url: visitors of {config.public_url} see no https, but the server has certificates.",
            "Give the address with https:// or leave the certificates to the front.",
        )


def _joined(apps: Sequence[AppSource]) -> tuple[AppSource, ...]:
    """Each source once: what the command line leaves open the file may say."""
    joined: dict[str, AppSource] = {}
    for app in apps:
        first = joined.get(app.source, app)
        settled = {one.name: getattr(first, one.name) or getattr(app, one.name) for one in fields(AppSource)}
        joined[app.source] = AppSource(**settled)
    return tuple(joined.values())


def _from_file(path: Path) -> dict[str, Any]:
    try:
        settings = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadInput(f"{path} is not valid TOML: {problem}.") from problem
    for name, value in settings.items():
        if name not in SETTINGS and name not in TABLES:
            near = get_close_matches(name, [*SETTINGS, *TABLES], 1)
            raise BadInput(f"{path}: unknown setting `{name}`.", f"Did you mean `{near[0]}`?" if near else "")
        if name in TABLES and not isinstance(value, dict):
            raise BadInput(f"{path}: `{name}` is a table.", f"Write {TABLES[name]} on a line of its own.")
    return settings


def _app(name: str, table: Any) -> AppSource:
    allowed = [one.name for one in fields(AppSource) if one.name != "name"]
    if not is_app_name(name):
        raise BadInput(
            f"config.toml: [apps.{name}] is no name for an app.", f"`{app_name(name)}` would be one."
        )
    if not isinstance(table, dict) or not table.get("source"):
        raise BadInput(f"config.toml: [apps.{name}] needs a `source`: a path or a clone URL.")
    for key, value in table.items():
        if key not in allowed or not isinstance(value, str):
            raise BadInput(
                f"config.toml: [apps.{name}] takes {', '.join(allowed)}, each a string; not `{key}`."
            )
    if table.get("previews", PREVIEWS[0]) not in PREVIEWS:
        raise BadInput(
            f"config.toml: [apps.{name}] `previews` cannot be “{table['previews'][:40]}”.",
            f"Give one of {', '.join(PREVIEWS)}.",
        )
    return AppSource(name=name, **table | {"source": locate(table["source"])})


def locate(source: str) -> str:
    """A clone URL as it is, a path made absolute. `user@host:path` is a URL as it is for git."""
    if "://" in source or (":" in source.partition("/")[0] and not Path(source).exists()):
        return source
    return str(Path(source).expanduser().absolute())


def parse_listen(text: str) -> tuple[Listen, ...]:
    """`8000`, `:8000`, `localhost:8000`, `0.0.0.0:80`, `[::]:8000`; localhost is both loopback addresses."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or ("0.0.0.0" if text.startswith(":") else "localhost")  # noqa: S104
    if not port.isdecimal() or int(port) > 65535:
        raise BadInput(f"--listen {text}: “{port}” is no port.", "Give ADDRESS:PORT, such as localhost:8000.")
    if host == "localhost":
        return (Listen("127.0.0.1", int(port)), Listen("::1", int(port)))
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise BadInput(
            f"--listen {text}: “{host}” is no IP address.", "Give ADDRESS:PORT; the name goes to --domain."
        ) from None
    return (Listen(host, int(port)),)


def _listens(name: str, value: Any) -> tuple[Listen, ...]:
    texts = value.split(",") if isinstance(value, str) else list(value)
    return tuple(listen for text in texts for listen in parse_listen(str(text).strip()))


def _domain(name: str, value: Any) -> str:
    domain = str(value).strip().lower().rstrip(".")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", domain):
        raise BadInput(f"{name}: “{domain}” is no domain.", "Give one such as example.com.")
    return domain


def _url(name: str, value: Any) -> str:
    url = urlsplit(str(value))
    if url.scheme not in ("http", "https") or not url.hostname or url.path not in ("", "/"):
        raise BadInput(f"{name}: “{value}” is no base URL.", "Give one such as https://example.com.")
    return str(value).rstrip("/")


def _postgres_url(name: str, value: Any) -> str:
    """What is wrong with it is said without it, as it has a password in it."""
    if urlsplit(str(value)).scheme not in ("postgresql", "postgres"):
        raise BadInput(
            f"{name}: that is no URL of a Postgres server.",
            "Give one such as postgresql://lazycloud:PASSWORD@localhost:5432/postgres",
        )
    return str(value)


def _networks(name: str, value: Any) -> tuple[str, ...]:
    texts = value.split(",") if isinstance(value, str) else list(value)
    return tuple(_network(name, str(text).strip()) for text in texts if str(text).strip())


def _network(name: str, text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        near = f"Did you mean `{ipaddress.ip_network(text, strict=False)}`?"
    except ValueError:
        near = "Give the front's own, such as 127.0.0.1 or 10.0.0.0/8."
    raise BadInput(f"{name}: “{text}” is no address or network.", near)


def _paths(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (str, list, tuple)):
        raise BadInput(f"{name}: “{value}” is no file.", "Give its path, or a list of paths.")
    texts = value.split(",") if isinstance(value, str) else list(value)
    return tuple(str(Path(str(text).strip()).expanduser().absolute()) for text in texts if str(text).strip())


def _file(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadInput(f"{name}: “{value}” is no file.", "Give its path, or - for standard output.")
    return value if value in ("", "-") else str(Path(value).expanduser().absolute())


def _count(name: str, value: Any) -> int:
    return int(_seconds(name, value))


def _seconds(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BadInput(f"{name}: “{value}” is no number.") from None
    if not number > 0:
        raise BadInput(f"{name}: must be more than 0, not {value}.")
    return number


def _size(name: str, value: Any) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", str(value).strip().lower())
    if found is None or isinstance(value, bool):
        raise BadInput(
            f"{name}: “{value}” is no size.", 'Give bytes, or a size such as "4 GB"; 0 for no limit.'
        )
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " "))


def _spread_builds(settings: dict[str, Any]) -> None:
    """The table [builds] says in one place what its settings say one by one."""
    if not isinstance(table := settings.get("builds"), dict):
        return
    del settings["builds"]
    for key, value in table.items():
        if key not in BUILDS:
            raise BadInput(f"config.toml: [builds] has no setting `{key}`.", f"It has: {', '.join(BUILDS)}.")
        settings[BUILDS[key]] = value


def _isolation(name: str, value: Any) -> str:
    if value not in ISOLATIONS:
        raise BadInput(f"{name}: “{value}” is no kind of wall.", f"Give one of {', '.join(ISOLATIONS)}.")
    return str(value)


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("1", "true", "yes", "on"):
        return True
    if str(value).lower() in ("0", "false", "no", "off", ""):
        return False
    raise BadInput(f"{name}: “{value}” is neither true nor false.")


ISOLATIONS = ("auto", "none", "sandbox", "container")

SETTINGS: dict[str, Callable[[str, Any], Any]] = {
    "listen": _listens,
    "domain": _domain,
    "public_url": _url,
    "postgres_url": _postgres_url,
    "routers": _count,
    "trusted_proxies": _networks,
    "builds": _count,
    "build_time": _seconds,
    "build_memory": _size,
    "build_disk": _size,
    "public_previews": _flag,
    "tls_cert": _paths,
    "tls_key": _paths,
    "access_log": _file,
    "hold_timeout": _seconds,
    "held_max": _count,
    "fetch_every": _seconds,
    "drain_timeout": _seconds,
    "isolation": _isolation,
}
"""What may be set, and how its text or TOML value is read. The names are those of Config."""

BUILDS = {
    "concurrent": "builds",
    "time": "build_time",
    "memory": "build_memory",
    "disk": "build_disk",
}
"""The settings that the table [builds] may say, and their own names."""

TABLES = {
    "apps": "`[apps.<name>]`",
    "router": "`[router]`",
    "artifacts": "`[artifacts]`",
    "disk": "`[disk]`",
    "data": "`[data]`",
    "workers": "`[workers]`",
    "container": "`[container]`",
}
"""The tables of config.toml, and how their heading is written."""
