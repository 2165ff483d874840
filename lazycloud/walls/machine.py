"""What of the machine every walled process sees: an allow-list of programs, and of the settings that programs need.

Root's own files are readable to a server that is root, whatever their modes: so /etc is not shown as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # of the root: links to /usr on most systems
PROGRAMS = (Path("/usr"), Path("/nix/store"))
PROCESSORS = Path("/sys/devices/system/cpu")  # how many there are: numerical libraries ask

LIVE = ("resolv.conf", "hosts")  # change while the machine runs: shown themselves
ETC = (
    # names, and the network
    *LIVE, "host.conf", "hostname", "nsswitch.conf", "gai.conf", "services", "protocols", "networks",
    # certificates, but not their keys
    "ssl/certs", "ssl/cert.pem", "ssl/openssl.cnf", "ca-certificates", "ca-certificates.conf", "crypto-policies",
    "pki/ca-trust", "pki/tls/certs", "pki/tls/cert.pem", "pki/tls/openssl.cnf",
    # programs and their libraries
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload",
    # the system, its time and its languages
    "os-release", "debian_version", "localtime", "timezone", "locale.alias", "locale.conf", "mime.types", "magic",
    "magic.mime", "fonts", "papersize", "terminfo",
    # languages
    "php", "php.ini", "php.d", "perl", "python3", "python3.11", "python3.12", "python3.13", "java-11-openjdk",
    "java-17-openjdk", "java-21-openjdk", "ImageMagick-6", "ImageMagick-7",
)  # fmt: skip
SETTINGS = ("npmrc", "pip.conf", "uv", "gitconfig", "xdg/pip", "xdg/uv")  # of package managers

# Of /proc: a server that is root owns the kernel's settings outside, and needs no right of root's to write them.
READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
EMPTY_FILES = ("/proc/keys", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug")
EMPTY_FOLDERS = ("/proc/acpi", "/proc/scsi")

OWN = (Path("/var/lib/php/sessions"),)  # folders that programs share by custom, and here everybody has alone

# What apps are run and built by, wherever it was put.
TOOLS = (
    "bun", "bundle", "composer", "corepack", "deno", "gem", "go", "java", "node", "npm", "npx", "php", "pnpm",
    "python", "python3", "ruby", "uv", "yarn", *(f"python3.{minor}" for minor in range(8, 16)),
)  # fmt: skip
SHIMS = "shims"  # pyenv, asdf, mise: small programs that look beside their folder for the real ones
NAMED = (
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "PIP_CERT", "UV_FIND_LINKS", "PIP_FIND_LINKS",
)  # fmt: skip
PYTHONS = "UV_PYTHON_INSTALL_DIR"
PRIVATE = ("NPM_CONFIG_USERCONFIG", "NETRC", "UV_CONFIG_FILE", "PIP_CONFIG_FILE")
CONFIGURED = ("uv", "pip")  # folders of settings, in those of XDG_CONFIG_DIRS
TOO_WIDE = frozenset(map(Path, "/ /etc /home /root /var /run /tmp /proc /sys /dev /srv /opt /usr".split()))  # noqa: SIM905


def system() -> Iterator[str]:
    """bwrap's words for the system's own programs. Each mount costs a start 0.2 ms."""
    for name in FOLDERS:
        place = ROOT / name
        if place.is_symlink():
            yield from ("--symlink", str(place.readlink()), str(place))
        elif place.is_dir():
            yield from ("--ro-bind", str(place), str(place))
    for place in (*PROGRAMS, PROCESSORS):
        if place.is_dir():
            yield from ("--ro-bind", str(place), str(place))


def etc(folder: Path, own: Mapping[str, str], more: Iterable[Path] = ()) -> Path:
    """A folder to be shown as /etc, below `folder`: made when it is not there, or the machine's has changed.

    A copy, as each of its entries would be a mount for every process. `own` are files of ours, by name; `more`
    are paths of /etc that are shown, too.
    """
    names = [*ETC, *(str(place.relative_to("/etc")) for place in more)]
    found = [_below(Path("/etc", name)) for name in names]
    facts = hashlib.sha256(json.dumps([found, dict(own)]).encode()).hexdigest()[:12]
    place = folder / f"etc-{facts}"
    if not place.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=folder, prefix=".etc-"))
        making.chmod(0o755)
        for name in names:
            _copy(Path("/etc", name), making / name)
        for name, text in own.items():
            (making / name).write_text(text)
        try:
            making.rename(place)
        except OSError:  # somebody else made it meanwhile
            shutil.rmtree(making)
    return place


def _below(place: Path) -> list[list[object]]:
    """What tells whether a file, or what is in a folder, has changed."""
    found: list[list[object]] = []
    for path in [place, *(sorted(place.rglob("*")) if place.is_dir() else ())]:
        with suppress(OSError):
            status = path.stat()
            found.append([str(path), status.st_size if path.is_file() else 0, status.st_mtime_ns])
    return found


def _copy(source: Path, target: Path) -> None:
    """A file, the one that a link leads to, or a folder with its links as they are; nothing for what is not there."""
    if target.exists():
        return  # a part of what was copied before
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        elif source.is_file():
            shutil.copy2(source, target)


def kernel() -> Iterator[str]:
    """bwrap's words for /proc and /dev."""
    yield from ("--proc", "/proc", "--dev", "/dev")


