from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lazycloud.build.artifacts.manifest import ArtifactRefused
from lazycloud.build.artifacts.pack import Unpackable

from .home import KEY, MARKER, Home, manifest_of


@pytest.fixture
def there(tmp_path: Path) -> Home:
    return Home(tmp_path / "there")


@pytest.fixture
def here(tmp_path: Path) -> Home:
    return Home(tmp_path / "here", local="f" * 32)


def test_a_folder_comes_out_as_it_went_in_and_is_complete(there: Home, here: Home) -> None:
    large = os.urandom(3 << 20)
    there.make({"a/b.txt": "text", "large": large, "empty": "", "run": "#!/bin/sh", "\udcff": "odd name"})
    (there.path / "run").chmod(0o755)
    (there.path / "sealed").mkdir(mode=0o750)
    (there.path / "link").symlink_to("a/b.txt")
    here.take(there.pack(), there.key)
    assert (here.path / "link").read_text() == "text"
    assert (here.path / "large").read_bytes() == large
    assert (here.path / "\udcff").read_text() == "odd name"
    assert (here.path / "run").stat().st_mode & 0o777 == 0o755
    assert (here.path / "sealed").stat().st_mode & 0o777 == 0o750
    facts = json.loads((here.path / MARKER).read_text())
    assert (facts["key"], facts["seconds"]) == (KEY, 3)
    assert facts["fetched"]["signer"].startswith("ed25519:")
    assert facts["fetched"]["provenance"]["host"] == os.uname().nodename


def test_texts_that_name_their_own_place_are_rewritten_and_others_are_not(there: Home, here: Home) -> None:
    there.make({"mine.pth": f"{there.path}/src\n", "other.txt": "/usr/lib/x\n"})
    (there.path / "absolute").symlink_to(there.path / "mine.pth")
    here.take(there.pack(), there.key)
    assert (here.path / "mine.pth").read_text() == f"{here.path}/src\n"
    assert (here.path / "absolute").readlink() == here.path / "mine.pth"
    assert [e.path for e in manifest_of(there.pack()).entries if e.relocate] == ["absolute", "mine.pth"]


def test_a_release_leads_to_the_environments_that_it_needs_wherever_those_are(
    there: Home, here: Home
) -> None:
    need = "a" * 32
    there.make({"tree/out.js": f'require("{there.root}/environments/{"1" * 32}/node_modules/x")'})
    (there.path / "tree/node_modules").symlink_to(there.root / f"environments/{'1' * 32}/node_modules")
    packed = there.pack(replace(there.subject, needs={need: f"environments/{'1' * 32}"}))
    wanted = replace(here.subject, needs={need: f"environments/{'2' * 32}"})
    here.take(packed, there.key, subject=wanted)
    assert (here.path / "tree/node_modules").readlink() == here.root / f"environments/{'2' * 32}/node_modules"
    assert f"{here.root}/environments/{'2' * 32}/node_modules/x" in (here.path / "tree/out.js").read_text()
    with pytest.raises(Unpackable, match=r"“tree/node_modules” is a link out of it"):
        there.pack()


def test_a_program_that_names_its_place_works_only_there(there: Home, here: Home) -> None:
    there.make({"lib.so": b"\x7fELF\0" + os.fsencode(there.path) + b"/lib\0"})
    packed = there.pack()
    with pytest.raises(ArtifactRefused, match=r"“lib\.so” in it names .*, the only place where it works"):
        here.take(packed, there.key)
    assert here.left() == []
    there.take(packed)
    assert b"ELF" in (there.path / "lib.so").read_bytes()


def test_bytecode_is_left_out_unless_it_is_all_there_is(there: Home, here: Home) -> None:
    there.make({"a.py": "", "a.pyc": "x", "only.pyc": "x", "__pycache__/a.cpython-311.pyc": "x"})
    assert [entry.path for entry in manifest_of(there.pack()).entries] == ["a.py", "only.pyc"]


def test_what_would_not_work_elsewhere_is_not_packed(there: Home) -> None:
    there.make({"x": ""})
    os.mkfifo(there.path / "pipe")
    with pytest.raises(Unpackable, match="“pipe” is neither a file, a folder nor a link"):
        there.pack()
    (there.path / "pipe").unlink()
    (there.path / "out").symlink_to("/etc/passwd")
    with pytest.raises(Unpackable, match="“out” is a link out of it, to “/etc/passwd”"):
        there.pack()
    (there.path / "out").unlink()
    (there.path / ".pnp.cjs").touch()
    with pytest.raises(Unpackable, match="in Yarn's cache"):
        there.pack()
    (there.path / MARKER).unlink()
    with pytest.raises(Unpackable, match="is not complete"):
        there.pack()


def test_a_virtual_environment_gets_the_python_of_the_machine_that_it_comes_to(
    there: Home, here: Home, tmp_path: Path
) -> None:
    there.make({"pyvenv.cfg": "home = /opt/python/bin\nversion_info = 3.11.7\n"})
    theirs, ours = tmp_path / "theirs/python3.11", tmp_path / "ours/python3"
    for python in (theirs, ours):
        python.parent.mkdir()
        python.touch()
    (there.path / "bin").mkdir()
    (there.path / "bin/python").symlink_to(theirs)
    packed = there.pack(replace(there.subject, python=str(theirs), python_version="3.11.7"))
    for version, why in (("", "has none for it"), ("3.11.9", "uses 3.11.9")):
        with pytest.raises(ArtifactRefused, match=f"needs Python 3.11.7, and this machine {why}"):
            other = replace(here.subject, python=str(ours) if version else "", python_version=version)
            here.take(packed, there.key, subject=other)
    here.take(packed, there.key, subject=replace(here.subject, python=str(ours), python_version="3.11.7"))
    assert (here.path / "bin/python").readlink() == ours
    assert (here.path / "pyvenv.cfg").read_text() == f"home = {ours.parent}\nversion_info = 3.11.7\n"


def test_memory_does_not_grow_with_the_size_of_files(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
from tests.build.artifacts.home import Home
from lazycloud.blobs.keys import SigningKey
from lazycloud.build.artifacts.envelope import open_envelope, verify_body
from lazycloud.build.artifacts.pack import pack
from lazycloud.build.artifacts.unpack import aside_of, unpack

there, here = Home(Path(sys.argv[1]) / "there"), Home(Path(sys.argv[1]) / "here")
there.make({"small": "x"})
with (there.path / "large").open("wb") as file:
    file.write(f"{there.path}/x\\n".encode())
    for number in range(160):
        file.write((number + 1).to_bytes(1) * (1 << 20))
there.make({"small": "x"})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with (here.scratch / "file").open("w+b") as file:
    pack(there.subject, there.key, file, there.scratch)
    file.seek(0)
    envelope = open_envelope(file, [there.key.public])
    verify_body(file, envelope)
    unpack(file, envelope, here.subject, aside_of(here.subject))
assert (here.path / "large").stat().st_size > 160 << 20
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40 * 1024  # kB
