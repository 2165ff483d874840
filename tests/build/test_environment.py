from __future__ import annotations

import sys
from pathlib import Path

from lazycloud.build.environment import build_environment

HOME, CACHE = Path("/ours/home"), Path("/ours/cache")


def test_only_what_package_managers_need_is_passed_on() -> None:
    environ = {
        "PATH": "/usr/bin",
        "HTTPS_PROXY": "http://proxy",
        "SSL_CERT_FILE": "/certs",
        "UV_NATIVE_TLS": "1",
        "npm_config_registry": "https://npm.example",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "LAZYCLOUD_TOKEN": "secret",
        "DATABASE_URL": "secret",
        "VIRTUAL_ENV": "/ours",
        "PYTHONPATH": "/ours",
        "NODE_ENV": "production",
        "UV_PROJECT_ENVIRONMENT": "/ours",
        "npm_config_local_prefix": "/ours",
    }
    made = build_environment(environ, HOME, CACHE)
    assert set(made) == {
        "PATH", "HTTPS_PROXY", "SSL_CERT_FILE", "UV_NATIVE_TLS", "npm_config_registry",
        "LANG", "HOME", "TMPDIR", "UV_CACHE_DIR", "npm_config_cache",
        "COREPACK_HOME", "COREPACK_ENABLE_DOWNLOAD_PROMPT",
        "XDG_CACHE_HOME", "PNPM_HOME", "YARN_GLOBAL_FOLDER",
    }  # fmt: skip
    assert made["HOME"] == "/ours/home"


def test_pips_indexes_are_told_to_uv_unless_it_has_its_own() -> None:
    environ = {
        "PIP_INDEX_URL": "https://a/simple",
        "PIP_EXTRA_INDEX_URL": "https://b/simple https://c/simple",
        "PIP_FIND_LINKS": "/x /y",
    }
    made = build_environment(environ, HOME, CACHE)
    assert made["UV_DEFAULT_INDEX"] == "https://a/simple"
    assert made["UV_INDEX"] == "https://b/simple https://c/simple"
    assert made["UV_FIND_LINKS"] == "/x,/y"
    assert build_environment({**environ, "UV_DEFAULT_INDEX": "d"}, HOME, CACHE)["UV_DEFAULT_INDEX"] == "d"


def test_our_own_tools_are_not_the_apps() -> None:
    path = f"{sys.prefix}/bin:/usr/bin::/bin"
    assert build_environment({"PATH": path}, HOME, CACHE)["PATH"] == "/usr/bin:/bin"
    assert build_environment({}, HOME, CACHE)["PATH"] == "/usr/local/bin:/usr/bin:/bin"


def test_settings_are_read_from_the_real_home_though_home_is_ours() -> None:
    made = build_environment({"HOME": "/home/ada"}, HOME, CACHE)
    assert made["NPM_CONFIG_USERCONFIG"] == "/home/ada/.npmrc"
    assert made["XDG_CONFIG_DIRS"].split(":")[0] == "/home/ada/.config"
    assert made["UV_PYTHON_INSTALL_DIR"] == "/home/ada/.local/share/uv/python"
