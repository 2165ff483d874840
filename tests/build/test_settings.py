from __future__ import annotations

import tomllib

import pytest

from lazycloud.build.procfile import parse_procfile
from lazycloud.build.settings import EXAMPLE, KNOWN, Settings, parse_settings
from lazycloud.errors import BadInput


def test_no_file_is_the_defaults() -> None:
    assert parse_settings(None) == Settings()
    assert parse_settings(b"") == Settings()


def test_every_setting_is_taken_over() -> None:
    text = b"""
        on_commit = "start"
        [build]
        command = "make"
        timeout = 1.5
        [run]
        command = "serve"
        release = "migrate"
        after = "warm"
        health = "/healthz?x=1"
        ready_timeout = 1
        release_timeout = 2
        stop_timeout = 3
        root = "site/public"
        [data]
        from = "empty"
        [env]
        A_1 = "x=y"
    """
    assert parse_settings(text) == Settings(
        on_commit="start",
        build_command="make",
        build_timeout=1.5,
        run_command="serve",
        release="migrate",
        after="warm",
        health="/healthz?x=1",
        ready_timeout=1,
        release_timeout=2,
        stop_timeout=3,
        root="site/public",
        data_from="empty",
        env={"A_1": "x=y"},
    )


def test_the_example_says_the_defaults() -> None:
    assert parse_settings(EXAMPLE.encode()) == Settings()


def test_the_example_names_every_setting_and_its_examples_are_right() -> None:
    lines = [line.removeprefix("# ") if " = " in line else line for line in EXAMPLE.splitlines()]
    text = "\n".join(line for line in lines if not line.startswith("#"))
    document = tomllib.loads(text)
    named = {("", key) for key, value in document.items() if not isinstance(value, dict)}
    named |= {
        (table, key) for table, values in document.items() if isinstance(values, dict) for key in values
    }
    assert named == {*KNOWN, ("env", "LOG_LEVEL")}
    parse_settings(text.encode())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[build]\ncomand = "x"', "lazycloud.toml: unknown key `comand` in [build]. Did you mean `command`?"),
        ('[runn]\ncommand = "x"', "lazycloud.toml: unknown key `runn` in the top. Did you mean `run`?"),
        ('command = "x"', "lazycloud.toml: unknown key `command` in the top. It belongs in [build]."),
        (
            '[run]\non_commit = "start"',
            "unknown key `on_commit` in [run]. It belongs at the top, above all tables.",
        ),
        (
            'on_commit = "deploy"',
            '`on_commit` in the top cannot be "deploy". It is "announce" or "build" or "start".',
        ),
        (
            "[run]\nready_timeout = -1",
            "`ready_timeout` in [run] cannot be -1. It is a number of seconds, above 0",
        ),
        ("[run]\nready_timeout = true", "cannot be true. It is a number of seconds"),
        ("[run]\nready_timeout = nan", "cannot be nan. It is a number of seconds"),
        ("[run]\ncommand = 3", "`command` in [run] cannot be 3. It is a command line, in quotes."),
        ('[run]\ncommand = " "', "It is a command line, in quotes."),
        ('[run]\nhealth = "healthz"', 'It is a path such as "/healthz"'),
        ('[run]\nhealth = "//evil.example"', 'It is a path such as "/healthz"'),
        ('[run]\nhealth = "/a b"', 'It is a path such as "/healthz"'),
        ('[run]\nroot = "../x"', 'It is a folder of the repository, such as "public".'),
        ('[run]\nroot = "/etc"', "It is a folder of the repository"),
        ('run = "x"', "lazycloud.toml: run is a table. Write [run] on a line of its own"),
        ('env = "x"', "lazycloud.toml: env is a table."),
        ("[env]\nA = 1", "`A` in [env] cannot be 1. It is a string, in quotes."),
        ('[env]\n1A = "x"', "`1A` in [env] cannot name a variable."),
        ('[env]\nPORT = "1"', "`PORT` in [env] is set by lazycloud."),
        ('[env]\nLAZYCLOUD_APP = "1"', "`LAZYCLOUD_APP` in [env] is set by lazycloud."),
        ("[run]\ncommand = x\n", "(at line 2, column 11)"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_right(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_settings(text.encode())
    assert sentence in str(caught.value)


def test_a_file_that_is_not_utf8_is_named_with_the_line() -> None:
    with pytest.raises(BadInput, match="line 2 is not UTF-8"):
        parse_settings(b"# a\n# \xff")


def test_a_procfile_has_commands_by_name() -> None:
    text = "# comment\n\nweb: gunicorn app:app --bind 0.0.0.0:$PORT\r\nrelease : ./migrate\nworker-1: x: y\n"
    assert parse_procfile(text) == {
        "web": "gunicorn app:app --bind 0.0.0.0:$PORT",
        "release": "./migrate",
        "worker-1": "x: y",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("web: a\n\nweb: b", "`web` is on line 1 and again on line 3."),
        ("web: a\ngunicorn app", "line 2 has no name and colon: 'gunicorn app'."),
        ("web:", "line 1 has no command for `web`."),
        (": x", "line 1 has no name and colon"),
    ],
)
def test_a_procfile_that_is_wrong_is_named_by_its_lines(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_procfile(text)
    assert sentence in str(caught.value)
