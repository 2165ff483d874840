"""Which command lines are those of an environment's Python, and what the shell would make of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazycloud.workers.preload.invocation import find_invocation
from lazycloud.workers.preload.unsuitable import Unsuitable
from lazycloud.workers.preload.words import split_words

VARIABLES = {"PORT": "8000", "HOST": "127.0.0.1", "EMPTY": "", "TWO": "a b", "STAR": "*"}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("gunicorn --bind $HOST:$PORT app:app", ["gunicorn", "--bind", "127.0.0.1:8000", "app:app"]),
        ("a ${PORT}1 '$PORT' \\$PORT", ["a", "80001", "$PORT", "$PORT"]),
        ('a "$TWO" "$STAR" "\\$x \\y"', ["a", "a b", "*", "$x \\y"]),
        ("a '' $EMPTY \"$EMPTY\" $NONE b=c%d", ["a", "", "", "b=c%d"]),
        ("  a\t'b c'd  ", ["a", "b cd"]),
        ("a 'app:make()'", ["a", "app:make()"]),
    ],
)
def test_a_simple_command_line_is_read_as_the_shell_reads_it(command: str, words: list[str]) -> None:
    assert split_words(command, VARIABLES) == words


@pytest.mark.parametrize(
    "command",
    ["a $TWO", "a $STAR", "a *.py", "a ~/b", "a | b", "a; b", "a && b", "a > b", "a $(b)", "a `b`", 'a "`b`"',
     "a ${b:-c}", "a $1", "a 'b", 'a "b', "a {b,c}", "a # b", "a\nb", "a \\", "a $"],
)  # fmt: skip
def test_what_takes_a_shell_is_left_to_one(command: str) -> None:
    with pytest.raises(Unsuitable):
        split_words(command, VARIABLES)


@settings(deadline=None, max_examples=150)
@given(st.text(alphabet="ab=%.:/-@,+'\"\\ $PORTEMY{}~*;&", max_size=16))
def test_what_is_read_is_what_a_shell_makes_of_it(text: str) -> None:
    command = f"printf '%s\\0' {text} end"
    try:
        words = split_words(command, VARIABLES)
    except Unsuitable:
        return
    said = subprocess.run(["/bin/sh", "-c", command], env=VARIABLES, capture_output=True, cwd="/usr")
    assert said.stdout.decode().split("\0")[:-1] == words[2:]


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    place = tmp_path / "venv"
    (place / "bin").mkdir(parents=True)
    scripts = {
        "python": "",
        "python3.11": "",
        "serve": f"#!{place}/bin/python3.11\nimport sys\n",
        "long": f"#!/bin/sh\n'''exec' '{place}/bin/python' \"$0\" \"$@\"\n' '''\n",
        "other": "#!/usr/bin/python3\n",
        "flagged": f"#!{place}/bin/python -E\n",
        "binary": "\x7fELF",
    }
    for name, text in scripts.items():
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    (tmp_path / "app.py").write_text("")
    return place


def test_a_script_a_module_and_a_program_of_the_environment_are_told_apart(
    venv: Path, tmp_path: Path
) -> None:
    environment = {"PATH": f"{venv}/bin:/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    python, newer, script = f"{venv}/bin/python", f"{venv}/bin/python3.11", f"{venv}/bin/serve"
    commands = ("python -u app.py -u x", "exec python -m serve.it a", "serve 'a b'", "long")
    found = [find_invocation(command, environment, tmp_path, venv) for command in commands]
    assert [(one.program, one.arguments, one.module, one.script, one.rest, one.name) for one in found] == [
        (python, ("python", "-u", "app.py", "-u", "x"), None, "app.py", ("-u", "x"), "python"),
        (python, ("python", "-m", "serve.it", "a"), "serve.it", None, ("a",), "python"),
        (newer, (newer, script, "a b"), None, script, ("a b",), "serve"),
        (python, (python, f"{venv}/bin/long"), None, f"{venv}/bin/long", (), "python"),
    ]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("python -u app.py", ()),
        ("python -I -u -m it", ("-I", "-u")),
        ("python -OO -B app.py -O", ("-OO", "-B")),
    ],
)
def test_options_are_for_the_parent(
    command: str, options: tuple[str, ...], venv: Path, tmp_path: Path
) -> None:
    """But -u, where the variable that the parent has says the same."""
    environment = {"PATH": f"{venv}/bin", "PYTHONUNBUFFERED": "1"}
    assert find_invocation(command, environment, tmp_path, venv).options == options


@pytest.mark.parametrize(
    "command",
    ["python -W error app.py",
     "other", "flagged", "binary", "python -", "python", "python -m", "python missing.py", "python3.9 app.py",
     "./serve", "/usr/bin/env python app.py", "missing", ""],
)  # fmt: skip
def test_any_other_program_is_not_one_of_the_environment(command: str, venv: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsuitable):
        find_invocation(command, {"PATH": f"{venv}/bin:/usr/bin:/bin"}, tmp_path, venv)
