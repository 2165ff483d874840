"""What a machine lacks: each finding where it should be there, and where not."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from lazycloud.config import Config, Listen, load
from lazycloud.container import Container
from lazycloud.data import blocks
from lazycloud.doctor import databases, examination, examine, machine, network, safety, tools
from lazycloud.findings import Finding, Weight
from lazycloud.walls import sandbox


def weights(found: Iterable[Finding]) -> dict[str, str]:
    return {finding.what: finding.weight.name for finding in found}


def program(folder: Path, name: str, says: str, status: int = 0) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\necho oh no >&2\nexit {status}\n")
    path.chmod(0o755)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(home=tmp_path / "home", listen=(Listen("127.0.0.1", 0),))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_the_most_important_comes_first_and_every_sentence_ends(config: Config) -> None:
    found = examine(config, serves=False)
    assert [one.weight for one in found] == sorted(one.weight for one in found)
    assert {"git", "disk", "memory", "names", "ports", "uv", "limits"} <= {one.what for one in found}
    for one in found:
        assert one.sentence.endswith((".", "?")), one
        assert bool(one.advice) == (one.weight is not Weight.FINE), one


@pytest.mark.parametrize("shared", [True, False])
def test_whether_forks_take_room_is_said(
    config: Config, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    monkeypatch.setattr(blocks, "are_shared", lambda folder: shared)
    assert weights(databases.sharing(config)) == {"forks": "FINE" if shared else "LIMITED"}


def test_a_look_that_fails_costs_its_own_line_only(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def free_disk(config: Config) -> list[Finding]:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(examination, "ALWAYS", (free_disk, *machine.LOOKS))
    found = {one.what: one.sentence for one in examine(config, serves=True)}
    assert "the disk is on fire" in found["free disk"]
    assert "memory" in found


def test_programs_that_are_missing_or_old_are_told(config: Config, path: Path) -> None:
    looks = (tools.git, tools.node, tools.git_lfs)
    missing = [one for look in looks for one in look(config)]
    assert weights(missing) == {"git": "BROKEN", "node": "LIMITED", "git-lfs": "LIMITED"}
    program(path, "git", "git version 2.20.1")
    program(path, "node", "v12.1.0")
    program(path, "git-lfs", "x")
    old = [one for look in looks for one in look(config)]
    assert weights(old) == {"git": "BROKEN", "node": "LIMITED", "git-lfs": "FINE"}
    assert "2.20.1 is too old" in old[0].sentence
    program(path, "git", "git version 2.47.1 (Apple Git-1)")
    program(path, "node", "v22.1.0")
    assert weights([*tools.git(config), *tools.node(config)]) == {"git": "FINE", "npm": "LIMITED"}
    program(path, "npm", "10")
    assert weights(tools.node(config)) == {"node": "FINE"}


def test_a_home_that_cannot_be_one_is_told(config: Config, tmp_path: Path) -> None:
    assert list(machine.home(config)) == []
    place = tmp_path / "a file"
    place.touch()
    assert weights(machine.home(Config(home=place / "home"))) == {"home": "BROKEN"}
    assert weights(machine.home(Config(home=Path("/proc/nothing")))) == {"home": "BROKEN"}


def test_a_home_on_a_distant_file_system_is_not_safe(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    spaced = tmp_path / "with space"
    spaced.mkdir()
    escaped = str(spaced).replace(" ", "\\040")
    table.write_text(
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        f"23 22 0:20 / {escaped} rw shared:1 - tmpfs x rw\n"
        f"24 22 0:21 / {escaped} rw shared:1 master:2 - nfs4 server:/ rw\n"
    )
    assert machine.file_system(spaced / "home", table) == "nfs4"
    assert machine.file_system(tmp_path, table) == "ext4"
    monkeypatch.setattr(machine, "file_system", lambda place: "nfs4")
    assert weights(machine.home(config)) == {"home": "UNSAFE"}


def test_a_disk_and_a_memory_below_the_reserve_are_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text('[disk]\nreserve = "100%"\n[workers]\nreserve = "100%"\n')
    config = load({"home": home}, {})
    assert weights([*machine.disk(config), *machine.free_memory(config)]) == {
        "disk": "LIMITED",
        "memory": "LIMITED",
    }
    (home / "config.toml").write_text("[disk]\nreserve = 1\n[workers]\nreserve = 1\n")
    config = load({"home": home}, {})
    assert weights([*machine.disk(config), *machine.free_memory(config)]) == {
        "disk": "FINE",
        "memory": "FINE",
    }


def test_a_port_that_somebody_has_is_told_unless_a_server_runs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Config(home=tmp_path, listen=(Listen("127.0.0.1", taken.getsockname()[1]),))
        assert weights(examine(config, serves=False))["ports"] == "BROKEN"
        assert "ports" not in weights(examine(config, serves=True))


def test_a_domain_whose_names_lead_nowhere_is_broken_and_localhost_is_not(tmp_path: Path) -> None:
    assert weights(network.names(Config(home=tmp_path, domain="nothing.invalid"))) == {"names": "BROKEN"}
    assert weights(network.names(Config(home=tmp_path)))["names"] in ("FINE", "LIMITED")


def test_certificates_that_cannot_be_read_are_broken(tmp_path: Path) -> None:
    config = Config(home=tmp_path, tls_cert=("/nowhere.pem",))
    assert weights(network.certificates(config)) == {"https": "BROKEN"}


def test_who_is_reached_from_elsewhere_without_https_is_not_safe(tmp_path: Path) -> None:
    public = Config(home=tmp_path, listen=(Listen("0.0.0.0", 80),))
    assert weights(safety.reach(public)) == {"https": "UNSAFE"}
    assert weights(safety.reach(Config(home=tmp_path))) == {"reach": "FINE"}
    fronted = Config(home=tmp_path, public_url="https://example.com", domain="example.com")
    assert weights(safety.reach(fronted)) == {}


def test_walls_that_were_asked_for_and_do_not_stand_are_broken(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Container(socket=str(tmp_path / "docker.sock"))

    def walls(isolation: str) -> dict[str, str]:
        return weights(safety.walls(Config(home=tmp_path, isolation=isolation, container=engine)))

    monkeypatch.setattr(sandbox, "missing", lambda: "It cannot be.")
    assert walls("auto") == {"sandbox": "UNSAFE"}
    assert walls("sandbox") == {"sandbox": "BROKEN"}
    assert walls("container") == {"container": "BROKEN"}
    monkeypatch.setattr(sandbox, "missing", lambda: "")
    assert set(walls("auto").values()) <= {"FINE", "LIMITED"}
    assert walls("auto") == walls("sandbox")
    assert walls("none") == {"sandbox": "UNSAFE"}


def test_nothing_is_left_in_the_home(config: Config) -> None:
    config.home.mkdir()
    examine(config, serves=False)
    assert list(config.home.iterdir()) == []
