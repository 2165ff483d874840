from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazycloud.build.artifacts.relocation import Search, is_movable, rewritten

OLD = "/home/ada/my apps/shop"
PLACES = {f"{OLD}/environments/aa": "/srv/x/environments/bbbb", f"{OLD}/": "/srv/x/"}


def moved(content: bytes, size: int) -> bytes:
    pieces = (content[at : at + size] for at in range(0, len(content), size))
    return b"".join(rewritten(pieces, PLACES))


@given(
    st.lists(st.sampled_from([*PLACES, "/home/ada/", "my", "x", "\n", "/environments"])), st.integers(1, 80)
)
def test_a_text_is_rewritten_the_same_however_it_is_cut_in_pieces(words: list[str], size: int) -> None:
    text = "".join(words)
    expected = text
    for old, new in PLACES.items():  # the longest first
        expected = expected.replace(old, new)
    assert moved(text.encode(), size) == expected.encode()


def test_a_path_is_found_and_rewritten_as_it_is_in_urls_and_in_json_too() -> None:
    root = "/home/zoë/a b"
    for text in ("/home/zoë/a b/x", "file:///home/zo%C3%AB/a%20b/x", '"/home/zo\\u00eb/a b/x"'):
        search = Search(root)
        for letter in text.encode():
            search.feed(bytes([letter]))
        assert search.found and search.is_text
        assert b"".join(rewritten(iter([text.encode()]), {f"{root}/": "/n/"})) in (
            b"/n/x",
            b"file:///n/x",
            b'"/n/x"',
        )


def test_another_app_whose_name_only_begins_the_same_is_left_alone() -> None:
    search = Search("/apps/shop")
    search.feed(b"/apps/shop-2/x /apps/shop")
    assert not search.found


@pytest.mark.parametrize("folder", ["plain", "with a space", "long" * 40])
def test_a_script_is_run_by_its_python_wherever_it_comes_to(tmp_path: Path, folder: str) -> None:
    python = tmp_path / folder / "bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    script = b"#!/old/bin/python\nimport sys\nprint(sys.argv)\n"
    made = tmp_path / "script"
    made.write_bytes(b"".join(rewritten(iter([script]), {"/old/": f"{tmp_path / folder}/"})))
    made.chmod(0o755)
    done = subprocess.run([made, "a b"], capture_output=True, text=True, check=True)
    assert done.stdout == f"['{made}', 'a b']\n"


def test_a_path_that_means_something_to_a_shell_is_no_place_to_move_to() -> None:
    assert is_movable("/home/zoë/a b-c_1.2/x")
    assert [path for path in ('/a"b', "/a'b", "/a$b", "/a\\b", "/a\nb", "/a`b") if is_movable(path)] == []