def covers() -> Iterator[str]:
    """bwrap's words for what of /proc is not there, or not to be changed."""
    for name in READ_ONLY:
        if Path(name).exists():
            yield from ("--ro-bind", name, name)
    for name in EMPTY_FILES:
        if Path(name).exists():
            yield from ("--ro-bind", "/dev/null", name)
    for name in EMPTY_FOLDERS:
        if Path(name).exists():
            yield from ("--tmpfs", name)


def toolchain(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders of programs outside of the system's, as the server's own environment names them.

    Never ask it of an environment that a commit has a say in: that would show it what it likes.
    """
    path = [Path(place) for place in environ.get("PATH", "").split(":") if place.startswith("/")]
    shims = [place.parent for place in path if place.name == SHIMS]
    found = [shutil.which(name, path=environ.get("PATH", "")) for name in TOOLS]
    around = [
        place for program in (*found, sys.executable) if program for place in installation(Path(program))
    ]
    own = [Path(sys.prefix), Path(sys.base_prefix), Path(environ.get(PYTHONS) or ROOT)]
    return worth_showing([*path, *shims, *around, *own])


def settings(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Files and folders that package managers are set by, and find packages in, for those who install some."""
    etc = [Path("/etc", name) for name in SETTINGS]
    named = [Path(word) for name in NAMED for word in _words(environ.get(name, ""))]
    private = [Path(environ[name]) for name in PRIVATE if environ.get(name)]
    configured = [
        Path(folder, name) for folder in environ.get("XDG_CONFIG_DIRS", "").split(":") for name in CONFIGURED
    ]
    return worth_showing([*etc, *named, *private, *configured])


def installation(program: Path) -> list[Path]:
    """The folders that a program was installed into: all around its `bin`, if that is not shared by many."""
    real = program.resolve()
    if real.parent.name != "bin":
        return [real.parent]
    prefix = real.parent.parent
    shared = prefix in _wide() or prefix.name in (".local", ".cargo", "local")
    return [real.parent, prefix / "lib"] if shared else [prefix]


def _words(value: str) -> list[str]:
    return [word for word in value.replace(",", " ").split() if word.startswith("/")]


def worth_showing(places: Iterable[Path]) -> tuple[Path, ...]:
    """Those that are there and not shown anyway; none that so much else lies in that it is not meant."""
    wide = _wide()
    found = [
        place
        for place in dict.fromkeys(Path(os.path.normpath(place)) for place in places)
        if place.exists() and place not in wide and not any(map(place.is_relative_to, PROGRAMS))
        if len(place.parts) > 2 or place.parts[-1] not in FOLDERS
    ]
    return tuple(place for place in found if not any(other in place.parents for other in found))


def _wide() -> frozenset[Path]:
    """Folders that so much else lies in that they are never shown as a whole: the homes of users, too."""
    homes = {Path(user.pw_dir) for user in pwd.getpwall()} | {Path.home()}
    return TOO_WIDE | homes
