"""`doctor`: asks a server that runs, and looks itself where none does."""

from __future__ import annotations

import json
import socket

from .conftest import CommandLine
from .server import ScriptedServer

FINDINGS = [
    {"weight": "broken", "what": "git", "sentence": "There is no \x1b[2Jgit.", "advice": "Install it."},
    {"weight": "unsafe", "what": "user", "sentence": "It is root.", "advice": "Be somebody else."},
    {"weight": "fine", "what": "disk", "sentence": "It is large.", "advice": ""},
]


async def test_a_server_that_runs_is_asked(lazycloud: CommandLine, server: ScriptedServer) -> None:
    server.answer("GET /api/doctor", {"home": "/srv/home", "findings": FINDINGS})
    done = await lazycloud("doctor")
    assert done.status == 1
    lines = [line.rstrip() for line in done.out.splitlines()]
    assert lines[0] == "Looked at for the server of /srv/home"
    assert lines[2].split(maxsplit=2) == ["✗", "git", "There is no  [2Jgit."]
    assert lines[3].strip() == "Install it."
    assert lines[6].split(maxsplit=2) == ["✓", "disk", "It is large."]
    assert lines[-1] == "1 thing is asked for and does not work."
    assert "\x1b" not in done.out
    assert json.loads((await lazycloud("doctor", "--json")).out) == {"findings": FINDINGS}


async def test_what_is_only_unsafe_is_no_failure(lazycloud: CommandLine, server: ScriptedServer) -> None:
    server.answer("GET /api/doctor", {"home": "/srv/home", "findings": FINDINGS[1:]})
    done = await lazycloud("doctor")
    assert done.status == 0
    assert "All that was asked for works; 1 thing is not safe." in done.out


async def test_without_a_server_the_machine_is_looked_at(lazycloud: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        lazycloud.environment["LAZYCLOUD_LISTEN"] = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await lazycloud("doctor")
        assert done.status == 1
        assert f"Looked at for {lazycloud.home}, where no server runs" in done.out
        assert "is in use" in done.out
    found = json.loads((await lazycloud("doctor", "--json")).out)["findings"]
    assert {"weight": "fine", "what": "git"}.items() <= next(f for f in found if f["what"] == "git").items()
    assert not lazycloud.home.exists()


async def test_settings_that_cannot_be_read_are_a_finding(lazycloud: CommandLine) -> None:
    lazycloud.home.mkdir()
    (lazycloud.home / "config.toml").write_text("domian = 'x'\n")
    done = await lazycloud("doctor")
    assert done.status == 1
    assert "unknown setting `domian`" in done.out
    assert "git version" in done.out
