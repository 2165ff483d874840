"""The environment of package managers and build commands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

PASSED = frozenset(
    {
        "LANG", "TZ",
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
        "http_proxy", "https_proxy", "no_proxy", "all_proxy",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
        "GIT_SSL_CAINFO", "GIT_SSL_CAPATH",  # requirements may come from git
        "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT",
        "NETRC", "COREPACK_NPM_REGISTRY",
    }
)  # fmt: skip
PREFIXES = ("UV_", "npm_config_", "NPM_CONFIG_")
# What `uv run` and `npm run` tell their children about the project that *we* were started in.
ABOUT_US = frozenset(
    {
        "UV_PROJECT",
        "UV_PROJECT_ENVIRONMENT",
        "UV_WORKING_DIR",
        "UV_PYTHON",
        "UV_RUN_RECURSION_DEPTH",
        "UV_CACHE_DIR",
    }
    | {
        "npm_config_local_prefix",
        "npm_config_prefix",
        "npm_config_cache",
        "NPM_CONFIG_CACHE",
        "NPM_CONFIG_PREFIX",
    }
)
PIP_FOR_UV = (
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
    ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
)


def build_environment(environ: Mapping[str, str], home: Path, cache: Path) -> dict[str, str]:
    """What package managers need of `environ`, with `home` as HOME and their caches in `cache`.

    Their settings are still read from the real home. Nothing is made; whoever runs commands makes the folders.
    """
    kept = {name: value for name, value in environ.items() if _is_passed(name)}
    for pip, uv in PIP_FOR_UV:
        if pip in environ:
            kept.setdefault(uv, _for_uv(uv, environ[pip]))
    return {
        "LANG": "C.UTF-8",
        **_settings_of(environ),
        **kept,
        "PATH": build_path(environ.get("PATH", "")),
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "UV_CACHE_DIR": str(cache / "uv"),
        "npm_config_cache": str(cache / "npm"),
        "COREPACK_HOME": str(cache / "corepack"),
        "XDG_CACHE_HOME": str(cache / "xdg"),  # pip, Go, Composer and many others; each HOME is thrown away
        "PNPM_HOME": str(cache / "pnpm"),
        "YARN_GLOBAL_FOLDER": str(cache / "yarn"),
        "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0",
    }


def build_path(path: str) -> str:
    """PATH without the folder of our own virtual environment: its tools are not the app's."""
    own = {f"{sys.prefix}/bin"} if sys.prefix != sys.base_prefix else set()
    places = [place for place in path.split(":") if place and place not in own]
    return ":".join(places or ["/usr/local/bin", "/usr/bin", "/bin"])


def _is_passed(name: str) -> bool:
    return name in PASSED or (name.startswith(PREFIXES) and name not in ABOUT_US)


def _settings_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the operator's own uv and npm settings and Pythons are, as HOME no longer says it."""
    if "HOME" not in environ:
        return {}
    home = environ["HOME"]
    settings = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    return {
        # As a system's settings: uv joins them with a project's own, which it would not for UV_CONFIG_FILE.
        "XDG_CONFIG_DIRS": f"{settings}:{environ.get('XDG_CONFIG_DIRS') or '/etc/xdg'}",
        "UV_PYTHON_INSTALL_DIR": f"{data}/uv/python",
        "NPM_CONFIG_USERCONFIG": f"{home}/.npmrc",
    }


def _for_uv(name: str, value: str) -> str:
    """pip parts find-links by spaces, uv by commas."""
    return ",".join(value.split()) if name == "UV_FIND_LINKS" else value
