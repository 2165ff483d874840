"""An app's command line is exec'ed where that is right, and run as it is where not."""

import os
import subprocess
from pathlib import Path

import pytest

from lazycloud.workers.command import shell_arguments
from lazycloud.workers.environment import worker_environment


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("echo $NAME", "value"),
        ("/bin/echo  'a; b' \"$NAME\"", "a; b value"),
        ("NAME=other sh -c 'echo $NAME'", "other"),
        ("cd / && pwd", "/"),
        ("cd /; pwd", "/"),
        ("  echo spaces", "spaces"),
        ("\nfalse\necho lines", "lines"),
        ("exec echo twice", "twice"),
        ("if true; then echo yes; fi", "yes"),
        ("export A=b; echo $A", "b"),
        ("test -n x && echo full", "full"),
        (". ./setting && echo $SET", "1"),
        ("(cd / && pwd)", "/"),
        ("{ echo brace; }", "brace"),
        ("echo $(echo nested)", "nested"),
        ("echo `echo nested`", "nested"),
        ("</dev/null cat && echo read", "read"),
        ("# nothing", ""),
        ("echo none 2>/dev/null", "none"),
        ("", ""),
    ],
)
def test_a_command_does_what_a_shell_does(tmp_path: Path, command: str, output: str) -> None:
    (tmp_path / "setting").write_text("SET=1")
    environment = {"PATH": os.environ["PATH"], "NAME": "value"}
    done = subprocess.run(
        shell_arguments(command), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr, done.returncode) == (output, "", 0)


@pytest.mark.parametrize(
    "command", ["python app.py", "gunicorn -b $HOST:$PORT app:app", "node 'my app.js' > log"]
)
def test_a_simple_command_replaces_its_shell(command: str) -> None:
    assert shell_arguments(command)[-3:] == ["/bin/sh", "-c", f"exec {command}"]


def test_an_environment_has_the_defaults_the_release_and_the_contract_in_this_order(tmp_path: Path) -> None:
    made = worker_environment(
        {"PATH": "/env/bin", "LANG": "C", "DATABASE_URL": "app's"},
        {"DATABASE_URL": "ours", "COMMIT_ID": "3f2a9c1"},
        tmp_path,
        "Europe/Berlin",
    )
    assert made == {
        "PATH": "/env/bin",
        "LANG": "C",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
        "TZ": "Europe/Berlin",
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": "ours",
        "COMMIT_ID": "3f2a9c1",
    }


def test_without_a_timezone_there_is_no_tz(tmp_path: Path) -> None:
    made = worker_environment({}, {}, tmp_path)
    assert "TZ" not in made
    assert "/bin" in made["PATH"].split(":")


def test_what_is_read_only_is_so_for_root_too(tmp_path: Path) -> None:
    """Files of a release are shared with others."""
    sealed = tmp_path / "sealed"
    sealed.write_text("as committed")
    sealed.chmod(0o444)
    command = "echo new > sealed; echo new > beside; cat sealed beside"
    done = subprocess.run(shell_arguments(command), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "as committednew\n"
    assert "Permission denied" in done.stderr
