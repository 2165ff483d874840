"""One server builds; another, in another home and with nothing to build with, serves the same commit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Up
from tests.e2e.repository import Checkout
from tests.e2e.server import INSTALLING, Server

PROGRAMS = ("sh", "git", "node", "nice", "env")  # no npm, no compiler; Python is the server's own
NO_NETWORK = {
    "UV_OFFLINE": "1",
    "npm_config_offline": "true",
    "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple",
}
APP = """
import subprocess, sys
from flask import Flask

app = Flask(__name__)

@app.get("/")
def home():
    words = subprocess.run(["node", "-p", "require('ms')('2m')"], capture_output=True, text=True)
    return {"built": open("out.txt").read(), "node": words.stdout.strip() or words.stderr, "prefix": sys.prefix}
"""
FILES = {
    "app.py": APP,
    "requirements.txt": "flask>=3,<4\ngunicorn\n",
    "Procfile": "web: gunicorn --bind $HOST:$PORT app:app\n",
    "package.json": json.dumps({"scripts": {"build": "node build.js"}, "dependencies": {"ms": "2.1.3"}}),
    "build.js": "require('fs').writeFileSync('out.txt', `${require('ms')('1m')} in ${process.cwd()}`)\n",
}


def configured(home: Path, store: Path, trusted: str = "") -> Path:
    home.mkdir()
    store.mkdir(exist_ok=True)
    trust = f'trusted = ["{trusted}"]\n' if trusted else ""
    (home / "config.toml").write_text(f'[artifacts]\nstore = "file://{store}"\n{trust}')
    return home


def bare(folder: Path) -> str:
    """A PATH with hardly anything."""
    folder.mkdir()
    for name in PROGRAMS:
        (folder / name).symlink_to(shutil.which(name) or "")
    return str(folder)


@pytest.mark.registry
@pytest.mark.slow
async def test_a_server_without_network_and_tools_serves_what_another_built(
    up: Up, checkout: Checkout, tmp_path: Path
) -> None:
    commit, store = checkout.commit(FILES), tmp_path / "store"
    there = up(checkout.path, home=configured(tmp_path / "there", store), **INSTALLING)
    answer = (await there.get(commit[:10])).json
    assert (answer["node"], answer["built"].split()[0]) == ("120000", "60000")
    await there.until(lambda: _has(store, 3))
    key = (await there.verb("artifacts", "key")).strip()
    assert {one["name"].split("/")[0] for one in there.json("artifacts", "ls")} == {
        "environments",
        "releases",
    }
    assert "pushed" in await there.verb("artifacts", "push", commit, folder=checkout.path)

    path = bare(tmp_path / "tools")
    here = up(checkout.path, home=configured(tmp_path / "other home", store, key), PATH=path, **NO_NETWORK)
    assert (await here.verb("artifacts", "verify", commit, folder=checkout.path)).count("good") == 3
    served = (await here.get(commit[:10])).json
    root = next((tmp_path / "other home/apps/shop/releases").iterdir())
    assert served["node"] == "120000"
    assert served["built"] == f"60000 in {root}/tree"
    assert served["prefix"].startswith(str(tmp_path / "other home"))
    known = await here.inspect("production")  # which came first
    notes = {step["name"]: (step["state"], step["note"]) for step in known["steps"]}
    assert notes["source"] == notes["dependencies"] == notes["build"] == ("reused", "fetched")
    log = await here.verb("logs", "production", folder=checkout.path)
    assert log.count("Taken from the artifact store") == 3 and f"signed by {key}" in log
    shown = await here.verb("inspect", commit, folder=checkout.path)
    assert "fetched, from" in shown

    (release,) = store.glob("releases/*")
    release.write_bytes(release.read_bytes()[:-50])
    said = await here.verb("artifacts", "verify", folder=checkout.path, code=1)
    assert "refused" in said and "cut short" in said and said.count("good") == 2
    told = await here.verb("artifacts", "verify", str(release), folder=checkout.path, code=1)
    assert "cut short" in told
    assert "here" in await here.verb("artifacts", "pull", commit, folder=checkout.path)


async def _has(store: Path, count: int) -> bool:
    return len(list(store.glob("*/*.lazyart"))) == count


async def test_a_server_without_a_store_says_how_to_have_one(
    shared: Server, shared_checkout: Checkout
) -> None:
    server, checkout = shared, shared_checkout
    commit = checkout.git("rev-parse", "HEAD")
    for words in (["ls"], ["push", commit], ["pull", commit], ["verify"]):
        said = await server.verb("artifacts", *words, folder=checkout.path, code=None)
        assert "no artifact store" in said or "could be packed" in said
        assert "Traceback" not in said
