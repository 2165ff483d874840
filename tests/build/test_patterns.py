from __future__ import annotations

import pytest

from lazycloud.build.patterns import matches, reaches


@pytest.mark.parametrize(
    ("pattern", "path", "meant"),
    [
        ("src/**", "src/a.js", True),
        ("src/**", "src/b/c.js", True),
        ("src/**", "srcs/a.js", False),
        ("src", "src/b/c.js", True),
        ("./src/", "src/b/c.js", True),
        ("*.json", "package.json", True),
        ("*.json", "sub/package.json", False),
        ("**/*.json", "package.json", True),
        ("**/*.json", "sub/deep/package.json", True),
        ("a?.js", "ab.js", True),
        ("a?.js", "a/.js", False),
        ("a+(b).js", "a+(b).js", True),
        ("src/*/x", "src/a/b/x", False),
        ("line*", "line\nbreak", True),
    ],
)
def test_a_pattern_means_files_as_people_expect(pattern: str, path: str, meant: bool) -> None:
    assert matches(pattern, path) is meant


@pytest.mark.parametrize(
    ("pattern", "folder", "reached"),
    [
        ("libs/one/src/**", "libs/one", True),
        ("libs", "libs/one", True),
        ("**/*.js", "libs/one", True),
        ("libs/*/x", "libs/one", True),
        ("src/**", "libs/one", False),
        ("libs/two/**", "libs/one", False),
        ("*.json", "libs/one", False),
    ],
)
def test_a_pattern_reaches_into_folders_whose_files_are_not_known(
    pattern: str, folder: str, reached: bool
) -> None:
    assert reaches(pattern, folder) is reached
