"""Settings from flags, environment and file."""

import os
from pathlib import Path

import pytest

from lazycloud.config import AppSource, Config, Listen, load, locate, memory, parse_listen
from lazycloud.errors import BadInput
from lazycloud.upkeep import Upkeep


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('domain = "file.org"\nbuilds = 7\nrouters = 3\n')
    environ = {"LAZYCLOUD_DOMAIN": "environment.org", "LAZYCLOUD_BUILDS": "5"}
    config = load({"home": tmp_path, "domain": "flag.org", "builds": None}, environ)
    assert (config.domain, config.builds, config.routers) == ("flag.org", 5, 3)


def test_apps_of_the_file_come_after_those_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[apps.blog]\nsource = "/srv/blog"\nfollow = "main"\n')
    config = load({"home": tmp_path}, {}, [AppSource("/srv/shop")])
    assert config.apps == (AppSource("/srv/shop"), AppSource("/srv/blog", "blog", follow="main"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("domian = 1", "unknown setting `domian`. Did you mean `domain`?"),
        ("domain = ", "is not valid TOML"),
        ("builds = 0", "must be more than 0"),
        ('builds = "many"', "is no number"),
        ('public_previews = "perhaps"', "neither true nor false"),
        ('listen = "localhost"', "is no port"),
        ('listen = "example.com:80"', "no IP address"),
        ('public_url = "example.com"', "no base URL"),
        ('trusted_proxies = ["10.0.0.5/8"]', "Did you mean `10.0.0.0/8`?"),
        ('trusted_proxies = ["caddy"]', "“caddy” is no address or network"),
        ("tls_cert = 5", "“5” is no file"),
        ('tls_key = "k.pem"', "tls_key: 1 for 0 certificates"),
        ('tls_cert = ["a.pem", "b.pem"]\ntls_key = "a.key"', "tls_key: 1 for 2 certificates"),
        ('tls_cert = "a.pem"\nlisten = ":80"', "port 80 only sends visitors to https"),
        ('tls_cert = "a.pem"\npublic_url = "http://a.org"', "visitors of http://a.org see no https"),
        ("router = 5", "Write `[router]` on a line of its own"),
        ("disk = 5", "Write `[disk]` on a line of its own"),
        ("[container]\nsoket = 1", "[container] has no setting `soket`. Did you mean `socket`?"),
        ("[container]\nimage = 1", "[container] `image` cannot be 1. It is a string."),
        ('[container]\nmounts = ["opt"]', 'Give a list of folders, such as ["/opt/tools"].'),
        ("[disk]\nlimt = 1", "[disk] has no setting `limt`. Did you mean `limit`?"),
        ('[disk]\nlimit = "lots"', "`limit` cannot be 'lots'. Give a size such as"),
        ("[disk]\nlimit = 0", "`limit` must be more than 0"),
        ('[disk]\nreserve = "101%"', "is more than the whole"),
        ("[disk]\nkeep = -1", "`keep` cannot be -1"),
        ("apps = 1", "Write `[apps.<name>]` on a line of its own"),
        ('[apps."My App"]\nsource = "/a"', "`my-app` would be one"),
        ("[apps.shop]\nsurce = 1", "needs a `source`"),
        ('[apps.shop]\nsource = "/a"\ncolour = "red"', "not `colour`"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_what_to_do(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(BadInput) as problem:
        load({"home": tmp_path}, {})
    assert sentence in str(problem.value)


def test_what_may_be_taken_of_the_disk_is_a_size_or_a_share(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[disk]\nlimit = "1.5 GB"\nreserve = "10%"\nkeep = 2\n')
    config = load({"home": tmp_path}, {})
    assert (config.disk.limit.of(10**12), config.disk.reserve.of(1000), config.disk.keep) == (
        1_500_000_000,
        100,
        2,
    )
    assert Config.from_json(config.to_json()).disk == config.disk
    default = Config(tmp_path).disk
    assert (default.limit.of(10**12), default.reserve.of(10**12)) == (200 * 10**9, 2 * 10**9)
    assert default.reserve.of(10**9) == 50_000_000  # the smaller of both


def test_localhost_is_both_loopback_addresses_and_nothing_else_is_loopback() -> None:
    assert parse_listen("localhost:8000") == (Listen("127.0.0.1", 8000), Listen("::1", 8000))
    assert parse_listen("8000") == parse_listen("localhost:8000")
    assert Config(Path("/"), listen=parse_listen(":80")).previews_need_login is not False
    assert Config(Path("/")).previews_need_login is False
    assert (
        Config(Path("/"), listen=parse_listen("[::]:80"), public_previews=True).previews_need_login is False
    )


def test_a_front_says_what_addresses_look_like(tmp_path: Path) -> None:
    config = load({"home": tmp_path, "public_url": "https://example.com/"}, {})
    assert config.addresses.label(config.domain, "3f2a9c1") == "https://3f2a9c1.example.com/"


def test_with_certificates_addresses_are_https_on_the_first_port_that_is_not_80(tmp_path: Path) -> None:
    given = {"home": tmp_path, "domain": "example.com", "tls_cert": ["a.pem", "b.pem"]}
    config = load(given | {"listen": [":80", ":443"]}, {"LAZYCLOUD_TLS_KEY": "/a.key, /b.key"})
    assert config.addresses.label("example.com", "3f2a9c1") == "https://3f2a9c1.example.com/"
    assert [config.redirects(listen) for listen in config.listen] == [True, False]
    assert config.tls == ((str(Path.cwd() / "a.pem"), "/a.key"), (str(Path.cwd() / "b.pem"), "/b.key"))
    assert Config.from_json(config.to_json()) == config
    config = load(given | {"listen": ["8443"]}, {})
    assert config.addresses.production("example.com") == "https://example.com:8443/"
    assert config.tls[0] == (config.tls_cert[0], config.tls_cert[0])


def test_sockets_move_to_a_short_folder_when_the_home_is_deep(tmp_path: Path) -> None:
    assert Config(Path("/srv/lazy")).run_folder == Path("/srv/lazy/run")
    deep = Config(Path("/" + "x" * 120))
    assert len(str(deep.api_socket)) < 100
    assert deep.run_folder != Config(Path("/" + "y" * 120)).run_folder


def test_a_config_goes_to_another_process_as_it_is(tmp_path: Path) -> None:
    config = load({"home": tmp_path, "listen": [":80"]}, {}, [AppSource("/a", "a", follow="main")])
    assert Config.from_json(config.to_json()) == config


def test_a_source_is_a_url_or_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("shop") == str(tmp_path / "shop")
    assert locate("https://example.com/shop.git") == "https://example.com/shop.git"
    assert locate("git@example.com:shop.git") == "git@example.com:shop.git"


def test_a_worker_s_own_folder_leaves_room_for_a_unix_socket_s_name() -> None:
    config = Config(Path("/home/somebody/.local/share/lazycloud"))
    folder = config.scratch_folder("guestbook." + "a" * 40 + ".production")
    assert len(str(folder / "gunicorn-control-socket-12345")) < 107
    assert folder != config.scratch_folder("guestbook." + "a" * 40)


def test_fronts_are_named_by_flag_environment_or_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]\n')
    assert load({"home": tmp_path}, {}).trusted_proxies == ("127.0.0.1/32", "10.0.0.0/8")
    environ = {"LAZYCLOUD_TRUSTED_PROXIES": "::1, 10.1.0.0/16"}
    assert load({"home": tmp_path}, environ).trusted_proxies == ("::1/128", "10.1.0.0/16")
    assert load({"home": tmp_path, "trusted_proxies": ("10.2.0.1",)}, environ).trusted_proxies == (
        "10.2.0.1/32",
    )


def test_the_routers_table_reaches_the_config_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[router]\nbody_max = "10 MB"\n')
    config = load({"home": tmp_path}, {})
    assert config.router == {"body_max": "10 MB"}
    assert Config.from_json(config.to_json()) == config


def test_there_is_a_router_for_each_core_that_may_be_used() -> None:
    assert Config(Path("/")).routers == min(len(os.sched_getaffinity(0)), 8)


def test_the_table_builds_says_what_the_settings_of_builds_say(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[builds]\nconcurrent = 3\nmemory = "4 GB"\ndisk = "1.5 GiB"\ntime = 60\n'
    )
    config = load({"home": str(tmp_path)}, {"LAZYCLOUD_BUILD_DISK": "0"})
    assert (config.builds, config.build_memory, config.build_disk, config.build_time) == (3, 4 * 10**9, 0, 60)
    assert Config.from_json(config.to_json()) == config
    for text, words in (
        ("memory = 'much'", "build_memory: “much” is no size"),
        ("cpu = 1", "no setting `cpu`"),
    ):
        (tmp_path / "config.toml").write_text(f"[builds]\n{text}\n")
        with pytest.raises(BadInput, match=words):
            load({"home": str(tmp_path)}, {})


def test_the_memory_there_is_is_the_containers_where_that_has_less(tmp_path: Path) -> None:
    limit, machine = tmp_path / "memory.max", memory(tmp_path / "none")
    for text, there_is in (("max\n", machine), ("64000000\n", 64_000_000), (f"{2**63}\n", machine)):
        limit.write_text(text)
        assert memory(limit) == there_is


def test_an_engine_of_containers_is_looked_for_where_docker_host_says(tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": "unix:///run/other.sock"}
    assert load({"home": tmp_path}, environ).container.socket == "/run/other.sock"
    (tmp_path / "config.toml").write_text('[container]\nsocket = "/run/own.sock"\nmounts = ["/opt/tools"]\n')
    config = load({"home": tmp_path}, environ)
    assert (config.container.socket, config.container.mounts) == ("/run/own.sock", ("/opt/tools",))
    assert Config.from_json(config.to_json()) == config


def test_a_worker_may_take_what_the_machine_has_but_for_the_reserve_unless_told(tmp_path: Path) -> None:
    limits = load({"home": tmp_path}, {}).workers.limits
    assert 0.85 * memory() < limits.memory < memory()
    (tmp_path / "config.toml").write_text('[workers]\nreserve = "1 MB"\n')
    assert load({"home": tmp_path}, {}).workers.limits.memory == memory() - 1_000_000
    (tmp_path / "config.toml").write_text("[workers]\nmemory = 0\n")
    assert load({"home": tmp_path}, {}).workers.limits.memory == 0


def test_how_long_data_are_kept_is_a_time_and_how_much_a_size(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[data]\nkeep = "2w"\nlimit = "20 GB"\n')
    config = load({"home": tmp_path}, {})
    assert (config.data.keep, config.data.limit) == (14 * 86400, 20_000_000_000)
    assert Config.from_json(config.to_json()).data == config.data
    (tmp_path / "config.toml").write_text("[data]\nkeep = 0\nlimit = 0\n")
    assert load({"home": tmp_path}, {}).data == Upkeep(0, 0)
    for text in ("keep = 30", "keep = true", 'keep = "soon"', 'limit = "10%"', 'limits = "1 GB"'):
        (tmp_path / "config.toml").write_text(f"[data]\n{text}\n")
        with pytest.raises(BadInput, match=r"\[data\]"):
            load({"home": tmp_path}, {})


def test_where_backups_go_and_how_often_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        '[data]\nbackup = "file:///srv/backups"\nbackup_every = "5min"\nbackup_keep = 0\n'
    )
    config = load({"home": tmp_path}, {})
    data = config.data
    assert (data.backup, data.backup_every, data.backup_keep) == ("file:///srv/backups", 300, 0)
    assert Config.from_json(config.to_json()).data == data
    (tmp_path / "config.toml").write_text('[data]\nbackup_every = "0.1s"\n')
    assert load({"home": tmp_path}, {}).data.backup_every == 1  # not more often
    for text in (
        "backup = 3",
        'backup = "s3://x"',
        'backup = "file:x"',
        'backup_every = "now"',
        "backup_keep = 1",
    ):
        (tmp_path / "config.toml").write_text(f"[data]\n{text}\n")
        with pytest.raises(BadInput, match=r"data.*backup"):
            load({"home": tmp_path}, {})
